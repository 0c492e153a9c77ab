"""The report's chapter on scenes by biome: counts by hand, phases of the very year."""

import numpy as np
import pandas as pd
import pytest

from tests import fabricate
from workflow_scripts.report import inputs, scenes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    files = fabricate.write_dataset(tmp_path_factory.mktemp("scenes"))
    return inputs.load_dataset("made", fabricate.settings(), files)


def test_the_chapter_names_every_biome_and_its_losses(dataset):
    html = scenes.scenes_section(dataset)
    missing = dataset.patches[dataset.patches["status"] != "ok"]
    assert len(missing)
    for name in set(dataset.locations["biome_name"]):
        assert name.replace("&", "&amp;") in html
    for reason, n in missing["reason"].value_counts().items():
        assert reason in html, n
    assert html.count("<img") == 3 and "Within that year" in html


def test_scene_classes_are_means_over_what_is_stored(dataset):
    """Made patches: two of 32 rows are cloud, the rest vegetation."""
    fractions = dataset.store["scl_fraction"].values
    there = ~np.isnan(fractions).all(axis=2)
    assert np.allclose(fractions[there][:, 9], 1 / 16) and there.any() and not there.all()
    html = scenes.scenes_section(dataset)
    assert "vegetation 94 %, cloud 6 %" in html


def test_phases_are_those_of_the_very_year():
    def cycle(year, shift):
        dates = {"greenup": "04-01", "maturity": "06-01", "senescence": "08-01", "dormancy": "10-01"}
        return {k: pd.Timestamp(f"{year}-{v}") + pd.Timedelta(days=shift) for k, v in dates.items()}

    cycles = pd.DataFrame([{"location_id": "P", **cycle(2020, 0)}, {"location_id": "P", **cycle(2021, 30)}])
    cases = [
        ("spring", "2020-04-20", 1),
        ("spring", "2021-04-20", 0),  # that year began a month later
        ("summer", "2021-08-15", 1),
        ("autumn", "2020-11-01", 0),
        ("winter", "2021-01-15", 1),
        ("winter", "2021-04-20", 1),  # still before that year's greenup
        ("winter", "2022-01-15", np.nan),  # the next greenup was not observed
        ("spring", "2015-05-01", np.nan),
        ("wet", "2020-05-01", np.nan),
    ]
    patches = pd.DataFrame(
        {"location_id": "P", "season": season, "datetime": pd.Timestamp(day)} for season, day, _ in cases
    )
    patches.index += 7
    found = scenes.in_observed_phase(patches, cycles)
    np.testing.assert_array_equal(found, [expected for *_, expected in cases])
    other = patches.assign(location_id="elsewhere")
    assert scenes.in_observed_phase(other, cycles).isna().all()
