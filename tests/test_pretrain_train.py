"""A training run is a function of its options and data: not of kills, and hardly of the number of ranks."""

import dataclasses
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from pretrain import estimate_training, pretrain, recipes, train
from pretrain.augment import View
from pretrain.checkpoint import checkpoint_files, newest_checkpoint, save_checkpoint
from pretrain.encoders import BACKBONES, load_encoder
from pretrain.objectives import OBJECTIVES
from pretrain.objectives.base import Objective
from pretrain.pretrain import prepare_checkpoints
from pretrain.randomness import uniforms
from pretrain.samples import read_samples
from tests.pretrain_world import make_world, serve_bucket, train_on_ranks
from workflow_scripts.core import tables

ENTRY = {
    "dataset": "made",
    "objective": "seco",
    "recipe": "paper",
    "backbone": "resnet18",
    "bands": ["B04", "B08", "NDVI"],
    "device": "cpu",
    "seed": 1,
    "epochs": 6,
    "batch_size": 8,
    "queue_size": 16,
    "crop_px": 16,
    "learning_rate": 0.003,
    "bn": {"group_size": 4},
    "log_steps": 1,
    "checkpoint_steps": 2,
}
"""11 locations in batches of 8: 6 epochs of one step."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def make_job(world, folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        input=SimpleNamespace(
            patches=world / "patches.parquet",
            weights=world / "weights.parquet",
            store=world / "patches.zarr" / "zarr.json",
            locations=world / "locations.parquet",
            others=(),
        ),
        output=SimpleNamespace(
            options=folder / "options.json",
            metrics=folder / "metrics.jsonl",
            encoder=folder / "encoder.safetensors",
        ),
        params=SimpleNamespace(model=ENTRY | changes, version=1, checkpoints=None),
        wildcards=SimpleNamespace(model="made-seco"),
        threads=2,
        log=[str(folder / "log")],
    )


def run_here(job, monkeypatch):
    """Run the stage with its one training process inside this one."""
    monkeypatch.setattr(pretrain, "launch", lambda run_file, **_: train.train(train.Run.read(run_file)))
    pretrain.main(job)


def losses(job):
    lines = [json.loads(line) for line in job.output.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return {key: [line[key] for line in lines] for key in lines[0] if key.startswith("loss")}


@pytest.fixture(scope="module")
def uninterrupted(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        job = make_job(world, tmp_path_factory.mktemp("uninterrupted"))
        run_here(job, patch)
    return job


def test_outputs_say_what_was_done(uninterrupted):
    job = uninterrupted
    options = json.loads(job.output.options.read_text())
    encoder = load_encoder(job.output.encoder)
    assert encoder.bands == ("B04", "B08", "NDVI")
    assert options["options"]["temperature"] == 0.2
    expected = {"dataset": "made", "objective": "seco", "recipe": "paper", "backbone": "resnet18", "steps": 6}
    assert {key: encoder.metadata[key] for key in expected} == expected
    assert encoder.metadata["dataset_digest"] == options["facts"]["dataset_digest"]
    line = json.loads(job.output.metrics.read_text().splitlines()[-1])
    assert line["learning_rate"] == 0.003
    assert {"epoch", "top1_season", "std_all", "alignment_all", "samples_per_s", "wait_share"} <= line.keys()
    folder = job.output.encoder.parent / "checkpoints"
    assert [path.name for path in checkpoint_files(folder)] == ["step-00000006.pt", "step-00000004.pt"]
    moved = (
        load_file(job.output.encoder)["conv1.weight"]
        - train.build_encoder("resnet18", 3, 1).state_dict()["embedder.embedder.convolution.weight"]
    )
    assert moved.abs().max() > 0


def test_a_killed_run_ends_in_the_same_weights(world, uninterrupted, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = make_job(world, tmp_path)
    monkeypatch.setattr(pretrain, "launch", lambda *_, **__: None)
    pretrain.main(job)
    checkpoints = tmp_path / "checkpoints"
    command = [sys.executable, "-m", "pretrain.train", job.output.options, tmp_path / "error", os.getpid()]
    root = os.fspath(pretrain.ROOT)
    process = subprocess.Popen(list(map(str, command)), cwd=root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not checkpoint_files(checkpoints) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not job.output.encoder.exists()
    assert checkpoint_files(checkpoints)
    with open(checkpoints / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # as a kill while writing leaves it
    run_here(job, monkeypatch)
    assert "beginning anew" not in caplog.text
    assert losses(job) == losses(uninterrupted)
    expected = load_file(uninterrupted.output.encoder)
    for name, value in load_file(job.output.encoder).items():
        assert torch.equal(value, expected[name]), name
    states = [newest_checkpoint(j.output.encoder.parent / "checkpoints") for j in (job, uninterrupted)]
    positions = [state["objective"].pop("_extra_state") for state in states]
    assert positions[0] == positions[1] == 0  # 6 batches of 8 in a queue of 16
    for name, value in states[0]["objective"].items():
        assert torch.equal(value, states[1]["objective"][name]), name


def test_a_run_from_a_bucket_through_a_cache_is_the_same(world, uninterrupted, tmp_path, monkeypatch):
    with serve_bucket(world) as (address, _):
        options = {"store": f"{address}/patches.zarr", "cache": str(tmp_path / "scratch")}
        job = make_job(world, tmp_path / "run", epochs=2, **options)
        run_here(job, monkeypatch)
    assert losses(job)["loss"] == losses(uninterrupted)["loss"][:2]
    (folder,) = (tmp_path / "scratch").iterdir()
    assert folder.name.startswith("made-") and not (folder / "scl").exists()


def test_a_shard_that_cannot_be_read_stops_the_run_unless_it_may_be_skipped(
    world, tmp_path, monkeypatch, caplog
):
    damaged = tmp_path / "patches.zarr"
    shutil.copytree(world / "patches.zarr", damaged)
    (damaged / "dn10" / "c.1.0.0.0.0").write_bytes(b"damaged")
    job = make_job(world, tmp_path / "stops", epochs=2, store=str(damaged))
    with pytest.raises(
        ValueError, match=rf"shard object {damaged}/dn10/c.1.0.0.0.0 cannot be read at location"
    ):
        run_here(job, monkeypatch)
    assert not job.output.encoder.exists()
    job = make_job(world, tmp_path / "skips", epochs=2, store=str(damaged), skip_unreadable=True)
    run_here(job, monkeypatch)
    assert job.output.encoder.exists()
    assert re.search(r"location '[5-9]U_[5-9]R' is skipped: shard object", caplog.text)


def test_one_patch_per_location_suffices_for_one_season_views(world, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "launch", lambda *_, **__: None)
    pretrain.main(make_job(world, tmp_path, objective="moco", seasons=1))
    assert read_samples(tmp_path / "checkpoints" / "samples.npz").location.tolist() == list(range(12))


def test_two_ranks_equal_one(world, tmp_path, monkeypatch):
    """With a group on each rank, and with groups over both ranks, the batch taken in two parts."""
    bn = {"group_size": 4, "shuffle": True}
    changes = {"precision": "fp64", "crop_px": 32, "epochs": 3, "bn": bn}
    one = make_job(world, tmp_path / "one", **changes)
    run_here(one, monkeypatch)
    monkeypatch.setattr(pretrain, "launch", train_on_ranks)
    for parts in (1, 2):
        two = make_job(world, tmp_path / f"two-{parts}", processes=2, accumulate=parts, **changes)
        pretrain.main(two)
        expected, found = losses(one), losses(two)
        for name in expected:  # same mathematics; in fp32 rounding alone grows a hundredfold per step
            assert found[name] == pytest.approx(expected[name], rel=1e-6)
        expected, found = load_file(one.output.encoder), load_file(two.output.encoder)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-7)
        state = [newest_checkpoint(j.output.encoder.parent / "checkpoints")["objective"] for j in (one, two)]
        torch.testing.assert_close(state[1]["queues"], state[0]["queues"], rtol=1e-4, atol=1e-7)


def test_a_run_may_be_continued_on_another_number_of_ranks(world, uninterrupted, tmp_path, monkeypatch):
    job = make_job(world, tmp_path, steps=None)
    run_here(job, monkeypatch)
    checkpoint_files(tmp_path / "checkpoints")[0].unlink()
    job.output.encoder.unlink()
    monkeypatch.setattr(pretrain, "launch", train_on_ranks)
    pretrain.main(make_job(world, tmp_path, processes=2))
    again, before = losses(job)["loss"], losses(uninterrupted)["loss"]
    assert again[:4] == before[:4]
    assert again[4] == pytest.approx(before[4], rel=1e-5)


def test_a_damaged_newest_checkpoint_falls_back(tmp_path, caplog):
    for step in (2, 4, 6):
        save_checkpoint(
            tmp_path, {"step": step, "weights": torch.full((1000,), float(step))}, step=step, keep=2
        )
    files = checkpoint_files(tmp_path)
    assert [path.stem for path in files] == ["step-00000006", "step-00000004"]
    content = bytearray(files[0].read_bytes())
    for damaged in (content[:100], b"", content[:1500] + b"\xff" + content[1501:]):
        files[0].write_bytes(damaged)
        caplog.clear()
        assert newest_checkpoint(tmp_path)["step"] == 4
        assert "step-00000006.pt cannot be read" in caplog.text
    files[1].unlink()
    assert newest_checkpoint(tmp_path) is None


def test_checkpoints_of_another_run_are_not_continued(tmp_path, caplog):
    identity = {"version": 1, "learning_rate": 0.03, "bn_group_size": 16}
    folder = tmp_path / "checkpoints"
    prepare_checkpoints(folder, identity)
    save_checkpoint(folder, {"step": 1}, step=1, keep=2)
    prepare_checkpoints(folder, dict(identity))
    assert checkpoint_files(folder)
    with pytest.raises(ValueError, match=r"begun with bn.group_size = 16 and is to be continued with 32"):
        prepare_checkpoints(folder, identity | {"bn_group_size": 32})
    prepare_checkpoints(folder, identity | {"learning_rate": 0.1})
    assert "learning_rate: 0.03 -> 0.1" in caplog.text
    assert not checkpoint_files(folder)


def test_a_loss_that_is_not_a_number_stops_the_run(world, tmp_path, monkeypatch):
    job = make_job(world, tmp_path, learning_rate=1e30)
    with pytest.raises(RuntimeError, match=r"the loss is nan at step 2 \(epoch 1, slots 0 to 7, locations '"):
        run_here(job, monkeypatch)
    assert not job.output.encoder.exists()


def test_cosine_moco_trains(world, tmp_path, monkeypatch):
    job = make_job(
        world, tmp_path, objective="moco", epochs=3, precision="bf16", bn={"group_size": 4, "shuffle": True}
    )
    run_here(job, monkeypatch)
    rates = [json.loads(line)["learning_rate"] for line in job.output.metrics.read_text().splitlines()]
    assert rates == pytest.approx([0.003, 0.00225, 0.00075])


def test_training_is_watched(world, uninterrupted, tmp_path, monkeypatch, caplog):
    labels = pd.DataFrame({"location_id": [f"{i}U_{i}R" for i in range(10)], "kind": [1, 2] * 5})
    tables.write_table(labels, tmp_path / "labels.parquet", "labels")
    task = {"dataset": "made", "target": "kind", "kind": "classification", "classes": [1, 2], "k": 3}
    job = make_job(world, tmp_path / "run", knn={"task": "kinds", "epochs": 2}, log_steps=3)
    job.params.model["tensorboard"] = importlib.util.find_spec("tensorboard") is not None
    job.params.watched_task = task
    job.input.watched_store = job.input.store
    job.input.watched_patches = job.input.patches
    job.input.watched_labels = tmp_path / "labels.parquet"
    with caplog.at_level(logging.INFO):
        run_here(job, monkeypatch)
    lines = [json.loads(line) for line in job.output.metrics.read_text().splitlines()]
    scores = {line["step"]: line.get("knn_macro_f1") for line in lines}
    assert scores.keys() == {2, 3, 4, 6}
    assert scores[3] is None
    assert 0 <= scores[2] <= 1
    assert 0 <= scores[4] <= 1
    assert re.search(
        r"step 2 of 6 \(33.3 %\), epoch 1: loss .*knn_macro_f1 \d\.\d+.* \d+:\d\d:\d\d left", caplog.text
    )
    assert "mountain: 0.0 % of the locations" in caplog.text
    if job.params.model["tensorboard"]:
        assert list((tmp_path / "run" / "checkpoints" / "tensorboard").iterdir())
    expected = load_file(uninterrupted.output.encoder)
    for name, value in load_file(job.output.encoder).items():  # watching changes nothing
        assert torch.equal(value, expected[name]), name
    labels["location_id"] = "elsewhere" + labels["location_id"]
    tables.write_table(labels, tmp_path / "labels.parquet", "labels")
    job.output.encoder.unlink()
    with pytest.raises(ValueError, match=r"knn.task 'kinds': 0 locations of dataset 'made' have a patch"):
        run_here(job, monkeypatch)


def test_a_missing_tensorboard_is_told_at_once(world, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package tensorboard"):
        pretrain.main(make_job(world, tmp_path, tensorboard=True))


def test_a_collapsed_space_is_reported(caplog):
    line = {"step": 3, "epoch": 0, "loss": 1.0, "samples_per_s": 0.5, "wait_share": 0, "std_all": 0.9}
    train.report(line | {"std_season": 0.01}, last=4, batch_size=2)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "step 3: space 'season' has collapsed (std 0.010)"
    ]


def test_validation_locations_can_be_left_out(world, tmp_path, monkeypatch):
    table = pd.DataFrame(
        {"location_id": [f"{i}U_{i}R" for i in range(12)], "split": ["train", "validation"] * 6}
    )
    monkeypatch.setattr(tables, "read_table", _with(tables.read_table, "locations", table))
    monkeypatch.setattr(pretrain, "launch", lambda *_, **__: None)
    job = make_job(world, tmp_path, leave_out_validation=True, batch_size=4)
    job.input.locations = "locations.parquet"
    pretrain.main(job)
    chosen = read_samples(tmp_path / "checkpoints" / "samples.npz")
    assert chosen.location.tolist() == [0, 4, 6, 8, 10]


def estimate_of(folder, *, finished=None, others=(), **changes):
    job = SimpleNamespace(
        input=SimpleNamespace(jobs=folder / "jobs.json"),
        output=SimpleNamespace(estimate=folder / "estimate.json", text=folder / "estimate.txt"),
        params=SimpleNamespace(
            model=ENTRY | changes,
            seasons=["spring", "autumn"],
            size_m=320,
            finished=finished,
            others=others,
        ),
        wildcards=SimpleNamespace(model="made-seco"),
        threads=1,
    )
    job.input.jobs.write_text('{"n_locations": 1000}')
    estimate_training.main(job)
    return json.loads(job.output.estimate.read_text()), job.output.text.read_text()


def test_the_cost_is_told_beforehand(world, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate_training, "STEPS", 2)
    others = [world / "patches.parquet"]  # complete there: all but two
    found, text = estimate_of(tmp_path, finished=str(world), others=others, processes=2)
    assert (found["steps"], found["epochs"], found["locations"]) == (6, 6, 10)
    assert found["hours"] == pytest.approx(6 * 8 / found["samples_per_s"] / 3600)
    assert found["samples_per_s"] == 2 * found["measured"]["samples_per_s"]
    assert (found["measured"]["batch_size"], found["measured"]["steps"]) == (4, 2)
    assert 0.1 < found["disk_gb"] < 0.5  # 0.045 GB of weights: query, key, momenta; two checkpoints
    assert "Model made-seco: 10 locations, 6 epochs, 6 steps" in text
    assert re.search(r"samples per second on 2 x CPU: .* the dataset's own patches", text, re.DOTALL)


def test_the_cost_is_told_before_there_is_a_dataset_or_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate_training, "STEPS", 1)
    found, text = estimate_of(tmp_path, batch_size=64, queue_size=64, bn={})
    assert (found["locations"], found["steps"]) == (1000, 6 * 15)
    assert found["measured"]["batch_size"] == estimate_training.CPU_BATCH
    assert "made patches, as the dataset is not there yet" in text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found, text = estimate_of(tmp_path, device="cuda", n_locations=500)
    assert (found["steps"], found["hours"]) == (6 * (500 // 8), None)
    assert "time not measured: device: cuda with processes: 1, but this machine has 0 usable GPUs" in text


def _with(read_table, name, table):
    def read(path, kind, columns=None):
        return table if kind == name else read_table(path, kind, columns)

    return read


def test_bf16_changes_rounding_only(world, uninterrupted, tmp_path, monkeypatch):
    job = make_job(world, tmp_path, epochs=1, precision="bf16")
    run_here(job, monkeypatch)
    rounded, exact = losses(job)["loss"][0], losses(uninterrupted)["loss"][0]
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)  # bf16 has 8 bits
    assert (
        load_encoder(job.output.encoder).state_dict()["stages.0.layers.0.layer.0.convolution.weight"].dtype
        == torch.float32
    )


def test_layout_and_compilation_keep_names_and_results():
    options = recipes.resolve({**ENTRY, "bn": {"group_size": 4}})
    plain, fast = train.build_objective(options), train.build_objective(options)
    train.speed_up(fast, channels_last=True, backend="eager")
    assert fast.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected, found = (objective.double().encoder(images.double()).pooled for objective in (plain, fast))
    assert fast.encoder(images.double()).maps[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


class MaskedAutoencoder(Objective):
    """A further objective needs nothing of the loop but what `Objective` declares."""

    views = (View(0, "none"),)
    needs_masks = True
    side_columns = ("rain",)

    def __init__(self, encoder, *, seed):
        super().__init__()
        self.encoder = encoder
        self.seed = seed
        self.rain = nn.Linear(encoder.feature_size, 1)
        self.decoder = nn.ConvTranspose2d(encoder.feature_size, encoder.n_bands, 32, stride=32)

    @classmethod
    def build(cls, encoder, options):
        return cls(encoder, seed=options.seed)

    def forward(self, batch):
        images = batch.views[0]
        cells = images.shape[-1] // 8
        draws = uniforms(self.seed, epoch=batch.epoch, stream=99, slots=batch.slots, n=cells**2)
        hidden = torch.from_numpy(draws < 0.75).view(-1, 1, cells, cells)
        hidden = hidden.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        features = self.encoder(images.masked_fill(hidden, 0))
        error = (self.decoder(features.maps[-1]) - images / 10).square()
        counted = hidden & batch.masks[0].unsqueeze(1)
        loss = (error * counted).mean() / counted.float().mean()
        assert batch.side.flatten().tolist() == [float(name.split("U")[0]) for name in batch.location_id]
        assert torch.isfinite(batch.day_of_year).all()
        rain = (self.rain(features.pooled.detach()) - batch.side / 10).square().mean()
        return {"loss": loss + 0.01 * rain, "seen": error.mean().detach()}


def test_a_masked_autoencoder_fits_the_loop(world, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "mae", MaskedAutoencoder)
    monkeypatch.setitem(recipes.RECIPES["paper"], "mae", recipes.RECIPES["paper"]["seco"])
    side = pd.DataFrame({"location_id": [f"{i}U_{i}R" for i in range(12)], "rain": np.arange(12.0)})
    side.to_parquet(tmp_path / "side.parquet")
    changes = {"objective": "mae", "crop_px": 32, "epochs": 12, "learning_rate": 0.1, "bn": {}}
    job = make_job(world, tmp_path / "with", side_table=str(tmp_path / "side.parquet"), **changes)
    run_here(job, monkeypatch)
    found = losses(job)["loss"]
    assert found[-1] < 0.8 * found[0]
    with pytest.raises(ValueError, match=r"needs the columns \['rain'\] of a side table, which has \[\]"):
        run_here(make_job(world, tmp_path / "without", **changes), monkeypatch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queue_size": 20}, r"batch_size = 8 must divide queue_size = 20"),
        ({"queue_size": 4}, r"batch_size = 8 must divide queue_size = 4"),
        ({"processes": 3}, r"batch_size = 8 is not divisible by processes = 3"),
        ({"accumulate": 2, "bn": {}}, r"bn.group_size = 8 does not fit: 2 part\(s\) of a batch of 8 on 1"),
        ({"processes": 2, "accumulate": 8}, r"batch_size = 8 is not divisible by processes = 2 times accum"),
        ({"bn": {"group_size": 3}}, r"bn.group_size = 3 does not fit"),
        ({"bands": ["B02", "B10"]}, r"bands \['B10'\] are not in the store"),
        ({"processes": 4, "nodes": 3, "bn": {}}, r"processes = 4, of all .* must be a multiple of nodes = 3"),
        ({"processes": 2, "nodes": 2}, r"nodes = 2 outside of a Slurm job: set rendezvous to the host:port"),
        (
            {"backbone": "vit_small", "crop_px": 24},
            r"crop_px = 24: 'vit_small' cuts images into squares of 16",
        ),
        ({"device": "cuda"}, r"device: cuda with processes: 1, but this machine has 0 usable GPUs"),
    ],
)
def test_options_that_do_not_fit_are_refused(world, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        run_here(make_job(world, tmp_path, **changes), monkeypatch)


def test_the_first_error_of_the_processes_is_told(world, tmp_path):
    job = make_job(world, tmp_path, bands=["B02", "B10"], processes=2)
    with pytest.raises(RuntimeError, match=r"^bands \['B10'\] are not in the store"):
        pretrain.main(job)


def test_a_bar_on_the_terminal_shows_the_progress(capsys):
    line = "INFO pretrain.train: step 48 of 96 (50.0 %), epoch 11: loss 12.21, 68.8 samples/s, waiting 0 %, 0:00:22 left"
    for text in ("INFO __main__: something else", line, line.replace("48 of 96 (50.0", "96 of 96 (100.0")):
        pretrain.draw_progress("made-seco", text)
    half, whole = capsys.readouterr().err.split("\r")[1:]
    assert (
        half.startswith(f"made-seco [{'#' * 15}{'.' * 15}] loss 12.21, 68.8 samples/s") and "\n" not in half
    )
    assert f"[{'#' * 30}]" in whole and whole.endswith("\n")


def test_several_machines_get_one_command_each():
    entry = ENTRY | {"processes": 4, "nodes": 2, "rendezvous": "first:29500", "bn": {"group_size": 2}}
    command = pretrain.torchrun(Path("results/models/made-seco/options.json"), recipes.resolve(entry))
    text = " ".join(command)
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint first:29500 --rdzv-id made-seco" in text
    assert text.endswith("--nproc-per-node 2 -m pretrain.train results/models/made-seco/options.json")
    assert "--standalone" not in text


def test_a_slurm_job_starts_one_launcher_on_each_machine():
    assert pretrain.slurm_rendezvous({}) is None
    assert pretrain.slurm_rendezvous({"SLURM_JOB_ID": "123456"}).endswith(":23456")
    entry = ENTRY | {"processes": 4, "nodes": 2, "rendezvous": "first:29500", "bn": {"group_size": 2}}
    command = pretrain.srun(["launch", "a file"], recipes.resolve(entry), threads=3)
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=3"} <= set(command)
    assert command[-3:] == ["sh", "-c", "launch 'a file' $$"]


def test_paper_recipes_are_the_published_commands():
    seco = recipes.resolve({"objective": "seco", "recipe": "paper", "seed": 0})
    assert (seco.epochs, seco.batch_size, seco.queue_size, seco.temperature) == (100, 256, 65_536, 0.2)
    assert (seco.momentum, seco.weight_decay, seco.key_momentum, seco.projection_size) == (
        0.9,
        1e-4,
        0.999,
        128,
    )
    assert {recipes.learning_rate(seco, epoch) for epoch in range(100)} == {0.03}
    assert seco.bn_group_size == 256
    moco = recipes.resolve({"objective": "moco", "recipe": "paper", "seed": 0})
    assert recipes.learning_rate(moco, 50) == pytest.approx(0.015)
    assert recipes.steps_per_epoch(seco, 254_403) == 993
    assert recipes.total_steps(seco, 100) == 100


def test_every_option_is_in_the_schema_and_the_schema_names_no_other():
    schema = yaml.safe_load((pretrain.ROOT / "schemas" / "models.schema.yaml").read_text())
    described = schema["additionalProperties"]["properties"]
    entry_only = {"encoder", "dataset", "recipe", "seeds", "threads", "bn", "knn"}
    entry_only |= {"columns", "parts", "adapter", "tasks", "extents_px", "path"}  # of what is not trained
    options = {field.name for field in dataclasses.fields(recipes.Options)}
    nested = {"bn_group_size", "bn_shuffle", "knn_task", "knn_epochs"}
    assert described.keys() - entry_only == options - {"seed"} - nested
    assert set(described["objective"]["enum"]) == OBJECTIVES.keys()
    assert set(described["backbone"]["enum"]) == BACKBONES.keys()
    assert tuple(described["bands"]["default"]) == recipes.PAPER_BANDS
