"""Coast, relief, ecoregions and mean temperature of the made world, as functions of the place."""

from dataclasses import dataclass
from functools import cache, partial

import contourpy
import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from workflow_scripts.demo.fields import generator, smooth_field
from workflow_scripts.demo.parameters import BIOME_NAMES, Island, World

CLIMATE_STEP_DEGREES = 0.005
N_COAST_VERTICES = 360
COAST_HARMONICS = 5
BORDER_STEP_KM = 0.05
"""Distance of vertices on borders between ecoregions."""


def to_local(island: Island, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give kilometers east and north of the island's center (equirectangular on the ellipsoid)."""
    east, north = _km_per_degree(island)
    return (np.asarray(lon) - island.lon) * east, (np.asarray(lat) - island.lat) * north


def to_lonlat(island: Island, east_km: np.ndarray, north_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give longitude and latitude of a place on the island."""
    east, north = _km_per_degree(island)
    return island.lon + np.asarray(east_km) / east, island.lat + np.asarray(north_km) / north


def _km_per_degree(island: Island) -> tuple[float, float]:
    """Length of a degree on WGS 84 at the island's latitude (series to 1 m)."""
    phi = np.radians(island.lat)
    east = 111.41284 * np.cos(phi) - 0.0935 * np.cos(3 * phi) + 0.000118 * np.cos(5 * phi)
    north = 111.13292 - 0.55982 * np.cos(2 * phi) + 0.001175 * np.cos(4 * phi)
    return float(east), float(north)


@cache
def _coast(world: World, island: Island) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(world.seed, island.name, "coast")
    amplitude = rng.standard_normal(COAST_HARMONICS) / np.arange(1, COAST_HARMONICS + 1)
    amplitude *= world.coast_relief / np.sqrt(np.mean(amplitude**2) * COAST_HARMONICS / 2)
    return amplitude, rng.uniform(0, 2 * np.pi, COAST_HARMONICS)


def coast_radius_km(world: World, island: Island, angle: np.ndarray) -> np.ndarray:
    """Give the distance of the coast from the center, by the angle from east to north."""
    amplitude, phase = _coast(world, island)
    waves = (np.arange(COAST_HARMONICS) + 2) * np.asarray(angle)[..., None] + phase
    return world.radius_km * (1 + np.sum(amplitude * np.cos(waves), axis=-1))


def shore_ratio(world: World, island: Island, east_km: np.ndarray, north_km: np.ndarray) -> np.ndarray:
    """Give the distance from the center relative to the coast's: below 1 is land."""
    angles = np.linspace(-np.pi, np.pi, 1441)
    radius = np.interp(np.arctan2(north_km, east_km), angles, coast_radius_km(world, island, angles))
    return np.hypot(east_km, north_km) / radius


def elevation_m(world: World, island: Island, east_km: np.ndarray, north_km: np.ndarray) -> np.ndarray:
    """Give the height above the sea: a mountain on a gently rolling plain."""
    distance2 = (east_km - island.peak_km[0]) ** 2 + (north_km - island.peak_km[1]) ** 2
    rng = generator(world.seed, island.name, "relief")
    rolling = smooth_field(rng, east_km, north_km, scale_km=world.relief_scale_km)
    mountain = island.height_m * np.exp(-distance2 / (2 * world.hill_km**2))
    return np.maximum(40 + mountain + world.relief_m * rolling, 2)


def _border_shift(
    world: World, island: Island, east_km: np.ndarray, north_km: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement after which the borders of ecoregions are straight."""
    return tuple(
        world.border_warp_km
        * smooth_field(
            generator(world.seed, island.name, "border", axis),
            east_km,
            north_km,
            scale_km=world.border_scale_km,
        )
        for axis in ("east", "north")
    )


def ecoregion_index(world: World, island: Island, east_km: np.ndarray, north_km: np.ndarray) -> np.ndarray:
    """Give the position in `island.ecoregions` of the seat nearest to the displaced place, int8."""
    shift = _border_shift(world, island, east_km, north_km)
    east, north = east_km + shift[0], north_km + shift[1]
    distances = [np.hypot(east - e.seat_km[0], north - e.seat_km[1]) for e in island.ecoregions]
    return np.argmin(distances, axis=0).astype(np.int8)


def _wind_border(world: World, island: Island, straight_km: np.ndarray) -> np.ndarray:
    """Bring vertices of straight borders to their place: invert the displacement by iteration."""
    east, north = straight_km.T
    for _ in range(60):
        shift = _border_shift(world, island, east, north)
        east, north = straight_km[:, 0] - shift[0], straight_km[:, 1] - shift[1]
    return np.column_stack(to_lonlat(island, east, north))


@dataclass(frozen=True)
class Ground:
    """What the vegetation of a set of places depends on; arrays of one shape."""

    ecoregion: np.ndarray
    """Position in the island's ecoregions."""
    elevation_m: np.ndarray
    temperature_c: np.ndarray
    """Annual mean."""
    timing_days: np.ndarray
    """Local delay of the whole year."""
    vigor: np.ndarray
    """Factor of the range of green cover."""


def ground_at(world: World, island: Island, east_km: np.ndarray, north_km: np.ndarray) -> Ground:
    """Give the ground at places in local kilometers."""

    def field(name: str) -> np.ndarray:
        rng = generator(world.seed, island.name, name)
        return smooth_field(rng, east_km, north_km, scale_km=world.field_scale_km)

    elevation = elevation_m(world, island, east_km, north_km)
    lat = to_lonlat(island, east_km, north_km)[1]
    sea_level = world.equator_temperature_c - world.cooling_c_per_degree2 * lat**2
    temperature = sea_level - world.lapse_rate_c_per_km * elevation / 1000
    vigor = 1 + world.vigor_field * field("vigor") - world.vigor_loss_per_100m * elevation / 100
    return Ground(
        ecoregion=ecoregion_index(world, island, east_km, north_km),
        elevation_m=elevation,
        temperature_c=temperature + world.temperature_field_c * field("temperature"),
        timing_days=world.timing_field_days * field("timing"),
        vigor=np.clip(vigor, 0.3, 1.15),
    )


def land_polygon(world: World, island: Island) -> shapely.Polygon:
    """Give the island's outline in longitude and latitude."""
    angle = np.linspace(0, 2 * np.pi, N_COAST_VERTICES, endpoint=False)
    radius = coast_radius_km(world, island, angle)
    lon, lat = to_lonlat(island, radius * np.cos(angle), radius * np.sin(angle))
    return shapely.Polygon(np.column_stack([lon, lat]))


def land_frame(world: World) -> gpd.GeoDataFrame:
    """Give one polygon per island."""
    return gpd.GeoDataFrame(
        {"name": [island.name for island in world.islands]},
        geometry=[land_polygon(world, island) for island in world.islands],
        crs="EPSG:4326",
    )


def ecoregion_frame(world: World) -> gpd.GeoDataFrame:
    """Give the ecoregions with RESOLVE's columns; each is the part of an island next to its seat."""
    rows = []
    for island in world.islands:
        coast = land_polygon(world, island)
        reach = 2 * world.radius_km
        frame = shapely.box(-reach, -reach, reach, reach)
        seats = shapely.MultiPoint([e.seat_km for e in island.ecoregions])
        parts = shapely.voronoi_polygons(seats, extend_to=frame, ordered=True).geoms
        for ecoregion, part in zip(island.ecoregions, parts, strict=True):
            straight = shapely.segmentize(part.intersection(frame), BORDER_STEP_KM)
            winding = shapely.transform(straight, partial(_wind_border, world, island))
            rows.append(
                {
                    "ECO_ID": ecoregion.eco_id,
                    "ECO_NAME": ecoregion.name,
                    "BIOME_NUM": ecoregion.biome_num,
                    "BIOME_NAME": BIOME_NAMES[ecoregion.biome_num],
                    "REALM": island.realm,
                    "geometry": winding.intersection(coast),
                }
            )
    frame = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    return frame.astype({"ECO_ID": "int32", "BIOME_NUM": "int32"})


def mountain_frame(world: World) -> gpd.GeoDataFrame:
    """Give the ground above `mountain_above_m` of each island that has a mountain."""
    names, polygons = [], []
    axis = np.arange(-2 * world.radius_km, 2 * world.radius_km, 0.05)
    east, north = np.meshgrid(axis, axis)
    for island in world.islands:
        if island.mountain_above_m is None:
            continue
        height = elevation_m(world, island, east, north)
        lines = contourpy.contour_generator(axis, axis, height).lines(island.mountain_above_m)
        closed = [line for line in lines if len(line) > 3 and np.allclose(line[0], line[-1])]
        rings = [shapely.Polygon(np.column_stack(to_lonlat(island, *line.T))) for line in closed]
        names.append(f"{island.name} mountain")
        polygons.append(shapely.union_all(rings).intersection(land_polygon(world, island)))
    return gpd.GeoDataFrame({"name": names}, geometry=polygons, crs="EPSG:4326")


def write_climate(world: World, path: str) -> None:
    """Write the map of mean temperature (°C, float32) in geographic coordinates.

    It has values on the islands and a little beyond their coasts; the sea between is one hole
    (NaN), which costs no space: the file is sparse.
    """
    step = CLIMATE_STEP_DEGREES
    margin = 0.06
    west = min(island.lon for island in world.islands) - margin
    east = max(island.lon for island in world.islands) + margin
    south = min(island.lat for island in world.islands) - margin
    north = max(island.lat for island in world.islands) + margin
    profile = {
        "driver": "GTiff",
        "width": round((east - west) / step),
        "height": round((north - south) / step),
        "count": 1,
        "dtype": "float32",
        "crs": "EPSG:4326",
        "transform": from_origin(west, north, step, step),
        "nodata": np.nan,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "sparse_ok": True,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.set_band_description(1, "mean temperature (degrees Celsius)")
        for island in world.islands:
            n = int(2 * margin / step)
            column = round((island.lon - margin - west) / step)
            row = round((north - island.lat - margin) / step)
            lon = west + (column + 0.5 + np.arange(n)) * step
            lat = north - (row + 0.5 + np.arange(n)) * step
            place = to_local(island, *np.meshgrid(lon, lat))
            values = ground_at(world, island, *place).temperature_c.astype(np.float32)
            values[shore_ratio(world, island, *place) > 1.2] = np.nan
            file.write(values, 1, window=rasterio.windows.Window(column, row, n, n))
