"""Reading the product's own files: bands, years, fill values, what is missing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import Affine

from workflow_scripts import read_mcd12q2
from workflow_scripts.core import grid, tables
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.read_mcd12q2 import BANDS, FILL, read_cycles, year_of

TILE, N = "h18v04", 240
LAYERS = list(BANDS)
LOCATIONS = pd.DataFrame(
    {"location_id": ["b", "a", "far"], "lon": [10.0, 9.0, 100.0], "lat": [45.0, 44.0, 10.0]}
)


def day(text):
    return int(np.datetime64(text, "D").astype(int))


def layer_values(year, cycle, name):
    """What a made file holds: dates 20 days apart, from 1 April or 1 August."""
    if name in BANDS and BANDS[name] in TRANSITIONS:
        return day(f"{year}-{'04' if cycle == 1 else '08'}-01") + 20 * TRANSITIONS.index(BANDS[name])
    return {"EVI_Amplitude": 4200 - 1000 * cycle, "EVI_Minimum": 1100, "QA_Overall": 1, "QA_Detailed": 5461}[
        name
    ]


def write(path, bands, crs=grid.MODIS_CRS):
    """A file of one tile at 10 km pixels; bands: name → value or array."""
    left, top = grid.modis_tile_origin(TILE)
    pixel = grid.MODIS_TILE_M / N
    affine = (
        Affine(pixel, 0, left, 0, -pixel, top) if crs == grid.MODIS_CRS else Affine(0.05, 0, 0, 0, -0.05, 50)
    )
    with rasterio.open(
        path, "w", driver="GTiff", width=N, height=N, count=len(bands), dtype="int16", crs=crs, transform=affine,
        nodata=FILL,
    ) as file:  # fmt: skip
        for i, (name, value) in enumerate(bands.items(), 1):
            file.write(np.broadcast_to(np.asarray(value, np.int16), (N, N)), i)
            file.set_band_description(i, name)
    return path


def bands_of(year, cycles=(1, 2), layers=LAYERS):
    return {f"{name}_{cycle}": layer_values(year, cycle, name) for cycle in cycles for name in layers}


@pytest.mark.parametrize("crs", [grid.MODIS_CRS, "EPSG:4326"])
def test_dates_amplitude_and_quality_of_a_file_with_named_bands(tmp_path, crs):
    path = write(tmp_path / "MCD12Q2.A2019001.h18v04.061.2020.tif", bands_of(2019), crs)
    cycles = read_cycles([path], LOCATIONS)
    assert cycles[["location_id", "year", "cycle"]].to_numpy().tolist() == [
        ["b", 2019, 1], ["b", 2019, 2], ["a", 2019, 1], ["a", 2019, 2],
    ]  # fmt: skip
    first = cycles.iloc[0]
    assert [first[name] for name in TRANSITIONS] == list(pd.date_range("2019-04-01", periods=7, freq="20D"))
    assert first["amplitude"] == pytest.approx(0.32) and first["minimum"] == pytest.approx(0.11)
    assert first["qa"] == 1 and first["qa_detailed"] == 5461
    assert np.isnan(first["r2"]) and first["n_observations"] == -1


def test_one_file_per_layer(tmp_path):
    needed = [name for name in LAYERS if BANDS[name] not in read_mcd12q2.OPTIONAL]
    paths = []
    for year in (2018, 2019):
        for name, value in bands_of(year, (1,), needed).items():
            path = write(tmp_path / f"MCD12Q2.A{year}001.h18v04.061.2020123101010.{name}.tif", {"": value})
            paths.append(path)
    cycles = read_cycles(paths[::-1], LOCATIONS)
    assert cycles["year"].tolist() == [2018, 2019] * 2 and (cycles["cycle"] == 1).all()
    assert (cycles["qa"] == -1).all() and cycles["minimum"].isna().all()
    with pytest.raises(ValueError, match=r"year 2019, cycle 1: no file with the bands \['Greenup_1'\]"):
        read_cycles(
            [p for p in paths if "2019001.h18v04.061.2020123101010.Greenup_1" not in p.name], LOCATIONS
        )


def test_fill_values_and_incomplete_cycles(tmp_path, caplog):
    bands = bands_of(2019)
    row, column = (grid.modis_pixel(LOCATIONS["lon"], LOCATIONS["lat"], N)[i] for i in (1, 2))
    bands["Dormancy_1"] = np.full((N, N), bands["Dormancy_1"])
    bands["Dormancy_1"][row[0], column[0]] = FILL
    for name in LAYERS:
        bands[f"{name}_2"] = FILL
    cycles = read_cycles([write(tmp_path / "x_2019.tif", bands)], LOCATIONS)
    assert cycles["location_id"].tolist() == ["a"]
    assert "2019, cycle 1: 1 of 2 cycles lack a date" in caplog.text


def test_the_newest_production_counts(tmp_path):
    old = {name: value - 5 if "EVI" not in name else value for name, value in bands_of(2019, (1,)).items()}
    files = [
        write(tmp_path / "MCD12Q2.A2019001.h18v04.061.2022011000000.tif", bands_of(2019, (1,))),
        write(tmp_path / "MCD12Q2.A2019001.h18v04.061.2021011000000.tif", old),
    ]
    assert (read_cycles(files, LOCATIONS)["greenup"] == "2019-04-01").all()


def test_years_of_names():
    assert year_of("MCD12Q2.A2019001.h18v04.061.2022010.hdf") == 2019
    assert year_of("phenology_2015.tif") == 2015
    for name in ("phenology.tif", "p_2015_2016.tif"):
        with pytest.raises(ValueError, match="no year can be told"):
            year_of(name)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match=r"none of 1 files holds a band of MCD12Q2"):
        read_cycles([write(tmp_path / "x_2019.tif", {"ndvi": 3})], LOCATIONS)
    (tmp_path / "MCD12Q2.A2019001.h18v04.061.tif").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as a raster"):
        read_cycles([tmp_path / "MCD12Q2.A2019001.h18v04.061.tif"], LOCATIONS)
    (tmp_path / "MCD12Q2.A2019001.h18v04.061.hdf").write_bytes(b"nothing")
    with pytest.raises(
        (RuntimeError, ValueError), match=r"driver HDF4 is missing|cannot be read as a raster"
    ):
        read_cycles([tmp_path / "MCD12Q2.A2019001.h18v04.061.hdf"], LOCATIONS)


def test_main_writes_the_table(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(read_mcd12q2, "read_table", lambda *_: LOCATIONS)
    files = [str(write(tmp_path / f"p_{year}.tif", bands_of(year))) for year in (2018, 2019)]
    job = SimpleNamespace(
        input=SimpleNamespace(locations="l", files=files),
        output=SimpleNamespace(cycles=tmp_path / "c.parquet"),
    )
    read_mcd12q2.main(job)
    assert len(tables.read_table(tmp_path / "c.parquet", "cycles")) == 8
    assert "1 of 3 locations have no cycle" in caplog.text
