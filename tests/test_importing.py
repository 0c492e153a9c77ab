"""Miniatures of the published archives: imported, verified, embedded, evaluated; and what can be wrong."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import made_archives as made
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from threadpoolctl import threadpool_limits

from pretrain.downstream import embed_maps, embed_patches, knn_probe, linear_probe, write_submission
from workflow_scripts import (
    import_archive,
    import_label_maps,
    import_patches,
    index_patches,
    unpack_archives,
    verify_store,
)
from workflow_scripts.core import store, tables
from workflow_scripts.importing import biomassters, geolifeclef
from workflow_scripts.importing.base import open_folders, read_raster
from workflow_scripts.importing.layouts import LAYOUTS

MAKERS = {
    "bigearthnet": made.make_bigearthnet,
    "bigearthnet-v2": made.make_bigearthnet_v2,
    "treesatai": made.make_treesatai,
    "biomassters": made.make_biomassters,
    "geolifeclef-2023": made.make_geolifeclef,
}
OPTIONS = {"biomassters": {"seasons": ["january", "july"]}}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def scan(folder, archive, form, **options):
    """Run import_archive as the rule does."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("locations.parquet", "jobs.json", "samples.parquet", "labels.parquet")
    output = SimpleNamespace(**{name.split(".")[0]: str(folder / name) for name in names})
    output.metadata = str(folder / "patches.zarr" / "zarr.json")
    options = {"format": form, "path": str(archive), **OPTIONS.get(form, {}), **options}
    import_archive.main(
        SimpleNamespace(
            input=SimpleNamespace(unpacked=[]),
            output=output,
            params=SimpleNamespace(options=options, codec="blosc-lz4-bitshuffle"),
            wildcards=SimpleNamespace(dataset=form),
        )
    )
    return json.loads((folder / "jobs.json").read_text())["shards"]


def read_shard(folder, archive, form, shard):
    """Run import_patches as the rule does."""
    import_patches.main(
        SimpleNamespace(
            input=SimpleNamespace(
                samples=str(folder / "samples.parquet"), store=str(folder / "patches.zarr/zarr.json")
            ),
            output=SimpleNamespace(retrieved=str(folder / f"retrieved/{shard}.parquet")),
            params=SimpleNamespace(format=form, path=str(archive)),
            wildcards=SimpleNamespace(dataset=form, shard=str(shard)),
        )
    )


def bring_in(folder, archive, form, **options):
    """Import an archive and index it."""
    shards = scan(folder, archive, form, **options)
    for shard in shards:
        read_shard(folder, archive, form, shard)
    job = SimpleNamespace(
        input=SimpleNamespace(
            locations=str(folder / "locations.parquet"),
            retrieved=[str(folder / f"retrieved/{shard}.parquet") for shard in shards],
        ),
        output=SimpleNamespace(patches=str(folder / "patches.parquet")),
        params=SimpleNamespace(size_m=LAYOUTS[form]["size_m"], scenes={"catalog": "a", "years": [0, 0]}),
        wildcards=SimpleNamespace(dataset=form),
    )
    index_patches.main(job)
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Format → folder of the dataset, its archive, what was made; imported once per module."""
    found = {}

    def get(form):
        if form not in found:
            root = tmp_path_factory.mktemp(form)
            (root / "archive").mkdir()
            truth = MAKERS[form](root / "archive")
            folder = bring_in(root / "dataset", root / "archive", form, per_shard=5)
            found[form] = SimpleNamespace(folder=folder, archive=root / "archive", truth=truth)
        return found[form]

    return get


@pytest.mark.parametrize("form", MAKERS)
def test_what_is_stored_is_verified_and_lists_its_bands(imported, form):
    folder = imported(form).folder
    index = tables.read_table(folder / "patches.parquet", "patches")
    locations = tables.read_table(folder / "locations.parquet", "locations", ["location_id", "lon", "lat"])
    report = verify_store.verify(folder / "patches.zarr", index, locations)
    assert report["is_good"], report["findings"]
    dataset = store.open_store(folder / "patches.zarr")
    for name, entry in LAYOUTS[form]["arrays"].items():
        assert dataset[name.replace("dn", "band")].values.tolist() == entry["bands"]
        assert dataset[name].shape[-2:] == (entry["side_px"],) * 2
    assert {"dn10", "dn20", "dn60", "scl"} & set(dataset) == set(LAYOUTS[form]["arrays"])
    assert "10,000" in dataset.attrs["scaling"]
    damaged = index.assign(checksum="0" * 32)
    assert not verify_store.verify(folder / "patches.zarr", damaged, locations)["is_good"]


@pytest.mark.parametrize("form", MAKERS)
def test_each_band_stands_under_its_name(imported, form):
    """Every band of every sample has its own level, wherever the format puts it."""
    case = imported(form)
    dataset = store.open_store(case.folder / "patches.zarr")
    ids = dataset["location_id"].values.tolist()
    keys = {"bigearthnet": "name", "treesatai": "name", "biomassters": "chip", "geolifeclef-2023": "patch"}
    key = keys.get(form, "patch_id")
    kinds = case.truth["kind"] if "kind" in case.truth else case.truth.index % 2
    by_id = {str(name).removesuffix(".tif"): kind for name, kind in zip(case.truth[key], kinds, strict=True)}
    n_seen = 0
    for row, name in enumerate(ids):
        if name.startswith("test-"):
            continue
        for season in range(dataset.sizes["season"]):
            if np.isnan(dataset["valid_fraction"].values[row, season]):
                continue
            for array, entry in LAYOUTS[form]["arrays"].items():
                means = dataset[array].values[row, season].astype(float).mean(axis=(1, 2))
                expected = [made.level(band, by_id[name]) for band in entry["bands"]]
                # noise of ±20 DN; 8 bits and a JPEG cost GeoLifeCLEF some DN more
                np.testing.assert_allclose(means, expected, atol=8 if form != "geolifeclef-2023" else 25)
            n_seen += 1
    assert n_seen >= 6


TASKS = {
    "bigearthnet": {"target": "labels", "kind": "multilabel", "classes": "bigearthnet-19", "metric": "micro_map"},
    "bigearthnet-v2": {"target": "labels", "kind": "multilabel", "classes": "bigearthnet-19", "metric": "micro_map"},
    "treesatai": {"target": "genus", "kind": "multilabel", "classes": "treesatai-genera"},
    "biomassters": {"target": biomassters.BINS, "kind": "distribution", "seasons": ["july"]},
    "geolifeclef-2023": {
        "target": "species", "kind": "multilabel", "classes": "labels", "pos_weight": 12.0, "k": 1, "divisions": ["blocked"],
    },
}  # fmt: skip


def embed(case, form, tmp_path, *, module=embed_patches, model=None):
    """Embed a dataset's patches, by their mean spectrum unless another model is given."""
    bands = ["B03", "B04", "B08"]
    embeddings = tmp_path / "embeddings.zarr"
    module.main(
        SimpleNamespace(
            input=SimpleNamespace(
                encoder=[],
                table=[],
                parts=[],
                patches=str(case.folder / "patches.parquet"),
                store=str(case.folder / "patches.zarr/zarr.json"),
            ),
            output=SimpleNamespace(store=str(embeddings / "zarr.json")),
            params=SimpleNamespace(model=model or {"encoder": "mean_spectrum", "bands": bands, "seed": 0}),
            wildcards=SimpleNamespace(model="mean-spectrum", dataset=form),
            threads=1,
        )
    )
    return embeddings


@pytest.mark.parametrize("form", TASKS)
def test_imported_and_evaluated_end_to_end(imported, form, tmp_path):
    """The mean spectrum tells the two kinds of ground apart; both probes, the published split."""
    case = imported(form)
    embeddings = embed(case, form, tmp_path)
    task = {"dataset": form, "divisions": ["fixed"], "folds": 2, "mode": "fast", "k": 2, "block_km": 60}
    task |= TASKS[form]
    for name, module in (("linear", linear_probe), ("knn", knn_probe)):
        module.main(
            SimpleNamespace(
                input=SimpleNamespace(
                    embeddings=str(embeddings / "zarr.json"), labels=str(case.folder / "labels.parquet")
                ),
                output=SimpleNamespace(scores=str(tmp_path / f"{name}.json")),
                params=SimpleNamespace(task=task, seed=3),
                wildcards=SimpleNamespace(model="mean-spectrum", task=form),
            )
        )
        document = json.loads((tmp_path / f"{name}.json").read_text())
        (division,) = document["folds"].values()
        pooled = division["pooled"][document["main_metric"]]
        # eight chips are too few to choose the linear head's penalty by
        assert pooled > (-1 if (form, name) == ("biomassters", "linear") else 0.85), (name, pooled)


def test_biomass_maps_are_learned_cell_by_cell(imported, tmp_path):
    """Pixels of biomass beside feature maps: imported, joined by chip, the published split, both probes."""
    case = imported("biomassters")
    places = {"labels": str(case.folder / "labels.parquet")}
    import_label_maps.main(
        SimpleNamespace(
            input=SimpleNamespace(**places),
            output=SimpleNamespace(store=str(tmp_path / "label_maps.zarr/zarr.json")),
            params=SimpleNamespace(format="biomassters", path=str(case.archive)),
        )
    )
    stored = xr.open_zarr(tmp_path / "label_maps.zarr", chunks=None)["agbm"]
    chip = case.truth["chip"][1]
    row = stored["location_id"].values.tolist().index(chip)
    np.testing.assert_array_equal(np.unique(stored[row]), [130, 900])
    assert (stored[row, :128] == 900).all() and stored.attrs["units"] == "Mg ha-1"
    model = {"encoder": "random", "backbone": "resnet18", "bands": ["B03", "B08"], "crop_px": 64, "seed": 0}
    embed(case, "biomassters", tmp_path, module=embed_maps, model=model)
    task = {
        "dataset": "d",
        "target": "agbm",
        "kind": "regression",
        "cells": 48,
        "divisions": ["fixed"],
        "folds": 2,
    }
    task |= {"mode": "fast", "seasons": ["july"], "k": 1}
    for module in (linear_probe, knn_probe):
        module.main(
            SimpleNamespace(
                input=SimpleNamespace(
                    embeddings=str(tmp_path / "embeddings.zarr/zarr.json"),
                    label_maps=[str(tmp_path / "label_maps.zarr/zarr.json")],
                    **places,
                ),
                output=SimpleNamespace(scores=str(tmp_path / "scores.json")),
                params=SimpleNamespace(task=task, seed=3),
                wildcards=SimpleNamespace(model="m", task="t"),
            )
        )
        document = json.loads((tmp_path / "scores.json").read_text())
        assert document["counts"]["n_cells"] == 12 * 4 and document["counts"]["n_cells_used"] == 48
        # kinds of ground, and a network's zero padding tells upper cells from lower ones
        assert document["folds"]["fixed"]["pooled"]["r2"] > 0.5, module


def test_submission_of_the_blind_surveys(imported, tmp_path):
    """Every blind survey once, by its Id, with the species of its kind; one without a picture too."""
    case = imported("geolifeclef-2023")
    embeddings = embed(case, "geolifeclef-2023", tmp_path)
    labels = pd.read_parquet(case.folder / "labels.parquet")
    extra = {"location_id": "test-9", "species": None, "split": "blind", "submission_id": "10"}
    tables.write_table(pd.concat([labels, pd.DataFrame([extra])]), tmp_path / "labels.parquet", "labels")
    task = {"dataset": "d", "mode": "fast", **TASKS["geolifeclef-2023"], "pos_weight": 1.0}
    write_submission.main(
        SimpleNamespace(
            input=SimpleNamespace(
                embeddings=str(embeddings / "zarr.json"), labels=str(tmp_path / "labels.parquet")
            ),
            output=SimpleNamespace(submission=str(tmp_path / "submission.csv")),
            params=SimpleNamespace(task=task, seed=3),
            wildcards=SimpleNamespace(model="m", task="clef"),
        )
    )
    kinds = case.truth["kind"][case.truth["split"] == "blind"]
    expected = [["7 40", "40 905"][kind] for kind in kinds]
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "Id,Predicted" and lines[1:5] == [f"{i + 1},{text}" for i, text in enumerate(expected)]
    assert lines[5].startswith("10,") and "40" in lines[5].split(",")[1].split()
    none = write_submission.name_labels(np.array([[0.1, 0.4, 0.2], [0.9, 0.1, 0.5]]), [5, 6, 7])
    assert none == ["6", "5 7"]


def test_labels_and_splits_of_bigearthnet(imported):
    """Nineteen classes in their order; airports are none of them; what is in no list is left out."""
    case = imported("bigearthnet")
    labels = pd.read_parquet(case.folder / "labels.parquet").set_index("location_id")
    listed = case.truth[case.truth["part"] != ""].set_index("name")
    assert set(labels.index) == set(listed.index)
    expected = [["Coniferous forest", "Inland wetlands"], ["Arable land", "Pastures"]]
    for name, kind in listed["kind"].items():
        if name == case.truth["name"].iloc[-1]:
            assert labels.loc[name, "labels"] is None
        else:
            assert list(labels.loc[name, "labels"]) == expected[kind]
    assert labels["split"].replace("validation", "val").to_dict() == listed["part"].to_dict()
    index = tables.read_table(case.folder / "patches.parquet", "patches").set_index("location_id")
    patch = index.loc["S2A_MSIL2A_20170617T113321_1_11"]
    assert (patch["origin_x"], patch["origin_y"], patch["epsg"]) == (*made.corner_of(1), 32629)
    assert patch["geometry"].contains_properly(patch["geometry"].centroid)
    assert abs(patch["geometry"].centroid.x - patch["lon"]) < 1e-4
    assert patch["datetime"] == pd.Timestamp("2017-06-17 11:33:21")


def test_months_of_biomassters_count_from_september(imported):
    """Number 04 is January and 10 is July; an unpublished image is missing with a reason."""
    case = imported("biomassters")
    index = tables.read_table(case.folder / "patches.parquet", "patches")
    assert index["season"].unique().tolist() == ["january", "july"]
    july = index[(index["season"] == "july") & (index["status"] == "ok")]
    assert july["item_id"].str.endswith("_S2_10").all() and len(july) == 12
    january = index[index["season"] == "january"].set_index("location_id")
    assert january["item_id"][case.truth["chip"][:2]].str.endswith("_S2_04").all()
    assert (january["reason"][case.truth["chip"][2:]] == "not_published").all()
    labels = pd.read_parquet(case.folder / "labels.parquet").set_index("location_id")
    shares = labels[biomassters.BINS].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # 30 t/ha is the third bin, 130 the seventh, and what is clipped at 500 the last
    chip = labels.loc[case.truth["chip"][0], biomassters.BINS].tolist()
    assert chip == [0, 0, 0.75, 0, 0, 0, 0, 0.25]
    other = labels.loc[case.truth["chip"][1], biomassters.BINS].tolist()
    assert other == [0, 0, 0, 0, 0, 0, 0.5, 0.5]
    table = pd.DataFrame({"filename": ["x_S2_00.tif"], "chip_id": ["x"], "month": ["January"]})
    with pytest.raises(ValueError, match="should be of september, but the metadata say 'january'"):
        biomassters._month(table.iloc[0].to_dict())


def test_surveys_of_geolifeclef(imported):
    """One row per survey with all its species; the blind ones are known as such and have none."""
    case = imported("geolifeclef-2023")
    labels = pd.read_parquet(case.folder / "labels.parquet")
    train = labels[labels["split"] == "train"]
    assert len(train) == 16 and {tuple(codes) for codes in train["species"]} == {("7", "40"), ("40", "905")}
    blind = labels[labels["split"] == "blind"]
    assert sorted(blind["submission_id"]) == ["1", "2", "3", "4"] and blind["species"].isna().all()
    dn = np.array([[0, 1, 400, 2500, 9999]])
    back = geolifeclef.decode(made.encode_picture(dn))
    assert back[0, 0] == 0 and (back[0, 2:] > 0).all()
    np.testing.assert_allclose(back[0, 2:], dn[0, 2:], rtol=0.03)


def test_labels_below_the_share_do_not_count(imported, tmp_path):
    """TreeSatAI's threshold of the area is an option; the paper's is 0."""
    case = imported("treesatai")
    labels = pd.read_parquet(case.folder / "labels.parquet")
    assert {tuple(genus) for genus in labels["genus"]} == {("Abies", "Cleared"), ("Cleared", "Quercus")}
    scan(tmp_path / "d", case.archive, "treesatai", min_label_share=0.07)
    found = pd.read_parquet(tmp_path / "d/labels.parquet")
    assert {tuple(genus) for genus in found["genus"]} == {("Abies",), ("Quercus",)}


PACKED = [
    ("bigearthnet", "tar.gz"),
    ("bigearthnet-v2", "tar.zst"),
    *((form, "zip") for form in MAKERS),
    ("biomassters", "tar"),
]


@pytest.mark.parametrize(("form", "kind"), PACKED)
def test_packed_archives_give_the_same_store(imported, tmp_path, form, kind):
    """Zip and tar files are read where they are, compressed tars are unpacked first; nothing else differs."""
    case = imported(form)
    (tmp_path / "packed").mkdir()
    archive = tmp_path / f"packed/all.{kind}"
    made.pack(case.archive, archive)
    folder = tmp_path / "dataset"
    if kind.startswith("tar."):
        summary = SimpleNamespace(summary=str(folder / "unpacked.json"))
        unpack_archives.main(SimpleNamespace(input=SimpleNamespace(archives=[str(archive)]), output=summary))
    bring_in(folder, tmp_path / "packed", form, per_shard=5)
    for name in ("patches", "locations", "samples", "labels"):
        found, expected = (pd.read_parquet(f / f"{name}.parquet") for f in (folder, case.folder))
        pd.testing.assert_frame_equal(found, expected)
    if form == "biomassters":
        maps = biomassters.read_maps(
            open_folders(tmp_path / "packed", folder), case.truth["chip"][1], "train"
        )
        assert np.unique(maps["agbm"]).tolist() == [130, 900]
    assert (folder / "unpacked").exists() == kind.startswith("tar.")


def test_a_broken_import_goes_on(tmp_path):
    """A shard that is there is not touched."""
    made.make_treesatai(tmp_path / "plain", 12)
    folder = bring_in(tmp_path / "dataset", tmp_path / "plain", "treesatai", per_shard=5)
    before = (folder / "patches.zarr/dn10/c.0.0.0.0.0").stat().st_mtime_ns
    (folder / "patches.zarr/dn10/c.1.0.0.0.0").unlink()
    read_shard(folder, tmp_path / "plain", "treesatai", 1)
    assert (folder / "patches.zarr/dn10/c.0.0.0.0.0").stat().st_mtime_ns == before
    assert (folder / "patches.zarr/dn10/c.1.0.0.0.0").exists()


# ---- what is wrong with an archive -----------------------------------------------------------


@pytest.fixture
def spoil(imported, tmp_path):
    """Copy a miniature to spoil it."""

    def copy(form):
        target = tmp_path / "archive"
        shutil.copytree(imported(form).archive, target)
        return target

    return copy


def attempt(archive, form, tmp_path):
    folder = tmp_path / "dataset"
    for shard in scan(folder, archive, form):
        read_shard(folder, archive, form, shard)


def _first(archive: Path, pattern: str) -> Path:
    return sorted(archive.rglob(pattern))[0]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


SPOILED = {
    "bigearthnet, missing band": (
        "bigearthnet", lambda a: _first(a, "*_1_11_B05.tif").unlink(), r"patch 'S2A_\w+_1_11' lacks band B05",
    ),
    "bigearthnet, unknown label": (
        "bigearthnet", lambda a: edit(_first(a, "*_1_11_labels*.json"), "Pastures", "Moon"), r"unknown label\(s\) \['Moon'\]",
    ),
    "bigearthnet, in two lists": (
        "bigearthnet", lambda a: (a / "val.csv").write_text((a / "train.csv").read_text()), "stand in 'val.csv' and another list",
    ),
    "bigearthnet, twice in a list": (
        "bigearthnet", lambda a: (a / "val.csv").write_text(2 * (a / "val.csv").read_text()), "stand twice",
    ),
    "bigearthnet, two folders of a patch": (
        "bigearthnet", lambda a: shutil.copytree(_first(a, "S2A*_1_11"), a / "again" / "S2A_MSIL2A_20170617T113321_1_11"), "is there twice",
    ),
    "bigearthnet, damaged band": (
        "bigearthnet", lambda a: os.truncate(_first(a, "*_1_11_B02.tif"), 3000), "truncated or damaged",
    ),
    "bigearthnet-v2, no table": (
        "bigearthnet-v2", lambda a: (a / "metadata.parquet").unlink(), "no 'metadata.parquet' in",
    ),
    "bigearthnet-v2, duplicated id": (
        "bigearthnet-v2",
        lambda a: pd.concat([pd.read_parquet(a / "metadata.parquet")] * 2).to_parquet(a / "metadata.parquet"),
        "12 id.s. stand twice",
    ),
    "treesatai, unknown genus": (
        "treesatai", lambda a: edit(a / "labels/TreeSatBA_v9_60m_multi_labels.json", "Quercus\"", "Yucca\""), "unknown genus",
    ),
    "treesatai, in both lists": (
        "treesatai", lambda a: (a / "test_filenames.lst").write_text((a / "train_filenames.lst").read_text()), "stand twice",
    ),
    "treesatai, missing bands": (
        "treesatai",
        lambda a: made.write_tif(_first(a, "*_0_0_WEFL*.tif"), np.ones((10, 6, 6), np.uint16), epsg=32632),
        r"has 10 band\(s\)",
    ),
    "treesatai, missing image": (
        "treesatai", lambda a: _first(a, "*_0_0_WEFL*.tif").unlink(), "is missing",
    ),
    "biomassters, duplicated image": (
        "biomassters",
        lambda a: (p := _first(a, "*.csv")).write_text(p.read_text() + p.read_text().splitlines()[-1] + "\n"),
        "stand twice",
    ),
    "biomassters, truncated image": (
        "biomassters", lambda a: os.truncate(_first(a, "*_S2_10.tif"), 20_000), "truncated or damaged",
    ),
    "geolifeclef, no near infrared": (
        "geolifeclef-2023", lambda a: _first(a / "SatelliteImages/nir", "*.jpeg").unlink(), r"lacks its bands: no file .*nir",
    ),
    "geolifeclef, unknown label": (
        "geolifeclef-2023", lambda a: edit(_first(a, "Presences*.csv"), ";905\n", ";fern\n"), "unknown label: speciesId",
    ),
    "geolifeclef, duplicated id": (
        "geolifeclef-2023", lambda a: edit(_first(a, "Presences*.csv"), ";2.0;43.0;3010000", ";2.1;43.0;3010000"), "several coordinates: 1 id.s. stand twice",
    ),
    "geolifeclef, truncated picture": (
        "geolifeclef-2023", lambda a: os.truncate(_first(a / "SatelliteImages/rgb", "*.jpeg"), 900), "truncated or damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_wrong_is_named(case, spoil, tmp_path):
    form, change, message = SPOILED[case]
    archive = spoil(form)
    change(archive)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        attempt(archive, form, tmp_path)


def test_described_bands_are_read_by_name(tmp_path):
    """A file that says what its bands are is believed, not the order the format documents."""
    values = np.arange(3 * 4, dtype=np.uint16).reshape(3, 2, 2)
    made.write_tif(tmp_path / "a.tif", values, descriptions=["b8a", "B2", "B11"])
    found, *_ = read_raster(tmp_path / "a.tif", n_bands=3, side_px=2, names=["B02", "B11", "B8A"])
    np.testing.assert_array_equal(found, values[[1, 2, 0]])
    with pytest.raises(ValueError, match=r"lacks the band\(s\) \['B12'\]"):
        read_raster(tmp_path / "a.tif", n_bands=3, side_px=2, names=["B02", "B12", "B8A"])
