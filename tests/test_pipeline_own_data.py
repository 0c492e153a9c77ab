"""The workflow on a user's own places and series, and on datasets that need no made world."""

import numpy as np
import pandas as pd
import pytest
import yaml
from made_archives import make_treesatai, pack
from workflow_runs import ROOT, planned, run


def write_own_data(folder, series=None, **sites):
    """Two places with eight years of 16-day EVI: a northern and a southern cycle."""
    table = {"location_id": ["alp", "cape"], "lon": [8.5, 18.6], "lat": [47.0, -33.9]} | sites
    pd.DataFrame(table).to_csv(folder / "sites.csv", index=False)
    if series is None:
        dates = pd.date_range("2012-01-01", "2019-12-31", freq="16D")
        angle = 2 * np.pi * (dates.dayofyear.to_numpy() - 200) / 365.25
        parts = [
            pd.DataFrame({"location_id": name, "date": dates, "evi": 0.35 + sign * 0.25 * np.cos(angle)})
            for name, sign in (("alp", 1), ("cape", -1))
        ]
        series = pd.concat(parts)
    series.to_csv(folder / "series.csv", index=False)
    return {
        "datasets": {
            "mysites": {
                "locations": {"design": "file", "path": "sites.csv"},
                "greenness": {"source": "file", "path": "series.csv"},
            }
        }
    }


def test_own_points_and_series_in_another_directory(tmp_path):
    config = write_own_data(tmp_path)
    run(tmp_path, "phenology", config=config)
    cycles = pd.read_parquet(tmp_path / "results/datasets/mysites/phenology_cycles.parquet")
    dates = ["greenup", "mid_greenup", "maturity", "peak", "senescence", "mid_greendown", "dormancy"]
    assert {"location_id", "year", "cycle", *dates, "amplitude", "qa"} <= set(cycles.columns)
    peaks = cycles.groupby("location_id")["peak"].apply(lambda d: d.dt.dayofyear.median())
    assert abs(peaks["alp"] - 200) < 8
    assert min(abs(peaks["cape"] - 17.4), abs(peaks["cape"] - 17.4 - 365)) < 8
    seasons = pd.read_parquet(tmp_path / "results/datasets/mysites/seasons.parquet")
    assert len(seasons) == 8 and (seasons["source"] == "observed").all()
    assert not (tmp_path / "resources").exists()


ERRORS = {
    "points off the Earth": (
        dict(lon=[8.5, 18.6], lat=[47.0, -339.0]),
        ["cape", "-339"],
    ),
    "duplicate ids": (dict(location_id=["alp", "alp"]), ["alp", "location_id"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_points_end_in_one_clear_message(tmp_path, case):
    sites, words = ERRORS[case]
    config = write_own_data(tmp_path, **sites)
    printed = run(tmp_path, "phenology", config=config, good=False)
    assert all(word in printed for word in words), printed
    assert "Traceback" not in printed


def test_series_without_a_valid_value(tmp_path):
    series = pd.DataFrame(
        {"location_id": ["alp"] * 30, "date": pd.date_range("2012-01-01", periods=30, freq="16D")}
    )
    config = write_own_data(tmp_path, series=series.assign(evi=np.nan))
    printed = run(tmp_path, "phenology", config=config, good=False)
    assert "series.csv" in printed and "valid" in printed and "Traceback" not in printed


def test_missing_file_and_unknown_key(tmp_path):
    config = write_own_data(tmp_path)
    (tmp_path / "series.csv").unlink()
    printed = run(tmp_path, "phenology", config=config, good=False)
    assert "series.csv" in printed
    config["datasets"]["mysites"]["locations"]["spacng_m"] = 3
    printed = run(tmp_path, "phenology", config=config, good=False)
    assert "spacng_m" in printed and "Did you mean 'spacing_m'" in printed


def test_places_by_rule_and_published_archives_are_planned(tmp_path):
    """The recipe of the paper's tasks: points drawn, a zip read where it is, a compressed tar unpacked; no more."""
    make_treesatai(tmp_path / "plain", 6)
    (tmp_path / "archives/treesatai").mkdir(parents=True)
    pack(tmp_path / "plain", tmp_path / "archives/treesatai/all.zip")
    (tmp_path / "index.csv").write_text("ind,lon,lat,biome\n1,8.5,47.0,4\n")
    recipe = yaml.safe_load((ROOT / "recipes/paper-tasks.yaml").read_text())
    published = {"labels": {"source": "reference_index", "path": "index.csv"}}
    config = {**recipe, "datasets": {**recipe["datasets"], "published": published}}
    names = [
        f"results/datasets/{name}/labels.parquet" for name in ("biomes", "euforest", "treesatai", "published")
    ]
    jobs = planned(tmp_path, *names, config=config)
    assert jobs["draw_points"] == 3 and jobs["sample_locations"] == 3 and jobs["label_locations"] == 3
    assert "unpack_archives" not in jobs and jobs["import_archive"] == 1
    (tmp_path / "archives/treesatai/all.zip").unlink()
    pack(tmp_path / "plain", tmp_path / "archives/treesatai/all.tar.gz")
    jobs = planned(tmp_path, *names, config=config)
    assert jobs["unpack_archives"] == 1 and jobs["import_archive"] == 1
    assert sum(number for name, number in jobs.items() if name.startswith("download_source_")) == 6
