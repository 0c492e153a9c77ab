"""Digests that decide what Snakemake reruns."""

import pytest

from workflow_scripts.core import provenance


@pytest.fixture
def project(tmp_path, monkeypatch):
    package = tmp_path / "workflow_scripts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "shared.py").write_text('"""Shared."""\nFACTOR = 2\n')
    (package / "stage.py").write_text(
        "from workflow_scripts.shared import FACTOR\n\n\ndef f(x):\n    return x * FACTOR\n"
    )
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return package


def digest():
    for kept in (provenance.code, provenance._module_file, provenance._content):
        kept.cache_clear()
    return provenance.code("workflow_scripts.stage")


def test_comments_and_docstrings_do_not_count(project):
    before = digest()
    (project / "stage.py").write_text(
        '"""New words."""\nfrom workflow_scripts.shared import FACTOR\n\n\n'
        'def f(x):\n    """Say more."""\n    # a comment\n    return x * FACTOR\n'
    )
    assert digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"), [("stage.py", "x *", "x +"), ("shared.py", "FACTOR = 2", "FACTOR = 3")]
)
def test_code_counts_also_that_of_imported_modules(project, file, old, new):
    before = digest()
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    assert digest() != before


def test_constants_are_read_without_importing(project):
    assert provenance.constant("workflow_scripts/shared.py", "FACTOR") == 2
    with pytest.raises(ValueError, match="no constant 'NOTHING'"):
        provenance.constant("workflow_scripts/shared.py", "NOTHING")


def test_order_of_keys_does_not_count():
    assert provenance.digest({"a": 1, "b": [2]}) == provenance.digest({"b": [2], "a": 1})
    assert provenance.digest({"a": 1}) != provenance.digest({"a": 2})
