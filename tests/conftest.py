"""Shared by all tests: where the real data are, if anywhere."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no fault of the code; in continuous integration the examples are always the same
settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("here")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real data; tests that need it are skipped where it is absent."""
    candidates = [Path(os.environ["SSL4ECO_REAL_DATA"])] if "SSL4ECO_REAL_DATA" in os.environ else []
    candidates += [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    pytest.skip("the real data are absent: set SSL4ECO_REAL_DATA to their folder")
