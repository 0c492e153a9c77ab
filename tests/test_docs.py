"""What the documentation tells readers to type: it exists, its configurations are valid, its pages run."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pretrain import recipes
from workflow_scripts.core import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "recipes").glob("*.yaml")),
]
MADE_INSTEAD = {
    "catalog: planetary-computer": "catalog: demo-modis",
    "catalog: earth-search": "catalog: demo",
    "resources/land/ne_10m_land.zip": "resources/demo/land.parquet",
    "resources/ecoregions/Ecoregions2017.zip": "resources/demo/ecoregions.parquet",
    "[9.0, 46.4, 10.2, 47.0]": "[11.9, 47.2, 12.2, 47.4]",
    "spacing_m: 5000\n": "spacing_m: 700\n      per_shard: 8\n",
    "    scenes: {catalog: demo, years: [2021, 2022]}\n": "    scenes: {catalog: demo, years: [2021, 2022]}\n"
    "    patches: {size_m: 640}\n",
}
"""What stands in for public data when the tutorial is run."""


def blocks(path):
    """Fenced blocks of a page: language, the text before the fence, content."""
    pattern = r"([^\n]*)\n+```(\w*)\n(.*?)\n```"
    return [
        (language, before, content)
        for before, language, content in re.findall(pattern, path.read_text(), flags=re.S)
    ]


def commands(path):
    """Command lines of a page, in blocks and in running text, and in the comments of a recipe."""
    text = path.read_text()
    if path.suffix == ".yaml":
        return re.findall(r"^# +(snakemake .*)$", text.replace("\\\n#", ""), flags=re.M)
    lines = [
        line
        for language, _, content in blocks(path)
        if language in ("", "bash")
        for line in content.replace("\\\n", " ").splitlines()
    ]
    lines += re.findall(r"`((?:snakemake|python -m|make) [^`]+)`", text.replace("\n", " "))
    return [line.split("#")[0].strip() for line in lines if re.match(r"(snakemake|python -m|make) ", line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_typed_exists(path):
    targets = set(re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), flags=re.M))
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for line in commands(path):
        words = shlex.split(line)
        if words[0] == "make":
            assert set(word for word in words[1:] if "=" not in word) <= made, line
        elif words[0] == "python":
            package = words[2].split(".")[0]
            if package in ("workflow_scripts", "pretrain"):
                assert importlib.util.find_spec(words[2]), line
        elif len(words) > 1 and not words[1].startswith("-") and "/" not in words[1]:
            assert words[1] in targets | {"TARGET"}, line


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_configurations_are_valid(path):
    found = [yaml.safe_load(content) for language, _, content in blocks(path) if language == "yaml"]
    if path.suffix == ".yaml":
        named = {file for line in commands(path) for file in re.findall(r"recipes/[\w-]+\.yaml", line)}
        found = [{}]
        for file in sorted(named, key=lambda file: file.count("-")):
            found = [config.overlay(found[0], config.read(ROOT / file))]
    project = config.read(ROOT / "config.yaml")
    for document in found:
        if isinstance(document, dict) and "datasets" in document:
            config.load(config.merge(project, document), ROOT / "schemas", recipes.resolve)


def test_reference_lists_every_option_of_the_configuration(tmp_path):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import reference_pages
    finally:
        sys.path.remove(str(ROOT / "docs"))
    reference_pages.write(tmp_path / "reference")
    page = (tmp_path / "reference" / "config.md").read_text()
    defaults = config.read(ROOT / "config.yaml")["defaults"]
    for section, options in defaults.items():
        part = page.split(f"\n### {section}\n")[1].split("\n### ")[0]
        for name, value in options.items():
            assert f"| `{name}`" in part, f"{section}.{name}"
            if isinstance(value, int | float | str):
                row = next(line for line in part.splitlines() if line.startswith(f"| `{name}` |"))
                assert f"`{reference_pages.value(value).strip('`')}`" in row.split(" | ")[2], row
    assert "`dn10`" in (tmp_path / "reference" / "store.md").read_text()


def write_series(folder):
    """Own series of the places of the how-to, one value every eight days."""
    dates = pd.date_range("2018-01-01", "2022-12-31", freq="8D")
    evi = 0.35 - 0.2 * np.cos(2 * np.pi * (dates.dayofyear - 20) / 365.25)
    rows = [pd.DataFrame({"location_id": name, "date": dates, "evi": evi}) for name in ("meadow", "forest")]
    pd.concat(rows).to_csv(folder / "series.csv", index=False)
    rng = np.random.default_rng(0)
    plots = pd.DataFrame({"location_id": [f"plot{i}" for i in range(24)]})
    plots["lon"], plots["lat"] = 12.0 + rng.uniform(0, 0.06, 24), 47.27 + rng.uniform(0, 0.04, 24)
    plots.to_csv(folder / "plots.csv", index=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the made world, and commands that work as in the project's folder."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "bin").mkdir()
    for name, words in {"snakemake": f'-m snakemake --snakefile "{ROOT}/Snakefile"', "python": ""}.items():
        wrapper = folder / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        wrapper.chmod(0o755)
    write_series(folder)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    ended = shell("snakemake resources/demo/items.parquet --cores 2", folder, environment)
    assert ended.returncode == 0, ended.stdout[-3000:]
    return folder, environment


def shell(script, folder, environment):
    return subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1800,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tutorial.md", "howto.md"])
def test_pages_run_from_top_to_bottom(world, name):
    folder, environment = world
    n_run = 0
    for language, before, content in blocks(ROOT / "docs" / name):
        if name == "tutorial.md":
            for public, made in MADE_INSTEAD.items():
                content = content.replace(public, made)
        written = re.search(r"`([\w.]+\.(?:yaml|csv))`", before)
        if language in ("yaml", "text") and written:
            (folder / written[1]).write_text(content + "\n")
        elif language == "bash":
            ended = shell(content, folder, environment)
            assert ended.returncode == 0, f"{content}\n{ended.stdout[-4000:]}"
            n_run += 1
        elif language == "python" and not content.startswith("module "):
            ended = shell(f"{sys.executable} - <<'END'\n{content}\nEND", folder, environment)
            assert ended.returncode == 0, f"{content}\n{ended.stdout[-4000:]}"
    assert n_run >= 4


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    words = ["-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs"), str(tmp_path)]
    ended = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "tutorial.html").exists() and (tmp_path / "reference" / "config.html").exists()
