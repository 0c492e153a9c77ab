"""Greenness through a STAC API and files over HTTP: tiles at their real size, and what can go wrong there.

The tiles are made here: every pixel of every layer has a value that follows from its row, column, tile and
composite alone, so that each value that was read can be told.
"""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import Affine

from workflow_scripts import read_tile
from workflow_scripts.core import grid, network, stac
from workflow_scripts.demo.faults import Fault
from workflow_scripts.demo.items import write_parquet_items
from workflow_scripts.demo.server import DemoServer

N = 2400
PIXEL_M = grid.MODIS_TILE_M / N
TILES = ("h18v04", "h00v08", "h35v08")
DAYS = {"h18v04": ("2020-12-02", "2020-12-18"), "h00v08": ("2020-12-18",), "h35v08": ("2020-12-02",)}
LAYERS = ("500m_16_days_EVI", "500m_16_days_pixel_reliability", "500m_16_days_composite_day_of_the_year")
SETTINGS = {"collection": "modis-13A1-061", "index": "evi", "years": [2020, 2020]}


def layers(tile, first_day, row, column):
    """Values of a composite at rows and columns; blocks compress, and no two tiles or days are alike."""
    start = pd.Timestamp(first_day)
    salt = 17 * TILES.index(tile) + start.day
    days = start + pd.to_timedelta(np.arange(16), "D")
    values = (
        ((row * 7 + column * 3 + row * column // 37 + salt * 101) % 9000).astype(np.int16),
        ((row * row // 7 + row * column // 5 + salt) % 4).astype(np.int8),
        days.dayofyear.to_numpy(np.int16)[(row + column // 8 + salt) % 16],
    )
    return dict(zip(LAYERS, values, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files and items of all tiles and composites."""
    path = tmp_path_factory.mktemp("modis")
    items = []
    for tile in TILES:
        left, top = grid.modis_tile_origin(tile)
        for first_day in DAYS[tile]:
            day = int(np.datetime64(first_day, "D").astype(int))
            name = f"MOD13A1.A{pd.Timestamp(first_day):%Y%j}.{tile}.061.2021005031507"
            for layer, values in layers(tile, first_day, *np.ogrid[0:N, 0:N]).items():
                with rasterio.open(
                    path / f"{name}_{layer}.tif",
                    "w",
                    driver="COG",
                    width=N,
                    height=N,
                    count=1,
                    dtype=values.dtype,
                    crs=grid.MODIS_CRS,
                    transform=Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top),
                    blocksize=512,
                    compress="deflate",
                    overviews="NONE",
                ) as file:
                    file.write(values, 1)
            items.append(made_item(name, tile, day))
    (path / "modis.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def made_item(name, tile, day):
    start = pd.Timestamp(day, unit="D")
    span = {"start_datetime": f"{start:%Y-%m-%d}T00:00:00Z", "end_datetime": f"{start + pd.Timedelta(15, 'D'):%Y-%m-%d}T23:59:59Z"}  # fmt: skip
    left, top = grid.modis_tile_origin(tile)
    y = np.array([top, top - grid.MODIS_TILE_M])
    lat = np.degrees(y / grid.MODIS_RADIUS_M)
    lon = np.degrees(
        np.array([left, left + grid.MODIS_TILE_M]) / grid.MODIS_RADIUS_M / np.cos(np.radians(lat[0]))
    )
    west, east = np.clip([lon.min(), lon.max()], -180, 180)
    ring = [[west, lat[1]], [east, lat[1]], [east, lat[0]], [west, lat[0]], [west, lat[1]]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "modis-13A1-061",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, lat[1], east, lat[0]],
        "properties": {
            "datetime": None,
            **span,
            "platform": "terra",
            "modis:horizontal-tile": int(tile[1:3]),
            "modis:vertical-tile": int(tile[4:]),
        },
        "assets": {layer: {"href": f"{name}_{layer}.tif"} for layer in LAYERS},
        "links": [],
    }


@pytest.fixture
def served(folder, monkeypatch):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.01)
    with DemoServer(folder, catalogs=["modis.json"]) as server:
        yield server


def lon_lat(tile, row, column):
    """Degrees of places in a tile, rows and columns with fractions: by the formula, not by the code."""
    left, top = (int(tile[1:3]) - 18) * grid.MODIS_TILE_M, (9 - int(tile[4:])) * grid.MODIS_TILE_M
    phi = (top - np.asarray(row) * PIXEL_M) / 6371007.181
    return np.degrees((left + np.asarray(column) * PIXEL_M) / (6371007.181 * np.cos(phi))), np.degrees(phi)


def points(tile, row, column):
    lon, lat = lon_lat(tile, row, column)
    ids = [f"{tile}-{i}" for i in range(len(lon))]
    return pd.DataFrame({"location_id": ids, "lon": lon, "lat": lat})


def extract(server, tile, locations, catalog=None):
    """What `read_tile` writes for a tile, as its main finds it; without a catalog through the API."""
    catalog = catalog or {"name": "api", "type": "api", "url": server.api_url}
    found = stac.search_items(
        catalog, tile=tile, years=(2020, 2020), kind="modis", collection=SETTINGS["collection"]
    )
    return read_tile.read_points(read_tile.select_items(found, ["terra"]), locations, index="evi", threads=2)


def expected(tile, row, column):
    """The same table from the formula itself."""
    parts = []
    for first_day in DAYS[tile]:
        value, code, doy = layers(tile, first_day, row, column).values()
        days = {d.dayofyear: d for d in pd.date_range(first_day, periods=16)}
        dates = pd.to_datetime([days[int(d)] for d in doy])
        parts.append(pd.DataFrame({"point": np.arange(len(row)), "date": dates, "index": value * 1e-4, "reliability": code}))  # fmt: skip
    return pd.concat(parts).sort_values(["point", "date"], kind="stable").reset_index(drop=True)


def check(table, tile, row, column):
    wanted = expected(tile, row, column)
    assert (table["date"].to_numpy() == wanted["date"].to_numpy()).all()
    assert np.allclose(table["index"], wanted["index"], atol=1e-7)
    assert (table["reliability"].to_numpy() == wanted["reliability"].to_numpy()).all()


def overlaps(ranges):
    """Bytes that were sent more than once, per file."""
    again = {}
    for path in {path for path, _, _ in ranges}:
        parts = sorted((first, last) for p, first, last in ranges if p == path)
        again[path] = sum(max(0, a[1] - b[0] + 1) for a, b in itertools.pairwise(parts))
    return {path: n for path, n in again.items() if n}


@pytest.mark.parametrize("n_points", [12, 400])
def test_exact_values_at_known_pixels_and_edges(served, n_points):
    rng = np.random.default_rng(n_points)
    row, column = rng.integers(0, N, n_points), rng.integers(0, N, n_points)
    row[:4], column[:4] = [0, 0, N - 1, N - 1], [0, N - 1, 0, N - 1]
    place = rng.uniform(0.01, 0.99, (2, n_points))
    locations = points("h18v04", row + place[0], column + place[1])
    assert (grid.modis_tile(locations["lon"], locations["lat"]) == "h18v04").all()
    check(extract(served, "h18v04", locations), "h18v04", row, column)


def test_a_geoparquet_catalog_gives_the_same_as_the_api(served):
    listed = json.loads((served.folder / "modis.json").read_text())["features"]
    for item in listed:
        for asset in item["assets"].values():
            asset["href"] = f"{served.files_url}{asset['href']}"
    path = served.folder / "modis.parquet"
    write_parquet_items(listed, path)
    locations = points("h18v04", np.array([5.5, 1200.5]), np.array([7.5, 2100.5]))
    catalog = {"name": "table", "type": "geoparquet", "path": str(path)}
    pd.testing.assert_frame_equal(
        extract(served, "h18v04", locations, catalog), extract(served, "h18v04", locations)
    )


def test_each_byte_is_fetched_once(served):
    rng = np.random.default_rng(1)
    row, column = rng.integers(0, N, 500), rng.integers(0, N, 500)
    extract(served, "h18v04", points("h18v04", row + 0.5, column + 0.5))
    assert overlaps(served.ranges) == {}
    n_files = len({path for path, _, _ in served.ranges})
    dense = len(served.ranges) / n_files
    size = sum(last - first + 1 for _, first, last in served.ranges)
    total = sum(f.stat().st_size for f in served.folder.glob("*h18v04*.tif"))
    assert n_files == 6 and 0.9 * total <= size <= total
    served.ranges.clear()
    extract(served, "h18v04", points("h18v04", np.array([5.5, 2000.5]), np.array([7.5, 2100.5])))
    assert overlaps(served.ranges) == {}
    few = sum(last - first + 1 for _, first, last in served.ranges)
    assert few < 0.4 * size, "two points need two of 25 blocks"
    assert dense <= 4, "a dense tile is not asked for block by block"


def test_both_sides_of_the_antimeridian(served):
    lat = np.array([5.0, 0.5, 9.9])
    for tile, lon in (("h00v08", -179.999), ("h35v08", 179.999)):
        locations = pd.DataFrame({"location_id": list("abc"), "lon": lon, "lat": lat})
        names, row, column = grid.modis_pixel(locations["lon"], locations["lat"])
        assert (names == tile).all()
        check(extract(served, tile, locations), tile, row, column)
    ends = pd.DataFrame({"location_id": ["w", "e"], "lon": [-180.0, 180.0], "lat": [1e-9, 1e-9]})
    names, row, column = grid.modis_pixel(ends["lon"], ends["lat"])
    assert names.tolist() == ["h00v08", "h35v08"] and column.tolist() == [0, N - 1]
    for i, tile in enumerate(names):
        check(extract(served, tile, ends.iloc[[i]]), tile, row[[i]], column[[i]])


def test_passing_faults_change_nothing(served):
    rng = np.random.default_rng(2)
    row, column = rng.integers(0, N, 60), rng.integers(0, N, 60)
    locations = points("h18v04", row + 0.5, column + 0.5)
    clean = extract(served, "h18v04", locations)
    served.faults += [
        Fault("tif|search", "status", status=503, every=20),
        Fault(r"tif", "truncate", every=19),
    ]
    for _ in range(3):
        pd.testing.assert_frame_equal(extract(served, "h18v04", locations), clean)
    assert all(fault.n_hits >= 1 for fault in served.faults)
    check(clean, "h18v04", row, column)


def test_lasting_faults_fail_loudly(served):
    locations = points("h18v04", np.array([5.5]), np.array([7.5]))
    served.faults += [Fault("EVI", "status", status=503)]
    with pytest.raises(RuntimeError, match=r"reading EVI of item 'MOD13A1\.A2020337.*failed 5 times"):
        extract(served, "h18v04", locations)
    row, column = np.arange(0, N, 100), np.arange(0, N, 100)
    locations = points("h18v04", row + 0.5, column + 0.5)
    served.faults[:] = [Fault("reliability", "truncate")]
    with pytest.raises(RuntimeError, match=r"reading pixel_reliability.*failed 5 times"):
        extract(served, "h18v04", locations)
