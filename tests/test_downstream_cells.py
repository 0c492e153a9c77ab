"""Targets with y and x: cells of feature maps, drawn, divided by location, learned from as scikit-learn would."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor
from threadpoolctl import threadpool_limits

from pretrain.downstream import embed_maps, knn_probe, linear_probe
from pretrain.downstream.cells import cells_of, read_cells
from pretrain.downstream.folds import make_folds
from pretrain.downstream.tasks import Task
from workflow_scripts.core import store, tables

N, SIDE_PX, CROP_PX = 24, 96, 64
"""A map of ResNet-18 has 2 × 2 cells over the inner 64 of 96 pixels."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Patches of random quarters, their feature maps, a target of pixels in another order; gaps in both."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    places = pd.DataFrame(
        {"location_id": [f"p{i:02d}" for i in rng.permutation(N)], "lon": 9 + rng.random(N), "lat": 47.0}
    )
    path = folder / "patches.zarr"
    store.create_store(
        path, locations=places, seasons=("a", "b"), size_m=10 * SIDE_PX, per_shard=N, codec="blosc-lz4-bitshuffle"
    )  # fmt: skip
    arrays = store.empty_shard(path, 0)
    levels = rng.integers(300, 4000, (N, 1, 4, 3, 3))
    arrays["dn10"][:] = levels.repeat(SIDE_PX // 3, 3).repeat(SIDE_PX // 3, 4)
    arrays["dn10"] += rng.integers(0, 300, arrays["dn10"].shape).astype(np.uint16)
    present = np.ones((N, 2), bool)
    present[3] = present[5, 0] = False
    store.write_shard(path, 0, arrays)
    index = pd.DataFrame(
        {
            "location_id": places["location_id"].repeat(2),
            "season": ["a", "b"] * N,
            "status": np.where(present.ravel(), "ok", "missing"),
            "checksum": "c",
        }
    )
    index.to_parquet(folder / "patches.parquet")
    embed_maps.main(
        SimpleNamespace(
            input=SimpleNamespace(
                encoder=[], table=[], parts=[],
                patches=str(folder / "patches.parquet"), store=str(path / "zarr.json"),
            ),
            output=SimpleNamespace(store=str(folder / "maps.zarr/zarr.json")),
            params=SimpleNamespace(
                model={"encoder": "random", "backbone": "resnet18", "bands": ["B04", "B08"], "crop_px": CROP_PX, "seed": 1}
            ),
            wildcards=SimpleNamespace(model="m", dataset="set"),
            threads=1,
        )
    )  # fmt: skip
    target = levels[:, 0, 3].repeat(SIDE_PX // 3, 1).repeat(SIDE_PX // 3, 2) / 100 + rng.normal(
        size=(N, SIDE_PX, SIDE_PX)
    )
    target[7] = np.nan  # a place without labels
    target[8, 16:48, 16:48] = np.nan  # one cell without
    other = rng.permutation(N)
    ids = places["location_id"].to_numpy(object)
    truth = xr.Dataset(
        {"height": (("location", "y", "x"), target[other].astype(np.float32))},
        coords={"location_id": ("location", ids[other])},
    )
    truth.to_zarr(folder / "truth.zarr", zarr_format=3)
    tables.write_table(pd.DataFrame({"location_id": ids}), folder / "labels.parquet", "labels")
    return SimpleNamespace(folder=folder, ids=ids, target=target, present=present, places=places)


SETTINGS = {
    "dataset": "set", "target": "height", "kind": "regression", "cells": 1000, "mode": "fast", "folds": 3, "k": 5,
    "divisions": ["random"],
}  # fmt: skip


def read(world: SimpleNamespace, **changes: object) -> object:
    """Read the rows of a task."""
    return read_cells(
        world.folder / "maps.zarr",
        [world.folder / "truth.zarr"],
        labels=world.folder / "labels.parquet",
        task=Task.from_settings("t", SETTINGS | changes),
        seed=3,
    )


def flatten(world: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give location number (of sorted ids), features and target of every known cell, by plain loops."""
    maps = xr.open_zarr(world.folder / "maps.zarr", chunks=None)["features"].values.astype(np.float32)
    rows = []
    for i in np.argsort(world.ids):
        for y in range(2):
            for x in range(2):
                seasons = [maps[i, s, :, y, x] for s in range(2) if world.present[i, s]]
                pixels = world.target[i, 16 + 32 * y : 48 + 32 * y, 16 + 32 * x : 48 + 32 * x]
                if seasons and np.isfinite(pixels).all():
                    rows.append((world.ids[i], np.mean(seasons, axis=0), pixels.mean()))
    names, features, target = zip(*rows, strict=True)
    return np.array(names, object), np.array(features), np.array(target)


def run(world: SimpleNamespace, module: object, **changes: object) -> dict:
    """Run a probe's rule."""
    module.main(
        SimpleNamespace(
            input=SimpleNamespace(
                embeddings=str(world.folder / "maps.zarr/zarr.json"),
                labels=str(world.folder / "labels.parquet"),
                label_maps=[str(world.folder / "truth.zarr")],
            ),
            output=SimpleNamespace(scores=str(world.folder / "scores.json")),
            params=SimpleNamespace(task=SETTINGS | changes, seed=3),
            wildcards=SimpleNamespace(model="m", task="t"),
        )
    )
    return json.loads((world.folder / "scores.json").read_text())


def test_rows_are_the_cells_of_plain_loops(world: SimpleNamespace) -> None:
    """Features and targets meet by id and place, seasons averaged, gaps left out and counted."""
    data = read(world)
    names, features, target = flatten(world)
    assert data.location_id[data.location].tolist() == names.tolist()
    np.testing.assert_allclose(data.features, features, rtol=1e-5)
    np.testing.assert_allclose(data.targets[:, 0], target, rtol=1e-5)
    assert len(target) == 4 * (N - 2) - 1
    assert data.counts == {
        "n_locations": N, "n_without_patch": 1, "n_without_label": 1, "n_used": N - 2,
        "n_cells": len(target), "n_cells_used": len(target),
    }  # fmt: skip
    side_by_side = read(world, combine="concatenate")
    assert side_by_side.features.shape == (4 * (N - 3) - 1, 2 * features.shape[1])


@pytest.mark.parametrize("module", [linear_probe, knn_probe])
def test_scores_are_scikit_learns_on_the_flattened_arrays(
    world: SimpleNamespace, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fold's R²: ridge at the penalty chosen, and cosine neighbors with the same weights, no cell of a tested
    location among those learned from."""
    monkeypatch.setattr(linear_probe, "TOLERANCE", 1e-9)
    document = run(world, module)
    names, features, target = flatten(world)
    used = np.unique(names)
    places = world.places.set_index("location_id").loc[used]
    (folds,) = make_folds(
        used, np.zeros(len(used)), lon=places["lon"].to_numpy(), lat=places["lat"].to_numpy(),
        n_folds=3, block_km=100, seed=3, methods=["random"],
    )  # fmt: skip
    of_row = dict(zip(used, folds.fold, strict=True))
    fold = np.array([of_row[name] for name in names])
    division = document["folds"]["random"]
    for number, (fit, score) in enumerate(
        zip(division["fits"], division["scores"]["r2"]["folds"], strict=True)
    ):
        train, test = fold != number, fold == number
        x, y = features[train].astype(float), target[train]
        if module is linear_probe:
            assert fit["n_train"] + fit["n_validation"] == train.sum()
            varies = x.var(axis=0) > 1e-4 * features.var(axis=0)
            center, scale = (
                x.mean(axis=0),
                np.where(varies, x.std(axis=0), np.maximum(features.std(axis=0), 1e-6)),
            )
            ridge = Ridge(alpha=fit["penalty"] * len(y) / 2).fit((x - center) / scale, y)
            predicted = ridge.predict((features[test] - center) / scale)
        else:
            near = KNeighborsRegressor(5, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
            predicted = near.fit(x, y).predict(features[test].astype(float))
        assert score == pytest.approx(r2_score(target[test], predicted), abs=2e-3)
    assert document["counts"]["n_cells_used"] == len(target)


def test_cells_bound_what_is_read(world: SimpleNamespace) -> None:
    """As many cells of each location, the same ones whatever else is in the set; fewer than locations is an error."""
    whole, data = read(world), read(world, cells=2 * (N - 1))
    assert len(data.features) == 2 * (N - 2)
    assert np.bincount(data.location).tolist() == [2] * (N - 2)
    for row, place in zip(data.features, data.location, strict=True):
        assert (whole.features[whole.location == place] == row).all(axis=1).sum() == 1
    assert len(np.unique([read(world, cells=N).features[0].tobytes() for _ in range(2)])) == 1
    with pytest.raises(ValueError, match=f"cells = 4, but {N - 1} locations have a value"):
        read(world, cells=4)
    with pytest.raises(ValueError, match="expected an array 'depth' with dims"):
        read(world, target="depth")


def test_cells_by_hand() -> None:
    """Means and most frequent classes of the pixels whose center lies in a cell; half of them must be known."""
    pixels = np.arange(36.0).reshape(1, 6, 6)
    whole = cells_of(pixels, (3, 2), share=1, is_class=False)
    np.testing.assert_allclose(whole[0], [[4, 7], [16, 19], [28, 31]])
    inner = cells_of(pixels, (1, 2), share=2 / 3, is_class=False)
    np.testing.assert_allclose(inner[0], [[pixels[0, 1:5, 1:3].mean(), pixels[0, 1:5, 3:5].mean()]])
    pixels[0, :2, :2] = np.nan
    pixels[0, 0, 4] = np.nan
    found = cells_of(pixels, (3, 3), share=1, is_class=False)[0]
    assert np.isnan(found[0, 0]) and found[0, 2] == pytest.approx((5 + 10 + 11) / 3)
    codes = np.array([[[7, 7, 3, 3], [3, -1, 7, -1], [-1, -1, 3, 3], [-1, 3, 7, 7]]])
    np.testing.assert_array_equal(cells_of(codes, (2, 2), share=1, is_class=True)[0], [[7, 3], [np.nan, 3]])
    with pytest.raises(ValueError, match="bring it to 8 pixels or more"):
        cells_of(pixels, (4, 4), share=0.5, is_class=False)


def test_classes_of_cells(world: SimpleNamespace) -> None:
    """Classes are those of most pixels; ignored codes count as missing; folds are stratified by location."""
    codes = np.where(np.isfinite(world.target), (world.target > 20).astype(int), -1).astype(np.int16)
    codes[0] = 9
    truth = xr.Dataset(
        {"cover": (("location", "y", "x"), codes)}, coords={"location_id": ("location", world.ids)}
    )
    truth.to_zarr(world.folder / "cover.zarr", zarr_format=3, mode="w")
    task = Task.from_settings(
        "t", {**SETTINGS, "target": "cover", "kind": "classification", "classes": [0, 1], "ignore": [9]}
    )
    data = read_cells(
        world.folder / "maps.zarr",
        [world.folder / "cover.zarr"],
        labels=world.folder / "labels.parquet",
        task=task,
        seed=3,
    )
    assert world.ids[0] not in data.location_id and len(data.location_id) == N - 3
    assert (data.targets.sum(axis=1) == 1).all()
    share = np.array([data.targets[data.location == i, 1].mean() for i in range(len(data.location_id))])
    strata = data.strata(is_stratified=True)
    assert (strata[share > 0.5] == 1).all() and (strata[share < 0.5] == 0).all()


def test_encoders_without_maps_are_named(world: SimpleNamespace) -> None:
    """A mean spectrum has none."""
    job = SimpleNamespace(
        input=SimpleNamespace(
            encoder=[], table=[], parts=[],
            patches=str(world.folder / "patches.parquet"), store=str(world.folder / "patches.zarr/zarr.json"),
        ),
        output=SimpleNamespace(store=str(world.folder / "none.zarr/zarr.json")),
        params=SimpleNamespace(model={"encoder": "mean_spectrum", "bands": ["B04"], "seed": 0}),
        wildcards=SimpleNamespace(model="m", dataset="set"),
        threads=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="encoder 'mean_spectrum' has no feature maps"):
        embed_maps.main(job)
    assert not Path(world.folder / "none.zarr").exists()
    for settings, message in (
        ({"kind": "multilabel", "classes": [1, 2]}, "`cells` go with classification and regression"),
        ({"kind": "classification", "classes": "labels"}, "needs its classes listed or named"),
    ):
        with pytest.raises(ValueError, match=message):
            Task.from_settings("t", SETTINGS | settings)
