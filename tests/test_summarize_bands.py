import json

import numpy as np
import pytest

from tests import fabricate
from workflow_scripts import summarize_bands
from workflow_scripts.core import bands, store


def test_description_by_counts_equals_that_of_the_values():
    values = np.random.default_rng(0).integers(1, 3000, 5001)
    counts = np.bincount(values, minlength=summarize_bands.N_DN)
    found = summarize_bands.describe(counts, np.arange(summarize_bands.N_DN, dtype=float))
    assert found["n"] == 5001
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-3)
    assert found["std"] == pytest.approx(values.std(), abs=1e-3)
    assert (found["min"], found["max"]) == (values.min(), values.max())
    for name, value in found["percentiles"].items():
        assert value == np.percentile(values, int(name[1:]), method="inverted_cdf")


def test_no_values_are_described_by_null():
    found = summarize_bands.describe(np.zeros(5, int), np.arange(5.0))
    assert found["n"] == 0
    assert found["mean"] is None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    files = fabricate.write_dataset(folder, n=6)
    job = fabricate.job(
        inputs={kind: files[kind] for kind in ("patches", "store")},
        outputs={"bands": folder / "bands.json"},
        params={},
        threads=2,
        dataset="made",
    )
    summarize_bands.main(job)
    return folder, json.loads((folder / "bands.json").read_text())


def test_bands_equal_the_slow_way(made):
    folder, summary = made
    patches = store.open_store(folder / "patches.zarr")
    for array in ("dn10", "dn20", "dn60"):
        for i, name in enumerate(patches[f"band{array[2:]}"].to_numpy().tolist()):
            values = patches[array].isel({f"band{array[2:]}": i}).sel(season="summer").to_numpy()
            values = values[values > 0].astype(float)
            found = summary["bands"][name]["summer"]
            assert found["n"] == values.size
            assert found["mean"] == pytest.approx(values.mean(), abs=1e-3)
            assert found["std"] == pytest.approx(values.std(), abs=1e-3)
    ndvi = store.ndvi10(patches).to_numpy()
    assert summary["bands"]["NDVI"]["all"]["mean"] == pytest.approx(np.nanmean(ndvi), abs=1e-3)
    assert summary["bands"]["NDVI"]["all"]["std"] == pytest.approx(np.nanstd(ndvi), abs=1e-3)


def test_every_band_and_season_is_there_and_missing_patches_do_not_count(made):
    _, summary = made
    assert list(summary["bands"]) == [*bands.ALL_BANDS, "NDVI"]
    assert summary["n_patches"] == 6 * 4 - 4
    n = {season: part["n"] for season, part in summary["bands"]["B04"].items()}
    assert n == {
        "all": 20 * 64**2,
        "spring": 5 * 64**2,
        "summer": 6 * 64**2,
        "autumn": 5 * 64**2,
        "winter": 4 * 64**2,
    }
    histogram = summary["ndvi_histogram"]
    assert sum(map(sum, histogram["counts"].values())) == 20 * 64**2
    assert len(histogram["edges"]) == 1 + len(histogram["counts"]["spring"])
