"""The workflow on a real Slurm of two nodes, both this machine: `make test-slurm` (root, Debian's slurm packages)."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from workflow_runs import ROOT, SMALL, TRAINED, assert_same_dataset, finish, link_world, run, start

SCRIPT = Path(__file__).with_name("local_slurm.sh")
PROFILE = ("--profile", ROOT / "profiles/slurm", "--slurm-init-seconds-before-status-checks", 3)
PACKAGES = ("slurmctld", "slurmd", "squeue", "munged")
LOCAL = {**SMALL, **TRAINED}
ON_TWO_NODES = {**SMALL, "models": {"tiny": {**TRAINED["models"]["tiny"], "nodes": 2}}}

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, PACKAGES)),
        reason="needs root and the Debian packages slurmctld slurmd slurm-client munge",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """Two Slurm nodes for the time of these tests."""
    # socket names are short
    environment = {**os.environ, "SLURM_LOCAL": f"/run/local-slurm-{os.getpid()}"}
    subprocess.run([SCRIPT, "start"], check=True, env=environment)
    yield
    subprocess.run([SCRIPT, "stop"], check=True, env=environment)
    shutil.rmtree(environment["SLURM_LOCAL"])


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same dataset and model, made on this machine without Slurm."""
    folder = tmp_path_factory.mktemp("local")
    run(folder, "pretrained", config=LOCAL)
    return folder


def jobs_of(rule, state="RUNNING"):
    """Slurm's numbers of a rule's jobs in a state."""
    query = ["squeue", "--noheader", "--array", "--states", state, "--format", "%i %k"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[0] for line in lines if f"rule_{rule}" in line]


def wait_for(find, process, seconds=600):
    """Poll until something is found; fail if the run ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = find()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"not seen in time: {process.communicate()[0][-3000:]}")


def processes_of(rule):
    """Processes that run a rule's script."""

    def words(folder):
        try:
            return (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return []

    running = {int(folder.name): words(folder) for folder in Path("/proc").glob("[0-9]*")}
    script = f".{rule}.py".encode()
    return [pid for pid, parts in running.items() if any(part.endswith(script) for part in parts)]


def test_cancelled_and_killed_jobs_end_in_the_local_runs_dataset_and_model(local, tmp_path):
    link_world(local, tmp_path)
    process = start(tmp_path, *PROFILE, "pretrained", config=ON_TWO_NODES, cores=None)
    cancelled = wait_for(lambda: jobs_of("retrieve_patches"), process)[0]
    subprocess.run(["scancel", cancelled], check=True)
    killed = wait_for(lambda: processes_of("index_patches"), process)[0]
    os.kill(killed, signal.SIGKILL)
    printed = finish(process)
    assert "SLURM status is: 'CANCELLED'" in printed
    assert "SLURM status is: 'FAILED'" in printed
    assert_same_dataset(local, tmp_path)
    losses = [
        [
            json.loads(line)["loss"]
            for line in (f / "results/models/tiny/metrics.jsonl").read_text().splitlines()
        ]
        for f in (local, tmp_path)
    ]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    options = json.loads((tmp_path / "results/models/tiny/options.json").read_text())["options"]
    assert options["nodes"] == 2 and options["rendezvous"]
    assert "Nothing to be done" in run(tmp_path, *PROFILE, "dataset", config=ON_TWO_NODES, cores=None)
