import json
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests import fabricate
from workflow_scripts import summarize_bands, weigh_locations
from workflow_scripts.core import bands, store, tables

B04, B08 = 2, 3


def pixels(red, near_infrared):
    dn = np.zeros((4, 4, 4), np.uint16)
    dn[B04], dn[B08] = red, near_infrared
    return dn


def test_mean_ndvi_counts_negative_as_zero_and_skips_no_data():
    dn = pixels(100, 300)
    dn[[B04, B08], 0] = [[500], [100]]  # water: NDVI -0.67
    dn[:, 1] = 0
    assert weigh_locations.patch_mean_ndvi(dn) == pytest.approx((8 * 0.5 + 4 * 0) / 12)


def test_mean_ndvi_of_a_patch_without_data_is_missing():
    assert np.isnan(weigh_locations.patch_mean_ndvi(pixels(0, 0)))


def test_clouds_count_as_in_the_paper_unless_masked():
    dn = pixels(100, 300)
    dn[[B04, B08], :2] = 5000  # cloud: NDVI 0
    scl = np.array([[9, 9], [4, 4]], np.uint8)
    assert weigh_locations.patch_mean_ndvi(dn) == pytest.approx(0.25)
    assert weigh_locations.patch_mean_ndvi(dn, scl) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("masked", "expected"),
    [((), 0.125), (bands.SCL_CLOUD, 0.25), (bands.SCL_SNOW, 0.5 / 3), ((8, 9, 11), 0.5)],
)
def test_clouds_and_snow_count_unless_each_is_masked(masked, expected):
    """A quarter green, a quarter snow, half cloud; NDVI 0.5 where green, 0 elsewhere."""
    dn = pixels(5000, 5000)
    dn[[B04, B08], 2:, 2:] = [[[100]], [[300]]]
    scl = np.array([[9, 9], [11, 4]], np.uint8)
    patches = xr.Dataset(
        {
            "dn10": (("location", "season", "b", "y", "x"), dn[None, None]),
            "scl": (("location", "season", "v", "u"), scl[None, None]),
        }
    )
    assert weigh_locations.largest_ndvi(patches, masked=masked) == pytest.approx(expected)


def test_a_location_of_snow_alone_is_bare_when_snow_is_masked():
    dn = pixels(5000, 5000)
    patches = xr.Dataset(
        {
            "dn10": (("location", "season", "b", "y", "x"), np.stack([dn, 0 * dn])[:, None]),
            "scl": (("location", "season", "v", "u"), np.full((2, 1, 2, 2), 11, np.uint8)),
        }
    )
    found = weigh_locations.largest_ndvi(patches, masked=bands.SCL_SNOW)
    assert found[0] == 0 and np.isnan(found[1])  # the second has no patch


@pytest.mark.parametrize(
    ("ndvi", "is_mountain", "weight"),
    [
        (0.3, False, 1),
        (0.05, False, 0.25),
        (0.3, True, 2),
        (0.05, True, 0.5),
        (np.nan, False, 1),
        (0.1, False, 1),
    ],
)
def test_factors_multiply(ndvi, is_mountain, weight):
    places = pd.DataFrame({"location_id": ["a"], "is_mountain": [is_mountain]})
    table = weigh_locations.weigh(places, np.array([ndvi]), non_vegetated=0.25, mountain=2.0, max_ndvi=0.1)
    assert table["weight"].tolist() == [weight]


def test_weights_belong_to_ids_not_to_positions():
    places = pd.DataFrame({"location_id": ["b", "a"], "is_mountain": [True, False]})
    table = weigh_locations.weigh(
        places, np.array([0.5, 0.5]), non_vegetated=0.25, mountain=2.0, max_ndvi=0.1
    )
    assert dict(zip(table["location_id"], table["weight"], strict=True)) == {"a": 1, "b": 2}


def test_shares_are_those_of_locations_that_train():
    weights = pd.DataFrame(
        {
            "location_id": list("abc"),
            "is_non_vegetated": [True, False, True],
            "is_mountain": [False, True, True],
        }
    )
    shares = weigh_locations.summarize(weights, pd.Series(["a", "b"]))
    assert (shares["n_locations"], shares["non_vegetated"], shares["mountain"]) == (2, 0.5, 0.5)
    assert shares["paper"] == {"non_vegetated": 0.17, "mountain": 0.16}
    assert weigh_locations.summarize(weights, pd.Series([], dtype=str))["mountain"] is None


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return fabricate.write_dataset(tmp_path_factory.mktemp("dataset"))


def run(dataset, folder):
    job = fabricate.job(
        inputs={kind: dataset[kind] for kind in ("locations", "patches", "store")},
        outputs={"weights": folder / "weights.parquet", "shares": folder / "weights.json"},
        params={"settings": fabricate.settings()["weights"]},
        dataset="made",
    )
    weigh_locations.main(job)
    return tables.read_table(folder / "weights.parquet", "weights"), json.loads(
        (folder / "weights.json").read_text()
    )


def test_streamed_over_shards_equals_the_whole_store_at_once(dataset, tmp_path):
    weights, shares = run(dataset, tmp_path)
    patches = store.open_store(dataset["store"].removesuffix("/zarr.json"))
    ndvi = np.maximum(store.ndvi10(patches), 0).mean(("y10", "x10")).max("season").to_series()
    ndvi.index = patches["location_id"].to_numpy()
    np.testing.assert_allclose(
        weights.set_index("location_id")["mean_ndvi_max"], ndvi.sort_index(), rtol=1e-5
    )
    bare = fabricate.locations().set_index("location_id")["biome_num"] == 3
    assert (weights.set_index("location_id")["is_non_vegetated"] == bare).all()
    assert shares["n_locations"] == 11  # P002 has one season


def test_a_store_of_other_locations_is_refused(dataset, tmp_path):
    other = fabricate.locations().iloc[::-1]
    tables.write_table(other, tmp_path / "locations.parquet", "locations")
    with pytest.raises(ValueError, match="its locations are not those of"):
        run(dataset | {"locations": str(tmp_path / "locations.parquet")}, tmp_path)


def test_a_damaged_shard_is_named(dataset, tmp_path):
    damaged = tmp_path / "patches.zarr"
    shutil.copytree(dataset["store"].removesuffix("/zarr.json"), damaged)
    object_path = damaged / store.shard_objects(1)[0]
    object_path.write_bytes(object_path.read_bytes()[:-2] + b"xx")
    with pytest.raises(ValueError, match=rf"{damaged}: shard 1 cannot be read .*repair {damaged}` deletes"):
        run(dataset | {"store": f"{damaged}/zarr.json"}, tmp_path)
    with pytest.raises(ValueError, match=rf"{damaged}: shard 1 cannot be read"):
        summarize_bands.count_shard(1, path=damaged)
