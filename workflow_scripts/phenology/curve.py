"""Options of the estimation, and the fitted curve of one location."""

from dataclasses import dataclass

import numpy as np

from workflow_scripts.phenology import kernels


@dataclass(frozen=True)
class PhenologyOptions:
    """Parameters of the estimation; the section `phenology` of config.yaml, source in its schema."""

    lambda_day3: float = 3000.0
    """Smoothing parameter of the spline, day³: weight of the integrated squared curvature."""
    low: float = 0.15
    """Share of the amplitude at greenup and dormancy."""
    mid: float = 0.50
    """Share of the amplitude at mid-greenup and mid-greendown."""
    high: float = 0.90
    """Share of the amplitude at maturity and senescence."""
    min_amplitude: float = 0.1
    """Smallest rise and fall of a cycle, index units."""
    relative_amplitude: float = 0.35
    """Smallest rise and fall as a share of the range over the year and its neighbors."""
    reach_days: int = 185
    """How far before and after its peak a cycle may begin and end."""
    margin_days: int = 160
    """Data needed before and after a calendar year whose cycles are given."""
    min_observations: int = 10
    """Usable observations needed in that year."""
    max_gap_days: float = 64.0
    """Longest time without usable observation inside a cycle."""
    floor_quantile: float = 0.05
    """Quantile of the good and marginal values that replaces snow and bounds the curve below."""
    min_floor: float | None = None
    """Lower bound of that floor; MCD12Q2 has 0.12 for EVI2. None: no bound."""
    marginal_weight: float = 0.5
    """Weight of observations of marginal reliability; good ones have 1."""
    snow_weight: float = 0.5
    """Weight of snow observations, replaced by the floor."""

    def __post_init__(self) -> None:
        """Check what the schema cannot: values that must agree with each other."""
        if not 0 < self.low < self.mid < self.high < 1:
            raise ValueError(
                f"phenology: low = {self.low!r}, mid = {self.mid!r}, high = {self.high!r} are "
                "shares of the amplitude and must rise from above 0 to below 1"
            )
        if not self.lambda_day3 > 0:
            raise ValueError(f"phenology: lambda_day3 = {self.lambda_day3!r} must be above 0 day³")

    @property
    def lower_bound(self) -> float:
        """`min_floor` as a number."""
        return -np.inf if self.min_floor is None else float(self.min_floor)


def fit_curve(
    day: np.ndarray, index: np.ndarray, reliability: np.ndarray, options: PhenologyOptions
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit the daily curve of one location.

    Parameters
    ----------
    day : days since 1970-01-01, int64; `kernels.MISSING_DAY` where missing
    index : float, NaN missing
    reliability : 0 good, 1 marginal, 2 snow, 3 cloud, -1 none

    Returns
    -------
    day : each day from the first usable observation to the last; empty with fewer than 3
    curve : of each day, not below the floor
    floor
    """
    seen, value, weight, _, floor = kernels.usable_observations(
        day,
        index,
        reliability,
        options.marginal_weight,
        options.snow_weight,
        options.floor_quantile,
        options.lower_bound,
    )
    if seen.size < 3:
        return np.empty(0, np.int64), np.empty(0), floor
    fitted, curvature = kernels.smoothing_spline(seen, value, weight, float(options.lambda_day3))
    return np.arange(seen[0], seen[-1] + 1), kernels.evaluate_daily(seen, fitted, curvature, floor), floor
