"""Compiled kernels of the phenology estimation: curve, cycles, dates and their quality.

They release the interpreter lock, so that blocks of locations run in parallel threads. The compiled
code is cached beside this file (or in the user's cache folder where that is read-only; without
either it is compiled anew in each process, 10 s). The cache follows this one file: whatever a
kernel calls stands here too.
"""

from collections.abc import Callable

import numpy as np
from numba import njit

GOOD, MARGINAL, SNOW, CLOUD, NONE = 0, 1, 2, 3, -1
"""Reliability codes; cloud and none are dropped."""
QA_HALF_WINDOW_DAYS = 14
"""Quality of a date is judged within this distance of it (MCD12Q2)."""
QA_MIN_OBSERVATIONS = 3
"""With fewer observations near a date R² means nothing; that of the rise or fall is taken."""
POOR = 3
MISSING_DAY = np.iinfo(np.int64).min
N_DATES = 7
N_RISE = 3
"""Dates before the peak."""
# Columns of a result row: place, seven days, then the measures.
LOCATION, YEAR, CYCLE, DATES = 0, 1, 2, 3
AMPLITUDE, MINIMUM, R2, N_OBSERVATIONS, MAX_GAP, SNOW_FRACTION, QA, QA_DETAILED = range(10, 18)
N_COLUMNS = 18


def compiled(function: Callable) -> Callable:
    """Compile a function, cached where some folder can be written to."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba finds no place for its cache
        return njit(nogil=True, error_model="numpy")(function)


# ---- curve -----------------------------------------------------------------------------------


@compiled
def smoothing_spline(
    day: np.ndarray, value: np.ndarray, weight: np.ndarray, lambda_day3: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the natural cubic smoothing spline, in time proportional to the number of points.

    Minimizes ``sum(weight * (value - f(day))**2) + lambda_day3 * integral(f''**2)``
    (scipy's `make_smoothing_spline` with `lam`, which takes 40 times as long).

    Parameters
    ----------
    day : increasing, at least 3
    value, weight : of each day; weights above 0
    lambda_day3 : smoothing parameter, day³

    Returns
    -------
    fitted : the spline at each day
    curvature : its second derivative there, 0 at both ends
    """
    n = day.size
    m = n - 2
    gap = np.empty(n - 1)
    for i in range(n - 1):
        gap[i] = day[i + 1] - day[i]
    # Pentadiagonal system (R + lambda Q' W^-1 Q) curvature = Q' value, factored as L D L'.
    diagonal, upper1, upper2 = np.empty(m), np.zeros(m), np.zeros(m)
    solution = np.empty(m)
    for j in range(m):
        a, c = 1.0 / gap[j], 1.0 / gap[j + 1]
        b = -(a + c)
        diagonal[j] = (gap[j] + gap[j + 1]) / 3.0 + lambda_day3 * (
            a * a / weight[j] + b * b / weight[j + 1] + c * c / weight[j + 2]
        )
        solution[j] = (value[j + 2] - value[j + 1]) * c - (value[j + 1] - value[j]) * a
        if j + 1 < m:
            d = 1.0 / gap[j + 2]
            upper1[j] = gap[j + 1] / 6.0 + lambda_day3 * (b * c / weight[j + 1] - c * (c + d) / weight[j + 2])
            if j + 2 < m:
                upper2[j] = lambda_day3 * c * d / weight[j + 2]
    for j in range(m):
        if j >= 1:
            diagonal[j] -= upper1[j - 1] * upper1[j - 1] * diagonal[j - 1]
            solution[j] -= upper1[j - 1] * solution[j - 1]
        if j >= 2:
            diagonal[j] -= upper2[j - 2] * upper2[j - 2] * diagonal[j - 2]
            solution[j] -= upper2[j - 2] * solution[j - 2]
        if j >= 1:
            upper1[j] -= upper1[j - 1] * diagonal[j - 1] * upper2[j - 1]
        upper1[j] /= diagonal[j]
        upper2[j] /= diagonal[j]
    curvature = np.zeros(n)
    for j in range(m - 1, -1, -1):
        s = solution[j] / diagonal[j]
        if j + 1 < m:
            s -= upper1[j] * curvature[j + 2]
        if j + 2 < m:
            s -= upper2[j] * curvature[j + 3]
        curvature[j + 1] = s
    fitted = np.empty(n)
    for i in range(n):
        bend = 0.0
        if i >= 1:
            bend -= (curvature[i] - curvature[i - 1]) / gap[i - 1]
        if i < n - 1:
            bend += (curvature[i + 1] - curvature[i]) / gap[i]
        fitted[i] = value[i] - lambda_day3 / weight[i] * bend
    return fitted, curvature


@compiled
def evaluate_daily(day: np.ndarray, fitted: np.ndarray, curvature: np.ndarray, floor: float) -> np.ndarray:
    """Evaluate the spline on each whole day from the first to the last, not below `floor`."""
    n = day.size
    first = day[0]
    curve = np.empty(day[n - 1] - first + 1)
    for i in range(n - 1):
        length = day[i + 1] - day[i]
        c3 = (curvature[i + 1] - curvature[i]) / (6.0 * length)
        c2 = curvature[i] / 2.0
        c1 = (fitted[i + 1] - fitted[i]) / length
        c1 -= length * (2.0 * curvature[i] + curvature[i + 1]) / 6.0
        start = day[i] - first
        for t in range(length):
            curve[start + t] = max(floor, fitted[i] + t * (c1 + t * (c2 + t * c3)))
    curve[curve.size - 1] = max(floor, fitted[n - 1])
    return curve


@compiled
def usable_observations(
    date: np.ndarray,
    index: np.ndarray,
    reliability: np.ndarray,
    marginal_weight: float,
    snow_weight: float,
    floor_quantile: float,
    min_floor: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Select and weight the observations of one location, snow replaced by the floor.

    Returns
    -------
    day, value, weight, is_snow : in order of time, each day once (the larger weight stays)
    floor : NaN (and no observations) without any good or marginal value
    """
    n = date.size
    keep = np.empty(n, np.int64)
    n_kept, sorted_already = 0, True
    for i in range(n):
        code = reliability[i]
        if date[i] == MISSING_DAY or not np.isfinite(index[i]) or code < GOOD or code > SNOW:
            continue
        if n_kept and date[i] <= date[keep[n_kept - 1]]:
            sorted_already = False
        keep[n_kept] = i
        n_kept += 1
    keep = keep[:n_kept]
    if not sorted_already:
        keep = keep[np.argsort(date[keep], kind="mergesort")]
    day, value = np.empty(n_kept, np.int64), np.empty(n_kept)
    weight, is_snow = np.empty(n_kept), np.empty(n_kept, np.bool_)
    last = -1
    for i in keep:
        snow = reliability[i] == SNOW
        w = snow_weight if snow else (marginal_weight if reliability[i] == MARGINAL else 1.0)
        if last >= 0 and date[i] == day[last]:
            if w <= weight[last]:
                continue
        else:
            last += 1
        day[last], value[last] = date[i], index[i]
        weight[last], is_snow[last] = w, snow
    last += 1
    good, n_good = np.empty(last), 0
    for i in range(last):
        if not is_snow[i]:
            good[n_good] = value[i]
            n_good += 1
    if n_good == 0:
        nothing = np.empty(0)
        return np.empty(0, np.int64), nothing, nothing, np.empty(0, np.bool_), np.nan
    ordered = np.sort(good[:n_good])
    position = floor_quantile * (n_good - 1)
    below = int(position)
    above = min(below + 1, n_good - 1)
    floor = ordered[below] + (position - below) * (ordered[above] - ordered[below])
    floor = max(floor, min_floor)
    for i in range(last):
        if is_snow[i]:
            value[i] = floor
    return day[:last], value[:last], weight[:last], is_snow[:last], floor


# ---- cycles ----------------------------------------------------------------------------------


@compiled
def find_peaks(curve: np.ndarray) -> np.ndarray:
    """Find where the curve turns from rising to falling; the middle of flat tops."""
    peaks = np.empty(curve.size // 2 + 1, np.int64)
    n, top, rising = 0, 0, False
    for i in range(1, curve.size):
        if curve[i] > curve[i - 1]:
            top, rising = i, True
        elif curve[i] < curve[i - 1] and rising:
            peaks[n] = (top + i - 1) // 2
            n += 1
            rising = False
    return peaks[:n]


@compiled
def find_segments(
    curve: np.ndarray, peaks: np.ndarray, first: int, last: int, reach: int, threshold: float
) -> np.ndarray:
    """Find the cycles around peaks: where they begin, peak and end.

    Peaks are taken in increasing height. A cycle begins at the nearest lowest day back to the
    previous remaining peak, at most `reach` days away, and ends likewise. A peak whose rise or
    fall is below `threshold` is removed, so that higher ones may search across it.

    Parameters
    ----------
    curve : daily values
    peaks : days of the curve, increasing
    first, last : the search stays within these days
    reach : days
    threshold : smallest rise and fall

    Returns
    -------
    integer array (cycle, 3): first day, peak and last day, in order of time
    """
    n = peaks.size
    order = np.argsort(curve[peaks], kind="mergesort")
    begin, end = np.empty(n, np.int64), np.empty(n, np.int64)
    alive = np.ones(n, np.bool_)
    n_alive = n
    for k in order:
        peak = peaks[k]
        left = max(first, peak - reach)
        for j in range(k - 1, -1, -1):
            if alive[j]:
                left = max(left, peaks[j])
                break
        right = min(last, peak + reach)
        for j in range(k + 1, n):
            if alive[j]:
                right = min(right, peaks[j])
                break
        low = peak
        for d in range(peak - 1, left - 1, -1):
            if curve[d] < curve[low]:
                low = d
        begin[k] = low
        low = peak
        for d in range(peak + 1, right + 1):
            if curve[d] < curve[low]:
                low = d
        end[k] = low
        if curve[peak] - curve[begin[k]] < threshold or curve[peak] - curve[low] < threshold:
            alive[k] = False
            n_alive -= 1
    segments = np.empty((n_alive, 3), np.int64)
    row = 0
    for k in range(n):
        if alive[k]:
            segments[row, 0], segments[row, 1], segments[row, 2] = begin[k], peaks[k], end[k]
            row += 1
    return segments


@compiled
def _rounded(value: float) -> float:
    """Round to 6 decimals, as MCD12Q2 does on both sides of a comparison."""
    return np.floor(value * 1e6 + 0.5)


@compiled
def crossing_days(curve: np.ndarray, begin: int, peak: int, end: int, shares: np.ndarray) -> np.ndarray:
    """Find when the curve crosses shares of its rise upward, then of its fall downward.

    The rise counts from the first day's value, the fall from the last one's. A whole day is the
    first (last) one at or above the threshold; the crossing lies up to one day before (after) it.

    Parameters
    ----------
    curve : daily values
    begin, peak, end : days of one cycle
    shares : of the amplitude, increasing: low, mid, high

    Returns
    -------
    float array (7,): up at low, mid, high; peak; down at high, mid, low. Ceiling of the first
    three and floor of the last three are the whole days.
    """
    n = shares.size
    days = np.empty(2 * n + 1)
    days[n] = peak
    for k in range(n):
        level = curve[begin] + shares[k] * (curve[peak] - curve[begin])
        d = begin
        while _rounded(curve[d]) < _rounded(level):
            d += 1
        days[k] = d
        if d > begin and curve[d] > curve[d - 1]:
            back = (curve[d] - level) / (curve[d] - curve[d - 1])
            days[k] = d - min(max(back, 0.0), 0.999)
        level = curve[end] + shares[k] * (curve[peak] - curve[end])
        d = end
        while _rounded(curve[d]) < _rounded(level):
            d -= 1
        days[2 * n - k] = d
        if d < end and curve[d] > curve[d + 1]:
            forward = (curve[d] - level) / (curve[d] - curve[d + 1])
            days[2 * n - k] = d + min(max(forward, 0.0), 0.999)
    return days


# ---- measures --------------------------------------------------------------------------------


@compiled
def _longest_gap(day: np.ndarray, begin: int, end: int) -> float:
    """Longest time without observation in [begin, end]."""
    longest, previous = 0, begin
    for k in range(np.searchsorted(day, begin), np.searchsorted(day, end + 1)):
        longest = max(longest, day[k] - previous)
        previous = day[k]
    return float(max(longest, end - previous))


@compiled
def _snow_share(day: np.ndarray, is_snow: np.ndarray, begin: float, end: float) -> float:
    """Share of [begin, end] that lies nearest to a snow observation."""
    n = day.size
    k = max(0, np.searchsorted(day, begin) - 1)
    filled = 0.0
    while k < n:
        left = -np.inf if k == 0 else (day[k - 1] + day[k]) / 2
        right = np.inf if k == n - 1 else (day[k] + day[k + 1]) / 2
        if left > end:
            break
        if is_snow[k]:
            filled += max(0.0, min(right, end) - max(left, begin))
        k += 1
    return filled / (end - begin)


@compiled
def _r_squared(value: np.ndarray, fitted: np.ndarray, i: int, j: int) -> float:
    """Share of the variance of observations i to j that the curve explains; NaN without any."""
    if j - i < QA_MIN_OBSERVATIONS:
        return np.nan
    mean = 0.0
    for k in range(i, j):
        mean += value[k]
    mean /= j - i
    residual, total = 0.0, 0.0
    for k in range(i, j):
        residual += (value[k] - fitted[k]) ** 2
        total += (value[k] - mean) ** 2
    return 1.0 - residual / total if total > 0 else np.nan


@compiled
def quality_class(snow_share: float, r2: float) -> int:
    """Grade a date or cycle 0 (best) to 3 (poor) by MCD12Q2's score (4 (1 - snow) + R²) / 5."""
    score = (4.0 * (1.0 - snow_share) + r2) / 5.0
    if not score >= 0.25:
        return POOR
    return 0 if score >= 0.75 else (1 if score >= 0.5 else 2)


@compiled
def _describe(
    row: np.ndarray,
    day: np.ndarray,
    value: np.ndarray,
    fitted: np.ndarray,
    is_snow: np.ndarray,
    begin: int,
    peak: int,
    end: int,
    gap: float,
) -> None:
    """Fill in the measures and qualities of one cycle; `row` holds its dates already."""
    i, j = np.searchsorted(day, begin), np.searchsorted(day, end + 1)
    middle = np.searchsorted(day, peak)
    row[R2] = _r_squared(value, fitted, i, j)
    row[N_OBSERVATIONS] = j - i
    row[MAX_GAP] = gap
    row[SNOW_FRACTION] = _snow_share(day, is_snow, begin, end)
    row[QA] = quality_class(row[SNOW_FRACTION], row[R2])
    side = (_r_squared(value, fitted, i, middle + 1), _r_squared(value, fitted, middle, j))
    detailed = 0
    for k in range(N_DATES):
        low = row[DATES + k] - QA_HALF_WINDOW_DAYS
        high = row[DATES + k] + QA_HALF_WINDOW_DAYS
        r2 = _r_squared(value, fitted, np.searchsorted(day, low), np.searchsorted(day, high + 1))
        if np.isnan(r2):
            r2 = side[0] if k <= N_RISE else side[1]
        detailed |= quality_class(_snow_share(day, is_snow, low, high), r2) << (2 * k)
    row[QA_DETAILED] = detailed


# ---- one location, one block -----------------------------------------------------------------


@compiled
def estimate_block(
    date: np.ndarray,
    index: np.ndarray,
    reliability: np.ndarray,
    first_year: int,
    year_start: np.ndarray,
    shares: np.ndarray,
    lambda_day3: float,
    min_amplitude: float,
    relative_amplitude: float,
    reach_days: int,
    margin_days: int,
    min_observations: int,
    max_gap_days: float,
    floor_quantile: float,
    min_floor: float,
    marginal_weight: float,
    snow_weight: float,
) -> np.ndarray:
    """Estimate the cycles of a block of locations, one row each (columns: `LOCATION`, ...).

    `year_start` holds 1 January of `first_year`, the following years and one more, as days since
    1970-01-01.
    """
    n_locations = date.shape[0]
    n_years = year_start.size - 1
    rows = np.empty((n_locations * n_years + 16, N_COLUMNS))
    n_rows = 0
    lowest, highest = np.empty(n_years), np.empty(n_years)
    for location in range(n_locations):
        day, value, weight, is_snow, floor = usable_observations(
            date[location],
            index[location],
            reliability[location],
            marginal_weight,
            snow_weight,
            floor_quantile,
            min_floor,
        )
        n = day.size
        if n < 3 or day[n - 1] - day[0] < 365:
            continue
        fitted, curvature = smoothing_spline(day, value, weight, lambda_day3)
        curve = evaluate_daily(day, fitted, curvature, floor)
        for i in range(n):
            fitted[i] = max(floor, fitted[i])
        origin, length = day[0], curve.size
        for y in range(n_years):
            lowest[y], highest[y] = np.inf, -np.inf
            for d in range(max(0, year_start[y] - origin), min(length, year_start[y + 1] - origin)):
                lowest[y] = min(lowest[y], curve[d])
                highest[y] = max(highest[y], curve[d])
        peaks = find_peaks(curve)
        for y in range(n_years):
            january, next_january = year_start[y], year_start[y + 1]
            is_partial = day[0] > january - margin_days or day[n - 1] < next_january + margin_days - 1
            n_year = np.searchsorted(day, next_january) - np.searchsorted(day, january)
            if is_partial or n_year < min_observations:
                continue
            y0, y1 = max(0, y - 1), min(n_years - 1, y + 1)
            low, high = lowest[y], highest[y]
            for k in range(y0, y1 + 1):
                low, high = min(low, lowest[k]), max(high, highest[k])
            threshold = max(min_amplitude, relative_amplitude * (high - low))
            first = max(0, year_start[y0] - origin)
            last = min(length, year_start[y1 + 1] - origin) - 1
            near = peaks[np.searchsorted(peaks, first) : np.searchsorted(peaks, last + 1)]
            cycle = 0
            for segment in find_segments(curve, near, first, last, reach_days, threshold):
                begin, peak, end = segment[0], segment[1], segment[2]
                if not january <= peak + origin < next_january:
                    continue
                gap = _longest_gap(day, begin + origin, end + origin)
                if gap > max_gap_days:
                    continue
                cycle += 1
                if n_rows == rows.shape[0]:
                    larger = np.empty((2 * n_rows, N_COLUMNS))
                    larger[:n_rows] = rows
                    rows = larger
                row = rows[n_rows]
                row[LOCATION], row[YEAR], row[CYCLE] = location, first_year + y, cycle
                row[DATES : DATES + N_DATES] = crossing_days(curve, begin, peak, end, shares) + origin
                row[AMPLITUDE], row[MINIMUM] = curve[peak] - curve[begin], curve[begin]
                _describe(
                    row,
                    day,
                    value,
                    fitted,
                    is_snow,
                    begin + origin,
                    peak + origin,
                    end + origin,
                    gap,
                )
                n_rows += 1
    return rows[:n_rows]
