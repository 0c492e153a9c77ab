"""STAC items of the stored patches as GeoParquet, by the STAC GeoParquet specification 1.1."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
VIEW = "https://stac-extensions.github.io/view/v1.0.0/schema.json"
STAC_VERSION = "1.1.0"
ZARR = "application/vnd+zarr"


def write_items(path: Path, patches: gpd.GeoDataFrame, *, collection: Mapping[str, Any], size_m: int) -> int:
    """Write one item per stored patch.

    Parameters
    ----------
    path : of the file
    patches : the index of the patches; missing ones are left out
    collection : STAC collection that the items belong to; stored in the file
    size_m : side of a patch

    Returns
    -------
    number of items
    """
    stored = patches[patches["status"] == "ok"].reset_index(drop=True)
    n = len(stored)
    ids = [f"{place}_{season}" for place, season in zip(stored["location_id"], stored["season"], strict=True)]
    asset = {"href": "./patches.zarr", "type": ZARR, "title": "store of all patches", "roles": ["data"]}
    link = {"href": "./collection.json", "rel": "collection", "type": "application/json"}
    transforms = [[10.0, 0.0, x, 0.0, -10.0, y] for x, y in stored[["origin_x", "origin_y"]].to_numpy()]
    frame = gpd.GeoDataFrame(
        {
            "id": ids,
            "collection": collection["id"],
            "datetime": stored["datetime"].dt.tz_localize("UTC").astype("datetime64[us, UTC]"),
            "proj:code": [f"EPSG:{code}" for code in stored["epsg"]],
            "eo:cloud_cover": 100 * stored["cloud_fraction"].astype(float),
            "view:sun_elevation": 90 - stored["sun_zenith"].astype(float),
            **{
                f"patch:{name}": stored[name]
                for name in ("location_id", "location", "season", "item_id", "mgrs_tile", "baseline")
            },
        },
        geometry=gpd.GeoSeries(stored.geometry.to_numpy(), crs=4326),
    )
    frame.to_parquet(path, compression="zstd", index=False, write_covering_bbox=True)
    table = pq.read_table(path)
    side = size_m // 10
    nested = {
        "proj:shape": pa.array([[side, side]] * n, pa.list_(pa.int64())),
        "proj:transform": pa.array(transforms, pa.list_(pa.float64())),
        "stac_version": pa.array([STAC_VERSION] * n, pa.string()),
        "stac_extensions": pa.array([[PROJECTION, EO, VIEW]] * n, pa.list_(pa.string())),
        "links": pa.array([[link]] * n, pa.list_(_struct(link))),
        "assets": pa.array([{"patches": asset}] * n, pa.struct({"patches": _struct(asset)})),
    }
    for name, values in nested.items():
        table = table.append_column(name, values)
    about = {"version": "1.1.0", "collections": {collection["id"]: collection}}
    table = table.replace_schema_metadata(
        {**table.schema.metadata, b"stac-geoparquet": json.dumps(about).encode()}
    )
    pq.write_table(table, path, compression="zstd")
    return n


def _struct(example: Mapping[str, Any]) -> pa.DataType:
    kinds = {str: pa.string(), list: pa.list_(pa.string())}
    return pa.struct({key: kinds[type(value)] for key, value in example.items()})
