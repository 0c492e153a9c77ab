"""The documentation: `make docs` writes it to docs/_build/html, and fails on any warning."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import reference_pages  # noqa: E402

reference_pages.write(HERE / "reference")

project = "SSL4Eco pipeline"
author = "The SSL4Eco pipeline authors"
extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build", "Thumbs.db"]
html_theme = "furo"
html_title = project
html_static_path = []
html_show_sourcelink = False
html_copy_source = False
# Commands and trees of files are no language that a highlighter knows.
highlight_language = "none"
