"""How far estimated dates lie from true ones, by noise and gaps: a simulation, printed as Markdown tables.

    python benchmarks/phenology_simulation.py [--residuals mod13a1_fluxsites.csv] [--series 300]

True curves are sums of double logistic cycles, one to three a year, peaking on any day (so also near New Year, and in
either hemisphere); their true dates are the crossings of the noiseless daily curve. Observed is one day of each 16, with
noise drawn from the residuals of real good and marginal values around their fitted curves (``--residuals``: a table with
`site, obs_date, evi, pixel_reliability`), without it from a normal distribution of 0.025. Noise, share of cloud and snow
are varied, and each year loses one gap of given length at a random day. The rule that leaves out cycles with long gaps
is lifted, so that the effect of gaps shows. ``bias ± spread``: median error, and 1.4826 × median absolute deviation, days.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402

from workflow_scripts.core.seasons import TRANSITIONS  # noqa: E402
from workflow_scripts.estimate_phenology import (  # noqa: E402
    PhenologyOptions,
    daily_curve,
    estimate_cycles,
)
from workflow_scripts.phenology import kernels  # noqa: E402

FIRST, N_YEARS = np.datetime64("2015-01-01"), 8
OPTIONS = PhenologyOptions(max_gap_days=1e4)
SAME_CYCLE_DAYS = 45
NORMAL_NOISE = 0.025


def as_dataset(day, value, code):
    both = ("location", "time")
    return xr.Dataset({"index": (both, value), "date": (both, day), "reliability": (both, code)})


def real_residuals(path):
    """Residuals of good and of marginal values around their fitted curves, off the floor."""
    raw = pd.read_csv(path, parse_dates=["obs_date"]).dropna(subset=["evi", "obs_date", "pixel_reliability"])
    pools = {0: [], 1: []}
    for _, part in raw.groupby("site"):
        value = (part["evi"].to_numpy() / 1e4).astype(np.float32)
        code = part["pixel_reliability"].to_numpy(np.int8)
        curve = daily_curve(as_dataset(part["obs_date"].to_numpy()[None], value[None], code[None]))
        fitted = curve.set_index("date")["curve"].reindex(part["obs_date"]).to_numpy()
        above = fitted > curve["floor"].iloc[0] + 0.01
        for reliability, pool in pools.items():
            pool.append((value - fitted)[above & (code == reliability)])
    return {reliability: np.concatenate(pool) for reliability, pool in pools.items()}


def true_curves(n, n_cycles, rng, peak=None):
    """Daily curves (n, days): cycles of equal length through the year, of unlike height."""
    days = np.arange(int(365.25 * N_YEARS))
    curve = np.full((n, days.size), 0.0)
    start = rng.uniform(0, 365.25, n) if peak is None else np.full(n, peak)
    length = 365.25 / n_cycles
    for k in range(n_cycles):
        size = rng.uniform(0.7, 1.0, (n, 1)) if k else np.ones((n, 1))
        for year in range(-1, N_YEARS + 1):
            wander = rng.normal(0, 6, n)
            middle = (365.25 * year + start + k * length + wander)[:, None]
            rise, fall = 0.06 * n_cycles**0.5, 0.045 * n_cycles**0.5
            half = 0.24 * length
            up = 1 / (1 + np.exp(-rise * (days - middle + half)))
            down = 1 / (1 + np.exp(-fall * (days - middle - half)))
            curve += size * (up - down)
    return 0.15 + 0.35 * curve


def true_dates(curve):
    """Dates of the noiseless curve by the definitions: (cycles, 7) days since the first, per curve."""
    peaks = kernels.find_peaks(curve)
    threshold = max(OPTIONS.min_amplitude, OPTIONS.relative_amplitude * np.ptp(curve))
    shares = np.array([OPTIONS.low, OPTIONS.mid, OPTIONS.high])
    segments = kernels.find_segments(curve, peaks, 0, curve.size - 1, OPTIONS.reach_days, threshold)
    return np.array([kernels.crossing_days(curve, *segment, shares) for segment in segments])


def observe(curve, rng, pools, *, noise=1.0, cloud=0.1, gap=0, snow=0.0):
    """Observations of curves: days since 1970-01-01, values and reliability."""
    n, n_days = curve.shape
    first = np.arange(0, n_days - 16, 16)
    day = first + rng.integers(0, 16, (n, first.size))
    code = np.where(rng.random(day.shape) < 0.15, 1, 0)
    drawn = np.where(code == 0, rng.choice(pools[0], day.shape), rng.choice(pools[1], day.shape))
    rows = np.arange(n)[:, None]
    value = curve[rows, day] + noise * drawn
    is_low = curve[rows, day] < np.quantile(curve, 0.25, axis=1)[:, None]
    is_snow = is_low & (rng.random(day.shape) < snow)
    code, value = np.where(is_snow, 2, code), np.where(is_snow, value - 0.15, value)
    code = np.where(rng.random(day.shape) < cloud, 3, code)
    for year in range(N_YEARS):
        begin = 365.25 * year + rng.uniform(0, 365.25, (n, 1))
        code = np.where((day >= begin) & (day < begin + gap), 3, code)
    return as_dataset(day + int(FIRST.astype(int)), value.astype(np.float32), code.astype(np.int8))


def errors(curve, data):
    """Errors (matched cycles, 7), and how many of the true cycles of full years were found."""
    cycles = estimate_cycles(data, options=OPTIONS)
    days = cycles[list(TRANSITIONS)].to_numpy("datetime64[D]").astype(np.int64) - int(FIRST.astype(int))
    where = cycles["location_id"].astype(int).to_numpy()
    found, n_true = [], 0
    for i, one in enumerate(curve):
        true = true_dates(one)
        inner = true[(true[:, 3] >= 366) & (true[:, 3] < 365.25 * (N_YEARS - 1))]
        n_true += len(inner)
        ours = days[where == i]
        if not len(ours):
            continue
        for dates in inner:
            nearest = ours[np.abs(ours[:, 1] - dates[1]).argmin()]
            if abs(nearest[1] - dates[1]) <= SAME_CYCLE_DAYS:
                found.append(nearest - dates)
    return np.array(found).reshape(-1, 7), n_true


def row(label, found, n_true):
    middle = np.median(found, axis=0)
    spread = 1.4826 * np.median(np.abs(found - middle), axis=0)
    cells = [f"{m:+.1f} ± {s:.1f}" for m, s in zip(middle, spread, strict=True)]
    return f"| {label} | {len(found) / n_true:.2f} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--residuals", type=Path)
    parser.add_argument("--series", type=int, default=300)
    options = parser.parse_args()
    rng = np.random.default_rng(7)
    normal = rng.normal(0, NORMAL_NOISE, 5000)
    pools = real_residuals(options.residuals) if options.residuals else {0: normal, 1: 1.5 * normal}
    source = "real residuals" if options.residuals else "normal noise"
    widths = ", ".join(f"{name} {np.std(pools[code]):.3f}" for code, name in enumerate(("good", "marginal")))
    print(
        f"Noise: {source}, standard deviation {widths}. {options.series} series of {N_YEARS} years a row.\n"
    )
    print(f"| case | found | {' | '.join(TRANSITIONS)} |\n|---|---|{'---|' * 7}")
    single = true_curves(options.series, 1, rng)
    for noise in (0.5, 1.0, 2.0):
        for gap in (0, 32, 64, 96):
            data = observe(single, rng, pools, noise=noise, gap=gap)
            print(row(f"noise × {noise:g}, gap {gap} d", *errors(single, data)))
    cases = {
        "two cycles a year": (true_curves(options.series, 2, rng), {}),
        "three cycles a year": (true_curves(options.series, 3, rng), {}),
        "peak at New Year": (true_curves(options.series, 1, rng, peak=0.0), {}),
        "snow in the low quarter, half of it": (single, {"snow": 0.5}),
        "cloud 40 %": (single, {"cloud": 0.4}),
    }
    for label, (curve, changed) in cases.items():
        print(row(label, *errors(curve, observe(curve, rng, pools, **changed))))


if __name__ == "__main__":
    main()
