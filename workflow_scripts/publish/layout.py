"""Files that a published folder of a dataset or of a model is made of."""

import copy
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.core.provenance import ROOT
from workflow_scripts.core.stage import atomic_path

HUB_LICENSES = {
    "MIT": "mit",
    "CC-BY-4.0": "cc-by-4.0",
    "CC0-1.0": "cc0-1.0",
    "Apache-2.0": "apache-2.0",
    "public domain": "pddl",
}
"""Names of licenses as model hubs write them."""


def place(source: Path, target: Path) -> None:
    """Put a file into the folder: a hard link, which takes no room, or a copy on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def place_store(source: Path, target: Path) -> int:
    """Put a Zarr store into the folder, its root's metadata last; what it no longer holds is removed.

    Returns
    -------
    number of files
    """
    names = sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    kept = set(names)
    for path in sorted(target.rglob("*")) if target.exists() else []:
        if path.is_file() and path.relative_to(target) not in kept:
            path.unlink()
    root = Path("zarr.json")
    for name in [*(name for name in names if name != root), root]:
        place(source / name, target / name)
    return len(names)


def front_matter(facts: Mapping[str, Any]) -> str:
    """Make the block of metadata that model hubs read at the beginning of a card."""
    return f"---\n{yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True)}---\n"


def license_facts(sources: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Name one license if all sources have the same; else point to the file that lists them."""
    names = {source["license"] for source in sources}
    if len(names) == 1 and (name := next(iter(names))) in HUB_LICENSES:
        return {"license": HUB_LICENSES[name]}
    return {"license": "other", "license_name": "licenses-of-the-sources", "license_link": "LICENSES.md"}


def write_licenses(path: Path, sources: Sequence[Mapping[str, str]], *, what: str) -> None:
    """Write licenses and attributions of everything that something was made from."""
    lines = [f"# Licenses and attributions of {what}", ""]
    if not sources:
        lines += [
            "No source is declared in the configuration (`report.sources`). Find out before you publish."
        ]
    for source in sources:
        lines += [f"## {source['name']}", "", f"License or terms: {source['license']}"]
        lines += [f"Attribution: {source['citation']}"] if source.get("citation") else []
        lines += [f"From: {source['url']}"] if source.get("url") else []
        lines += [""]
    lines += [
        "## Software",
        "",
        "Made with the SSL4Eco pipeline, whose code is under the MIT license.",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_citation(path: Path, *, title: str, kind: str, version: str) -> str:
    """Write a citation file that names what is published, the software, and the paper.

    Returns
    -------
    the citation in one line
    """
    project = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    software = {key: project[key] for key in ("title", "version", "license", "authors")}
    document = {
        "cff-version": project["cff-version"],
        "message": f"If you use this {kind}, cite it together with the paper and the software it was made with.",
        "title": title,
        "type": "dataset",
        "version": version,
        "authors": copy.deepcopy(project["authors"]),  # else YAML would refer to the other place
        "references": [*project["references"], {"type": "software", **software}],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    names = ", ".join(author.get("name") or author["family-names"] for author in project["authors"])
    return f"{names}: {title} (version {version})"
