"""Composites of the made world in the manner of MOD13A1: 16 days, 463 m, sinusoidal tiles.

The files have the true geometry (2400 × 2400 pixels per tile). Almost all of a tile is sea, hence
fill, and its blocks are not written at all (sparse GeoTIFF).
"""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from workflow_scripts.core.grid import MODIS_CRS, MODIS_RADIUS_M, MODIS_TILE_M
from workflow_scripts.demo.fields import generator, smooth_field
from workflow_scripts.demo.geography import Ground, ground_at, shore_ratio, to_local, to_lonlat
from workflow_scripts.demo.parameters import Island, World
from workflow_scripts.demo.vegetation import day_number, snow_fraction, true_evi

N_PIXELS = 2400
PIXEL_M = MODIS_TILE_M / N_PIXELS
FIRST_DOYS = tuple(range(1, 354, 16))
BLOCK = 512

EVI_FILL, QUALITY_FILL, DAY_FILL = -3000, -1, -1
GOOD, MARGINAL, SNOW, CLOUDY = 0, 1, 2, 3
SNOW_EVI = 0.02
"""Index of fully white ground."""
CLOUD_EVI = 0.08
"""Index of clouds."""

ASSETS = {
    "500m_16_days_EVI": ("int16", EVI_FILL),
    "500m_16_days_pixel_reliability": ("int8", QUALITY_FILL),
    "500m_16_days_composite_day_of_the_year": ("int16", DAY_FILL),
}
"""Asset key, data type and fill value of each file."""


@dataclass(frozen=True)
class ModisPixels:
    """The land pixels of one island in its sinusoidal tile, one per row."""

    tile: str
    row: np.ndarray
    column: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    east_km: np.ndarray
    north_km: np.ndarray
    ground: Ground


def tile_origin(tile: str) -> tuple[float, float]:
    """Give the upper left corner of a sinusoidal tile in meters."""
    return (int(tile[1:3]) - 18) * MODIS_TILE_M, (9 - int(tile[4:6])) * MODIS_TILE_M


def tile_of(island: Island) -> str:
    """Name the sinusoidal tile that holds the island (it must lie in one)."""
    return _tile_at(*_sinusoidal(np.array(island.lon), np.array(island.lat)))


def _sinusoidal(lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    phi = np.radians(lat)
    return MODIS_RADIUS_M * np.radians(lon) * np.cos(phi), MODIS_RADIUS_M * phi


def _tile_at(x: np.ndarray, y: np.ndarray) -> str:
    return f"h{int(np.floor(x / MODIS_TILE_M)) + 18:02d}v{8 - int(np.floor(y / MODIS_TILE_M)):02d}"


@cache
def land_pixels(world: World, island: Island) -> ModisPixels:
    """List the pixels whose center lies on the island."""
    reach = 1.3 * world.radius_km
    corner_lon, corner_lat = to_lonlat(
        island, np.array([-reach, reach, -reach, reach]), np.array([-reach, -reach, reach, reach])
    )
    x, y = _sinusoidal(corner_lon, corner_lat)
    tile = tile_of(island)
    left, top = tile_origin(tile)
    columns = np.arange(int((x.min() - left) / PIXEL_M), int((x.max() - left) / PIXEL_M) + 1)
    rows = np.arange(int((top - y.max()) / PIXEL_M), int((top - y.min()) / PIXEL_M) + 1)
    if min(columns[0], rows[0]) < 0 or max(columns[-1], rows[-1]) >= N_PIXELS:
        raise ValueError(f"island {island.name!r} crosses the border of sinusoidal tile {tile!r}")
    column, row = (part.ravel() for part in np.meshgrid(columns, rows))
    phi = (top - (row + 0.5) * PIXEL_M) / MODIS_RADIUS_M
    lat = np.degrees(phi)
    lon = np.degrees((left + (column + 0.5) * PIXEL_M) / (MODIS_RADIUS_M * np.cos(phi)))
    east, north = to_local(island, lon, lat)
    land = shore_ratio(world, island, east, north) < 1
    place = east[land], north[land]
    return ModisPixels(
        tile, row[land], column[land], lon[land], lat[land], *place, ground_at(world, island, *place)
    )


@dataclass(frozen=True)
class Composite:
    """Values of one composite on the land pixels, as stored in the files."""

    evi: np.ndarray
    reliability: np.ndarray
    day_of_year: np.ndarray


def composite(world: World, island: Island, first_day: int, *, version: int = 0) -> Composite:
    """Observe the land pixels within 16 days.

    Each pixel keeps the best of the days on which its neighborhood was seen; its value is that of
    this day. Days of a December composite that lie in January count from 1 again, as in the product.

    Parameters
    ----------
    first_day : days since 1970-01-01
    version : production run; another one has other noise
    """
    pixels = land_pixels(world, island)
    rng = generator(world.seed, island.name, "modis", first_day, version)
    n = pixels.row.size
    place = pixels.east_km, pixels.north_km
    seen = rng.integers(0, 16, 4)
    patches = smooth_field(rng, *place, scale_km=1.5) + 0.7 * rng.standard_normal(n)
    day = first_day + seen[np.clip(np.floor(patches + 2), 0, 3).astype(int)]

    curve = np.empty(n)
    snow = np.empty(n)
    for value in np.unique(day):
        here = day == value
        ground = _subset(pixels.ground, here)
        curve[here] = true_evi(world, island, ground, value)
        snow[here] = snow_fraction(world, island, ground, value)

    quality = _quality(island, rng, place)
    quality = np.where((quality <= MARGINAL) & (quality != QUALITY_FILL) & (snow > 0.1), SNOW, quality)

    noise = world.evi_noise * rng.standard_normal(n)
    veil = rng.uniform(0.3, 0.9, n)
    clean = curve + snow * (SNOW_EVI - curve)
    value = np.select(
        [quality == MARGINAL, quality == CLOUDY],
        [clean + world.marginal_bias + 2 * noise, clean + veil * (CLOUD_EVI - clean) + 2 * noise],
        clean + noise,
    )
    stored = np.clip(np.rint(value * 1e4), -2000, 10000)
    missing = quality == QUALITY_FILL
    day_of_year = day - _new_year(day) + 1
    return Composite(
        evi=np.where(missing, EVI_FILL, stored).astype(np.int16),
        reliability=quality.astype(np.int8),
        day_of_year=np.where(missing, DAY_FILL, day_of_year).astype(np.int16),
    )


def _quality(island: Island, rng: np.random.Generator, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Draw which pixels are missing, cloudy or marginal: clustered, and more in some composites."""
    n = place[0].size
    sky = smooth_field(rng, *place, scale_km=1.5) + rng.standard_normal(n)
    rank = np.argsort(np.argsort(sky)) / n
    marginal, cloudy, missing = np.array(island.modis_gaps) * rng.uniform(0.2, 1.8)
    return np.select(
        [rank < missing, rank < missing + cloudy, rank < missing + cloudy + marginal],
        [QUALITY_FILL, CLOUDY, MARGINAL],
        GOOD,
    )


def _new_year(day: np.ndarray) -> np.ndarray:
    """Give the 1 January of each day's year, in days since 1970-01-01."""
    return day.astype("datetime64[D]").astype("datetime64[Y]").astype("datetime64[D]").astype(int)


def _subset(ground: Ground, rows: np.ndarray) -> Ground:
    return Ground(**{field.name: getattr(ground, field.name)[rows] for field in fields(ground)})


def item_id(tile: str, first_day: int, *, platform: str = "MOD", version: int = 0) -> str:
    """Name a composite as the catalogs do, with its production time at the end.

    The first run follows 18 days after the composite begins, a later one a year on.
    """
    produced = np.datetime64(int(first_day) + 18 + 365 * version, "D")
    return f"{platform}13A1.A{_year_doy(first_day)}.{tile}.061.{_year_doy(produced)}031507"


def _year_doy(day: int | np.datetime64) -> str:
    day = np.datetime64(int(day), "D") if not isinstance(day, np.datetime64) else day
    year = day.astype("datetime64[Y]")
    return f"{year}{int((day - year.astype('datetime64[D]')).astype(int)) + 1:03d}"


def write_composite(world: World, island: Island, first_day: int, folder: Path, *, version: int = 0) -> str:
    """Write the files of one composite under `folder` and give the item's id."""
    pixels = land_pixels(world, island)
    values = composite(world, island, first_day, version=version)
    name = item_id(pixels.tile, first_day, version=version)
    folder.mkdir(parents=True, exist_ok=True)
    rows = slice(pixels.row.min() // BLOCK * BLOCK, pixels.row.max() + 1)
    columns = slice(pixels.column.min() // BLOCK * BLOCK, pixels.column.max() + 1)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    left, top = tile_origin(pixels.tile)
    arrays = (values.evi, values.reliability, values.day_of_year)
    for (asset, (dtype, fill)), array in zip(ASSETS.items(), arrays, strict=True):
        window = np.full((height, width), fill, dtype)
        window[pixels.row - rows.start, pixels.column - columns.start] = array
        with rasterio.open(
            folder / f"{name}_{asset}.tif",
            "w",
            driver="GTiff",
            width=N_PIXELS,
            height=N_PIXELS,
            count=1,
            dtype=dtype,
            crs=MODIS_CRS,
            transform=from_origin(left, top, PIXEL_M, PIXEL_M),
            nodata=fill,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            sparse_ok=True,
            compress="deflate",
        ) as file:
            file.write(window, 1, window=Window(columns.start, rows.start, width, height))
    return name


def first_days(year: int) -> list[int]:
    """Give the first days of a year's 23 composites, in days since 1970-01-01."""
    return [int(day_number(year, doy)) for doy in FIRST_DOYS]
