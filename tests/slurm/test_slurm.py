"""The workflow on a real Slurm of two nodes, both this machine: `make test-slurm` (root, Debian's slurm packages)."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from workflow_runs import DATASET, ROOT, SMALL, TRAINED, assert_same_dataset, finish, link_world, run, start

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


@pytest.fixture
def unfetched(local, tmp_path):
    """A copy of that dataset whose two shards are yet to be retrieved."""
    link_world(local, tmp_path)
    subprocess.run(["cp", "-a", local / "results", local / ".snakemake", tmp_path], check=True)
    for path in [
        *(tmp_path / DATASET).glob("patches.zarr/*/c.*.0*"),
        *(tmp_path / DATASET / "retrieved").iterdir(),
    ]:
        path.unlink()
    return tmp_path


def slurm(*words):
    """Run one of Slurm's commands and give what it printed."""
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True).stdout


def jobs_of(rule, state="RUNNING"):
    """Slurm's numbers of a rule's jobs in a state."""
    lines = slurm("squeue", "--noheader", "--array", "--states", state, "--format", "%i %k").splitlines()
    return [line.split()[0] for line in lines if f"rule_{rule}" in line]


def facts_of(job):
    """What Slurm knows of a job."""
    return dict(re.findall(r"(\S+?)=(\S*)", slurm("scontrol", "show", "job", job)))


def wait_for(find, process, seconds=600):
    """Poll until something is found; fail if the run ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = find()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"not seen in time: {process.communicate()[0][-3000:]}")


def running():
    """Process → its words, its variables."""

    def content(file):
        try:
            return file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended
            return [""]

    folders = list(Path("/proc").glob("[0-9]*"))
    return {int(f.name): (content(f / "cmdline"), content(f / "environ")) for f in folders}


def processes_of(rule):
    """Processes that run a rule's script."""
    return [pid for pid, (words, _) in running().items() if any(w.endswith(f".{rule}.py") for w in words)]


def hold(rule, process):
    """Stop a rule's script as soon as it runs; give the process and the variables that Slurm set for it."""
    pid = wait_for(lambda: processes_of(rule), process)[0]
    os.kill(pid, signal.SIGSTOP)
    return pid, dict(v.split("=", 1) for v in running()[pid][1] if v.startswith("SLURM"))


def start_here(folder, *words):
    """Start retrieval with the profile."""
    return start(folder, *PROFILE, "patches", *words, config=LOCAL, cores=None)


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
    first, again = (facts_of(job) for job in sorted(jobs_of("index_patches", state="all"), key=int))
    assert (first["TimeLimit"], first["MinMemoryNode"]) == ("00:30:00", "4000M")
    assert (again["TimeLimit"], again["MinMemoryNode"]) == ("01:00:00", "8000M")
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


def test_a_job_that_ran_out_of_time_is_sent_again_with_more(local, unfetched):
    before = set(jobs_of("retrieve_patches", state="all"))
    process = start_here(unfetched, "--set-resources", "retrieve_patches:runtime=attempt")
    hold("retrieve_patches", process)
    assert "SLURM status is: 'TIMEOUT'" in finish(process)
    limits = [
        facts_of(job)["TimeLimit"] for job in jobs_of("retrieve_patches", state="all") if job not in before
    ]
    assert {"00:01:00", "00:02:00"} <= set(limits)
    assert_same_dataset(local, unfetched)


def test_a_preempted_job_is_put_back_and_finished(local, unfetched):
    process = start_here(unfetched)
    _, variables = hold("retrieve_patches", process)
    node = variables["SLURMD_NODENAME"]
    slurm(
        "sbatch",
        "--partition",
        "urgent",
        "--exclusive",
        "--nodelist",
        node,
        "--output",
        "/dev/null",
        "--wrap",
        "true",
    )
    printed = finish(process)
    assert "SLURM status is" not in printed  # Slurm itself put it back
    assert facts_of(variables["SLURM_JOB_ID"])["Restarts"] == "1"
    assert_same_dataset(local, unfetched)


def test_jobs_of_a_lost_node_are_finished_on_another(local, unfetched):
    process = start_here(unfetched)
    _, variables = hold("retrieve_patches", process)
    job, node = variables["SLURM_JOB_ID"], variables["SLURMD_NODENAME"]
    jobs = slurm("squeue", "--noheader", "--nodelist", node, "--format", "%A").split()
    steps = tuple(f"slurmstepd: [{number}." for number in jobs)
    try:
        for pid, (words, environment) in running().items():
            on_node = f"SLURMD_NODENAME={node}" in environment or words[0].startswith(steps)
            if on_node or (words[0].endswith("slurmd") and node in words):
                os.kill(pid, signal.SIGKILL)
        finish(process)
        after = facts_of(job)
        assert after["Restarts"] == "1" and after["BatchHost"] not in ("", node)
        assert_same_dataset(local, unfetched)
    finally:
        subprocess.run(["slurmd", "-N", node], check=True)


def test_a_run_whose_login_node_died_goes_on_beside_its_old_jobs(local, unfetched):
    process = start_here(unfetched)
    pid, _ = hold("retrieve_patches", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run(unfetched, "--unlock", config=LOCAL)
    process = start_here(unfetched)
    wait_for(lambda: len(processes_of("retrieve_patches")) > 1, process)
    os.kill(pid, signal.SIGCONT)  # two jobs write the same shard
    finish(process)
    assert_same_dataset(local, unfetched)
