"""What made a result: digests of code and of configuration, the commit, versions.

Snakemake reruns a rule when one of its `params` changes. `code` gives it a digest of what a rule's
module does, so that an edited comment reruns nothing and an edited constant reruns its users.
"""

import ast
import hashlib
import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("workflow_scripts", "pretrain")


def digest(content: Any) -> str:
    """Digest any JSON-like content, 16 hexadecimal digits; the order of keys does not count."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def code(module: str) -> str:
    """Digest a module of ours and all it imports of ours, without comments and docstrings."""
    seen: dict[Path, str] = {}
    waiting = [_module_file(module)]
    while waiting:
        file = waiting.pop()
        if file is not None and file not in seen:
            seen[file], imported = _content(file)
            waiting += map(_module_file, imported)
    return digest({str(path.relative_to(ROOT)): text for path, text in seen.items()})


@cache
def file_digest(file: str) -> str:
    """Digest one of our files that is not code, such as a style sheet."""
    return hashlib.blake2b((ROOT / file).read_bytes(), digest_size=8).hexdigest()


@cache
def constant(file: str, name: str) -> Any:
    """Read a literal constant from one of our files, without importing it."""
    for node in ast.parse((ROOT / file).read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    raise ValueError(f"{file} has no constant {name!r}")


@cache
def _module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _content(file: Path) -> tuple[str, frozenset[str]]:
    """Give the digest of what a file does and the modules of ours that it may import.

    Kept, as most modules import the same few and a workflow asks for all of them at every start.
    """
    tree = ast.parse(file.read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return digest(ast.dump(tree)), frozenset(m for m in imported if m.split(".")[0] in PACKAGES)


def git_commit() -> str:
    """Give the commit of this checkout, with ``-dirty`` if files differ from it; "" outside git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions(*packages: str) -> dict[str, str]:
    """Give the installed versions of packages; "" for one that is not installed."""

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return ""

    return {package: installed(package) for package in packages}
