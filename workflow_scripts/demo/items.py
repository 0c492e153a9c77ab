"""STAC items of the made world, as stac-geoparquet and as JSON.

Property names follow Earth Search v1 (`sentinel-2-l2a`) and the Planetary Computer's MODIS
collections; hrefs are relative to the file that lists the items.
"""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS

from workflow_scripts.core.bands import ALL_BANDS, ASSET_NAMES, RESOLUTION_M, WAVELENGTH_NM
from workflow_scripts.core.grid import MODIS_CRS, MODIS_RADIUS_M, MODIS_TILE_M
from workflow_scripts.demo.acquisitions import OFFSET_BASELINE, Scene, sun
from workflow_scripts.demo.modis import ASSETS, N_PIXELS, PIXEL_M, item_id, tile_of, tile_origin
from workflow_scripts.demo.parameters import Island, World
from workflow_scripts.demo.sentinel2 import footprint
from workflow_scripts.demo.tile_ground import scene_window

SENTINEL2_COLLECTION = "sentinel-2-l2a"
MODIS_COLLECTION = "modis-13A1-061"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
STAC_VERSION = "1.0.0"
SENTINEL2_EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "raster/v1.1.0",
        "mgrs/v1.0.0",
        "grid/v1.0.0",
        "projection/v1.1.0",
        "eo/v1.1.0",
        "view/v1.0.0",
    )
]
MODIS_EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v1.0.0", "eo/v1.0.0", "raster/v1.1.0")
]
SCL_PROPERTIES = {
    "s2:saturated_defective_pixel_percentage": 1,
    "s2:dark_features_percentage": 2,
    "s2:cloud_shadow_percentage": 3,
    "s2:vegetation_percentage": 4,
    "s2:not_vegetated_percentage": 5,
    "s2:water_percentage": 6,
    "s2:unclassified_percentage": 7,
    "s2:medium_proba_clouds_percentage": 8,
    "s2:high_proba_clouds_percentage": 9,
    "s2:thin_cirrus_percentage": 10,
    "s2:snow_ice_percentage": 11,
}


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def _item(name: str, collection: str, geometry: shapely.Polygon, properties: dict, assets: dict) -> dict:
    extensions = SENTINEL2_EXTENSIONS if collection == SENTINEL2_COLLECTION else MODIS_EXTENSIONS
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions,
        "id": name,
        "collection": collection,
        "geometry": json.loads(shapely.to_geojson(geometry)),
        "bbox": list(geometry.bounds),
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def scene_item(world: World, scene: Scene, counts: np.ndarray) -> dict:
    """Describe a scene.

    Parameters
    ----------
    counts : pixels of each scene class, from `sentinel2.write_scene`
    """
    take, tile = scene.datatake, scene.tile
    window = scene_window(world, take.island, tile)
    elevation, azimuth = sun(take.island, take.time)
    percent = 100 * counts / max(counts[1:].sum(), 1)
    start = take.time.strftime("%Y%m%dT%H%M%S")
    satellite, baseline = f"S2{take.satellite}", scene.baseline
    processed = scene.created.strftime("%Y%m%dT%H%M%S")
    relative = f"R{take.island.relative_orbit:03d}"
    product = (
        f"{satellite}_MSIL2A_{start}_N{baseline.replace('.', '')}_{relative}_T{tile.name}_{processed}.SAFE"
    )
    properties = {
        "datetime": _stamp(take.time),
        "created": _stamp(scene.created),
        "updated": _stamp(scene.created),
        "platform": f"sentinel-2{take.satellite.lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(float(percent[[8, 9, 10]].sum()), 6),
        "proj:epsg": tile.epsg,
        "mgrs:utm_zone": int(tile.name[:2]),
        "mgrs:latitude_band": tile.name[2],
        "mgrs:grid_square": tile.name[3:],
        "grid:code": f"MGRS-{tile.name}",
        "view:sun_azimuth": azimuth,
        "view:sun_elevation": elevation,
        "s2:nodata_pixel_percentage": round(float(100 * counts[0] / counts.sum()), 6),
        **{name: round(float(percent[code]), 6) for name, code in SCL_PROPERTIES.items()},
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": baseline,
        "s2:product_uri": product,
        "s2:generation_time": _stamp(scene.created),
        "s2:datatake_id": f"G{satellite}_{start}_{take.orbit_number:06d}_N{baseline}",
        "s2:datatake_type": "INS-NOBS",
        "s2:sequence": str(scene.sequence),
        "earthsearch:boa_offset_applied": scene.is_offset_applied,
    }
    # Earth Search declares an offset of -0.1 wherever the baseline has one, even where the pixels
    # have lost it.
    declared = -0.1 if float(baseline) >= float(OFFSET_BASELINE) else 0
    assets = {}
    for band, key in ASSET_NAMES["earth-search"].items():
        resolution = RESOLUTION_M.get(band, 20)
        n = window.size_m // resolution
        raster = {"nodata": 0, "data_type": "uint8", "spatial_resolution": resolution}
        if band in ALL_BANDS:
            raster |= {"data_type": "uint16", "scale": 0.0001, "offset": declared}
        assets[key] = {
            "href": f"scenes/{scene.item_id}/{band}.tif",
            "type": COG_TYPE,
            "title": f"{band} - {resolution}m",
            "roles": ["data", "reflectance"],
            "gsd": resolution,
            "proj:shape": [n, n],
            "proj:transform": [resolution, 0, window.origin_x, 0, -resolution, window.origin_y],
            "raster:bands": [raster],
        }
        if band in ALL_BANDS:
            wavelength = WAVELENGTH_NM[band] / 1000
            assets[key]["eo:bands"] = [{"name": key, "common_name": key, "center_wavelength": wavelength}]
    return _item(scene.item_id, SENTINEL2_COLLECTION, footprint(scene, window), properties, assets)


def _modis_outline(tile: str) -> tuple[shapely.Polygon, list]:
    """Outline of a sinusoidal tile in degrees and in meters."""
    left, top = tile_origin(tile)
    box = shapely.box(left, top - MODIS_TILE_M, left + MODIS_TILE_M, top)
    dense = shapely.segmentize(box, MODIS_TILE_M / 16)

    def degrees(xy: np.ndarray) -> np.ndarray:
        phi = xy[:, 1] / MODIS_RADIUS_M
        lon = np.degrees(xy[:, 0] / (MODIS_RADIUS_M * np.cos(phi)))
        return np.column_stack([lon, np.degrees(phi)])

    return shapely.transform(dense, degrees), json.loads(shapely.to_geojson(box))


def modis_item(
    island: Island, first_day: int, folder: str, *, platform: str = "terra", version: int = 0
) -> dict:
    """Describe a composite; one of Aqua (`platform` "aqua") has no files."""
    tile = tile_of(island)
    prefix = {"terra": "MOD", "aqua": "MYD"}[platform]
    name = item_id(tile, first_day, platform=prefix, version=version)
    outline, meters = _modis_outline(tile)
    left, top = tile_origin(tile)
    begin = np.datetime64(int(first_day), "D")
    end, produced = begin + 15, begin + 18 + 365 * version
    properties = {
        "datetime": None,
        "start_datetime": f"{begin}T00:00:00Z",
        "end_datetime": f"{end}T23:59:59Z",
        "created": f"{produced}T03:15:07Z",
        "updated": f"{produced}T03:15:07Z",
        "platform": platform,
        "instruments": ["modis"],
        "modis:horizontal-tile": int(tile[1:3]),
        "modis:vertical-tile": int(tile[4:]),
        "modis:tile-id": f"510{tile[1:3]}0{tile[4:]}",
        "proj:epsg": None,
        "proj:wkt2": _modis_wkt(),
        "proj:geometry": meters,
        "proj:shape": [N_PIXELS, N_PIXELS],
        "proj:transform": [PIXEL_M, 0.0, left, 0.0, -PIXEL_M, top],
    }
    assets = {
        key: {
            "href": f"{folder}/{name}_{key}.tif",
            "type": COG_TYPE,
            "title": key[5:].replace("_", " "),
            "roles": ["data"],
            "raster:bands": [
                {"data_type": dtype, "spatial_resolution": 500}
                | ({"unit": "EVI", "scale": 0.0001} if key.endswith("EVI") else {})
            ],
        }
        for key, (dtype, _) in ASSETS.items()
    }
    return _item(name, MODIS_COLLECTION, outline, properties, assets)


def _modis_wkt() -> str:
    return CRS.from_user_input(MODIS_CRS).to_wkt("WKT2_2019")


def write_json_items(items: list[dict], path: Path) -> None:
    """Write an ItemCollection."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}, allow_nan=False))


def write_parquet_items(items: list[dict], path: Path) -> None:
    """Write stac-geoparquet: properties as columns, geometry as WKB, times as timestamps."""
    rows = []
    for item in items:
        row = {key: value for key, value in item.items() if key not in ("properties", "geometry", "bbox")}
        geometry = shapely.geometry.shape(item["geometry"])
        row["geometry"] = shapely.to_wkb(geometry)
        row["bbox"] = dict(zip(("xmin", "ymin", "xmax", "ymax"), item["bbox"], strict=True))
        for key, value in item["properties"].items():
            is_time = key.endswith("datetime") or key in ("created", "updated", "s2:generation_time")
            row[key] = datetime.fromisoformat(value) if is_time and value else value
        row["links"] = [{"rel": "collection", "href": item["collection"], "type": "application/json"}]
        rows.append(row)
    table = pa.Table.from_pylist(rows)
    empty = {"datetime": pa.timestamp("us", "UTC"), "proj:epsg": pa.int64()}
    for index, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            column = table[field.name].cast(empty.get(field.name, pa.string()))
            table = table.set_column(index, field.name, column)
    bounds = shapely.total_bounds(shapely.from_wkb(table["geometry"].to_pylist())).tolist()
    geo = {
        "version": "1.0.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "bbox": bounds}},
    }
    table = table.replace_schema_metadata({b"geo": json.dumps(geo).encode()})
    pq.write_table(table, path, compression="zstd")
