"""Pages of the reference, written from what the program itself reads: schemas, tables, store, rules."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from workflow_scripts.core import store, tables  # noqa: E402
from workflow_scripts.core.meanings import MEANINGS  # noqa: E402

MADE = "<!-- made by docs/reference_pages.py: edit the schemas and modules it reads instead -->\n\n"
ONE_PER_NAME = "NAME"


def write(folder: Path) -> None:
    """Write all pages of the reference into a folder, where they differ from what is there."""
    folder.mkdir(exist_ok=True)
    pages = {"config": config_page, "tables": tables_page, "store": store_page, "rules": rules_page}
    for name, make in pages.items():
        path, text = folder / f"{name}.md", MADE + make()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Make a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


# ---- configuration


def config_page() -> str:
    """List every option: type, default, meaning."""
    schemas = {
        path.name: inlined(yaml.safe_load(path.read_text())) for path in (ROOT / "schemas").glob("*.yaml")
    }
    defaults = yaml.safe_load((ROOT / "config.yaml").read_text())
    top = schemas["config.schema.yaml"]["properties"]
    parts = [
        "# Configuration\n\nEvery option, read from `schemas/`; the default is that of `config.yaml`, or the schema's where an "
        "entry leaves the option out. `NAME` stands for a name of your choice. A file given with `--configfile` replaces "
        "`datasets`, `models` and `tasks` as a whole and overlays the rest; an entry of `datasets` may hold every section of "
        "`defaults`.\n"
    ]
    for section, schema in top.items():
        if section == "datasets":
            entry = schema["additionalProperties"]["properties"]
            schema = {
                "properties": {
                    key: entry[key] for key in ("labels", "points", "from", "import") if key in entry
                }
            }
            rows = list(options(schema, schemas, None, prefix=ONE_PER_NAME))
            lead = "One entry per dataset, with any section of `defaults`, and:"
        elif section == "defaults":
            parts.append(
                "## defaults\n\nOptions of a dataset; an entry of `datasets` overrides what it names.\n"
            )
            for name, part in schema["properties"].items():
                rows = list(options(part, schemas, defaults["defaults"].get(name), prefix=""))
                lead = resolve(part, schemas).get("description", "")
                parts.append(f"### {name}\n\n{lead}\n\n{option_table(rows)}\n")
            continue
        else:
            lead = resolve(schema, schemas).get("description", "")
            rows = list(options(schema, schemas, None, prefix=section))
            rows = rows or [[f"`{section}`", kind(schema, schemas), value(defaults[section]), lead]]
        parts.append(f"## {section}\n\n{lead}\n\n{option_table(rows)}\n")
    return "\n".join(parts)


def option_table(rows: list[list[str]]) -> str:
    """Tabulate options."""
    return table(["Option", "Type", "Default", "Meaning"], rows)


def inlined(document: dict[str, Any]) -> dict[str, Any]:
    """Put the definitions of a schema where they are referred to."""

    def follow(part: Any) -> Any:
        if isinstance(part, list):
            return [follow(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        if str(part.get("$ref", "")).startswith("#/"):
            found = document
            for step in part["$ref"][2:].split("/"):
                found = found[step]
            return {**follow(found), **{key: entry for key, entry in part.items() if key != "$ref"}}
        return {key: follow(entry) for key, entry in part.items()}

    return follow(document)


def resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference to another schema."""
    if "$ref" not in schema:
        return schema
    found = schemas[schema["$ref"]]
    return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}


def options(
    schema: dict[str, Any], schemas: dict[str, Any], defaults: Any, *, prefix: str
) -> Iterator[list[str]]:
    """List the options of a schema with those nested in them: name, type, default, meaning."""
    schema = resolve(schema, schemas)
    for key, part in properties(schema, schemas).items():
        part, name = resolve(part, schemas), f"{prefix}.{key}" if prefix else key
        default = (
            defaults.get(key, part.get("default")) if isinstance(defaults, dict) else part.get("default")
        )
        nested = list(options(part, schemas, default, prefix=name))
        if nested and not part.get("description"):
            yield from nested
            continue
        shown = (
            ""
            if nested or (default is None and "default" not in part and not isinstance(defaults, dict))
            else value(default)
        )
        yield [f"`{name}`", kind(part, schemas), shown, part.get("description", "")]
        yield from nested


def properties(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Properties of a schema and of its alternatives; `NAME` for entries with names of the user's choice."""
    found = dict(schema.get("properties", {}))
    for word in ("oneOf", "anyOf", "allOf"):
        for part in schema.get(word, []):
            found |= {
                k: v
                for k, v in resolve(part, schemas).get("properties", {}).items()
                if k not in found and v is not True
            }
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and extra:
        found[ONE_PER_NAME] = extra
    return {key: part for key, part in found.items() if isinstance(part, dict)}


def kind(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Say in a few words what a value may be."""
    schema = resolve(schema, schemas)
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(kind(part, schemas) for part in schema[word]))
    if "enum" in schema:
        return ", ".join(value(choice) for choice in schema["enum"])
    if "const" in schema:
        return value(schema["const"])
    names = schema.get("type", "object" if "properties" in schema else "any")
    text = names if isinstance(names, str) else " or ".join(names)
    if "array" in text and isinstance(schema.get("items"), dict):
        text = text.replace("array", f"list of {kind(schema['items'], schemas)}")
    limits = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[word]:g}" for word, sign in limits.items() if word in schema]
    return text + (f" {' and '.join(bounds)}" if bounds else "")


def value(content: Any) -> str:
    """Show a value as it stands in YAML."""
    text = yaml.safe_dump(content, default_flow_style=True, allow_unicode=True, width=10**6).strip()
    return f"`{text.removesuffix('...').strip()}`"


# ---- tables, store, rules


def tables_page() -> str:
    """List the columns of every table."""
    parts = [
        "# Tables\n\nParquet files that stages hand to each other; writing and reading check names and types. Rows are joined "
        "by `location_id`. Times are naive UTC; a missing time is NaT, a missing number NaN (−1 for integers, 0 for EPSG codes), "
        "a missing text empty. Tables with a `geometry` are GeoParquet. `labels` has one further column per target.\n"
    ]
    for name, columns in tables.COLUMNS.items():
        rows = [[f"`{column}`", str(type_), MEANINGS.get(column, "")] for column, type_ in columns.items()]
        parts.append(f"## {name}\n\n{table(['Column', 'Type', 'Meaning'], rows)}\n")
    return "\n".join(parts)


def store_page() -> str:
    """List the arrays of the patch store."""
    rows = []
    for name, spec in store.ARRAYS.items():
        units = spec.attributes.get("units", "")
        meaning = spec.attributes["long_name"] + (f"; {units}" if units not in ("", "1") else "")
        rows.append([f"`{name}`", ", ".join(spec.dims), spec.dtype, str(spec.fill_value), meaning])
    listing = table(["Array", "Dimensions", "Type", "Missing", "What"], rows)
    return (
        "# The store\n\n`patches.zarr` is one Zarr v3 store (`xr.open_zarr`); [architecture](../architecture.md#the-store) says "
        "why it is as it is. DN are harmonized: offset removed, 0 is no data, reflectance is DN × 0.0001. `lon`, `lat` and "
        "`location_id` are coordinates along `location`.\n\n" + listing + "\n"
    )


def rules_page() -> str:
    """List the rules: what each reads and writes, in the words of its module."""
    parts = ["# Rules\n\nOne module per rule, same name; this is what each says of itself.\n"]
    for path in sorted((ROOT / "rules").glob("*.smk")):
        text = path.read_text()
        names = re.findall(r'^\s*script:\s*"\.\./([\w/]+)\.py"', text, flags=re.M)
        if not names:
            continue
        parts.append(f"## rules/{path.name}\n")
        for name in dict.fromkeys(names):
            docstring = re.match(r'"""(.*?)"""', (ROOT / f"{name}.py").read_text(), flags=re.S)[1]
            parts.append(f"### {Path(name).name}\n\n```text\n{docstring.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    write(ROOT / "docs" / "reference")
