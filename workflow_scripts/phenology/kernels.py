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
MISSING_DAY = int(np.iinfo(np.int64).min)
N_DATES = 7
N_RISE = 3
"""Dates before the peak."""
# Columns of a result row: place, seven days, then the measures.
LOCATION, YEAR, CYCLE, DATES = 0, 1, 2, 3
AMPLITUDE, MINIMUM, R2, N_OBSERVATIONS, MAX_GAP, SNOW_FRACTION, QA, QA_DETAILED = range(10, 18)
N_COLUMNS = 18
STRIDE = 24
"""Days evaluated together; a fixed number lets the compiler use vector instructions."""


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
    gap, per_gap, per_weight = np.empty(n), np.zeros(n), np.empty(n)
    for i in range(n - 1):
        gap[i] = day[i + 1] - day[i]
        per_gap[i] = 1.0 / gap[i]
    for i in range(n):
        per_weight[i] = lambda_day3 / weight[i]
    # Pentadiagonal system (R + lambda Q' W^-1 Q) curvature = Q' value, factored as L D L' row by row. Names
    # ending in 1 and 2 belong to the row above and to the one above that. What a row waits for is one division
    # and two products: the rest is written so that it can be computed meanwhile.
    lower1, lower2, solution = np.empty(m), np.empty(m), np.empty(m)
    inverse1 = inverse2 = beside1 = after1 = after2 = solution1 = solution2 = 0.0
    for j in range(m):
        a, c, d = per_gap[j], per_gap[j + 1], per_gap[j + 2]
        b = a + c
        diagonal = (gap[j] + gap[j + 1]) / 3.0
        diagonal += a * a * per_weight[j] + b * b * per_weight[j + 1] + c * c * per_weight[j + 2]
        beside = gap[j + 1] / 6.0 - b * c * per_weight[j + 1] - c * (c + d) * per_weight[j + 2]
        beside -= (beside1 * after1) * inverse1
        after = c * d * per_weight[j + 2]
        inverse = 1.0 / (diagonal - (after2 * after2) * inverse2 - (beside1 * beside1) * inverse1)
        right = (value[j + 2] - value[j + 1]) * c - (value[j + 1] - value[j]) * a
        right -= after2 * solution2 + beside1 * solution1
        lower1[j], lower2[j], solution[j] = beside * inverse, after * inverse, right * inverse
        after2, beside1, after1 = after1, beside, after
        inverse2, inverse1 = inverse1, inverse
        solution2, solution1 = solution1, solution[j]
    curvature = np.zeros(n)
    x1 = x2 = 0.0
    for j in range(m - 1, -1, -1):
        x = solution[j] - lower2[j] * x2 - lower1[j] * x1
        curvature[j + 1] = x
        x1, x2 = x, x1
    fitted = np.empty(n)
    before = 0.0
    for i in range(n - 1):
        after = (curvature[i + 1] - curvature[i]) * per_gap[i]
        fitted[i] = value[i] - per_weight[i] * (after - before)
        before = after
    fitted[n - 1] = value[n - 1] + per_weight[n - 1] * before
    return fitted, curvature


@compiled
def evaluate_daily(day: np.ndarray, fitted: np.ndarray, curvature: np.ndarray, floor: float) -> np.ndarray:
    """Evaluate the spline on each whole day from the first to the last, not below `floor`."""
    n = day.size
    first = day[0]
    n_days = day[n - 1] - first + 1
    curve = np.empty(n_days + STRIDE)
    for i in range(n - 1):
        length = day[i + 1] - day[i]
        per_day = 1.0 / length
        c0, c2 = fitted[i], curvature[i] / 2.0
        c3 = (curvature[i + 1] - curvature[i]) * per_day / 6.0
        c1 = (fitted[i + 1] - fitted[i]) * per_day
        c1 -= length * (2.0 * curvature[i] + curvature[i + 1]) / 6.0
        for t in range(0, length, STRIDE):
            start = day[i] - first + t
            part = curve[start : start + STRIDE]  # what goes beyond the piece, the next one overwrites
            for k in range(STRIDE):
                x = float(np.int32(t + k))
                y = c0 + x * (c1 + x * (c2 + x * c3))
                part[k] = y if y > floor else floor
    curve[n_days - 1] = max(floor, fitted[n - 1])
    return curve[:n_days]


@compiled
def _sort_days(day: np.ndarray, value: np.ndarray, weight: np.ndarray, is_snow: np.ndarray, n: int) -> int:
    """Bring the first `n` observations into order of time, each day once; gives how many are left."""
    order = np.argsort(day[:n], kind="mergesort")
    given = day[order], value[order], weight[order], is_snow[order]
    last = -1
    for i in range(n):
        if last < 0 or given[0][i] > day[last]:
            last += 1
        elif given[2][i] <= weight[last]:
            continue
        day[last], value[last], weight[last], is_snow[last] = (
            given[0][i],
            given[1][i],
            given[2][i],
            given[3][i],
        )
    return last + 1


@compiled
def _quantile(value: np.ndarray, is_left_out: np.ndarray, share: float) -> float:
    """Give a quantile (linear between neighbors) of the values that are not left out; NaN without any."""
    n = 0
    for i in range(value.size):
        n += not is_left_out[i]
    if n == 0:
        return np.nan
    position = share * (n - 1)
    below = int(position)
    above = min(below + 1, n - 1)
    smallest = np.empty(above + 1)  # in order; a low quantile needs only a few
    n_held = 0
    for i in range(value.size):
        if is_left_out[i] or (n_held > above and value[i] >= smallest[above]):
            continue
        place = min(n_held, above)
        while place > 0 and smallest[place - 1] > value[i]:
            smallest[place] = smallest[place - 1]
            place -= 1
        smallest[place] = value[i]
        n_held += 1
    return smallest[below] + (position - below) * (smallest[above] - smallest[below])


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
    day, value = np.empty(n + 1, np.int64), np.empty(n + 1)
    weight, is_snow = np.empty(n + 1), np.empty(n + 1, np.bool_)
    n_kept, previous, is_sorted = 0, MISSING_DAY, True
    for i in range(n):  # each is written, and only counted if usable: no branch to guess
        code = reliability[i]
        day[n_kept], value[n_kept] = date[i], index[i]
        weight[n_kept] = 1.0 if code == GOOD else (marginal_weight if code == MARGINAL else snow_weight)
        is_snow[n_kept] = code == SNOW
        is_usable = (date[i] != MISSING_DAY) & np.isfinite(index[i]) & (code >= GOOD) & (code <= SNOW)
        is_sorted &= (date[i] > previous) | (not is_usable)
        previous = date[i] if is_usable else previous
        n_kept += is_usable
    if not is_sorted:
        n_kept = _sort_days(day, value, weight, is_snow, n_kept)
    floor = _quantile(value[:n_kept], is_snow, floor_quantile)
    if np.isnan(floor):
        n_kept = 0
    elif floor < min_floor:
        floor = min_floor
    for i in range(n_kept):
        if is_snow[i]:
            value[i] = floor
    return day[:n_kept], value[:n_kept], weight[:n_kept], is_snow[:n_kept], floor


# ---- cycles ----------------------------------------------------------------------------------


@compiled
def find_turns(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find where the curve turns.

    Returns
    -------
    peaks : days on which it turns from rising to falling; the middle of flat tops
    lows_begin, lows_end : first and last of the lowest days before each peak and after the last one
    """
    n_days = curve.size
    peaks = np.empty(n_days // 2 + 1, np.int64)
    begin, end = np.empty(n_days // 2 + 2, np.int64), np.empty(n_days // 2 + 2, np.int64)
    n, is_rising = 0, False
    one, last = np.uint64(1), np.uint64(n_days - 1)
    i = level = np.uint64(0)  # unsigned: else each look at the curve first asks whether the index is negative
    while True:
        if is_rising:
            while i < last and curve[i + one] > curve[i]:
                i += one
        else:
            while i < last and curve[i + one] < curve[i]:
                i += one
        level = i
        while i < last and curve[i + one] == curve[i]:
            i += one
        if i == last:
            break
        if is_rising and curve[i + one] < curve[i]:
            peaks[n], is_rising = (level + i) >> one, False
            n += 1
        elif not is_rising and curve[i + one] > curve[i]:
            begin[n], end[n], is_rising = level, i, True
    if not is_rising:
        begin[n], end[n] = level, i
    return peaks[:n], begin[: n + 1], end[: n + 1]


@compiled
def order_peaks(curve: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Number peaks in increasing height, the earlier of equals first."""
    order = np.arange(peaks.size)
    for i in range(1, peaks.size):
        k = i
        while k > 0 and curve[peaks[order[k - 1]]] > curve[peaks[i]]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i
    return order


@compiled
def find_segments(
    curve: np.ndarray,
    peaks: np.ndarray,
    lows_begin: np.ndarray,
    lows_end: np.ndarray,
    order: np.ndarray,
    first: int,
    last: int,
    reach: int,
    min_amplitude: float,
    relative_amplitude: float,
    segments: np.ndarray,
) -> None:
    """Find the cycles around the peaks of a part of the curve: where they begin, peak and end.

    Peaks are taken in increasing height. A cycle begins at the nearest lowest day back to the
    previous remaining peak, at most `reach` days away, and ends likewise. A peak whose rise or
    fall is too small is removed, so that higher ones may search across it.

    Parameters
    ----------
    curve : daily values
    peaks, lows_begin, lows_end : from `find_turns`: a stretch of the curve is lowest there or at its ends
    order : from `order_peaks`
    first, last : days of the part, both included
    reach : days
    min_amplitude : smallest rise and fall
    relative_amplitude : the same as a share of the range of this part of the curve
    segments : integers, shape (peak, 3), written to: first day, peak and last day of the cycle of each peak in
        the part; first day -1 where there is none
    """
    a, b = np.searchsorted(peaks, first), np.searchsorted(peaks, last + 1)
    lowest, highest = min(curve[first], curve[last]), max(curve[first], curve[last])
    for k in range(a, b):
        highest = max(highest, curve[peaks[k]])
        segments[k, 0], segments[k, 1] = 0, peaks[k]
    for k in range(a, b + 1):
        if lows_end[k] >= first and lows_begin[k] <= last:
            lowest = min(lowest, curve[lows_end[k]])
    threshold = max(min_amplitude, relative_amplitude * (highest - lowest))
    for k in order:
        if k < a or k >= b:
            continue
        peak = peaks[k]
        left, right = max(first, peak - reach), min(last, peak + reach)
        j = k - 1
        while j >= a and segments[j, 0] < 0:
            j -= 1
        if j >= a:
            left = max(left, peaks[j])
        j = k + 1
        while j < b and segments[j, 0] < 0:
            j += 1
        if j < b:
            right = min(right, peaks[j])
        begin = end = peak
        j = k
        while j >= a and lows_end[j] >= left:
            if curve[lows_end[j]] < curve[begin]:
                begin = lows_end[j]
            j -= 1
        if curve[left] < curve[begin]:
            begin = left
            while curve[begin + 1] == curve[left]:
                begin += 1
        j = k + 1
        while j <= b and lows_begin[j] <= right:
            if curve[lows_begin[j]] < curve[end]:
                end = lows_begin[j]
            j += 1
        if curve[right] < curve[end]:
            end = right
            while curve[end - 1] == curve[right]:
                end -= 1
        is_cycle = min(curve[peak] - curve[begin], curve[peak] - curve[end]) >= threshold
        segments[k, 0], segments[k, 2] = begin if is_cycle else -1, end


@compiled
def _in_millionths(value: float) -> float:
    """Scale so that whole numbers are steps of 6 decimals, to which MCD12Q2 rounds both sides of a comparison."""
    return value * 1e6 + 0.5


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
    low_rise, low_fall, one = curve[begin], curve[end], np.uint64(1)
    up, down = np.uint64(begin), np.uint64(end)  # unsigned as in `find_turns`
    for k in range(n):  # the shares increase: what is below one is below the next
        level = low_rise + shares[k] * (curve[peak] - low_rise)
        rounded = np.floor(_in_millionths(level))
        while _in_millionths(curve[up]) < rounded:
            up += one
        days[k] = up
        if up > begin and curve[up] > curve[up - one]:
            back = (curve[up] - level) / (curve[up] - curve[up - one])
            days[k] -= min(max(back, 0.0), 0.999)
        level = low_fall + shares[k] * (curve[peak] - low_fall)
        rounded = np.floor(_in_millionths(level))
        while _in_millionths(curve[down]) < rounded:
            down -= one
        days[2 * n - k] = down
        if down < end and curve[down] > curve[down + one]:
            forward = (curve[down] - level) / (curve[down] - curve[down + one])
            days[2 * n - k] += min(max(forward, 0.0), 0.999)
    return days


# ---- measures --------------------------------------------------------------------------------


@compiled
def _first_from(day: np.ndarray, moment: float, near: int) -> int:
    """Find the first observation at or after a moment, searching from observation `near` on."""
    while near > 0 and day[near - 1] >= moment:
        near -= 1
    while near < day.size and day[near] < moment:
        near += 1
    return near


@compiled
def _longest_gap(day: np.ndarray, i: int, j: int, begin: int, end: int) -> float:
    """Longest time without observation in [begin, end], where observations i to j lie."""
    longest, previous = 0, begin
    for k in range(i, j):
        longest = max(longest, day[k] - previous)
        previous = day[k]
    return float(max(longest, end - previous))


@compiled
def _snow_share(day: np.ndarray, snow_before: np.ndarray, i: int, j: int, begin: float, end: float) -> float:
    """Share of [begin, end], where observations i to j lie, that is nearest to a snow observation."""
    n = day.size
    first, last = max(0, i - 1), min(n, j + 1)
    if snow_before[first] == snow_before[last]:
        return 0.0
    filled = 0.0
    for k in range(first, last):
        if snow_before[k] < snow_before[k + 1]:
            left = -np.inf if k == 0 else (day[k - 1] + day[k]) / 2
            right = np.inf if k == n - 1 else (day[k] + day[k + 1]) / 2
            filled += max(0.0, min(right, end) - max(left, begin))
    return filled / (end - begin)


@compiled
def _r_squared(value: np.ndarray, fitted: np.ndarray, i: int, j: int) -> float:
    """Share of the variance of observations i to j that the curve explains; NaN without any."""
    if j - i < QA_MIN_OBSERVATIONS:
        return np.nan
    residual, linear, total = 0.0, 0.0, 0.0
    for k in range(i, j):
        residual += (value[k] - fitted[k]) ** 2
        linear += value[k] - value[i]
        total += (value[k] - value[i]) ** 2
    total -= linear * linear / (j - i)
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
    snow_before: np.ndarray,
    i: int,
    j: int,
    begin: int,
    peak: int,
    end: int,
) -> None:
    """Fill in the measures and qualities of one cycle; `row` holds its dates already.

    Observations i to j lie in it; `snow_before` counts those of snow before each.
    """
    middle = _first_from(day, peak, i)
    row[R2] = _r_squared(value, fitted, i, j)
    row[N_OBSERVATIONS] = j - i
    row[SNOW_FRACTION] = _snow_share(day, snow_before, i, j, begin, end)
    row[QA] = quality_class(row[SNOW_FRACTION], row[R2])
    side = (_r_squared(value, fitted, i, middle + 1), _r_squared(value, fitted, middle, j))
    detailed, a, b = 0, i, i
    for k in range(N_DATES):
        low = row[DATES + k] - QA_HALF_WINDOW_DAYS
        high = row[DATES + k] + QA_HALF_WINDOW_DAYS
        a, b = _first_from(day, low, a), _first_from(day, high + 1, b)
        r2 = _r_squared(value, fitted, a, b)
        if np.isnan(r2):
            r2 = side[0] if k <= N_RISE else side[1]
        detailed |= quality_class(_snow_share(day, snow_before, a, b, low, high), r2) << (2 * k)
    row[QA_DETAILED] = detailed


# ---- one location, one block -----------------------------------------------------------------


@compiled
def day_span(date: np.ndarray) -> tuple[int, int]:
    """Give the first and last day of a block; the first lies after the last where all are missing."""
    first, last = -(MISSING_DAY + 1), MISSING_DAY
    for day in date.ravel():
        last = max(last, day)
        first = min(first, day if day != MISSING_DAY else first)
    return first, last


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
        snow_before = np.zeros(n + 1, np.int64)
        for i in range(n):
            fitted[i] = max(floor, fitted[i])
            snow_before[i + 1] = snow_before[i] + is_snow[i]
        origin, length = day[0], curve.size
        peaks, lows_begin, lows_end = find_turns(curve)
        order = order_peaks(curve, peaks)
        segments = np.empty((peaks.size, 3), np.int64)
        i = 0
        for y in range(n_years):
            january, next_january = year_start[y], year_start[y + 1]
            is_partial = day[0] > january - margin_days or day[n - 1] < next_january + margin_days - 1
            if is_partial:
                continue
            i = _first_from(day, january, i)
            if _first_from(day, next_january, i) - i < min_observations:
                continue
            first = max(0, year_start[max(0, y - 1)] - origin)
            last = min(length, year_start[min(n_years, y + 2)] - origin) - 1
            find_segments(
                curve,
                peaks,
                lows_begin,
                lows_end,
                order,
                first,
                last,
                reach_days,
                min_amplitude,
                relative_amplitude,
                segments,
            )
            cycle = 0
            for k in range(
                np.searchsorted(peaks, january - origin), np.searchsorted(peaks, next_january - origin)
            ):
                if segments[k, 0] < 0:
                    continue
                begin, peak, end = segments[k, 0] + origin, segments[k, 1] + origin, segments[k, 2] + origin
                i = _first_from(day, begin, i)
                j = _first_from(day, end + 1, i)
                gap = _longest_gap(day, i, j, begin, end)
                if gap > max_gap_days:
                    continue
                cycle += 1
                if n_rows == rows.shape[0]:
                    larger = np.empty((2 * n_rows, N_COLUMNS))
                    larger[:n_rows] = rows
                    rows = larger
                row = rows[n_rows]
                row[LOCATION], row[YEAR], row[CYCLE] = location, first_year + y, cycle
                crossing = crossing_days(curve, segments[k, 0], segments[k, 1], segments[k, 2], shares)
                for q in range(N_DATES):
                    row[DATES + q] = crossing[q] + origin
                row[MINIMUM], row[MAX_GAP] = curve[segments[k, 0]], gap
                row[AMPLITUDE] = curve[segments[k, 1]] - row[MINIMUM]
                _describe(row, day, value, fitted, snow_before, i, j, begin, peak, end)
                n_rows += 1
    return rows[:n_rows]
