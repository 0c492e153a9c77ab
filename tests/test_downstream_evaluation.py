"""From embeddings and labels to the document of scores, with both probes."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from threadpoolctl import threadpool_limits

from pretrain.downstream import knn_probe, linear_probe
from pretrain.downstream.embed_patches import embeddings_of, write_embeddings
from pretrain.downstream.evaluation import Predictions, evaluate, summarize
from pretrain.downstream.task_data import read_task_data
from pretrain.downstream.tasks import Task
from workflow_scripts.core.tables import write_table

N, SEASONS = 120, ("winter", "summer")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower on several threads, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def world(tmp_path: Path) -> SimpleNamespace:
    """Embeddings that hold a class and a value, labels in another order, and their gaps."""
    rng = np.random.default_rng(0)
    ids = np.array([f"p{i:03d}" for i in range(N)], object)
    lon, lat = 9 + rng.random(N), 45 + rng.random(N)
    biome = np.where(lon > 9.5, 4, 13).astype(np.int64)
    biome[7] = 1
    temperature = 10 + 8 * rng.random(N)
    embedding = rng.normal(size=(N, 2, 6)).astype(np.float32) / 4
    embedding[..., 0] += (biome == 4)[:, None] * 3
    embedding[..., 1] += temperature[:, None] / 2
    embedding[:5] = np.nan  # no patch at all
    embedding[5:25, 0] = np.nan  # no winter
    coordinates = xr.Dataset(
        coords={
            "location_id": ("location", ids),
            "lon": ("location", lon),
            "lat": ("location", lat),
            "season": ("season", np.array(SEASONS, object)),
        }
    )
    store = tmp_path / "embeddings.zarr"
    chunks = ((first, embedding[first : first + 50]) for first in range(0, N, 50))
    attributes = {"encoder_digest": "e", "dataset_digest": "d", "bands": ["B02"], "model": "m"}
    write_embeddings(store, chunks, coordinates=coordinates, array=embeddings_of(6), attributes=attributes)
    biome[[0, 30]] = -1
    labels = pd.DataFrame({"location_id": ids, "biome": biome, "temperature": temperature})
    labels["constant"] = 3.0
    labels.loc[40:44, "temperature"] = np.nan
    labels = labels.drop(index=50).sample(frac=1, random_state=0)
    write_table(labels, tmp_path / "labels.parquet", "labels")
    return SimpleNamespace(
        store=store, labels=tmp_path / "labels.parquet", folder=tmp_path,
        ids=ids, embedding=embedding, biome=biome, temperature=temperature,
    )  # fmt: skip


def settings(**changes: object) -> dict:
    """A task's config entry."""
    entry = {
        "dataset": "set",
        "target": "biome",
        "kind": "classification",
        "classes": "resolve-biomes",
        "mode": "fast",
        "folds": 4,
        "block_km": 15,
    }
    return entry | changes


def run(world: SimpleNamespace, module: object, **changes: object) -> dict:
    """Run a probe's rule and read what it wrote."""
    output = world.folder / "scores.json"
    job = SimpleNamespace(
        input=SimpleNamespace(embeddings=str(world.store / "zarr.json"), labels=str(world.labels)),
        output=SimpleNamespace(scores=str(output)),
        params=SimpleNamespace(task=settings(**changes), seed=5),
        wildcards=SimpleNamespace(model="m", task="t"),
    )
    module.main(job)
    return json.loads(output.read_text())


def test_join_by_id_and_counts(world: SimpleNamespace) -> None:
    """Each row's features and label are those of its id; what is missing is counted once."""
    data = read_task_data(world.store, world.labels, Task.from_settings("t", settings()))
    # 5 without patch (one of them without label too); of the rest 30 has no class, 50 no row
    assert data.counts == {
        "n_locations": N,
        "n_without_patch": 5,
        "n_without_label": 2,
        "n_used": N - 7,
    }
    kept = np.setdiff1d(np.arange(N), [0, 1, 2, 3, 4, 30, 50])
    assert data.location_id.tolist() == world.ids[kept].tolist()
    assert (data.targets.argmax(axis=1) + 1).tolist() == world.biome[kept].tolist()
    expected = np.nanmean(world.embedding[kept], axis=1)
    np.testing.assert_allclose(data.features, expected, rtol=1e-5)


def test_one_season(world: SimpleNamespace) -> None:
    """Only the season asked for counts; an unknown one is named."""
    winter = Task.from_settings("t", settings(seasons=["winter"]))
    data = read_task_data(world.store, world.labels, winter)
    assert data.counts["n_without_patch"] == 25
    assert data.location_id[0] == "p025"
    np.testing.assert_allclose(data.features[0], world.embedding[25, 0])
    spring = Task.from_settings("t", settings(seasons=["spring"]))
    with pytest.raises(ValueError, match="not all among those of dataset 'set'"):
        read_task_data(world.store, world.labels, spring)


@pytest.mark.parametrize("module", [knn_probe, linear_probe])
def test_classification_document(world: SimpleNamespace, module: object) -> None:
    """Both divisions, per class, digests, and the classes that cannot be learned."""
    document = run(world, module)
    assert document["model"] == "m"
    assert (document["encoder_digest"], document["dataset_digest"]) == ("e", "d")
    kept = np.setdiff1d(np.arange(N), [0, 1, 2, 3, 4, 30, 50])
    n_in_class = [int(np.sum(world.biome[kept] == code)) for code in range(1, 15)]
    assert [output["n"] for output in document["outputs"]] == n_in_class
    assert document["rare_classes"] == [1]
    for method, block_km in (("random", None), ("blocked", 15)):
        result = document["folds"][method]
        assert result["n_folds"] == 4
        assert result["block_km"] == block_km
        assert sum(result["sizes"]) == document["counts"]["n_used"]
        assert result["untrained_classes"] == [1]
        accuracy = result["scores"]["accuracy"]
        assert len(accuracy["folds"]) == accuracy["n"] == 4
        assert accuracy["mean"] == pytest.approx(np.mean(accuracy["folds"]))
        assert accuracy["std"] == pytest.approx(np.std(accuracy["folds"]))
        assert result["pooled"]["accuracy"] > 0.9
        per_class = {row["code"]: row for row in result["per_output"]}
        assert per_class[4]["f1"] > 0.9
        assert per_class[1]["f1"] == 0
        assert per_class[2]["f1"] is None
        assert len(result["fits"]) == 4
    blocked, random = document["folds"]["blocked"], document["folds"]["random"]
    for name in ("p25", "median", "max"):
        assert blocked["train_test_distance_km"][name] > random["train_test_distance_km"][name]


def test_probes_share_folds(world: SimpleNamespace) -> None:
    """The divisions of both probes are the same, and another seed's are others."""
    knn, linear = run(world, knn_probe), run(world, linear_probe)
    for method in ("random", "blocked"):
        assert knn["folds"][method]["digest"] == linear["folds"][method]["digest"]
    assert knn["folds"]["random"]["digest"] != knn["folds"]["blocked"]["digest"]


@pytest.mark.parametrize("mode", ["fast", "paper"])
def test_regression_document(world: SimpleNamespace, mode: str) -> None:
    """Scores in the target's unit; missing values counted."""
    document = run(world, linear_probe, target="temperature", kind="regression", classes=None, mode=mode)
    assert document["counts"]["n_without_label"] == 6
    assert document["main_metric"] == "r2"
    scores = document["folds"]["random"]["scores"]
    assert set(scores) == {"r2", "mae", "rmse"}
    if mode == "fast":
        assert scores["r2"]["mean"] > 0.8
        assert scores["rmse"]["mean"] < 1.2


def test_constant_target_document(world: SimpleNamespace) -> None:
    """R2 is undefined, said so, and the file is still JSON."""
    document = run(world, knn_probe, target="constant", kind="regression", classes=None)
    assert document["constant_targets"] == ["constant"]
    scores = document["folds"]["random"]["scores"]
    assert scores["r2"] == {"mean": None, "std": None, "n": 0, "folds": [None] * 4}
    assert scores["mae"]["mean"] == pytest.approx(0, abs=1e-6)


def test_two_targets(world: SimpleNamespace) -> None:
    """Mean R2 over targets; errors per target only, since units differ."""
    document = run(world, knn_probe, target=["temperature", "constant"], kind="regression", classes=None)
    result = document["folds"]["random"]
    assert set(result["scores"]) == {"r2"}
    assert [row["code"] for row in result["per_output"]] == ["temperature", "constant"]
    assert result["per_output"][1]["r2"] is None


def test_perfect_distributions_score_one(world: SimpleNamespace) -> None:
    """A probe that knows the answer has R2 1 in every fold: no link stands between."""
    task = Task.from_settings(
        "t", settings(kind="distribution", target=["temperature", "constant"], classes=None)
    )
    data = read_task_data(world.store, world.labels, task)
    document = evaluate(
        data, task, seed=0, probe=lambda data, folds, *_: ({}, [Predictions(data.targets, [])] * 2)
    )
    assert document["folds"]["random"]["scores"]["r2"]["folds"] == [1.0] * 4
    assert document["folds"]["blocked"]["pooled"]["r2"] == 1.0


def test_nothing_left_is_an_error(world: SimpleNamespace) -> None:
    """Ignoring every class leaves no location: the counts are told."""
    entry = settings(ignore=[4, 13, 1])
    with pytest.raises(ValueError, match="leave fewer than two locations"):
        read_task_data(world.store, world.labels, Task.from_settings("t", entry))


def test_summaries_leave_out_undefined_folds() -> None:
    """Mean and population deviation over the folds where a score exists."""
    summary = summarize([1.0, float("nan"), 3.0])
    assert (summary["mean"], summary["std"], summary["n"]) == (2.0, 1.0, 2)


@pytest.mark.parametrize("probe", [knn_probe.probe, linear_probe.probe])
def test_published_split_tests_its_own_part_alone(world: SimpleNamespace, probe: object) -> None:
    """Draws of a published split are scored over the test part; validation rows are not touched."""
    labels = pd.read_parquet(world.labels)
    parts = np.array(["train", "train", "test", "validation"], object)
    labels["split"] = parts[labels["location_id"].str[1:].astype(int) % 4]
    write_table(labels, world.labels, "labels")
    task = Task.from_settings("t", settings(divisions=["fixed"], folds=3, target="biome", train_share=0.5))
    data = read_task_data(world.store, world.labels, task)
    document = evaluate(data, task, probe=probe, seed=0)
    (method,), found = document["folds"], document["folds"]["fixed"]
    assert method == "fixed" and found["n_draws"] == 3 and found["sizes"] == [sum(data.split == "test")]
    assert len(found["scores"]["macro_f1"]["folds"]) == 3
    assert found["pooled"]["accuracy"] > 0.8
    n_train = {fit["n_train"] + fit.get("n_validation", 0) for fit in found["fits"]}
    assert n_train == {round(sum(data.split == "train") / 2)}
    used = data.split != "validation"
    assert sum(output["n"] for output in found["per_output"]) == 3 * sum(data.split == "test")
    assert used.sum() < len(used)


def test_seasons_side_by_side(world: SimpleNamespace) -> None:
    """Concatenated in the order named, for the places that have them all."""
    task = Task.from_settings("t", settings(seasons=list(SEASONS)[::-1], combine="concatenate"))
    data = read_task_data(world.store, world.labels, task)
    assert data.features.shape[1] == 12
    row = int(np.flatnonzero(data.location_id == "p060")[0])
    np.testing.assert_array_equal(data.features[row], world.embedding[60, ::-1].ravel())
    assert not {f"p{i:03d}" for i in range(25)} & set(data.location_id)
