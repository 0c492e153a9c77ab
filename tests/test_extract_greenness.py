"""The store of series: the user's own tables, with everything that may be wrong in them, and tiles."""

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workflow_scripts import extract_greenness
from workflow_scripts.core import tables
from workflow_scripts.extract_greenness import merge_series, pad_series, write_store
from workflow_scripts.phenology import user_series
from workflow_scripts.phenology.user_series import read_series, series_blocks

IDS = pd.Index(["a", "b", "c"])


def write(path, text):
    path.write_text(text)
    return path


def frame(**columns):
    return pd.DataFrame({"location_id": "a", "reliability": 0, **columns}).assign(
        date=lambda t: pd.to_datetime(t["date"])
    )


# ---- reading a user's table ------------------------------------------------------------------


def test_csv_and_parquet_say_the_same(tmp_path):
    csv = write(
        tmp_path / "s.csv", "location_id,date,evi,reliability\n007,2020-01-05,0.31,0\n007,2020-02-01,,3\n"
    )
    table = read_series(csv, "evi")
    assert table["location_id"].tolist() == ["007", "007"]
    assert table["date"].tolist() == [pd.Timestamp("2020-01-05"), pd.Timestamp("2020-02-01")]
    assert table["index"].tolist()[0] == 0.31 and np.isnan(table["index"][1])
    assert table["reliability"].tolist() == [0, 3]
    table.rename(columns={"index": "evi"}).to_parquet(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(read_series(tmp_path / "s.parquet", "evi"), table)


def test_reliability_is_optional_and_the_column_may_be_called_index(tmp_path):
    csv = write(tmp_path / "s.csv", "location_id,date,index,extra\nNA,2020-01-05,0.31,x\n")
    table = read_series(csv, "ndvi")
    assert table["location_id"].tolist() == ["NA"] and table["reliability"].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("location_id,date,value\na,2020-01-01,0.2\n", r"lacks the columns \['index'\]; it has"),
        (
            "location_id,date,evi\na,2020-01-01,4200\n",
            r"1 of 1 values of 'evi'.*'a' on 2020-01-01: 4200.*by 10,000",
        ),
        ("location_id,date,evi\na,01/13/2020,0.2\n", r"data row 1, location 'a': '01/13/2020'.*ISO dates"),
        ("location_id,date,evi\na,2020-13-01,0.2\n", r"1 of 1 dates cannot be read"),
        ("location_id,date,evi\na,2020-01-01,high\n", r"data row 1, location 'a': 'high'"),
        (
            "location_id,date,evi,reliability\na,2020-01-01,0.2,7\n",
            r"1 unknown reliability codes.*'a'.*7.*0 good",
        ),
        ("location_id,date,evi,reliability\na,2020-01-01,0.2,good\n", r"unknown reliability codes.*'good'"),
        ("location_id,date,evi\n,2020-01-01,0.2\n", r"1 rows without location_id"),
        ("", "cannot be read"),
    ],
)
def test_errors_name_place_and_value(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_series(write(tmp_path / "s.csv", text), "evi")


def test_missing_file_and_format(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"greenness\.path: .*none\.csv does not exist"):
        read_series(tmp_path / "none.csv", "evi")
    with pytest.raises(ValueError, match=r"neither \.csv"):
        read_series(write(tmp_path / "s.txt", "x"), "evi")
    numbers = pd.DataFrame({"location_id": ["a"], "date": [20200101], "evi": [0.2]})
    numbers.to_parquet(tmp_path / "n.parquet")
    with pytest.raises(ValueError, match="`date` holds numbers"):
        read_series(tmp_path / "n.parquet", "evi")


def test_time_zones_become_utc_days(tmp_path, caplog):
    text = "location_id,date,evi\na,2020-01-01T23:30:00-05:00,0.2\na,2020-03-01,0.3\na,2020-04-01T10:00:00Z,0.3\n"
    table = read_series(write(tmp_path / "s.csv", text), "evi")
    assert table["date"].dt.strftime("%Y-%m-%d").tolist() == ["2020-01-02", "2020-03-01", "2020-04-01"]
    assert "2 dates carry a time zone" in caplog.text
    zoned = pd.DataFrame({"location_id": ["a"], "evi": [0.2]})
    zoned["date"] = pd.to_datetime(["2020-01-01T23:30:00"]).tz_localize("America/New_York")
    zoned.to_parquet(tmp_path / "z.parquet")
    assert read_series(tmp_path / "z.parquet", "evi")["date"][0] == pd.Timestamp("2020-01-02")


def test_rows_without_date_are_left_out(tmp_path, caplog):
    text = "location_id,date,evi\na,,\na,2020-01-17,0.2\n"
    table = read_series(write(tmp_path / "s.csv", text), "evi")
    assert table["date"].isna().tolist() == [True, False]
    assert pad_series(table, IDS, "t").index.tolist() == [[2000]]
    assert "1 rows without a date are left out" in caplog.text


def test_fill_values_among_good_ones_count_as_missing(tmp_path, caplog):
    text = "location_id,date,evi\na,2020-01-01,0.2\na,2020-01-17,-0.3\na,2020-02-02,1.2\na,2020-02-18,-3000\na,2020-03-01,0.3\n"
    table = read_series(write(tmp_path / "s.csv", text), "evi")
    assert table["index"].notna().tolist() == [True, False, False, False, True]
    assert "3 values of 'evi' lie outside -0.2 to 1" in caplog.text


# ---- a user's Zarr store ---------------------------------------------------------------------


def arrays(**changed):
    dates = pd.to_datetime(["2020-01-17", "2020-01-01", "2020-02-02"])
    both = ("location", "time")
    given = {
        "location_id": ("location", np.array(["c", "a"], object)),
        "evi": (both, np.array([[0.3, 0.2, np.nan], [0.4, 0.5, 0.6]])),
        "reliability": (both, np.array([[0, 1, 3], [2, 0, 0]], np.int8)),
        "time": ("time", dates),
    }
    return xr.Dataset({k: v for k, v in (given | changed).items() if v is not None})


def test_a_zarr_store_says_the_same_as_a_table(tmp_path, monkeypatch):
    arrays().to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    dates = np.broadcast_to(arrays()["time"].values, (2, 3))
    dated = arrays(time=None, date=(("location", "time"), dates), reliability=None)
    dated.rename(evi="index").to_zarr(tmp_path / "d.zarr", zarr_format=2, consolidated=False)
    csv = "location_id,date,evi,reliability\nc,2020-01-17,0.3,0\nc,2020-01-01,0.2,1\n"
    csv += "a,2020-01-17,0.4,2\na,2020-01-01,0.5,0\na,2020-02-02,0.6,0\n"
    table = read_series(write(tmp_path / "s.csv", csv), "evi")
    monkeypatch.setattr(user_series, "LOCATIONS_PER_BLOCK", 1)
    blocks = list(series_blocks(tmp_path / "s.zarr", "evi"))
    assert len(blocks) == 2
    pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), table)
    good = pd.concat(list(series_blocks(tmp_path / "d.zarr", "evi")), ignore_index=True)
    pd.testing.assert_frame_equal(good, table.assign(reliability=np.int8(0)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"location_id": None}, r"lacks the arrays \['location_id'\]"),
        ({"time": None}, r"lacks the arrays \['date'\]"),
        ({"evi": ("time", [0.1, 0.2, 0.3])}, r"'evi' has dims \('time',\)"),
        ({"evi": (("location", "time"), np.full((2, 3), 4200))}, r"by 10,000"),
        ({"reliability": (("location", "time"), np.full((2, 3), 9))}, r"unknown reliability codes"),
        ({"location_id": ("location", np.array(["a", "a"], object))}, r"location_id repeated: 'a'"),
    ],
)
def test_errors_of_a_zarr_store(tmp_path, changed, message):
    arrays(**changed).to_zarr(tmp_path / "s.zarr", consolidated=False)
    with pytest.raises(ValueError, match=message):
        list(series_blocks(tmp_path / "s.zarr", "evi"))


def test_a_folder_that_is_no_store(tmp_path):
    with pytest.raises(ValueError, match="no Zarr store that can be read"):
        list(series_blocks(tmp_path, "evi"))


# ---- arrays ----------------------------------------------------------------------------------


def test_series_are_sorted_and_repeated_days_keep_the_most_reliable(caplog):
    table = frame(
        date=["2020-03-01", "2020-01-01", "2020-03-01", "2020-03-01", "2020-02-01"],
        index=[0.3, 0.1, 0.33, 0.34, np.nan],
        reliability=[1, 0, 0, -1, 0],
    )
    part = pad_series(table, IDS, "t")
    assert part.row.tolist() == [0]
    assert part.index.tolist() == [[1000, 3300]]
    assert part.date.tolist() == [[18262, 18322]]
    assert part.reliability.tolist() == [[0, 0]]
    assert "2 rows repeat a location's day" in caplog.text
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        pad_series(table, IDS, "t", repeats=logging.INFO)
    assert not caplog.text


def test_unknown_locations_are_counted_and_left_out(caplog):
    table = frame(date=["2020-01-01"] * 3, index=[0.1, 0.2, 0.3], location_id=["zz", "c", "zz"])
    part = pad_series(table, IDS, "t")
    assert part.row.tolist() == [2] and part.index.tolist() == [[2000]]
    assert "1 locations with 2 rows are not in locations.parquet" in caplog.text
    assert pad_series(table.iloc[:0], IDS, "t").index.shape == (0, 0)


def test_tiles_are_merged_by_location():
    one = pad_series(frame(date=["2020-01-01"], index=[0.1], location_id=["c"]), IDS, "t")
    two = pad_series(frame(date=["2020-01-01", "2020-01-09"], index=[0.2, 0.3]), IDS, "t")
    merged = merge_series([one, two], 3)
    assert merged.index.tolist() == [[2000, 3000], [-32768] * 2, [1000, -32768]]
    assert merged.reliability.tolist() == [[0, 0], [-1, -1], [0, -1]]


# ---- the store -------------------------------------------------------------------------------


@pytest.fixture
def locations():
    return pd.DataFrame({"location_id": list(IDS), "lon": [1.0, 2.0, 3.0], "lat": [4.0, 5.0, -6.0]})


def test_store_opens_with_names_units_and_missing_values(tmp_path, locations):
    table = frame(date=["2020-01-01", "2021-01-09"], index=[0.2345, -0.05], reliability=[0, 2])
    merged = merge_series([pad_series(table, IDS, "t")], 3)
    write_store(tmp_path / "g.zarr", locations, merged, index="evi", source="a test")
    with xr.open_zarr(tmp_path / "g.zarr", chunks=None) as store:
        assert store["index"].dims == ("location", "time")
        assert store["index"].values[0] == pytest.approx([0.2345, -0.05], abs=1e-6)
        assert np.isnan(store["index"].values[1:]).all()
        assert store["date"].values[0, 1] == np.datetime64("2021-01-09") and np.isnat(
            store["date"].values[1, 0]
        )
        assert store["reliability"].dtype == np.int8 and store["reliability"].values[:, 1].tolist() == [
            2,
            -1,
            -1,
        ]
        assert store["location_id"].values.tolist() == ["a", "b", "c"]
        assert set(store.coords) == {"location_id", "lon", "lat"}
        assert store["n_usable"].values.tolist() == [2, 0, 0]
        assert store.attrs["index"] == "evi" and store.attrs["years"] == [2020, 2021]
        assert store.attrs["n_locations_without_series"] == 2


def test_store_appears_whole_or_not_at_all(tmp_path, locations, monkeypatch):
    merged = merge_series([pad_series(frame(date=["2020-01-01"], index=[0.2]), IDS, "t")], 3)
    target = tmp_path / "g.zarr"
    target.mkdir()
    (target / "left-over").write_text("from a killed job")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extract_greenness.zarr, "consolidate_metadata", killed)
        with pytest.raises(KeyboardInterrupt):
            write_store(target, locations, merged, index="evi", source="a test")
    assert not (target / "zarr.json").exists()
    write_store(target, locations, merged, index="evi", source="a test")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.zarr"]
    assert not (target / "left-over").exists() and (target / "zarr.json").exists()


def job(tmp_path, locations, monkeypatch, text):
    monkeypatch.setattr(
        extract_greenness, "read_table", lambda path, name, *_: locations if name == "locations" else None
    )
    return SimpleNamespace(
        input=SimpleNamespace(locations="l", series=str(write(tmp_path / "s.csv", text)), tiles=[]),
        output=SimpleNamespace(store=str(tmp_path / "g.zarr" / "zarr.json")),
        params=SimpleNamespace(
            settings={"source": "file", "index": "evi", "catalog": None, "collection": "c"}
        ),
    )


def test_main_reads_the_users_series(tmp_path, locations, monkeypatch, caplog):
    text = "location_id,date,evi\nb,2020-01-17,0.3\nb,2020-01-01,0.2\n"
    extract_greenness.main(job(tmp_path, locations, monkeypatch, text))
    with xr.open_zarr(tmp_path / "g.zarr", chunks=None) as store:
        assert store["index"].values[1] == pytest.approx([0.2, 0.3])
        assert store.attrs["source"].startswith("file ")
    assert "2 of 3 locations have no series (first: 'a', 'c')" in caplog.text


@pytest.mark.parametrize("row", ["zz,2020-01-01,0.2,0", "a,2020-01-01,,0", "a,2020-01-01,0.2,3"])
def test_no_usable_value_at_all_is_one_clear_error(tmp_path, locations, monkeypatch, row):
    text = f"location_id,date,evi,reliability\n{row}\n"
    with pytest.raises(ValueError, match=r"no location has a usable value of 'evi': 3 locations"):
        extract_greenness.main(job(tmp_path, locations, monkeypatch, text))
    assert not (tmp_path / "g.zarr").exists()


def test_main_merges_tiles(tmp_path, locations, monkeypatch):
    for name, ids in (("h18v04", ["c"]), ("h18v05", ["a", "b"])):
        table = pd.DataFrame(
            {
                "location_id": ids,
                "date": pd.to_datetime("2020-01-05"),
                "index": 0.25,
                "reliability": 0,
                "composite": pd.to_datetime("2020-01-01"),
            }
        )
        tables.write_table(table, tmp_path / f"{name}.parquet", "greenness")
    run = job(tmp_path, locations, monkeypatch, "")
    monkeypatch.setattr(
        extract_greenness,
        "read_table",
        lambda path, name, *_: locations if name == "locations" else tables.read_table(path, name),
    )
    run.params.settings |= {"source": "modis", "years": [2020, 2021], "platforms": ["terra"]}
    run.input.tiles = [tmp_path / "h18v05.parquet", tmp_path / "h18v04.parquet"]
    extract_greenness.main(run)
    with xr.open_zarr(tmp_path / "g.zarr", chunks=None) as store:
        assert store["index"].values.ravel() == pytest.approx([0.25] * 3)
        assert store.attrs["n_composites"] == 2 * 2 * 23
        assert store.attrs["n_composites_missing"] == 2 * 2 * 23 - 2
