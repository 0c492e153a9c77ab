"""Small Sentinel-2 scenes as GeoTIFFs with their items, invented pixel by pixel for tests.

The default tile stands where 32TQT does, its files are 3 km wide. Values are random but fixed by
the item's id, so that any mix-up of bands, rows or scenes shows.
"""

import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import shapely

from workflow_scripts import create_store, retrieve_patches, search_tile, select_scenes
from workflow_scripts.core import bands, grid, stac, tables
from workflow_scripts.core.patches import PARTS

EPSG, LEFT, TOP, WIDTH_M = 32632, 732_000, 5_268_000, 3_000
SIZE_M = 640
CENTER = (733_510.0, 5_266_490.0)
SEASONS = {"summer": (152, 244), "winter": (335, 60)}
SETTINGS = {
    "source": "catalog",
    "catalog": "made",
    "failover": None,
    "years": [2020, 2022],
    "max_cloud_cover": 20,
    "max_sun_zenith": 85,
    "choice": "clearest",
    "candidates": 5,
    "second_pass": True,
}
NAMES = bands.ASSET_NAMES["earth-search"]
stac.REQUEST_EVERY_S = 0.0  # the services here are our own


def write_files(folder, item_id, *, scl=4, epsg=EPSG, left=LEFT, top=TOP, width_m=WIDTH_M, without=()):
    """Write the 13 files of a scene; `scl` is a class or a function of its (y, x) array."""
    folder = Path(folder) / item_id
    folder.mkdir(parents=True, exist_ok=True)
    for band in (*bands.ALL_BANDS, "SCL"):
        step = 20 if band == "SCL" else bands.RESOLUTION_M[band]
        # like real tiles the 60 m lattice is the file's own
        n = width_m // step
        rng = np.random.default_rng(zlib.crc32(f"{item_id} {band}".encode()))
        values = rng.integers(1, 12_000, (n, n), dtype=np.uint16)
        if band == "SCL":
            values = np.full((n, n), 4, np.uint8)
            values = scl(values) if callable(scl) else np.full((n, n), scl, np.uint8)
        if band in without:
            continue
        with rasterio.open(
            folder / f"{band}.tif",
            "w",
            driver="GTiff",
            dtype=values.dtype,
            count=1,
            width=n,
            height=n,
            crs=f"EPSG:{epsg}",
            transform=rasterio.Affine(step, 0, left, 0, -step, top),
            tiled=True,
            blockxsize=64,
            blockysize=64,
            compress="deflate",
            nodata=0,
        ) as file:
            file.write(values, 1)
    return folder


def make_item(item_id, day, *, base="scenes", epsg=EPSG, left=LEFT, top=TOP, width_m=WIDTH_M, **properties):
    """Give the STAC item of a scene, Earth Search's conventions."""
    corners = [(left, top), (left + width_m, top), (left + width_m, top - width_m), (left, top - width_m)]
    lon, lat = grid.unproject(*np.array(corners, float).T, epsg)
    ring = [[float(a), float(b)] for a, b in zip([*lon, lon[0]], [*lat, lat[0]], strict=True)]
    tile = properties.pop("tile", "32TQT")
    assets = {}
    for band, key in NAMES.items():
        step = 20 if band == "SCL" else bands.RESOLUTION_M[band]
        assets[key] = {
            "href": f"{base}/{item_id}/{band}.tif",
            "proj:shape": [width_m // step] * 2,
            "proj:transform": [step, 0, left, 0, -step, top],
        }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [float(min(lon)), float(min(lat)), float(max(lon)), float(max(lat))],
        "links": [],
        "assets": assets,
        "properties": {
            "datetime": f"{day}T10:10:31Z",
            "created": f"{day}T20:00:00Z",
            "grid:code": f"MGRS-{tile}",
            "proj:epsg": epsg,
            "eo:cloud_cover": 5.0,
            "s2:nodata_pixel_percentage": 0.0,
            "view:sun_elevation": 40.0,
            "s2:processing_baseline": "02.14",
            "earthsearch:boa_offset_applied": False,
            "s2:datatake_id": f"GS2A_{day.replace('-', '')}T101031_0{len(item_id):05d}_N02.14",
            **properties,
        },
    }


def write_collection(path, items):
    """Write items as one item collection."""
    Path(path).write_text(json.dumps({"type": "FeatureCollection", "features": items}))


def write_geoparquet(path, items):
    """Write items as stac-geoparquet: properties are columns, the geometry is WKB."""
    rows = []
    for item in items:
        row = {key: item[key] for key in ("id", "collection", "assets", "links")}
        row["geometry"] = shapely.to_wkb(shapely.geometry.shape(item["geometry"]))
        row |= item["properties"]
        row["datetime"] = pd.Timestamp(row["datetime"]).to_pydatetime()
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), path)


def make_locations(points, per_shard=2):
    """Table of locations at points (x, y) of the default zone."""
    lon, lat = grid.unproject(*np.array(points, float).T, EPSG)
    n = len(points)
    frame = pd.DataFrame({"location_id": [f"P{i}" for i in range(n)], "lon": lon, "lat": lat})
    frame = frame.assign(shard=np.arange(n) // per_shard, eco_id=-1, biome_num=-1, inclusion_probability=1.0)
    frame = frame.assign(**dict.fromkeys(("eco_name", "biome_name", "realm", "stratum"), ""))
    frame = frame.assign(is_mountain=False, split="train", distance_to_evaluation_km=np.nan)
    return gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(lon, lat), crs=4326)


def make_windows(ids, windows=SEASONS):
    """Table of seasons, the same circular windows everywhere."""
    rows = []
    for location_id in ids:
        for season, (start, end) in windows.items():
            length = (end - start) % 365.25
            rows.append(
                {
                    "location_id": location_id,
                    "season": season,
                    "start_doy": start,
                    "end_doy": end,
                    "target_doy": (start + length / 2 - 1) % 365.25 + 1,
                    "length_days": length,
                    "source": "calendar",
                    "donor_id": "",
                    "n_years": 0,
                }
            )
    frame = pd.DataFrame(rows).assign(donor_distance_km=np.nan, spread_days=np.nan, sunlit_days=30.0)
    return frame.assign(start_date=pd.NaT, end_date=pd.NaT, target_date=pd.NaT)


class World:
    """A folder with a catalog and the stages' files, and the stages to run on it."""

    def __init__(self, folder, items, *, points=(CENTER,), per_shard=2, tiles=("32TQT",), conventions=None):
        self.folder = Path(folder)
        self.items, self.tiles, self.per_shard = items, tiles, per_shard
        self.conventions = conventions or "earth-search"
        self.reader = "windows"
        self.index = []
        self.catalogs = {"made": {"conventions": self.conventions}}
        self.settings = dict(SETTINGS)
        self.limits = {"max_cloud_fraction": 0.2, "max_nodata_fraction": 0.0}
        self.store = self.folder / "patches.zarr"
        write_collection(self.folder / "items.json", items)
        self.set_locations(points)

    def set_locations(self, points, windows=SEASONS):
        locations = make_locations(points, self.per_shard)
        self.n_shards = int(locations["shard"].max()) + 1
        tables.write_table(locations, self.folder / "locations.parquet", "locations")
        table = make_windows(locations["location_id"], windows)
        tables.write_table(table, self.folder / "seasons.parquet", "seasons")

    def job(self, *, inputs, outputs, params, **wildcards):
        return SimpleNamespace(
            input=SimpleNamespace(**inputs),
            output=SimpleNamespace(**outputs),
            params=SimpleNamespace(**params),
            wildcards=SimpleNamespace(dataset="made", **wildcards),
            threads=1,
        )

    def search(self, api_url=None):
        """Search the folder's own catalog, or a STAC API with small pages."""
        catalog = {"type": "static", "path": str(self.folder / "items.json")}
        if api_url is not None:
            catalog = {"type": "api", "url": api_url, "collection": "sentinel-2-l2a", "page_size": 2}
        catalog["conventions"] = self.conventions
        for tile in self.tiles:
            search_tile.main(
                self.job(
                    inputs={},
                    outputs={"found": self.folder / f"items/{tile}.parquet"},
                    params={"catalogs": {"made": catalog}, "years": self.settings["years"]},
                    tile=tile,
                )
            )

    def select(self):
        for shard in range(self.n_shards):
            select_scenes.main(
                self.job(
                    inputs={
                        "locations": self.folder / "locations.parquet",
                        "seasons": self.folder / "seasons.parquet",
                        "found": [self.folder / f"items/{tile}.parquet" for tile in self.tiles],
                        "index": self.index,
                    },
                    outputs={"scenes": self.folder / f"scenes/{shard}.parquet"},
                    params={"settings": self.settings, "seasons": list(SEASONS), "size_m": SIZE_M},
                    shard=str(shard),
                )
            )

    def create(self, size_m=SIZE_M):
        create_store.main(
            self.job(
                inputs={
                    "locations": self.folder / "locations.parquet",
                    "seasons": self.folder / "seasons.parquet",
                },
                outputs={"metadata": self.store / "zarr.json"},
                params={
                    "seasons": list(SEASONS),
                    "per_shard": self.per_shard,
                    "size_m": size_m,
                    "codec": "blosc-lz4-bitshuffle",
                },
            )
        )

    def retrieve_job(self, shard=0):
        return self.job(
            inputs={"scenes": self.folder / f"scenes/{shard}.parquet", "store": self.store / "zarr.json"},
            outputs={"retrieved": self.folder / f"retrieved/{shard}.parquet"},
            params={
                "reader": self.reader,
                "catalogs": self.catalogs,
                **self.limits,
            },
            shard=str(shard),
        )

    def retrieve(self):
        for shard in range(self.n_shards):
            retrieve_patches.main(self.retrieve_job(shard))
        return self.retrieved()

    def run(self):
        self.search()
        self.select()
        self.create()
        return self.retrieve()

    def retrieved(self):
        paths = [self.folder / f"retrieved/{shard}.parquet" for shard in range(self.n_shards)]
        return pd.concat([tables.read_table(path, "retrieved") for path in paths], ignore_index=True)

    def scenes(self):
        paths = [self.folder / f"scenes/{shard}.parquet" for shard in range(self.n_shards)]
        return pd.concat([tables.read_table(path, "scenes") for path in paths], ignore_index=True)


def read_by_hand(scenes_folder, item_id, part, left, top, *, size_m=SIZE_M):
    """Cut a patch out of whole files with slices, the obvious way: raw DN of one part."""
    result = []
    for band in PARTS[part]:
        with rasterio.open(Path(scenes_folder) / item_id / f"{band}.tif") as file:
            whole, transform = file.read(1), file.transform
        step = int(transform.a)
        columns = [int((left - transform.c) // step) + i for i in range(-(-(size_m + 40) // step))]
        rows = [int((transform.f - top) // step) + i for i in range(-(-(size_m + 40) // step))]
        if step != 60:
            columns, rows = columns[: size_m // step], rows[: size_m // step]
        cut = np.zeros((len(rows), len(columns)), whole.dtype)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                if 0 <= row < whole.shape[0] and 0 <= column < whole.shape[1]:
                    cut[i, j] = whole[row, column]
        result.append(cut)
    return np.stack(result)
