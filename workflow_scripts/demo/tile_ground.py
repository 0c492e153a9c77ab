"""The ground of an island on the pixel lattice of one Sentinel-2 tile: what scenes share."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import map_coordinates

from workflow_scripts.core.bands import ALL_BANDS, RESOLUTION_M
from workflow_scripts.core.grid import project, unproject
from workflow_scripts.demo.fields import generator, texture
from workflow_scripts.demo.geography import Ground, ground_at, shore_ratio, to_local
from workflow_scripts.demo.parameters import Island, Tile, World
from workflow_scripts.demo.spectra import endmembers, pure

TEXTURE_M = 10
PARCEL_M = (150, 210)
PARCEL_CONTRAST = 0.12
TEXTURE_SCALES = {3.0: 0.5, 8.0: 0.6, 20.0: 0.6}
"""Weight of widths in pixels of 10 m: hedges and gaps, stands, slopes."""
SNOW_PATCHINESS_C = 0.6
SEA_TEXTURE = 0.05


@dataclass(frozen=True)
class Window:
    """The square that an island's files of one tile cover."""

    epsg: int
    origin_x: int
    origin_y: int
    size_m: int

    def centers(self, resolution_m: int) -> tuple[np.ndarray, np.ndarray]:
        """Give x of the columns and y of the rows of pixel centers, meters."""
        steps = (np.arange(self.size_m // resolution_m) + 0.5) * resolution_m
        return self.origin_x + steps, self.origin_y - steps


def scene_window(world: World, island: Island, tile: Tile) -> Window:
    """Give the files' window: about centered on the island, on the tile's own 60 m lattice."""
    x, y = project(island.lon, island.lat, tile.epsg)
    left, top = tile.tile_origin
    column = round((x - world.window_m / 2 - left) / 60) + tile.shift_60m[0]
    row = round((top - y - world.window_m / 2) / 60) + tile.shift_60m[1]
    return Window(tile.epsg, left + 60 * column, top - 60 * row, world.window_m)


@dataclass(frozen=True)
class TileGround:
    """Arrays on the window's 10 m pixels unless said otherwise."""

    window: Window
    east_km: np.ndarray
    north_km: np.ndarray
    ground: Ground
    land: np.ndarray
    cover_factor: np.ndarray
    """Texture of the green cover, about 1."""
    slope_east: np.ndarray
    slope_north: np.ndarray
    background: dict[str, np.ndarray]
    """Reflectance without green cover, per band at its own resolution."""
    green_gain: dict[str, np.ndarray]
    """Reflectance of green cover minus background."""


def block_mean(values: np.ndarray, factor: int) -> np.ndarray:
    """Average square blocks of pixels."""
    if factor == 1:
        return values
    rows, columns = (n // factor for n in values.shape)
    return values.reshape(rows, factor, columns, factor).mean(axis=(1, 3))


def _texture_at(
    world: World, island: Island, name: str, east_km: np.ndarray, north_km: np.ndarray
) -> np.ndarray:
    """Sample the island's texture, which belongs to the ground and not to a tile's lattice."""
    n = round((world.window_m + 2400) / TEXTURE_M)
    rng = generator(world.seed, island.name, "texture", name)
    raster = texture(rng, n, scales=TEXTURE_SCALES)
    rows = n / 2 - 0.5 - north_km * (1000 / TEXTURE_M)
    columns = n / 2 - 0.5 + east_km * (1000 / TEXTURE_M)
    return map_coordinates(raster, [rows, columns], order=1, mode="nearest", output=np.float32)


def _parcels(
    world: World, island: Island, name: str, east_km: np.ndarray, north_km: np.ndarray
) -> np.ndarray:
    """Give each parcel of a rectangular field pattern its own standard normal value."""
    column = np.floor(east_km * 1000 / PARCEL_M[0]).astype(int)
    row = np.floor(north_km * 1000 / PARCEL_M[1] + 0.5 * (column % 2)).astype(int)
    values = generator(world.seed, island.name, "parcels", name).standard_normal((256, 256))
    return values[row + 128, column + 128]


def _contrast(world: World, island: Island, name: str, place: tuple, ecoregion: np.ndarray) -> np.ndarray:
    """Give the relative deviation of pixels: texture, and parcels where the ecoregion has them."""
    deviation = np.array([e.texture for e in island.ecoregions], np.float32)[ecoregion]
    deviation = deviation * _texture_at(world, island, name, *place)
    for index, region in enumerate(island.ecoregions):
        if region.has_parcels:
            parcels = PARCEL_CONTRAST * _parcels(world, island, name, *place)
            deviation = np.where(ecoregion == index, deviation + parcels, deviation)
    return np.clip(deviation, -0.6, 0.6).astype(np.float32)


@lru_cache(maxsize=1)
def tile_ground(world: World, island: Island, tile: Tile) -> TileGround:
    """Compute the ground on a tile's lattice; kept until another tile is asked for."""
    window = scene_window(world, island, tile)
    lon, lat = unproject(*np.meshgrid(*window.centers(10)), window.epsg)
    place = to_local(island, lon, lat)
    ground = ground_at(world, island, *place)
    land = shore_ratio(world, island, *place) < 1
    brightness = 1 + _contrast(world, island, "brightness", place, ground.ecoregion)
    soil = brightness * (1 + world.soil_brightening_per_100m * ground.elevation_m / 100)
    sea = 1 + SEA_TEXTURE * _texture_at(world, island, "sea", *place)
    background, green = endmembers(island.ecoregions)
    bare, gain = {}, {}
    for index, band in enumerate(ALL_BANDS):
        factor = RESOLUTION_M[band] // 10
        bare10 = np.where(land, background[ground.ecoregion, index] * soil, pure("water")[index] * sea)
        green10 = np.where(land, green[ground.ecoregion, index] * brightness, bare10)
        bare[band] = block_mean(bare10, factor).astype(np.float32)
        gain[band] = block_mean(green10 - bare10, factor).astype(np.float32)
    rise_south, rise_east = np.gradient(ground.elevation_m, 10)
    snowy = SNOW_PATCHINESS_C * _texture_at(world, island, "snow", *place)
    return TileGround(
        window=window,
        east_km=place[0],
        north_km=place[1],
        ground=replace(ground, temperature_c=ground.temperature_c + snowy),
        land=land,
        cover_factor=1 + _contrast(world, island, "cover", place, ground.ecoregion),
        slope_east=np.where(land, rise_east, 0).astype(np.float32),
        slope_north=np.where(land, -rise_south, 0).astype(np.float32),
        background=bare,
        green_gain=gain,
    )
