"""The road from composites to seasons on the made world, against its truth.

Needs the world's files: in resources/demo (after `make demo`), or in the folder SSL4ECO_DEMO_WORLD.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from workflow_scripts import define_seasons, estimate_phenology, extract_greenness, read_tile
from workflow_scripts.core import grid, tables
from workflow_scripts.core.seasons import TRANSITIONS, circular_difference

YEARS = [2019, 2023]
SAME_CYCLE_DAYS = 60


@pytest.fixture(scope="module")
def world():
    root = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("SSL4ECO_DEMO_WORLD"), root / "resources" / "demo"):
        if folder and (Path(folder) / "truth" / "phenology.parquet").exists():
            return Path(folder)
    pytest.skip("the made world is absent: run `make demo` or set SSL4ECO_DEMO_WORLD")


@pytest.fixture(scope="module")
def result(world, tmp_path_factory):
    """Truth, cycles and seasons at the places whose truth is known."""
    folder = tmp_path_factory.mktemp("world")
    truth = pd.read_parquet(world / "truth" / "phenology.parquet")
    places = truth[["lon", "lat"]].drop_duplicates().reset_index(drop=True)
    places["location_id"] = [f"p{i}" for i in range(len(places))]
    ids = pd.Index(places["location_id"])
    catalog = {"name": "world", "type": "geoparquet", "path": str(world / "modis.parquet")}
    parts = []
    for tile in np.unique(grid.modis_tile(places["lon"], places["lat"])):
        found = read_tile.stac.search_items(
            catalog, tile=tile, years=YEARS, kind="modis", collection="modis-13A1-061"
        )
        items = read_tile.select_items(found, ["terra"])
        assert not read_tile.missing_composites(items, YEARS, ["terra"])
        here = places[grid.modis_tile(places["lon"], places["lat"]) == tile]
        table = read_tile.read_points(items, here, index="evi", threads=2)
        parts.append(extract_greenness.pad_series(table, ids, tile))
    store = folder / "greenness.zarr"
    merged = extract_greenness.merge_series(parts, len(places))
    extract_greenness.write_store(store, places, merged, index="evi", source="world")
    estimate_phenology.main(
        SimpleNamespace(
            input=SimpleNamespace(greenness=store / "zarr.json"),
            output=SimpleNamespace(cycles=folder / "cycles.parquet"),
            params=SimpleNamespace(settings={}),
            threads=2,
        )
    )
    cycles = tables.read_table(folder / "cycles.parquet", "cycles")
    return truth.merge(places), cycles, define_seasons.phenology_seasons(places, cycles)


def test_each_date_is_within_six_days_on_average(result):
    truth, cycles, _ = result
    inner = truth[truth["year"].between(YEARS[0] + 1, YEARS[1] - 1)]
    pairs = inner.merge(cycles, on="location_id", suffixes=("", "_ours"))
    pairs["apart"] = (pairs["peak_ours"] - pairs["peak"]).dt.days.abs()
    pairs = pairs[pairs["apart"] <= SAME_CYCLE_DAYS].sort_values("apart")
    pairs = pairs.drop_duplicates(["location_id", "year", "cycle"])
    error = {t: (pairs[f"{t}_ours"] - pairs[t]).dt.days.abs().mean() for t in TRANSITIONS}
    assert len(pairs) / len(inner) >= 0.9
    four = {t: round(error[t], 1) for t in ("greenup", "maturity", "senescence", "dormancy")}
    assert max(four.values()) <= 6, four


def test_windows_follow_the_hemisphere_and_nothing_is_left_out(result):
    truth, _, seasons = result
    assert set(seasons["source"]) <= {"observed", "filled"}
    places = truth.drop_duplicates("location_id").set_index("location_id")[["lat"]]
    summer = seasons[seasons["season"] == "summer"].set_index("location_id").join(places)
    north, south = summer[summer["lat"] > 30], summer[summer["lat"] < -30]
    assert np.median(np.abs(circular_difference(north["target_doy"], 200))) < 45
    assert np.median(np.abs(circular_difference(south["target_doy"], 20))) < 120
