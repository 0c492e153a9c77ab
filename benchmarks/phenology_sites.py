"""Draw real series with curve, floor, dates and windows: the pictures that docs/phenology.md explains.

    python benchmarks/phenology_sites.py --data FOLDER [--out docs/figures]

`--data` holds mod13a1_fluxsites.csv and mod13a1_sites.csv (MOD13A1 series of flux sites); without it nothing is drawn.
One PNG per site; those of the documentation were made by this command.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from workflow_scripts.core.seasons import TRANSITIONS  # noqa: E402
from workflow_scripts.define_seasons import phenology_seasons  # noqa: E402
from workflow_scripts.estimate_phenology import daily_curve, estimate_cycles  # noqa: E402

SITES = ("AU-How", "AT-Neu", "CH-Oe2", "DE-Obe")
SHOWN = (np.datetime64("2013-07-01"), np.datetime64("2018-06-01"))
COLORS = dict(
    zip(("spring", "summer", "autumn", "winter"), ("#009E73", "#E69F00", "#D55E00", "#56B4E9"), strict=True)
)
MARKS = {0: ("good", "o"), 1: ("marginal", "."), 2: ("snow", "*"), 3: ("cloud", "x")}


def draw(place, series, path):
    """Draw one site and save it."""
    both = ("location", "time")
    data = xr.Dataset(
        {
            "index": (both, (series["evi"].to_numpy() / 1e4).astype(np.float32)[None]),
            "date": (both, series["obs_date"].to_numpy()[None]),
            "reliability": (both, series["pixel_reliability"].to_numpy(np.int8)[None]),
        },
        coords={"location_id": ("location", np.array([place.site], object))},
    )
    cycles, curve = estimate_cycles(data), daily_curve(data).set_index("date")
    location = pd.DataFrame({"location_id": [place.site], "lon": [place.lon], "lat": [place.lat]})
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    ax = figure.subplots()
    for window in phenology_seasons(location, cycles).itertuples():
        for year in range(2012, 2019):
            start = pd.Timestamp(year, 1, 1) + pd.Timedelta(days=window.start_doy - 1)
            end = start + pd.Timedelta(days=window.length_days)
            ax.axvspan(start, end, color=COLORS[window.season], alpha=0.15, lw=0)
    for code, (label, marker) in MARKS.items():
        part = series[series["pixel_reliability"] == code]
        ax.plot(part["obs_date"], part["evi"] / 1e4, marker, ms=4, color="0.3", label=label, mfc="none")
    ax.plot(curve.index, curve["curve"], color="#0072B2", lw=1.4, label="curve")
    ax.axhline(curve["floor"].iloc[0], color="#0072B2", lw=0.8, ls=":", label="floor")
    dates = pd.DatetimeIndex(cycles[list(TRANSITIONS)].to_numpy().ravel())
    ax.plot(dates, curve["curve"].reindex(dates), "o", ms=5, mfc="white", mec="#D55E00", label="dates")
    ax.set(xlim=SHOWN, ylim=(-0.05, None), ylabel="EVI", title=f"{place.site}: {place.igbp}")
    figure.legend(loc="outside lower center", ncols=7, frameon=False)
    figure.savefig(path, dpi=120, pil_kwargs={"optimize": True})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    if options.data is None:
        print("no --data: nothing is drawn")
        return
    sites = pd.read_csv(options.data / "mod13a1_sites.csv")
    raw = pd.read_csv(options.data / "mod13a1_fluxsites.csv", parse_dates=["obs_date"])
    raw["pixel_reliability"] = raw["pixel_reliability"].fillna(-1)
    options.out.mkdir(parents=True, exist_ok=True)
    for place in sites[sites["site"].isin(SITES)].itertuples():
        draw(place, raw[raw["site"] == place.site], options.out / f"{place.site}.png")
        print(options.out / f"{place.site}.png")


if __name__ == "__main__":
    main()
