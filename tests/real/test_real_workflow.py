"""The workflow itself on real input: Snakemake, the targets a user asks for, real files."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import yaml

from tests.real.test_real_patches import locations_at, patch_items
from tests.real.test_real_phenology import brazil, compare, flux_sites, read_reference
from tests.test_pipeline import run
from workflow_scripts.core.seasons import TRANSITIONS

pytestmark = pytest.mark.real
CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())


@pytest.fixture(scope="module")
def folder(real_data, tmp_path_factory):
    """A working folder with the tables that config.yaml names."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "data").symlink_to(real_data)
    for name, read in (("fluxsites", flux_sites), ("brazil", brazil)):
        sites, series = read(real_data / "phenology")
        sites.to_csv(folder / f"{name}_sites.csv", index=False)
        series.to_csv(folder / f"{name}_series.csv", index=False)
    items = patch_items(real_data / "sentinel2" / "bigearthnet_example")
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    sites = pd.DataFrame(locations_at(items))[["location_id", "lon", "lat"]]
    sites.to_csv(folder / "bigearthnet_sites.csv", index=False)
    return folder


def part(*names):
    """The configuration of some of the datasets."""
    return {**CONFIG, "datasets": {name: CONFIG["datasets"][name] for name in names}}


def test_sample_on_the_global_grid(folder, capsys):
    began = time.monotonic()
    run(folder, "sample", config=part("globe"))
    took = time.monotonic() - began
    locations = pd.read_parquet(folder / "results/datasets/globe/locations.parquet")
    south = (locations["lat"] < -60).mean()
    with capsys.disabled():
        print(
            f"\nsample, 23 km: {len(locations)} locations, {len(locations) * (1 - south):.0f} north of 60 S, "
            f"{locations['eco_id'].nunique()} ecoregion ids, {took:.0f} s with Snakemake"
        )
    assert 270_000 < len(locations) < 285_000
    assert locations["location_id"].is_unique


@pytest.mark.parametrize("name", ["fluxsites", "brazil"])
def test_phenology_through_the_file_sources(folder, real_data, name, capsys):
    run(folder, "phenology", config=part(name))
    cycles = pd.read_parquet(folder / f"results/datasets/{name}/phenology_cycles.parquet")
    reference = read_reference(real_data / f"phenology/reference_bu_lam3000_{name}.csv")
    differences = compare(cycles.astype({"year": int, "cycle": int}), reference)
    coverage = len(differences) / len(reference)
    error = differences[list(TRANSITIONS)].abs().to_numpy().mean()
    with capsys.disabled():
        print(f"\n{name}: coverage {coverage:.3f}, mean absolute error {error:.2f} days")
    assert coverage > 0.93 and error <= 1.0


def test_patches_equal_the_source_pixels(folder, real_data):
    run(folder, "patches", config=part("bigearthnet"))
    results = folder / "results/datasets/bigearthnet"
    index = pd.read_parquet(results / "patches.parquet").query("status == 'ok'")
    store = xr.open_zarr(results / "patches.zarr")
    seasons = store["season"].values.tolist()
    n_compared = 0
    for row in index.itertuples():
        source = real_data / "sentinel2/bigearthnet_example" / row.item_id
        for suffix in ("10", "20", "60"):
            for position, band in enumerate(store[f"band{suffix}"].values):
                patch = store[f"dn{suffix}"][row.location, seasons.index(row.season), position].values
                with rasterio.open(source / f"{row.item_id}_{band}.tif") as file:
                    pixels = file.read(1)
                inside = patch[: pixels.shape[0], : pixels.shape[1]]
                if suffix == "60":  # the covering window may begin outside the file
                    rows, columns = np.nonzero(patch)
                    inside = patch[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                np.testing.assert_array_equal(inside, pixels)
                n_compared += pixels.size
        assert np.isnan(row.cloud_fraction)
    assert len(index) == 4 and n_compared == 4 * (4 * 120**2 + 6 * 60**2 + 2 * 20**2)
