"""The house keeps its shape: imports, rules and modules, environments."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("workflow_scripts", "pretrain")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
RULE_FILES = sorted((ROOT / "rules").rglob("*.smk"))
DIRECTIVES = ["input", "output", "log", "benchmark", "threads", "resources", "params", "conda", "script"]


def imports(path):
    """Modules of ours that a file imports, and the top level names of all others."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in ("workflow_scripts", "pretrain"):
                if name in MODULES:
                    ours.add(name)
            else:
                others.add(name.split(".")[0])
    return ours, others


GRAPH = {name: imports(path) for name, path in MODULES.items()}


def is_core(name):
    return name.startswith("workflow_scripts.core.")


def rules():
    """Rule name → (rule file, its text), for rules that run a script."""
    found = {}
    for path in RULE_FILES:
        for block in re.split(r"^(?=(?:rule|checkpoint) )", path.read_text(), flags=re.M)[1:]:
            name = re.match(r"(?:rule|checkpoint) (\w+):", block)[1]
            found[name] = (path, block)
    return found


RULES = rules()


@pytest.mark.parametrize("name", [n for n in MODULES if is_core(n)])
def test_core_depends_on_no_stage(name):
    ours, others = GRAPH[name]
    assert all(is_core(other) for other in ours)
    assert "torch" not in others
    allowed = {
        "bands": {"collections", "types", "typing", "numpy"},
        "seasons": {"numpy"},
        "grid": {"functools", "numpy", "pandas", "pyarrow", "pyproj"},
    }
    subject = name.rsplit(".", 1)[1]
    if subject in allowed:
        assert not ours and others <= allowed[subject]
    if subject in ("config", "provenance"):
        assert not ours
        assert not others & {"numpy", "pandas", "xarray", "geopandas", "zarr", "rasterio"}


def stage_of(name):
    """The stage a module belongs to: its rule's module, or the package beside it."""
    return None if is_core(name) else name.split(".")[1]


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("workflow_scripts.")])
def test_stages_talk_through_files_only(name):
    ours, others = GRAPH[name]
    assert "torch" not in others, "torch belongs to pretrain/"
    rule_modules = {f"workflow_scripts.{rule}" for rule in RULES}
    for other in ours:
        assert not other.startswith("pretrain."), f"{name} imports {other}"
        assert other not in rule_modules or other == name, f"{name} imports the stage {other}"
        if other.startswith("workflow_scripts.demo"):
            assert name.startswith("workflow_scripts.demo") or name == "workflow_scripts.build_demo_world"


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("pretrain.")])
def test_pretrain_imports_core_and_itself_only(name):
    for other in GRAPH[name][0]:
        assert is_core(other) or other.startswith("pretrain"), f"{name} imports {other}"


def test_no_import_cycle():
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' → '.join([*path, name])}"
        if name in done:
            return
        path.append(name)
        for other in GRAPH[name][0]:
            visit(other)
        path.pop()
        done.add(name)

    for name in GRAPH:
        visit(name)


@pytest.mark.parametrize("name", RULES)
def test_rule_runs_the_module_of_its_name_and_states_everything(name):
    path, text = RULES[name]
    found = re.findall(r"^    (\w+):", text, flags=re.M)
    found = [word for word in found if word in DIRECTIVES]
    script = re.search(r'^    script:\s*"([^"]+)"', text, flags=re.M)
    assert script, f"{name} in {path.name} has no script"
    module = (path.parent / script[1]).resolve()
    assert module.is_file() and module.stem == name
    needed = [word for word in DIRECTIVES if word != "input"]
    assert [word for word in found if word != "input"] == needed, f"{name}: {found}"
    assert not re.search(r"input\[\d|output\[\d", text)
    assert re.search(r"\bcode=code\(|\bversion=constant\(", text), f"{name}: no code digest among its params"
    # a job that ran out of either gets more at its next attempt; a training goes on from its checkpoint
    assert "mem_mb=memory(" in text and ("runtime=minutes(" in text or name == "pretrain"), name
    tree = ast.parse(module.read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert "main" in functions, f"{module.name} has no main"
    assert ast.get_docstring(tree), f"{module.name} has no docstring"


def test_every_public_function_has_a_docstring():
    bare = []
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if is_public and node.name != "main" and not ast.get_docstring(node):
                bare.append(f"{name}.{node.name}")
    assert not bare


def test_rule_files_import_nothing_heavy():
    for path in [ROOT / "Snakefile", *RULE_FILES]:
        for line in path.read_text().splitlines():
            if match := re.match(r"\s*(?:from|import) (workflow_scripts[\w.]*)(?: import (.*))?", line):
                assert match[1] in ("workflow_scripts.core", "workflow_scripts.core.provenance"), line
                if match[1] == "workflow_scripts.core":
                    assert re.match(r"(config|provenance)( as \w+)?$", match[2]), line


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda p: p.name)
def test_environments_take_their_versions_from_the_lock(path):
    environment = yaml.safe_load(path.read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    first, *others = pip
    assert (path.parent / first.removeprefix("-r ")).resolve() == ROOT / "requirements.lock"
    assert others == (["torchgeo"] if path.name == "torchgeo.yaml" else [])
    python = next(str(entry) for entry in environment["dependencies"] if str(entry).startswith("python="))
    assert python == "python=3.11"


def test_lock_pins_every_requirement_and_the_installed_versions_agree():
    from importlib.metadata import PackageNotFoundError, version

    def name_of(line):
        return re.split(r"[=<>\[ ]", line)[0].lower().replace("_", "-")

    def lines(file):
        texts = (ROOT / file).read_text().splitlines()
        return [line.strip() for line in texts if line.strip() and not line.startswith("#")]

    pinned = {name_of(line): line.split("==")[1] for line in lines("requirements.lock")}
    assert {name_of(line) for line in lines("requirements.in")} <= set(pinned)
    assert "torchvision" not in pinned  # its wheel breaks beside a CPU build of torch
    assert not any("+" in number for number in pinned.values())
    differing = {}
    for name in map(name_of, lines("requirements.in")):
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:
            installed = None
        if installed != pinned[name]:
            differing[name] = (pinned[name], installed)
    assert not differing


def test_every_column_of_every_table_has_a_meaning():
    from workflow_scripts.core.meanings import MEANINGS
    from workflow_scripts.core.tables import COLUMNS

    assert {name for table in COLUMNS.values() for name in table} == set(MEANINGS)
