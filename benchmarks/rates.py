"""Rates of the stages around retrieval, for `estimate.measured` in config.yaml: per CPU second, one thread.

    python benchmarks/rates.py

- selected_per_cpu_s: locations and seasons for which `select_scenes` ranks scenes: a shard of 64
  locations on four tiles with 800 items each (eight years)
- composites_per_cpu_s: composites of MOD13A1, tiles of true size, read by `read_tile` at 500 points,
  from local files
- verified_per_cpu_s: patches of 2,560 m checked by `verify_store` (made pixels)
- items_per_cpu_s: items of 16 kB of a page of an API's answer, parsed and made a table by `search_tile`
- start_cpu_s: seconds of processor time of a job that has nothing to do (the sampling of one point)

The rates of retrieval itself are printed by benchmarks/retrieval.py. Ends with lines
``RATE <name> <value>``, medians of the rounds.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow_scripts import read_tile, select_scenes, verify_store
from workflow_scripts.core import bands, grid, items, stac, store, tables
from workflow_scripts.core.patches import PARTS, valid_fraction
from workflow_scripts.core.windows import Place
from workflow_scripts.index_patches import index as make_index

ROOT = Path(__file__).resolve().parents[1]
SEED, SIZE_M = 0, 2560
SEASONS = {"spring": (80, 140), "summer": (140, 230), "autumn": (230, 300), "winter": (300, 80)}
SCENES = {
    "catalog": "made",
    "years": [2017, 2024],
    "max_cloud_cover": 20,
    "max_sun_zenith": 85,
    "max_nodata": 100,
    "choice": "clearest",
    "candidates": 5,
    "second_pass": True,
}


def selection():
    """Locations on four tiles, their windows and items; give the work and how much it is."""
    rng = np.random.default_rng(SEED)
    tiles = ["32TPS", "32TPT", "32TQS", "32TQT"]
    rows = []
    for tile in tiles:
        epsg, left, bottom, right, top = grid.mgrs_tile_bounds(tile)
        ring = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
        footprint = shapely.Polygon(np.column_stack(grid.unproject(*ring.T, epsg)))
        for i, day in enumerate(pd.date_range("2017-01-01", "2024-12-31", periods=800)):
            rows.append(
                {
                    "item_id": f"{tile}_{i}",
                    "collection": "c",
                    "catalog": "made",
                    "datetime": day,
                    "mgrs_tile": tile,
                    "epsg": epsg,
                    "cloud_cover": 100 * rng.random(),
                    "nodata": 0.0,
                    "sun_zenith": 50.0,
                    "baseline": "05.00",
                    "dn_offset": 1000,
                    "offset_source": "made",
                    "datatake": str(i),
                    "created": day,
                    "origin_x": left,
                    "origin_y": top,
                    "width_m": right - left,
                    "height_m": top - bottom,
                    "hrefs": json.dumps(
                        {band: f"{tile}/{i}/{band}.tif" for band in (*bands.ALL_BANDS, "SCL")}
                    ),
                    "geometry": footprint,
                }
            )
    items = gpd.GeoDataFrame(rows, geometry="geometry", crs=4326)
    n = 64
    x, y = 700_000 + 100_000 * rng.random(n), 5_100_000 + 100_000 * rng.random(n)
    lon, lat = grid.unproject(x, y, 32632)
    locations = pd.DataFrame(
        {"location_id": [f"P{i}" for i in range(n)], "location": range(n), "lon": lon, "lat": lat}
    )
    windows = pd.DataFrame(
        [
            {"location_id": f"P{i}", "season": season, "start_doy": float(start), "end_doy": float(end)}
            for i in range(n)
            for season, (start, end) in SEASONS.items()
        ]
    )
    length = (windows["end_doy"] - windows["start_doy"]) % 365.25
    windows["target_doy"] = (windows["start_doy"] + length / 2 - 1) % 365.25 + 1
    windows = windows.assign(start_date=pd.NaT, end_date=pd.NaT, target_date=pd.NaT)
    return lambda: select_scenes.select(locations, windows, items, settings=SCENES, size_m=SIZE_M), len(
        windows
    )


def composites(folder, n=4):
    """Composites of true size in local files; give the work and how much it is."""
    rng = np.random.default_rng(SEED)
    left, top = grid.modis_tile_origin("h18v04")
    step = grid.MODIS_TILE_M / 2400
    layers = {"EVI": np.int16, "pixel_reliability": np.int8, "composite_day_of_the_year": np.int16}
    hrefs = {}
    for layer, dtype in layers.items():
        values = (
            np.cumsum(rng.integers(-30, 31, (2400, 2400)), axis=1) % 5000
            if layer == "EVI"
            else np.full((2400, 2400), 1)
        )
        path = folder / f"{layer}.tif"
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=2400,
            height=2400,
            count=1,
            dtype=dtype,
            crs=grid.MODIS_CRS,
            transform=rasterio.Affine(step, 0, left, 0, -step, top),
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="deflate",
            predictor=2,
        ) as file:
            file.write(values.astype(dtype), 1)
        hrefs[f"500m_16_days_{layer}"] = str(path)
    items = pd.DataFrame(
        {
            "item_id": [f"MOD13A1.A20200{i}1" for i in range(n)],
            "datetime": pd.Timestamp("2020-01-01"),
            "hrefs": json.dumps(hrefs),
        }
    )
    x, y = left + grid.MODIS_TILE_M * rng.random(500), top - grid.MODIS_TILE_M * rng.random(500)
    lat = np.degrees(y / grid.MODIS_RADIUS_M)
    lon = np.degrees(x / grid.MODIS_RADIUS_M / np.cos(np.radians(lat)))
    points = pd.DataFrame({"location_id": [str(i) for i in range(500)], "lon": lon, "lat": lat})
    return lambda: read_tile.read_points(items, points, index="evi"), n


def conversion(folder, n=100):
    """A page of an API's answer; give the work and how much it is."""
    tile, conventions = "32TPT", "earth-search-c1"
    epsg, left, bottom, right, top = grid.mgrs_tile_bounds(tile)
    ring = np.column_stack(grid.unproject([left, right, right, left], [top, top, bottom, bottom], epsg))
    page = []
    for i in range(n):
        name = f"S2A_T{tile}_20200101T10{i // 60:02d}{i % 60:02d}_L2A"
        assets = {
            key: {
                "href": f"https://made.example/{name}/{key}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "proj:shape": [10980, 10980],
                "proj:transform": [10, 0, left, 0, -10, top],
            }
            for key in bands.ASSET_NAMES[conventions].values()
        }
        item = {
            "type": "Feature",
            "id": name,
            "collection": "sentinel-2-c1-l2a",
            "geometry": shapely.geometry.mapping(shapely.Polygon(ring)),
            "properties": {
                "datetime": f"2020-01-01T10:{i // 60:02d}:{i % 60:02d}Z",
                "created": "2020-01-02T00:00:00Z",
                "proj:code": f"EPSG:{epsg}",
                "grid:code": f"MGRS-{tile}",
                "eo:cloud_cover": 10.0,
                "view:sun_elevation": 40.0,
                "s2:nodata_pixel_percentage": 0.0,
                "s2:processing_baseline": "05.00",
                "s2:datatake_id": f"GS2A_20200101T10{i:04d}_N05.00",
            },
            "assets": assets,
        }
        links = (16_000 - len(json.dumps(item))) // 100
        item["links"] = [{"rel": "derived_from", "href": "https://made.example/" + 50 * "x"}] * links
        page.append(item)
    text, catalog = json.dumps({"features": page}), {"name": "made", "conventions": conventions}

    def work():
        found = ({**item, "base": "https://made.example"} for item in json.loads(text)["features"])
        rows = stac.item_rows(
            found, catalog, years=(2017, 2024), kind="sentinel-2", is_wanted=lambda item: True
        )
        tables.write_table(items.sentinel2_frame(list(rows)), folder / "items.parquet", "items")

    return work, n


def job_start(folder, n=6):
    """Processor time of a job of a run of several, less that of a run of one, seconds."""
    (folder / "points.csv").write_text("location_id,lon,lat\na,10,50\n")
    taken = []
    for n_datasets in (1, n + 1):
        work = folder / f"run_{n_datasets}"
        work.mkdir()
        options = {"locations": {"design": "file", "path": str(folder / "points.csv")}}
        config = {"datasets": {f"d{i}": options for i in range(n_datasets)}}
        (work / "my.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "sample"]
        command += ["--directory", work, "--cores", "1", "--configfile", work / "my.yaml"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    start = (taken[1] - taken[0]) / n
    print(f"a run of Snakemake without its jobs: {taken[0] - start:.2f} s of processor time")
    return start


def verification(folder, n=16):
    """A store of made patches and its index; give the work and how much it is."""
    rng = np.random.default_rng(SEED)
    x, y = 600_000.0 + 5_000 * np.arange(n), np.full(n, 5_200_000.0)
    lon, lat = grid.unproject(x, y, 32632)
    locations = pd.DataFrame({"location_id": [f"P{i}" for i in range(n)], "lon": lon, "lat": lat})
    path = folder / "patches.zarr"
    store.create_store(path, locations=locations, seasons=["summer"], size_m=SIZE_M, per_shard=n)
    arrays, rows = store.empty_shard(path, 0), []
    for i in range(n):
        left, top = (float(value) for value in grid.patch_origin(x[i], y[i], SIZE_M))
        here = i, 0
        for part in ("dn10", "dn20", "dn60"):
            arrays[part][here] = 2000 + rng.normal(0, 40, arrays[part][here].shape)
        arrays["scl"][here] = 4
        facts = {
            "epsg": 32632,
            "origin_x": left,
            "origin_y": top,
            "cloud_fraction": 0.0,
            "dn_offset": 0,
            "sun_zenith": 40.0,
        }
        facts["valid_fraction"] = valid_fraction(
            {part: arrays[part][here] for part in PARTS},
            Place(32632, left, top, SIZE_M),
            (left, top),
            has_scl=True,
        )
        for name, value in facts.items():
            arrays[name][here] = value
        arrays["origin60_x"][here], arrays["origin60_y"][here], arrays["datetime"][here] = left, top, 0
        text = dict.fromkeys(
            ("item_id", "collection", "catalog", "mgrs_tile", "baseline", "offset_source", "failover_from"),
            str(i),
        )
        rows.append(
            {
                "location_id": f"P{i}", "location": i, "season": "summer", "status": "ok", "reason": "", "screened": "[]",
                "datetime": pd.Timestamp(0), "target_date": pd.Timestamp(0), "days_from_target": 0, "rank": 0,
                "scene_cloud_cover": 0.0, "checksum": store.patch_checksum(*(arrays[part][here] for part in PARTS)), **text, **facts,
            }
        )  # fmt: skip
    store.write_shard(path, 0, arrays)
    table = make_index(pd.DataFrame(rows), locations, size_m=SIZE_M)

    def work():
        result = verify_store.verify(path, table, locations)
        assert result["is_good"], result["findings"]

    return work, n


def main(options):
    """Measure each in turns and print the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = {
            "selected_per_cpu_s": selection(),
            "composites_per_cpu_s": composites(folder),
            "verified_per_cpu_s": verification(folder),
            "items_per_cpu_s": conversion(folder),
        }
        taken = {name: [] for name in work}
        for _ in range(options.rounds + 1):  # the first round warms up
            for name, (run, n) in work.items():
                begin = time.process_time()
                run()
                taken[name].append(n / (time.process_time() - begin))
        start = job_start(folder)
    for name, rates in taken.items():
        print(f"RATE {name} {statistics.median(rates[1:]):.2f}")
    print(f"RATE start_cpu_s {start:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    main(parser.parse_args())
