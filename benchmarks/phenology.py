"""How fast dates come out of series: against a loop over scipy's spline, against dea-tools, and at scale.

    python benchmarks/phenology.py            # everything, some minutes
    python benchmarks/phenology.py --locations 25000

Made series: 8 years, one value every 16 days at an irregular day, noise, clouds, snow, either hemisphere.
One core each, in seconds of processor time, which other work on the machine disturbs less; the competitors take turns
and the median of the rounds counts. dea-tools takes arrays (time, y, x) on a common time axis, one call a year. Its cost
per pixel falls with the size of the array, so it is measured on 1,024 pixels and on 65,536, given
- the composites as they are: clouds and snow included, no smoothing, dates 16 days apart (the function alone);
- the same with clouds and snow masked and a moving mean over four values, which is how its documentation prepares
  a series, counted as part of it;
- a daily axis: dates to the day, as ours (interpolation not counted).
Prints lines ``CLAIM <name> <measured> >= <target>``.
"""

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402

YEARS = (2016, 2024)
"""First year, and one past the last."""
SIZES = {
    "ours": 8192,
    "scipy": 128,
    "dea-tools_composites_1k": 1024,
    "dea-tools_composites_64k": 65536,
    "dea-tools_prepared_64k": 65536,
    "dea-tools_daily_1k": 1024,
}
"""Series each competitor works on in a round."""
ROUNDS = 5


def make_series(n, seed=1):
    """Dates (n, time), index and reliability of made series."""
    rng = np.random.default_rng(seed)
    first = np.concatenate(
        [np.datetime64(f"{y}-01-01").astype("datetime64[D]") + 16 * np.arange(23) for y in range(*YEARS)]
    ).astype(np.int64)
    day = first + rng.integers(0, 16, (n, first.size), dtype=np.int32)
    peak = rng.uniform(0, 365.25, (n, 1)).astype(np.float32)
    phase = 2 * np.pi * (((day % 365.25) - peak) / 365.25).astype(np.float32)
    curve = 0.2 + 0.35 / (1 + np.exp(-6 * np.cos(phase) - 0.5, dtype=np.float32))
    value = curve + rng.normal(0, 0.02, curve.shape).astype(np.float32)
    draw = rng.random(curve.shape, dtype=np.float32)
    code = np.select([draw < 0.07, draw < 0.13], [3, 1], 0).astype(np.int8)
    code[(np.cos(phase) < -0.9) & (draw > 0.7)] = 2
    return day, value.astype(np.float32), code


def as_dataset(day, value, code):
    """Arrays in the layout of greenness.zarr."""
    both = ("location", "time")
    return xr.Dataset({"index": (both, value), "date": (both, day), "reliability": (both, code)})


def scipy_dates(day, value, code, options):
    """The same dates with scipy's spline in a loop; what follows the spline are our compiled kernels."""
    from scipy.interpolate import make_smoothing_spline

    from workflow_scripts.phenology import kernels

    shares = np.array([options.low, options.mid, options.high])
    january = [int(np.datetime64(f"{y}-01-01").astype(int)) for y in range(YEARS[0], YEARS[1] + 2)]
    rows = []
    for i in range(len(day)):
        x, y, w, _, floor = kernels.usable_observations(
            day[i], value[i], code[i], options.marginal_weight, options.snow_weight, options.floor_quantile, -np.inf
        )  # fmt: skip
        spline = make_smoothing_spline((x - x[0]).astype(float), y, w=w, lam=options.lambda_day3)
        curve = np.maximum(spline(np.arange(x[-1] - x[0] + 1.0)), floor)
        turns = kernels.find_turns(curve)
        order, segments = kernels.order_peaks(curve, turns[0]), np.empty((turns[0].size, 3), np.int64)
        starts = np.array(january) - x[0]
        for k in range(len(january) - 2):
            begin, end = starts[k], starts[k + 1]
            if begin < options.margin_days or curve.size - end < options.margin_days - 1:
                continue
            first, last = max(0, starts[max(0, k - 1)]), min(curve.size, starts[k + 2]) - 1
            kernels.find_segments(
                curve, *turns, order, first, last, options.reach_days,
                options.min_amplitude, options.relative_amplitude, segments,
            )  # fmt: skip
            for left, peak, right in segments[(turns[0] >= begin) & (turns[0] < end)]:
                inside = x[(x >= left + x[0]) & (x <= right + x[0])]
                gap = np.diff(np.concatenate([[left + x[0]], inside, [right + x[0]]])).max()
                if left >= 0 and gap <= options.max_gap_days:
                    dates = kernels.crossing_days(curve, left, peak, right, shares) + x[0]
                    rows.append((i, *np.ceil(dates[:3]), *np.floor(dates[3:])))
    return np.array(rows)


def dea_arrays(day, value, code, step):
    """Input of dea-tools, an array (time, y, x) on a common axis of one value per `step` days.

    At 16 days each composite's value stands at the composite's first day, clouds included; at 1 day the good and
    marginal values are interpolated.
    """
    parts, times = [], []
    for k, year in enumerate(range(*YEARS)):
        time_of = pd.date_range(f"{year}-01-01", periods=23 if step == 16 else 365, freq=f"{step}D")
        times.append(time_of.to_numpy())
        if step == 16:
            parts.append(value[:, 23 * k : 23 * (k + 1)])
        else:
            at = time_of.to_numpy("datetime64[D]").astype(np.int64)
            parts.append(
                np.stack(
                    [np.interp(at, d[c <= 1], v[c <= 1]) for d, v, c in zip(day, value, code, strict=True)]
                )
            )
    cube = np.concatenate(parts, axis=1).T.reshape(sum(map(len, times)), 32, -1)
    return xr.DataArray(
        np.ascontiguousarray(cube, np.float32),
        dims=("time", "y", "x"),
        coords={"time": np.concatenate(times)},
    )


def dea_dates(array):
    """Start, peak and end of season with dea-tools, one call a year: one cycle a year."""
    from dea_tools.temporal import xr_phenology

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            xr_phenology(array.sel(time=str(year)), stats=["SOS", "POS", "EOS"], verbose=False)
            for year in range(*YEARS)
        ]


def dea_prepared(array, is_clear):
    """The same after masking and a moving mean."""
    return dea_dates(array.where(is_clear).rolling(time=4, min_periods=1).mean())


def dea_runs():
    """What dea-tools is asked, by name; nothing where it is not installed."""
    if importlib.util.find_spec("dea_tools") is None:
        print("dea-tools is not installed (it is not in requirements.lock): its comparison is skipped")
        return {}
    small, large = SIZES["dea-tools_composites_1k"], SIZES["dea-tools_composites_64k"]
    day, value, code = make_series(large)
    cube = dea_arrays(day, value, code, 16)
    is_clear = cube.copy(data=(code <= 1).T.reshape(cube.shape))
    few = dea_arrays(day[:small], value[:small], code[:small], 16)
    daily = dea_arrays(day[:small], value[:small], code[:small], 1)
    return {
        "dea-tools_composites_1k": lambda: dea_dates(few),
        "dea-tools_composites_64k": lambda: dea_dates(cube),
        "dea-tools_prepared_64k": lambda: dea_prepared(cube, is_clear),
        "dea-tools_daily_1k": lambda: dea_dates(daily),
    }


def race():
    """Series per second of each competitor, taking turns."""
    from workflow_scripts.estimate_phenology import TRANSITIONS, PhenologyOptions, estimate_cycles

    options = PhenologyOptions()
    day, value, code = make_series(SIZES["ours"])

    def ours(n):
        return estimate_cycles(as_dataset(day[:n], value[:n], code[:n]))

    def loop(n):
        return scipy_dates(day[:n].astype(np.int64), value[:n], code[:n], options)

    runs = {"ours": lambda: ours(SIZES["ours"]), "scipy": lambda: loop(SIZES["scipy"])} | dea_runs()
    fast, slow = ours(64), loop(64)
    dates = fast[list(TRANSITIONS)].to_numpy("datetime64[D]").astype(np.int64)
    apart = np.abs(dates - slow[:, 1:]).max() if len(dates) == len(slow) else np.inf
    print(f"{len(fast)} cycles of 64 series: largest difference between ours and the loop {apart:g} d")
    speed = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            speed[name].append(SIZES[name] / (time.process_time() - begin))
    for name, values in speed.items():
        print(
            f"{name}: {np.median(values):,.0f} series/s of one core ({min(values):,.0f} to {max(values):,.0f})"
        )
    claims = [("same_dates_as_scipy_loop_days", apart, "<=", 1)]
    for name in list(speed)[1:]:
        ratios = np.array(speed["ours"]) / np.array(speed[name])
        claims.append((f"times_faster_than_{name}", np.median(ratios), ">=", 20 if name == "scipy" else 3))
    return claims


def parts():
    """Print what the kernel spends its time on, microseconds of one core per series."""
    from numba import njit

    from workflow_scripts.estimate_phenology import PhenologyOptions, _block_rows
    from workflow_scripts.phenology import kernels

    options = PhenologyOptions()
    weights = (options.marginal_weight, options.snow_weight, options.floor_quantile, options.lower_bound)
    day, value, code = make_series(256)
    day = day.astype(np.int64)

    @njit(error_model="numpy")
    def first_steps(day, value, code, weights, lambda_day3, n_steps):
        total = 0.0
        for i in range(len(day)):
            seen, y, w, _, floor = kernels.usable_observations(day[i], value[i], code[i], *weights)
            total += floor
            if n_steps > 1:
                fitted, curvature = kernels.smoothing_spline(seen, y, w, lambda_day3)
                total += fitted[0]
            if n_steps > 2:
                curve = kernels.evaluate_daily(seen, fitted, curvature, floor)
                total += curve[0]
            if n_steps > 3:
                total += kernels.find_turns(curve)[1][0]
        return total

    def shortest(run):
        run()
        times = []
        for _ in range(100):
            begin = time.process_time()
            run()
            times.append(time.process_time() - begin)
        return min(times) / len(day) * 1e6

    before = 0.0
    names = ("observations, weights, floor", "spline", "daily curve", "its turns")
    for step, name in enumerate(names, 1):
        spent = shortest(lambda n=step: first_steps(day, value, code, weights, options.lambda_day3, n))
        print(f"{name}: {spent - before:.1f} us a series")
        before = spent
    whole = shortest(lambda: _block_rows(day, value, code, options))
    print(f"cycles, dates, gaps, quality: {whole - before:.1f} us a series; all: {whole:.1f}")


def write_inputs(folder, n):
    """A greenness store and a table of locations."""
    import geopandas as gpd

    from workflow_scripts import extract_greenness
    from workflow_scripts.core import tables

    rng = np.random.default_rng(2)
    lat = np.degrees(np.arcsin(rng.uniform(-0.8, 0.95, n)))
    locations = pd.DataFrame(
        {"location_id": [f"{i // 900}U_{i}R" for i in range(n)], "lon": rng.uniform(-180, 180, n), "lat": lat}
    )
    blocks = [make_series(min(16384, n - i), seed=i) for i in range(0, n, 16384)]
    day, value, code = (np.concatenate(part) for part in zip(*blocks, strict=True))
    value[rng.random(n) < 0.1] = 0.3  # evergreen or bare: no cycle, to be filled
    series = extract_greenness.Series(
        np.arange(n), np.round(value / 1e-4).astype(np.int16), day.astype(np.int32), code
    )
    extract_greenness.write_store(folder / "greenness.zarr", locations, series, index="evi", source="made")
    text = {c: "" for c, kind in tables.COLUMNS["locations"].items() if str(kind) == "string"}
    numbers = {c: 0 for c, kind in tables.COLUMNS["locations"].items() if str(kind) != "string"}
    whole = locations.assign(**{c: v for c, v in (text | numbers).items() if c not in locations})
    whole = gpd.GeoDataFrame(
        whole.assign(is_mountain=False),
        geometry=gpd.points_from_xy(whole["lon"], whole["lat"]),
        crs=4326,
    )
    tables.write_table(whole, folder / "locations.parquet", "locations")


def run_stage(stage, folder):
    """One stage in this process, as Snakemake would run it."""
    from workflow_scripts import define_seasons, estimate_phenology

    files = SimpleNamespace(
        locations=folder / "locations.parquet",
        greenness=folder / "greenness.zarr" / "zarr.json",
        cycles=folder / "phenology_cycles.parquet",
        seasons=folder / "seasons.parquet",
    )
    settings = {"estimate_phenology": {}, "define_seasons": {"strategy": "phenology"}}[stage]
    settings |= {"names": ["spring", "summer", "autumn", "winter"]} if stage == "define_seasons" else {}
    params = SimpleNamespace(
        settings=settings, climatology={"min_years": 3, "group_days": 60}, seed=1, max_sun_zenith=85
    )
    module = {"estimate_phenology": estimate_phenology, "define_seasons": define_seasons}[stage]
    module.main(SimpleNamespace(input=files, output=files, params=params, threads=2))


def at_scale(n):
    """From greenness.zarr to seasons.parquet, each stage a process of its own with two threads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--folder", name]
        subprocess.run([*command, "--stage", "inputs", "--locations", str(n)], check=True)
        seconds, memory = 0.0, 0.0
        for stage in ("estimate_phenology", "define_seasons"):
            begin = time.perf_counter()
            done = subprocess.run([*command, "--stage", stage], check=True, stdout=subprocess.PIPE, text=True)
            took = time.perf_counter() - begin
            used, cpu = map(float, done.stdout.split()[-2:])
            print(f"{stage}: {took:.1f} s ({cpu:.1f} s of processor time), {used:.2f} GB")
            seconds, memory = seconds + took, max(memory, used)
        size = sum(f.stat().st_size for f in (folder / "greenness.zarr").rglob("*") if f.is_file())
        print(f"{n:,} locations, {YEARS[1] - YEARS[0]} years: greenness.zarr {size / 1e9:.2f} GB")
    return [("greenness_to_seasons_s", seconds, "<=", 60), ("greenness_to_seasons_gb", memory, "<=", 4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--locations", type=int, default=250_000)
    parser.add_argument("--stage", choices=["inputs", "estimate_phenology", "define_seasons"])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.stage == "inputs":
        write_inputs(options.folder, options.locations)
        return
    if options.stage:
        run_stage(options.stage, options.folder)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(usage.ru_maxrss * 1024 / 1e9, usage.ru_utime + usage.ru_stime)
        return
    parts()
    for name, measured, sign, target in [*race(), *at_scale(options.locations)]:
        print(f"CLAIM {name} {measured:.3g} {sign} {target}")


if __name__ == "__main__":
    main()
