"""The usual year of each location: its cycles grouped on the circle of the year, and medians.

The compiled code is cached beside this file and follows it alone (see `kernels`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from workflow_scripts.core import grid
from workflow_scripts.core.seasons import YEAR_DAYS
from workflow_scripts.phenology.kernels import compiled

DOY_OF_EPOCH = 1.25
"""Day of the year of 1970-01-01 on the 365.25-day circle: off by at most half a day in any year."""
_PERIOD = YEAR_DAYS
_MID_GREENUP = 1


@dataclass(frozen=True)
class Climatology:
    """The usual transition days of locations."""

    doy: np.ndarray
    """Days of the year of the seven transitions, shape (location, 7), not wrapped: they increase
    from greenup on and may lie below 1 or above 366. NaN without enough cycles."""
    n_years: np.ndarray
    """Cycles of the main group, one per year; 0 without any."""
    spread_days: np.ndarray
    """Median absolute deviation of mid-greenup."""
    n_groups: np.ndarray
    """Groups with enough cycles: vegetation cycles in a usual year."""
    second_doy: np.ndarray
    """As `doy`, of the second cycle; NaN where a usual year has none."""
    second_n_years: np.ndarray
    second_spread_days: np.ndarray


@compiled
def _circular(days: float) -> float:
    """Bring a difference of days into half a year either way."""
    return days - _PERIOD * np.floor(days / _PERIOD + 0.5)


@compiled
def group_cycles(mid_greenup: np.ndarray, amplitude: np.ndarray, reach: float) -> np.ndarray:
    """Group the cycles of one location by mid-greenup on the circle of the year.

    The center with the most ungrouped cycles within `reach` days comes first (of equals the one
    with the larger amplitudes); so a chain of cycles never runs into one group. Then each cycle
    joins the group whose middle is nearest.

    Parameters
    ----------
    mid_greenup : days, any origin
    amplitude : of each cycle
    reach : days from a group's center

    Returns
    -------
    integer array, group of each cycle, from 0
    """
    n = mid_greenup.size
    group = np.full(n, -1, np.int64)
    middle = np.empty(n)
    n_groups, n_left = 0, n
    while n_left > 0:
        best, best_count, best_amplitude = -1, 0, 0.0
        for c in range(n):
            if group[c] >= 0:
                continue
            count, total = 0, 0.0
            for i in range(n):
                if group[i] < 0 and abs(_circular(mid_greenup[i] - mid_greenup[c])) <= reach:
                    count += 1
                    total += amplitude[i]
            if count > best_count or (count == best_count and total > best_amplitude):
                best, best_count, best_amplitude = c, count, total
        distances = np.empty(best_count)
        k = 0
        for i in range(n):
            if group[i] < 0 and abs(_circular(mid_greenup[i] - mid_greenup[best])) <= reach:
                distances[k] = _circular(mid_greenup[i] - mid_greenup[best])
                k += 1
        for i in range(n):
            if group[i] < 0 and abs(_circular(mid_greenup[i] - mid_greenup[best])) <= reach:
                group[i] = n_groups
        middle[n_groups] = mid_greenup[best] + np.median(distances)
        n_groups += 1
        n_left -= best_count
    for i in range(n):
        nearest = abs(_circular(mid_greenup[i] - middle[group[i]]))
        for g in range(n_groups):
            distance = abs(_circular(mid_greenup[i] - middle[g]))
            if distance < nearest:
                group[i], nearest = g, distance
    return group


@compiled
def _one_per_year(mid: np.ndarray, amplitude: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Of a group's cycles that fall into the same turn of the year, keep the largest."""
    turn = np.empty(members.size, np.int64)
    first = mid[members[0]]
    offset = np.empty(members.size)
    for i in range(members.size):
        offset[i] = _circular(mid[members[i]] - first)
    middle = first + np.median(offset)
    for i in range(members.size):
        turn[i] = int(np.round((mid[members[i]] - middle) / _PERIOD))
    kept = np.ones(members.size, np.bool_)
    for i in range(members.size):
        for j in range(members.size):
            larger = amplitude[members[j]] > amplitude[members[i]]
            earlier_equal = amplitude[members[j]] == amplitude[members[i]] and j < i
            if turn[j] == turn[i] and (larger or earlier_equal):
                kept[i] = False
    return members[kept]


@compiled
def _usual_days(days: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, float]:
    """Median days of the year of a group's cycles, mid-greenup within 1 to 366, and their spread."""
    mid = days[:, _MID_GREENUP]
    first = mid[members[0]]
    offset = np.empty(members.size)
    for i in range(members.size):
        offset[i] = _circular(mid[members[i]] - first)
    middle = first + np.median(offset)
    doy, spread = np.empty(days.shape[1]), 0.0
    for k in range(days.shape[1]):
        for i in range(members.size):
            turn = np.round((mid[members[i]] - middle) / _PERIOD)
            offset[i] = days[members[i], k] - _PERIOD * turn
        doy[k] = np.median(offset)
        if k == _MID_GREENUP:
            spread = np.median(np.abs(offset - doy[k]))
    turn = np.floor((doy[_MID_GREENUP] + DOY_OF_EPOCH - 1) / _PERIOD)
    return doy + (DOY_OF_EPOCH - turn * _PERIOD), spread


@compiled
def _summarize(
    start: np.ndarray, days: np.ndarray, amplitude: np.ndarray, min_years: int, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Summarize all locations; cycles of location i are rows start[i] to start[i + 1].

    The first axis of the first three results tells main and second cycle.
    """
    n = start.size - 1
    doy = np.full((2, n, days.shape[1]), np.nan)
    n_years, n_valid = np.zeros((2, n), np.int64), np.zeros(n, np.int64)
    spread = np.full((2, n), np.nan)
    for location in range(n):
        a, b = start[location], start[location + 1]
        if a == b:
            continue
        mid, size = days[a:b, _MID_GREENUP], amplitude[a:b]
        group = group_cycles(mid, size, reach)
        n_record = np.round((mid.max() - mid.min()) / _PERIOD) + 1
        n_groups = group.max() + 1
        count, typical = np.zeros(n_groups, np.int64), np.full(n_groups, -1.0)
        for g in range(n_groups):
            members = np.flatnonzero(group == g)
            if members.size:
                members = _one_per_year(mid, size, members)
                count[g] = members.size
                if members.size >= min_years:
                    typical[g] = np.median(size[members])
        n_valid[location] = np.sum(typical >= 0)
        if n_valid[location] == 0:
            n_years[0, location] = count.max()
            continue
        for rank in range(2):
            if rank == 1:
                typical[2 * count < n_record] = -1.0
            g = np.argmax(typical)
            if typical[g] < 0:
                break
            members = _one_per_year(mid, size, np.flatnonzero(group == g))
            doy[rank, location], spread[rank, location] = _usual_days(days[a:b], members)
            n_years[rank, location] = count[g]
            typical[g] = -1.0
    return doy, n_years, spread, n_valid


def usual_year(
    location: np.ndarray,
    days: np.ndarray,
    amplitude: np.ndarray,
    *,
    n_locations: int,
    min_years: int = 3,
    group_days: float = 60.0,
) -> Climatology:
    """Find each location's main cycle and the median days of its transitions.

    All cycles of a location are grouped by mid-greenup on the circle of the year (calendar years
    would split cycles that peak near New Year). The main cycle is the group with the largest
    median amplitude among those with enough cycles. Each cycle is moved by whole turns of 365.25
    days next to the group's middle, and the ordinary median taken for every transition over the
    same cycles: their order is kept, and no rule for the hemispheres is needed. The second cycle is
    the next group by amplitude that also has a cycle in at least half of the years from the location's
    first to its last.

    Parameters
    ----------
    location : position of each cycle's location, 0 to n_locations - 1
    days : shape (cycle, 7), transition days since 1970-01-01
    amplitude : of each cycle
    n_locations : number of locations
    min_years : cycles needed
    group_days : farthest mid-greenup from the center of its group
    """
    order = np.argsort(location, kind="stable")
    start = np.searchsorted(location[order], np.arange(n_locations + 1))
    doy, n_years, spread, n_groups = _summarize(
        start,
        np.ascontiguousarray(days[order], float),
        np.ascontiguousarray(amplitude[order], float),
        int(min_years),
        float(group_days),
    )
    return Climatology(doy[0], n_years[0], spread[0], n_groups, doy[1], n_years[1], spread[1])


def nearest_donors(
    lon: np.ndarray,
    lat: np.ndarray,
    is_donor: np.ndarray,
    *,
    max_distance_km: float | None = None,
    kind: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest donor of each location that is none itself, on the sphere.

    Parameters
    ----------
    lon, lat : degrees
    is_donor : locations that may give
    max_distance_km : farther donors are not taken; None: no bound (SSL4Eco names none)
    kind : of each location, a biome for instance: a donor of the same kind within the distance goes
        before nearer ones of another kind

    Returns
    -------
    donor : position of the donor; a donor's own position; -1 where there is none
    distance_km : great-circle distance; 0 for donors, NaN without donor
    """
    lon, lat, is_donor = np.asarray(lon, float), np.asarray(lat, float), np.asarray(is_donor, bool)
    donor = np.where(is_donor, np.arange(lon.size), -1)
    distance = np.where(is_donor, 0.0, np.nan)
    limit = np.inf if max_distance_km is None else max_distance_km
    rounds = [np.ones(lon.size, bool)]
    if kind is not None:
        codes = np.unique(np.asarray(kind).astype(str), return_inverse=True)[1]
        rounds = [*(codes == code for code in range(codes.max(initial=-1) + 1)), *rounds]
    for here in rounds:
        givers, takers = np.flatnonzero(is_donor & here), np.flatnonzero((donor < 0) & here)
        if givers.size == 0 or takers.size == 0:
            continue
        tree = cKDTree(grid.sphere_xyz(lon[givers], lat[givers]))
        giver = givers[tree.query(grid.sphere_xyz(lon[takers], lat[takers]))[1]]
        km = grid.great_circle_km(lon[takers], lat[takers], lon[giver], lat[giver])
        donor[takers[km <= limit]], distance[takers[km <= limit]] = giver[km <= limit], km[km <= limit]
    return donor, distance
