"""Configuration: a user's file over the project's, its check against the schema, its entries.

The rules see only what `load` returns. Paths in a configuration are relative to the working
directory (``--directory``), like every path of the workflow.
"""

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

REPLACED = ("datasets", "models", "tasks")
"""Sections of which a user's file takes nothing over from the project's."""


@dataclass(frozen=True)
class Settings:
    """A checked configuration, with every default filled in."""

    seed: int
    catalogs: dict[str, dict[str, Any]]
    datasets: dict[str, dict[str, Any]]
    """Options of each dataset of our own: `defaults` overlaid with the entry."""
    imports: dict[str, dict[str, Any]]
    """Section `import` of each dataset that is a published archive."""
    models: dict[str, dict[str, Any]]
    """One entry per model and seed; `seed` is always there."""
    tasks: dict[str, dict[str, Any]]
    sources: dict[str, dict[str, Any]]
    """Files under `resources/` and where they come from."""
    estimate: dict[str, Any]
    """Rates that a run is reckoned with."""
    document: dict[str, Any]
    """The whole configuration as merged."""


def read(path: Path) -> dict[str, Any]:
    """Read a configuration file as it is."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; lists and plain values are replaced whole."""
    result = copy.deepcopy(dict(base))
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = overlay(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def merge(project: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a user's configuration over the project's.

    As soon as the user gives one of `REPLACED`, those not given are empty; the rest is overlaid.
    """
    result = overlay(project, {k: v for k, v in user.items() if k not in REPLACED})
    if any(section in user for section in REPLACED):
        for section in REPLACED:
            result[section] = copy.deepcopy(user.get(section) or {})
    return result


def load(
    document: Mapping[str, Any],
    schema_folder: Path,
    check_model: Callable[[Mapping[str, Any]], object] = lambda entry: None,
) -> Settings:
    """Check a merged configuration and resolve its entries.

    Parameters
    ----------
    check_model : raises ValueError where the options of a model to train do not fit together

    Raises
    ------
    ValueError
        Naming every wrong key or value, where it stands, and what is allowed.
    """
    problems = list(_problems(document, schema_folder))
    if not problems:
        problems = [*_broken_references(document), *_unfit_models(document, check_model)]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems[:20])
        raise ValueError(f"the configuration has {len(problems)} error(s):\n{listed}")
    return Settings(
        seed=document["seed"],
        catalogs=dict(document["catalogs"]),
        datasets={
            name: _dataset(name, document)
            for name, entry in document["datasets"].items()
            if "import" not in entry
        },
        imports={name: entry["import"] for name, entry in document["datasets"].items() if "import" in entry},
        models=dict(_expand_seeds(document["models"], document["seed"])),
        tasks=dict(document["tasks"]),
        sources=dict(document.get("sources") or {}),
        estimate=dict(document["estimate"]),
        document=copy.deepcopy(dict(document)),
    )


ADOPTED = {"locations": ("locations",), "phenology": ("locations", "greenness", "phenology")}
"""`from.until` → sections whose results, and so whose options, are those of the other dataset."""


SECOND_CYCLE = "_2"
"""Ending of the labels of the second vegetation cycle's windows."""


def season_labels(seasons: Mapping[str, Any]) -> list[str]:
    """List the labels of a dataset's windows, in the order of its store.

    Parameters
    ----------
    seasons : section `seasons` of the dataset
    """
    has_second = seasons["strategy"] == "phenology" and seasons["both_cycles"]
    endings = ("", SECOND_CYCLE) if has_second else ("",)
    return [name + ending for ending in endings for name in seasons["names"]]


def _dataset(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in a dataset's options: the defaults, what it takes over, its own entry."""
    entry = document["datasets"][name]
    if "points" in entry or (entry.get("labels") or {}).get("source") == "reference_index":
        entry = overlay({"locations": {"design": "file"}}, entry)
    options = overlay(document["defaults"], entry)
    if "from" in entry:
        other = overlay(document["defaults"], document["datasets"][entry["from"]["dataset"]])
        options |= {section: other[section] for section in ADOPTED[entry["from"]["until"]]}
    options["report"]["sources"] += _sources_used(options, document)
    return options


def _sources_used(options: Mapping[str, Any], document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Gather license and citation of the files and collections that a dataset's options name."""
    named = set(_texts(options))
    found = [
        {"name": Path(path).name, **{k: v for k, v in source.items() if k in ("license", "url", "citation")}}
        for path, source in (document.get("sources") or {}).items()
        if path in named and "license" in source
    ]
    greenness, scenes = options.get("greenness", {}), options.get("scenes", {})
    reads = options.get("seasons", {}).get("strategy") == "phenology" and greenness.get("source") == "modis"
    used = [(greenness.get("catalog"), greenness.get("collection"))] if reads else []
    used.append((scenes.get("catalog"), None))
    for name, collection in used:
        catalog = document["catalogs"].get(name) or {}
        terms = (catalog.get("terms") or {}).get(collection or catalog.get("collection"))
        found += [dict(terms)] if terms else []
    known = [source["name"] for source in options["report"]["sources"]]
    return [source for source in found if source["name"] not in known]


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _expand_seeds(models: Mapping[str, Any], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """One model per seed: NAME-s1, NAME-s2; without `seeds` the name stays."""
    for name, entry in models.items():
        options = {key: value for key, value in entry.items() if key != "seeds"}
        if "seeds" not in entry:
            yield name, {"family": name, "seed": seed, **options}
        for number in entry.get("seeds", ()):
            yield f"{name}-s{number}", {"family": name, **options, "seed": number}


def _problems(document: Mapping[str, Any], schema_folder: Path) -> Iterator[str]:
    documents = {
        path.name: yaml.safe_load(path.read_text()) for path in sorted(schema_folder.glob("*.schema.yaml"))
    }
    registry = Registry().with_resources(
        (name, Resource.from_contents(content)) for name, content in documents.items()
    )
    validator = Draft202012Validator(documents["config.schema.yaml"], registry=registry)
    for error in sorted(validator.iter_errors(document), key=lambda e: [str(p) for p in e.path]):
        yield from _explain(error)


def _explain(error: ValidationError) -> Iterator[str]:
    """Say where a value stands, what was found and what is allowed."""
    where = ".".join(str(part) for part in error.absolute_path) or "top level"
    schema, value = error.schema, error.instance
    meaning = schema.get("description") if isinstance(schema, dict) else None
    about = f" ({meaning})" if meaning else ""
    if error.validator == "additionalProperties" and isinstance(value, Mapping):
        allowed = sorted(schema.get("properties", {}))
        for key in sorted(set(value) - set(allowed)):
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            yield f"{where}: unknown key {key!r}.{hint} Allowed here: {', '.join(allowed)}"
    elif error.validator in ("anyOf", "oneOf") and error.context:
        best = min(error.context, key=lambda e: (-len(e.path), e.validator == "type"))
        if best.path:
            yield from _explain(best)
            return
        choices = " or ".join(dict.fromkeys(_expected(e) for e in error.context))
        yield f"{where}: found {value!r}, expected {choices}{about}"
    else:
        yield f"{where}: found {value!r}, expected {_expected(error)}{about}"


def _expected(error: ValidationError) -> str:
    limit = error.validator_value
    words = {
        "type": lambda: " or ".join([limit] if isinstance(limit, str) else limit),
        "enum": lambda: "one of " + ", ".join(repr(choice) for choice in limit),
        "const": lambda: repr(limit),
        "minimum": lambda: f"at least {limit}",
        "maximum": lambda: f"at most {limit}",
        "exclusiveMinimum": lambda: f"more than {limit}",
        "exclusiveMaximum": lambda: f"less than {limit}",
        "multipleOf": lambda: f"a multiple of {limit}",
        "required": lambda: f"the keys {', '.join(limit)}",
        "pattern": lambda: f"text like {limit}",
    }
    return words.get(error.validator, lambda: error.message)()


def _unfit_models(
    document: Mapping[str, Any], check_model: Callable[[Mapping[str, Any]], object]
) -> Iterator[str]:
    """Models to train whose options contradict each other, told before their data are made."""
    for name, entry in document["models"].items():
        if entry.get("encoder", "trained") == "trained":
            try:
                check_model({**entry, "seed": document["seed"]})
            except ValueError as error:
                yield f"models.{name}: {error}"


def _broken_references(document: Mapping[str, Any]) -> Iterator[str]:
    """Names that point to an entry that is not there."""
    datasets, catalogs = document["datasets"], document["catalogs"]

    def missing(where: str, name: str | None, known: Mapping[str, Any], kind: str) -> Iterator[str]:
        if name is not None and name not in known:
            listed = ", ".join(known) or "none is configured"
            yield f"{where}: found {name!r}, expected the name of a {kind} ({listed})"

    own = {name: entry for name, entry in datasets.items() if "import" not in entry}
    runs = dict(_expand_seeds(document["models"], document["seed"]))
    for name, entry in datasets.items():
        if "import" in entry and len(entry) > 1:
            extra = ", ".join(key for key in entry if key != "import")
            yield f"datasets.{name}: an imported archive takes no other section; remove {extra}"
    for name, entry in own.items():
        if "from" in entry:
            other, until = entry["from"]["dataset"], entry["from"]["until"]
            where = f"datasets.{name}"
            yield from missing(f"{where}.from.dataset", other, own, "dataset of your own")
            if "from" in datasets.get(other, {}) or other == name:
                yield f"{where}.from.dataset: {other!r} starts from another dataset itself; name that one"
            for section in ADOPTED[until]:
                if section in entry:
                    yield f"{where}.{section}: taken from dataset {other!r} (from.until = {until!r}); remove it"
        options = overlay(document["defaults"], entry)
        for section, key in (("greenness", "catalog"), ("scenes", "catalog"), ("scenes", "failover")):
            where = f"datasets.{name}.{section}.{key}"
            yield from missing(where, options[section].get(key), catalogs, "catalog")
        for model in options["report"]["embeddings"]["models"] or ():
            yield from missing(f"datasets.{name}.report.embeddings.models", model, runs, "model")
        scenes = options["scenes"]
        if scenes["source"] == "index" and scenes["path"] is None:
            yield f"datasets.{name}.scenes.path: found null, expected the table that scenes.source = 'index' reads"
    for name, entry in document["models"].items():
        if "dataset" in entry:
            yield from missing(f"models.{name}.dataset", entry["dataset"], own, "dataset of your own")
        if "knn" in entry:
            yield from missing(f"models.{name}.knn.task", entry["knn"]["task"], document["tasks"], "task")
            if document["tasks"].get(entry["knn"]["task"], {}).get("cells") is not None:
                yield f"models.{name}.knn.task: found one with `cells`, expected one with a value per location"
        for other in entry.get("complete_in", ()):
            yield from missing(f"models.{name}.complete_in", other, own, "dataset of your own")
        for task in entry.get("tasks", ()):
            yield from missing(f"models.{name}.tasks", task, document["tasks"], "task")
        for part in entry.get("parts", ()):
            yield from missing(f"models.{name}.parts", part, runs, "model")
            if runs.get(part, {}).get("encoder") == "joined":
                yield f"models.{name}.parts: {part!r} is joined itself; name its parts"
    for name, entry in document["tasks"].items():
        where = f"tasks.{name}.dataset"
        yield from missing(where, entry["dataset"], datasets, "dataset")
        labels = datasets.get(entry["dataset"], {}).get("labels") or {}
        wanted = [entry["target"]] if isinstance(entry["target"], str) else entry["target"]
        is_listed = entry["dataset"] in own and labels.get("source") != "reference_index"
        for target in wanted if is_listed else ():
            yield from missing(f"tasks.{name}.target", target, labels, "label of that dataset")
            if target in labels and (labels[target]["source"] == "maps") != (entry.get("cells") is not None):
                yield (
                    f"tasks.{name}.cells: found {entry.get('cells')!r} for a target of source "
                    f"{labels[target]['source']!r}, expected a number for targets of source 'maps', and for no other"
                )
