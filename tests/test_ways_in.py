"""Ways into the workflow: its lint, its use as a module of another workflow, the catalog of workflows."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
OTHER_WORKFLOW = f"""
configfile: "config.yaml"

module ssl4eco:
    snakefile: "{ROOT / "Snakefile"}"
    config: config

use rule * from ssl4eco as ssl4eco_*

rule mine:
    default_target: True
    input: "results/datasets/mysites/seasons.parquet"
    output: "mine.txt"
    shell: "cp {{input}} {{output}}"
"""


def snakemake(*words, folder):
    command = [sys.executable, "-m", "snakemake", *words]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout + ended.stderr


def test_snakemakes_linter_finds_nothing():
    code, printed = snakemake("--lint", folder=ROOT)
    assert code == 0 and "Lints for" not in printed, printed


def test_another_workflow_uses_this_one_as_a_module(tmp_path):
    (tmp_path / "Snakefile").write_text(OTHER_WORKFLOW)
    (tmp_path / "sites.csv").write_text("location_id,lon,lat\na,8.5,47.3\n")
    (tmp_path / "series.csv").write_text("location_id,date,evi\na,2019-01-01,0.2\n")
    entry = {
        "locations": {"design": "file", "path": "sites.csv"},
        "greenness": {"source": "file", "path": "series.csv"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"datasets": {"mysites": entry}}))
    code, printed = snakemake("--dry-run", folder=tmp_path)
    assert code == 0, printed
    planned = set(re.findall(r"^ssl4eco_(\w+) +1$", printed, flags=re.M))
    assert planned == {"sample_locations", "extract_greenness", "estimate_phenology", "define_seasons"}


def test_catalog_of_workflows_finds_what_it_reads():
    entry = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    usage = entry["usage"]
    assert {"mandatory-flags", "software-stack-deployment", "report"} <= set(usage)
    assert usage["software-stack-deployment"]["conda"] is True
