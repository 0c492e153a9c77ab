"""Write the SSL4Eco paper's tables, its figures and ours, as one HTML page.

Reads
    linear.json and knn.json of every model and task of the configuration
Writes
    results/paper-tables.html

Layout and rules stand in `report.paper_tables`, published figures in `report/published_figures.yaml`.
"""

import json
from pathlib import Path
from typing import Any

from workflow_scripts.core.stage import atomic_path, run_stage
from workflow_scripts.report.paper_tables import lay_out, read_figures, write_page


def main(job: Any) -> None:
    """Write the tables."""
    figures = read_figures()
    documents = [json.loads(Path(path).read_text()) for path in job.input.scores]
    tables, refused = lay_out(
        figures,
        documents,
        families={name: settings["family"] for name, settings in job.params.models.items()},
        notices=job.params.notices,
    )
    with atomic_path(job.output.tables) as temporary:
        Path(temporary).write_text(write_page(figures, tables, refused))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
