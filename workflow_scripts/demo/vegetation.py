"""True green cover, snow and phenology of the made world, by place and day."""

import numpy as np
from scipy.special import expit

from workflow_scripts.core.seasons import TRANSITIONS, YEAR_DAYS
from workflow_scripts.demo.fields import generator
from workflow_scripts.demo.geography import Ground
from workflow_scripts.demo.parameters import Cycle, Island, World
from workflow_scripts.demo.spectra import endmembers, evi, mix

MIN_AMPLITUDE = 0.1
RELATIVE_AMPLITUDE = 0.35
SEARCH_DAYS = 185
RISE_LEVELS = (0.15, 0.5, 0.9)
"""Definition of MCD12Q2: a cycle rises and falls by at least the larger of 0.1 and 0.35 of the
range of three years, minima are sought within 185 days of the peak, and the dates are where the
curve stands at these parts of its rise (first day) and fall (last day)."""

WEATHER_STEP_DAYS = 10
_WEATHER_START = 16_000
_WEATHER_KNOTS = 800


def day_number(year: int, doy: float = 1) -> float:
    """Give days since 1970-01-01 of a day of year (1 = 1 January)."""
    return float(np.datetime64(f"{year}-01-01", "D").astype(int)) + doy - 1


def calendar_year(days: np.ndarray) -> np.ndarray:
    """Give the calendar year of days since 1970-01-01."""
    return np.floor(days).astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970


def years_of(days: np.ndarray) -> range:
    """Give the years in which a cycle may begin that is green on one of `days`."""
    first, last = calendar_year(days)[[0, -1]]
    return range(first - 1, last + 2)


def year_effects(world: World, island: Island, ecoregion: int, year: int) -> tuple[float, float, float]:
    """Give shift (days), lengthening (days) and vigor (factor) of the cycles beginning in a year."""
    common = generator(world.seed, island.name, "year", year).standard_normal(2)
    own = generator(world.seed, island.name, "year", year, ecoregion).standard_normal(2)
    shift = world.year_shift_days * common[0] + world.ecoregion_shift_days * own[0]
    vigor = 1 + world.year_vigor * own[1]
    return float(shift), float(world.year_length_days * common[1]), float(np.clip(vigor, 0.85, 1.12))


def _pulse(
    days: np.ndarray, cycle: Cycle, begin: float, *, lengthening: float, early: np.ndarray, late: np.ndarray
) -> np.ndarray:
    """Asymmetric double logistic that rises at `begin + late` and falls `early` days too soon."""
    rise = begin + late
    fall = begin + cycle.length_days + lengthening + late - early
    up = expit((days - rise) / cycle.rise_days)
    return up - expit((days - fall) / cycle.fall_days)


def green_cover(world: World, island: Island, ground: Ground, days: np.ndarray) -> np.ndarray:
    """Give the fraction of green cover.

    Parameters
    ----------
    ground : arrays of any shape
    days : days since 1970-01-01, a number or a vector in ascending order

    Returns
    -------
    float64 array, shape of `days` followed by that of the ground, 0–1
    """
    days = np.asarray(days, float)
    times = np.atleast_1d(days)
    shape = ground.ecoregion.shape
    result = np.zeros((times.size, *shape))
    for index, ecoregion in enumerate(island.ecoregions):
        here = ground.ecoregion == index
        if not here.any():
            continue
        delay = island.delay_days_per_100m * ground.elevation_m[here] / 100
        late = ground.timing_days[here] + delay
        early = delay * (1 + world.earlier_fall_per_100m)
        total = np.zeros((times.size, delay.size))
        for year in years_of(times):
            shift, lengthening, vigor = year_effects(world, island, index, year)
            for cycle in ecoregion.cycles:
                begin = day_number(year, cycle.rise_doy) + shift
                pulse = _pulse(times[:, None], cycle, begin, lengthening=lengthening, early=early, late=late)
                total += vigor * cycle.weight * pulse
        cover = ecoregion.cover_min + ecoregion.cover_range * ground.vigor[here] * total
        result[:, here] = np.clip(cover, 0, 1)
    return result.reshape(*days.shape, *shape)


def day_temperature_c(world: World, island: Island, days: np.ndarray) -> np.ndarray:
    """Give the temperature of days minus the place's annual mean: season and ten-day weather."""
    days = np.asarray(days, float)
    doy = days - (calendar_year(days) - 1970) * YEAR_DAYS + 1
    season = -island.temperature_range_c * np.cos(2 * np.pi * (doy - island.coldest_doy) / YEAR_DAYS)
    weather = generator(world.seed, island.name, "weather").standard_normal(_WEATHER_KNOTS)
    knots = _WEATHER_START + WEATHER_STEP_DAYS * np.arange(_WEATHER_KNOTS)
    return season + world.weather_c * np.interp(days, knots, weather)


def snow_fraction(world: World, island: Island, ground: Ground, days: np.ndarray) -> np.ndarray:
    """Give the fraction of ground under snow, shape of `days` followed by that of the ground."""
    deviation = day_temperature_c(world, island, days)
    extra = (1,) * ground.temperature_c.ndim
    temperature = ground.temperature_c + deviation.reshape(*deviation.shape, *extra)
    fraction = expit((world.snow_temperature_c - temperature) / world.snow_width_c)
    return np.where(fraction < 0.02, 0, fraction)


def reflectance(
    world: World, island: Island, ground: Ground, days: np.ndarray, *, with_snow: bool
) -> np.ndarray:
    """Give the noise-free reflectance of all bands, last axis of length 12."""
    background, green = endmembers(island.ecoregions)
    brightness = 1 + world.soil_brightening_per_100m * ground.elevation_m / 100
    snow = snow_fraction(world, island, ground, days) if with_snow else None
    cover = green_cover(world, island, ground, days)
    under = background[ground.ecoregion] * brightness[..., None]
    return mix(cover, under, green[ground.ecoregion], snow=snow)


def true_evi(world: World, island: Island, ground: Ground, days: np.ndarray) -> np.ndarray:
    """Give the noise-free, snow-free EVI, shape of `days` followed by that of the ground."""
    return evi(reflectance(world, island, ground, days, with_snow=False))


def true_cycles(days: np.ndarray, curve: np.ndarray, *, years: tuple[int, int]) -> list[dict]:
    """Find the growing cycles of one daily curve by MCD12Q2's definition, day by day.

    Parameters
    ----------
    days : consecutive days since 1970-01-01; a year more at both ends than `years`
    curve : index on these days
    years : first and last calendar year of the peak

    Returns
    -------
    one dict per cycle with `year`, `cycle` (1, 2 … by the peak's date), the seven transitions in
    days since 1970-01-01, and `amplitude` (of the rise)
    """
    calendar = calendar_year(days)
    inner = np.flatnonzero((curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:])) + 1
    alive = dict.fromkeys(inner[np.argsort(curve[inner], kind="stable")].tolist())
    found = {}
    for peak in list(alive):
        near = np.abs(calendar - calendar[peak]) <= 1
        needed = max(MIN_AMPLITUDE, RELATIVE_AMPLITUDE * np.ptp(curve[near]))
        before = [other for other in alive if other < peak]
        after = [other for other in alive if other > peak]
        begin = max([0, peak - SEARCH_DAYS, *before])
        end = min([curve.size - 1, peak + SEARCH_DAYS, *after])
        rising = curve[begin : peak + 1][::-1]
        start = peak - int(np.argmin(rising))
        stop = peak + int(np.argmin(curve[peak : end + 1]))
        if curve[peak] - curve[start] < needed or curve[peak] - curve[stop] < needed:
            del alive[peak]
            continue
        found[peak] = (start, stop)
    cycles = []
    for peak in sorted(found):
        if years[0] <= calendar[peak] <= years[1]:
            cycle = _dates(curve, *found[peak], peak)
            cycle = {name: int(days[0]) + day for name, day in cycle.items()}
            number = 1 + sum(other["year"] == calendar[peak] for other in cycles)
            amplitude = float(curve[peak] - curve[found[peak][0]])
            cycles.append({"year": int(calendar[peak]), "cycle": number, **cycle, "amplitude": amplitude})
    return cycles


def _dates(curve: np.ndarray, start: int, stop: int, peak: int) -> dict[str, int]:
    """First days at the parts of the rise, last days at the parts of the fall, by plain search."""
    dates = {"peak": peak}
    for name, level in zip(TRANSITIONS[:3], RISE_LEVELS, strict=True):
        threshold = curve[start] + level * (curve[peak] - curve[start])
        dates[name] = next(day for day in range(start, peak + 1) if curve[day] >= threshold)
    for name, level in zip(TRANSITIONS[:3:-1], RISE_LEVELS, strict=True):
        threshold = curve[stop] + level * (curve[peak] - curve[stop])
        dates[name] = next(day for day in range(stop, peak - 1, -1) if curve[day] >= threshold)
    return {name: dates[name] for name in TRANSITIONS}
