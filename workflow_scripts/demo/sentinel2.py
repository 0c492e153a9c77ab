"""Sentinel-2-like scenes of the made world: reflectance, clouds, scene classes, files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter, map_coordinates

from workflow_scripts.core.bands import ALL_BANDS, RESOLUTION_M, WAVELENGTH_NM
from workflow_scripts.core.grid import unproject
from workflow_scripts.demo.acquisitions import Scene, sun
from workflow_scripts.demo.fields import generator
from workflow_scripts.demo.parameters import World
from workflow_scripts.demo.spectra import pure
from workflow_scripts.demo.tile_ground import TileGround, Window, block_mean, tile_ground
from workflow_scripts.demo.vegetation import green_cover, snow_fraction

CLOUD_STEP_KM = 0.06
CLOUD_REACH_KM = 7.0
"""Clouds are drawn beyond the window, as their shadows fall from outside too."""
CLOUD_SIGMAS = (9.0, 3.0)
OROGRAPHY = 0.7
"""Clouds prefer the mountain by this many standard deviations."""
SHADOW_DEPTH = 0.55
CIRRUS_DEPTH = 0.10
SWATH_SLOPE = 0.21
"""Tangent of the ground track's angle to north."""
HIGH_CLOUD, MEDIUM_CLOUD, CLOUD_EDGE = 0.6, 0.25, 0.06
"""Opacity from which a pixel is classed 9, 8 and 7."""


@dataclass(frozen=True)
class Air:
    """What lies between the ground and the satellite, on the 10 m pixels."""

    opacity: np.ndarray
    cirrus: np.ndarray
    shadow: np.ndarray


@dataclass(frozen=True)
class RenderedScene:
    """Pixels of one scene as stored."""

    dn: dict[str, np.ndarray]
    scl: np.ndarray


def clouds(world: World, scene: Scene, place: TileGround) -> Air:
    """Draw the clouds of a datatake; they belong to the ground, so two tiles show the same."""
    take = scene.datatake
    shape = place.land.shape
    zero = np.zeros(shape, np.float32)
    if take.sky.cover == 0 and not take.sky.has_cirrus:
        return Air(zero, zero, zero)
    rng = generator(world.seed, take.island.name, "clouds", take.day)
    n = round(2 * CLOUD_REACH_KM / CLOUD_STEP_KM)
    axis = (np.arange(n) + 0.5) * CLOUD_STEP_KM - CLOUD_REACH_KM
    field = np.zeros((n, n))
    for sigma in CLOUD_SIGMAS:
        part = gaussian_filter(rng.standard_normal((n, n)), sigma, mode="wrap")
        field += part / part.std()
    peak_east, peak_north = take.island.peak_km
    distance2 = (axis[None, :] - peak_east) ** 2 + (axis[:, None] - peak_north) ** 2
    field += OROGRAPHY * np.exp(-distance2 / (2 * world.hill_km**2))
    inner = np.abs(axis) < world.window_m / 2000
    if take.sky.cover >= 1:
        opacity = np.clip(0.9 + 0.05 * field, 0.7, 1)
    elif take.sky.cover == 0:
        opacity = np.zeros((n, n))
    else:
        limit = np.quantile(field[np.ix_(inner, inner)], 1 - take.sky.cover)
        opacity = 1 - np.exp(-np.clip((field - limit) * 3 + MEDIUM_CLOUD, 0, 4))

    def at(values: np.ndarray, east_km: np.ndarray, north_km: np.ndarray) -> np.ndarray:
        rows = (north_km - axis[0]) / CLOUD_STEP_KM
        columns = (east_km - axis[0]) / CLOUD_STEP_KM
        return map_coordinates(values.astype(np.float32), [rows, columns], order=1, mode="nearest")

    elevation, azimuth = np.radians(sun(take.island, take.time))
    throw = min(take.sky.height_m / 1000 / np.tan(elevation), CLOUD_REACH_KM / 2)
    east, north = place.east_km, place.north_km
    shadow = at(opacity, east + throw * np.sin(azimuth), north + throw * np.cos(azimuth))
    cirrus = zero
    if take.sky.has_cirrus:
        wisps = gaussian_filter(rng.standard_normal((n, n)), (8, 30), mode="wrap")
        cirrus = at(np.where(wisps > 0.4 * wisps.std(), CIRRUS_DEPTH, 0), east, north)
    return Air(at(opacity, east, north), cirrus, shadow)


def illumination(scene: Scene, place: TileGround) -> np.ndarray:
    """Give the brightness of slopes relative to flat ground; half of it was corrected away."""
    elevation, azimuth = np.radians(sun(scene.datatake.island, scene.datatake.time))
    toward_sun = -(place.slope_east * np.sin(azimuth) + place.slope_north * np.cos(azimuth))
    incidence = (np.sin(elevation) + toward_sun * np.cos(elevation)) / np.sqrt(
        1 + place.slope_east**2 + place.slope_north**2
    )
    return np.clip(0.5 + 0.5 * incidence / np.sin(elevation), 0.55, 1.35).astype(np.float32)


def in_swath(scene: Scene, window: Window, resolution_m: int) -> np.ndarray:
    """Tell which pixels were seen; the edge is slanted as the ground track."""
    x, y = window.centers(resolution_m)
    if scene.datatake.swath_edge is None:
        return np.ones((y.size, x.size), bool)
    edge = _edge_x(scene, window, y)[:, None]
    return x >= edge if scene.datatake.data_east else x < edge


def _edge_x(scene: Scene, window: Window, y: np.ndarray) -> np.ndarray:
    middle = window.origin_x + scene.datatake.swath_edge * window.size_m
    return middle + SWATH_SLOPE * (y - window.origin_y + window.size_m / 2)


def footprint(scene: Scene, window: Window) -> shapely.Polygon:
    """Give the outline of the valid data in longitude and latitude."""
    left, top, size = window.origin_x, window.origin_y, window.size_m
    outline = shapely.box(left, top - size, left + size, top)
    if scene.datatake.swath_edge is not None:
        y = np.array([top + 60, top - size - 60])
        far = left + 2 * size if scene.datatake.data_east else left - size
        edge = _edge_x(scene, window, y)
        seen = shapely.Polygon([(edge[0], y[0]), (far, y[0]), (far, y[1]), (edge[1], y[1])])
        outline = outline.intersection(seen)
    dense = shapely.segmentize(outline, 1000)
    return shapely.transform(dense, lambda xy: np.column_stack(unproject(*xy.T, window.epsg)))


def render(world: World, scene: Scene) -> RenderedScene:
    """Compute all pixels of a scene: mixed spectra, light, clouds, haze, noise, offset, swath."""
    take = scene.datatake
    place = tile_ground(world, take.island, scene.tile)
    window = place.window
    cover = green_cover(world, take.island, place.ground, take.day)
    cover = np.where(place.land, np.clip(cover * place.cover_factor, 0, 1), 0).astype(np.float32)
    snow = snow_fraction(world, take.island, place.ground, take.day)
    snow = np.where(place.land, snow, 0).astype(np.float32)
    air = clouds(world, scene, place)
    light = illumination(scene, place) * (1 - SHADOW_DEPTH * air.shadow)
    veil = np.maximum(air.opacity, air.cirrus)

    haze = world.haze * generator(world.seed, take.island.name, "haze", take.day).standard_normal()
    rng = generator(world.seed, scene.tile.name, "noise", take.day, scene.sequence)
    states, seen, dn, mean = {}, {}, {}, {}
    for resolution in (10, 20, 60):
        layers = (cover, snow, light, veil)
        states[resolution] = tuple(block_mean(layer, resolution // 10) for layer in layers)
        seen[resolution] = in_swath(scene, window, resolution)
    for index, band in enumerate(ALL_BANDS):
        resolution = RESOLUTION_M[band]
        green, white, bright, covered = states[resolution]
        value = place.background[band] + green * place.green_gain[band]
        value += white * (np.float32(pure("snow")[index]) - value)
        value *= bright
        value += covered * (np.float32(pure("cloud")[index]) - value)
        value += np.float32(haze * (443 / WAVELENGTH_NM[band]) ** 2)
        mean[band] = value
        noise = rng.standard_normal(value.shape, dtype=np.float32)
        noise *= world.dn_noise * np.sqrt(np.maximum(value, 0) / 0.1)
        steps = np.rint((value * 1e4 + noise) / world.dn_step)
        stored = steps * world.dn_step + scene.dn_offset
        dn[band] = np.where(seen[resolution], np.clip(stored, 1, 65535), 0).astype(np.uint16)
    red, nir = block_mean(mean["B04"], 2), block_mean(mean["B08"], 2)
    scl = _classify(place, air, states[20][1], (nir - red) / np.maximum(nir + red, 1e-3))
    return RenderedScene(dn, np.where(seen[20], scl, 0).astype(np.uint8))


def _classify(place: TileGround, air: Air, snow: np.ndarray, ndvi: np.ndarray) -> np.ndarray:
    """Give Sen2Cor's classes of the 20 m pixels from the truth, as a good classifier would."""
    land = block_mean(place.land.astype(np.float32), 2) >= 0.5
    opacity, cirrus, shadow = (block_mean(layer, 2) for layer in (air.opacity, air.cirrus, air.shadow))
    return np.select(
        [
            opacity > HIGH_CLOUD,
            opacity > MEDIUM_CLOUD,
            opacity > CLOUD_EDGE,
            cirrus > CIRRUS_DEPTH / 2,
            shadow > MEDIUM_CLOUD,
            ~land,
            snow > 0.5,
            ndvi > 0.35,
        ],
        [9, 8, 7, 10, 3, 6, 11, 4],
        5,
    )


def write_scene(world: World, scene: Scene, folder: Path) -> np.ndarray:
    """Write a scene's thirteen files into `folder`; give the count of pixels of each scene class."""
    rendered = render(world, scene)
    window = tile_ground(world, scene.datatake.island, scene.tile).window
    folder.mkdir(parents=True, exist_ok=True)
    for band, array in {**rendered.dn, "SCL": rendered.scl}.items():
        step = window.size_m // array.shape[0]
        with rasterio.open(
            folder / f"{band}.tif",
            "w",
            driver="COG",
            width=array.shape[1],
            height=array.shape[0],
            count=1,
            dtype=array.dtype,
            crs=f"EPSG:{window.epsg}",
            transform=from_origin(window.origin_x, window.origin_y, step, step),
            nodata=0,
            compress="deflate",
            predictor="yes",
            blocksize=256,
            overviews="none",
            level=1,  # higher ones take twice the time of a scene and save a tenth of its bytes
        ) as file:
            file.write(array, 1)
    return np.bincount(rendered.scl.ravel(), minlength=12)
