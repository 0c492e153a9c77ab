"""What is true in the made world: dates of its cycles and the NDVI a perfect satellite would see."""

import numpy as np
import pandas as pd

from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.demo.fields import generator
from workflow_scripts.demo.geography import ground_at, shore_ratio, to_local, to_lonlat
from workflow_scripts.demo.modis import land_pixels
from workflow_scripts.demo.parameters import Island, World
from workflow_scripts.demo.spectra import ndvi
from workflow_scripts.demo.vegetation import day_number, reflectance, snow_fraction, true_cycles, true_evi


def daily_evi(
    world: World, island: Island, lon: np.ndarray, lat: np.ndarray, *, years: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Give days since 1970-01-01 and the true EVI, shape (day, place), of whole years."""
    days = np.arange(int(day_number(years[0])), int(day_number(years[1] + 1)))
    return days, true_evi(world, island, ground_at(world, island, *to_local(island, lon, lat)), days)


def true_phenology(world: World, island: Island) -> pd.DataFrame:
    """Give the true cycles at the centers of the composites' land pixels.

    Places without a row have no cycle by the definition (evergreen, desert).

    Returns
    -------
    DataFrame with `lon`, `lat`, `eco_id`, `tile`, `row`, `column`, `year`, `cycle`, the seven
    transitions (datetime64) and `amplitude` (EVI)
    """
    pixels = land_pixels(world, island)
    first, last = world.modis_years
    days, curves = daily_evi(world, island, pixels.lon, pixels.lat, years=(first - 1, last + 1))
    rows = []
    for pixel, curve in enumerate(curves.T):
        place = {"lon": pixels.lon[pixel], "lat": pixels.lat[pixel], "tile": pixels.tile}
        place |= {"row": int(pixels.row[pixel]), "column": int(pixels.column[pixel])}
        place["eco_id"] = island.ecoregions[pixels.ground.ecoregion[pixel]].eco_id
        rows += [place | cycle for cycle in true_cycles(days, curve, years=world.modis_years)]
    frame = pd.DataFrame(rows)
    for name in TRANSITIONS:
        frame[name] = pd.to_datetime(frame[name], unit="D")
    return frame


def ndvi_at(
    world: World, island: Island, lon: np.ndarray, lat: np.ndarray, dates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give noise-free NDVI and snow fraction, shape (date, place), from the scenes' own spectra.

    Texture, light, haze and sensor noise are left out; snow on the ground is seen.

    Parameters
    ----------
    dates : datetime64, ascending
    """
    days = np.asarray(dates, "datetime64[D]").astype(int)
    ground = ground_at(world, island, *to_local(island, lon, lat))
    seen = reflectance(world, island, ground, days, with_snow=True)
    return ndvi(seen), snow_fraction(world, island, ground, days)


def true_ndvi(world: World, island: Island) -> pd.DataFrame:
    """Give weekly NDVI at random points of the island over the years of the scenes."""
    rng = generator(world.seed, island.name, "truth points")
    place = rng.uniform(-1, 1, (2, 40 * world.n_truth_points)) * world.radius_km
    place = place[:, shore_ratio(world, island, *place) < 0.95][:, : world.n_truth_points]
    lon, lat = to_lonlat(island, *place)
    first, last = world.scene_years
    dates = np.arange(np.datetime64(f"{first}-01-01"), np.datetime64(f"{last + 1}-01-01"), 7)
    values, snow = ndvi_at(world, island, lon, lat, dates)
    return pd.DataFrame(
        {
            "lon": np.repeat(lon, dates.size),
            "lat": np.repeat(lat, dates.size),
            "date": np.tile(dates.astype("datetime64[ns]"), lon.size),
            "ndvi": values.T.ravel().astype("float32"),
            "snow_fraction": snow.T.ravel().astype("float32"),
        }
    )
