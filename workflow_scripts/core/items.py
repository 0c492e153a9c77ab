"""What the fields of a STAC item mean: tile, time, grid, quality, radiometric offset, files.

One row per item, for Sentinel-2 scenes and for MODIS composites. Conventions of the catalogs are
tables of `core.bands`.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urljoin

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from workflow_scripts.core import bands, grid
from workflow_scripts.core.tables import COLUMNS


def moment_of(properties: Mapping[str, Any]) -> pd.Timestamp:
    """Sensing time, or the start of a composite, as naive UTC."""
    value = properties.get("datetime")
    if value is None or value is pd.NaT:
        value = properties.get("start_datetime")
    return _naive_utc(value)


def _naive_utc(value: Any) -> pd.Timestamp:
    if value is None or value == "":
        return pd.NaT
    try:  # pandas takes a millisecond to guess the format of one text
        moment = pd.Timestamp(datetime.fromisoformat(value) if isinstance(value, str) else value)
    except ValueError:
        moment = pd.to_datetime(value, utc=True, errors="coerce")
    return moment if pd.isna(moment) or moment.tz is None else moment.tz_convert(None)


def tile_area(tile: str, kind: str) -> shapely.Geometry:
    """Longitude-latitude box around a tile; two where it crosses the antimeridian."""
    steps = np.linspace(0, 1, 11)
    if kind == "modis":
        left, top = grid.modis_tile_origin(tile)
        x, y = left + steps * grid.MODIS_TILE_M, top - steps * grid.MODIS_TILE_M
        lat = np.degrees(y / grid.MODIS_RADIUS_M)
        lon = np.degrees(x[:, None] / (grid.MODIS_RADIUS_M * np.maximum(np.cos(np.radians(lat)), 1e-6)))
        west, east = np.clip([lon.min(), lon.max()], -180, 180)
        return shapely.box(west, lat.min(), east, lat.max())
    epsg, xmin, ymin, xmax, ymax = grid.mgrs_tile_bounds(tile)
    x, y = np.meshgrid(xmin + steps * (xmax - xmin), ymin + steps * (ymax - ymin))
    lon, lat = grid.unproject(x, y, epsg)
    if lon.max() - lon.min() < 180:
        return shapely.box(lon.min(), lat.min(), lon.max(), lat.max())
    west = shapely.box(lon[lon > 0].min(), lat.min(), 180, lat.max())
    return shapely.union(west, shapely.box(-180, lat.min(), lon[lon < 0].max(), lat.max()))


def resolve(href: str, base: str) -> str:
    """Give an address as seen from the working directory."""
    if "://" in href or os.path.isabs(href):
        return href
    if "://" in base:
        return urljoin(base, href)
    return os.path.normpath(os.path.join(os.path.dirname(base), href))


# ---- Sentinel-2 items ------------------------------------------------------------------------

_PRODUCT = re.compile(r"(S2[A-Z])_MSIL2A_(\d{8}T\d{6})_(?:N\d{4}_)?R\d{3}_T(\d{2}[A-Z]{3})_")
_TILE_IN_ID = re.compile(r"(?:^|_)T?(\d{2}[C-HJ-NP-X][A-HJ-NP-Z]{2})(?:_|$)")


def mgrs_tile(item: Mapping[str, Any]) -> str:
    """Give an item's MGRS tile, zone with two digits; "" if the item does not tell."""
    properties = item["properties"]
    tile = properties.get("s2:mgrs_tile") or str(properties.get("grid:code") or "").removeprefix("MGRS-")
    if not tile and properties.get("mgrs:grid_square"):
        zone = int(properties["mgrs:utm_zone"])
        tile = f"{zone}{properties['mgrs:latitude_band']}{properties['mgrs:grid_square']}"
    if not tile:
        match = _TILE_IN_ID.search(str(item["id"]))
        tile = match.group(1) if match else ""
    return tile.zfill(5) if tile else ""


def datatake(item: Mapping[str, Any]) -> str:
    """Name the data take and strip of an item, the same for each processing of it.

    The strip belongs to it: where two strips of a take meet in a tile both are needed. An item
    that tells no data take stands for itself.
    """
    properties = item["properties"]
    take = re.sub(r"_N\d\d\.\d\d$", "", str(properties.get("s2:datatake_id") or ""))
    if not take:
        product = _PRODUCT.match(str(properties.get("s2:product_uri") or item["id"]))
        return f"{product.group(1)}_{product.group(2)}" if product else str(item["id"])
    strip = re.search(r"_S(\d{8}T\d{6})_", str(properties.get("s2:datastrip_id") or ""))
    return f"{take}_S{strip.group(1)}" if strip else take


def _is_of_mgrs_tile(item: Mapping[str, Any], tile: str) -> bool:
    """By the item's tile, else by its footprint."""
    own = mgrs_tile(item)
    if own:
        return own == tile
    return bool(shapely.intersects(_footprint(item), tile_area(tile, "sentinel-2")))


def _footprint(item: Mapping[str, Any]) -> shapely.Geometry:
    shape = item.get("geometry")
    if shape is None and item.get("bbox"):
        box = item["bbox"]
        shape = shapely.box(
            box[0], box[1], box[-3] if len(box) == 6 else box[2], box[-2 if len(box) == 6 else 3]
        )
    if isinstance(shape, Mapping):
        shape = shapely.geometry.shape(shape)
    if shape is None:
        raise ValueError(f"item {item['id']!r} has neither geometry nor bbox")
    return shapely.make_valid(shape)


def sentinel2_row(
    item: Mapping[str, Any], catalog: Mapping[str, Any], moment: pd.Timestamp
) -> dict[str, Any]:
    """Give the row of table `items` of a Sentinel-2 item; `epsg` 0 and NaN where it tells no grid."""
    properties = item["properties"]
    names = bands.ASSET_NAMES[catalog["conventions"]]
    assets = {band: item["assets"][key] for band, key in names.items() if key in item["assets"]}
    hrefs = {band: resolve(asset["href"], item["base"]) for band, asset in assets.items()}
    offset, source = bands.dn_offset(properties, catalog["conventions"])
    tile = mgrs_tile(item)
    epsg, extent = _extent(item, assets, tile)
    zenith = _number(properties.get("s2:mean_solar_zenith"))
    if np.isnan(zenith):
        zenith = 90 - _number(properties.get("view:sun_elevation"))
    created = (properties.get(name) for name in ("s2:generation_time", "created", "updated"))
    return {
        "item_id": str(item["id"]),
        "collection": str(item.get("collection") or catalog.get("collection") or ""),
        "catalog": str(catalog.get("name", "")),
        "datetime": moment,
        "mgrs_tile": tile,
        "epsg": epsg,
        "cloud_cover": _number(properties.get("eo:cloud_cover")),
        "nodata": _number(properties.get("s2:nodata_pixel_percentage")),
        "sun_zenith": zenith,
        "baseline": str(properties.get("s2:processing_baseline") or ""),
        "dn_offset": offset,
        "offset_source": source,
        "datatake": datatake(item),
        "created": next((_naive_utc(value) for value in created if value), pd.NaT),
        "origin_x": extent[0],
        "origin_y": extent[1],
        "width_m": extent[2],
        "height_m": extent[3],
        "hrefs": json.dumps(hrefs, sort_keys=True),
        "geometry": _footprint(item),
    }


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _extent(
    item: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]], tile: str
) -> tuple[int, tuple[float, float, float, float]]:
    """EPSG code (0 unknown) and origin x, y, width, height in meters (NaN unknown)."""
    properties = item["properties"]
    code = properties.get("proj:epsg") or str(properties.get("proj:code") or "").removeprefix("EPSG:")
    epsg = int(code or 0)
    for source in (assets.get("B02", {}), *assets.values(), properties):
        shape, transform = source.get("proj:shape"), source.get("proj:transform")
        if shape is not None and transform is not None and len(transform) >= 6:
            step_x, left, step_y, top = (float(transform[i]) for i in (0, 2, 4, 5))
            return epsg, (left, top, int(shape[1]) * step_x, -int(shape[0]) * step_y)
    if tile:
        tile_epsg, xmin, ymin, xmax, ymax = grid.mgrs_tile_bounds(tile)
        if epsg in (0, tile_epsg):
            return tile_epsg, (xmin, ymax, xmax - xmin, ymax - ymin)
    return epsg, (np.nan,) * 4


def sentinel2_frame(rows: list[dict[str, Any]]) -> gpd.GeoDataFrame:
    """Put rows together as table `items`; without rows an empty one."""
    if rows:
        return gpd.GeoDataFrame(rows, geometry="geometry", crs=4326)
    empty = {
        name: pd.Series(dtype=kind.to_pandas_dtype() if not pa.types.is_timestamp(kind) else "datetime64[ns]")
        for name, kind in COLUMNS["items"].items()
        if name != "geometry"
    }
    return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=4326), crs=4326)


# ---- MODIS items -----------------------------------------------------------------------------

_MODIS_TILE = re.compile(r"\.(h\d\dv\d\d)\.")
_MODIS_STAMP = re.compile(r"\.(\d{13})$")
MODIS_COLUMNS = ("item_id", "collection", "catalog", "datetime", "platform", "produced", "tile", "hrefs")


def _modis_tile(item: Mapping[str, Any]) -> str:
    properties = item["properties"]
    h, v = properties.get("modis:horizontal-tile"), properties.get("modis:vertical-tile")
    if h is not None and v is not None:
        return f"h{int(h):02d}v{int(v):02d}"
    match = _MODIS_TILE.search(str(item["id"]))
    return match.group(1) if match else ""


def modis_row(item: Mapping[str, Any], catalog: Mapping[str, Any], moment: pd.Timestamp) -> dict[str, Any]:
    """Give the row of a MODIS item."""
    stamp = _MODIS_STAMP.search(str(item["id"]))
    produced = stamp.group(1) if stamp else str(item["properties"].get("created") or "")
    files = {
        key: resolve(asset["href"], item["base"])
        for key, asset in item["assets"].items()
        if asset.get("href")
    }
    return {
        "item_id": str(item["id"]),
        "collection": str(item.get("collection") or catalog.get("collection") or ""),
        "catalog": str(catalog.get("name", "")),
        "datetime": moment,
        "platform": str(item["properties"].get("platform") or ""),
        "produced": produced,
        "tile": _modis_tile(item),
        "hrefs": json.dumps(files, sort_keys=True),
    }


def _modis_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(MODIS_COLUMNS))
    return frame.astype({"datetime": "datetime64[ns]"})


KINDS: Mapping[str, tuple[Callable, Callable, Callable]] = {
    "sentinel-2": (_is_of_mgrs_tile, sentinel2_row, sentinel2_frame),
    "modis": (lambda item, tile: _modis_tile(item) == tile, modis_row, _modis_frame),
}
"""Per kind of item: is it of a tile, its row, the table of all rows."""
