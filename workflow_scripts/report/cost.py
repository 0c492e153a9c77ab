"""What the run cost: jobs, time and memory of each rule, from the measurements Snakemake keeps."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from workflow_scripts.report import page

COLUMNS = {"s": "wall_s", "cpu_time": "cpu_s", "max_rss": "memory_mb"}
"""Columns of a benchmark file that are used, and what they are called here."""


def read_benchmarks(paths: Iterable[Path]) -> pd.DataFrame:
    """Read benchmark files of jobs.

    Parameters
    ----------
    paths : named `{rule}.benchmark.tsv`, or `{rule}.{wildcards}.benchmark.tsv`

    Returns
    -------
    DataFrame, one row per job: rule, wall_s, cpu_s, memory_mb; NaN where nothing was measured
    """
    parts = []
    for path in paths:
        measured = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
        if set(COLUMNS) <= set(measured):
            part = measured[list(COLUMNS)].rename(columns=COLUMNS)
            parts.append(part.assign(rule=path.name.split(".")[0]))
    columns = ["rule", *COLUMNS.values()]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def cost_section(folder: Path) -> str:
    """Tabulate what each rule cost; empty where nothing was measured."""
    jobs = read_benchmarks(sorted(folder.rglob("*.benchmark.tsv")))
    if jobs.empty:
        return ""
    by_rule = jobs.groupby("rule").agg(
        n=("rule", "size"), wall=("wall_s", "sum"), cpu=("cpu_s", "sum"), memory=("memory_mb", "max")
    )
    by_rule = by_rule.sort_values(["cpu", "wall"], ascending=False)
    rows = [
        [rule, page.count(row.n), _duration(row.wall), _duration(row.cpu), page.number(row.memory, 0)]
        for rule, row in zip(by_rule.index, by_rule.itertuples(), strict=True)
    ]
    rows.append(
        [
            "all",
            page.count(by_rule["n"].sum()),
            _duration(by_rule["wall"].sum()),
            _duration(by_rule["cpu"].sum()),
            page.number(by_rule["memory"].max(), 0),
        ]
    )
    note = page.paragraph(
        "The last run of each job, as Snakemake measured it; jobs run side by side, so their times add up to more than "
        "the clock showed. A dash, or a job of a few seconds without CPU time, was too short to be measured."
    )
    header = ["Rule", "Jobs", "Time", "CPU time", "Largest memory, MB"]
    return note + page.table(header, rows, caption="Jobs, time and memory by rule")


def _duration(seconds: float) -> str:
    """Show a time in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
