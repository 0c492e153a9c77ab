"""The pictures of the README, from the demo's results: `python docs/make_pictures.py` after `make demo`.

Writes docs/pictures/pipeline.svg (the stages and the files between them) and docs/pictures/result.jpg
(places of the made world over four seasons, with the curve and the windows that dated them).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xarray as xr  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

from workflow_scripts.core import store  # noqa: E402
from workflow_scripts.core.pictures import true_color  # noqa: E402
from workflow_scripts.phenology.curve import PhenologyOptions, fit_curve  # noqa: E402
from workflow_scripts.phenology.kernels import MISSING_DAY  # noqa: E402
from workflow_scripts.report.drawing import INK, OKABE_ITO, STYLE, season_color  # noqa: E402
from workflow_scripts.report.phenology import occurrences  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
DATASET = ROOT / "results" / "datasets" / "demo"
N_PLACES = 3
WHITE = 0.35
STAGES = (
    ("Places", "even over all land,\nor your own", "locations"),
    ("Seasons", "of the vegetation year,\nor by your rule", "windows"),
    ("Scenes", "searched, ranked, left\nout with a reason", "candidates"),
    ("Patches", "native pixels, cloud\nchecked, one store", "patches.zarr"),
    ("Encoder", "trained without labels\n(SeCo, MoCo)", "encoder"),
    ("Tasks", "frozen features on\nrandom, blocked folds", "report.html"),
)
"""Title, what happens, what comes out."""


def draw_pipeline(path: Path) -> None:
    """Draw the stages in a row of boxes."""
    with mpl.rc_context(STYLE | {"figure.constrained_layout.use": False, "svg.fonttype": "path"}):
        canvas = Figure(figsize=(11.4, 1.75))
        ax = canvas.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, len(STAGES)), ylim=(0, 1))
        ax.axis("off")
        for i, (title, what, result) in enumerate(STAGES):
            color = OKABE_ITO[i % 6]
            box = FancyBboxPatch(
                (i + 0.07, 0.3),
                0.8,
                0.58,
                boxstyle="round,pad=0,rounding_size=0.05",
                fc="white",
                ec=color,
                lw=2,
            )
            ax.add_patch(box)
            ax.text(
                i + 0.47, 0.76, title, ha="center", va="center", fontsize=13, fontweight="bold", color=INK
            )
            ax.text(i + 0.47, 0.5, what, ha="center", va="center", fontsize=8.8, color=INK)
            ax.text(
                i + 0.47, 0.15, result, ha="center", va="center", fontsize=9.5, family="monospace", color=INK
            )
            if i + 1 < len(STAGES):
                arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.4}
                ax.annotate("", (i + 1.06, 0.59), (i + 0.88, 0.59), arrowprops=arrow)
        canvas.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def chosen_places(locations: pd.DataFrame, patches: pd.DataFrame, cycles: pd.DataFrame) -> list[str]:
    """Choose complete places with the largest amplitudes, one per region."""
    n_stored = patches[patches["status"] == "ok"].groupby("location_id").size()
    complete = locations[locations["location_id"].map(n_stored).fillna(0) == n_stored.max()]
    amplitude = complete["location_id"].map(cycles.groupby("location_id")["amplitude"].median())
    ranked = complete.assign(amplitude=amplitude, region=complete["lat"].round(0)).dropna(
        subset=["amplitude"]
    )
    ranked = ranked.sort_values("amplitude", ascending=False)
    return ranked.drop_duplicates("region")["location_id"].head(N_PLACES).tolist()


def draw_result(path: Path) -> None:
    """Draw four seasons and the curve of some places."""
    locations, patches, cycles, seasons = (
        pd.read_parquet(DATASET / f"{name}.parquet")
        for name in ("locations", "patches", "phenology_cycles", "seasons")
    )
    pixels, greenness = store.open_store(DATASET / "patches.zarr"), xr.open_zarr(DATASET / "greenness.zarr")
    names, order = pixels["band10"].to_numpy().tolist(), list(dict.fromkeys(seasons["season"]))
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(11.4, 2.15 * N_PLACES))
        axes = canvas.subplots(N_PLACES, len(order) + 1, width_ratios=[1] * len(order) + [2.1])
        for row, location_id in zip(axes, chosen_places(locations, patches, cycles), strict=True):
            at = int(np.flatnonzero(locations["location_id"] == location_id)[0])
            index = patches[patches["location_id"] == location_id].set_index("season")
            for ax, season in zip(row, order, strict=False):
                dn10 = pixels["dn10"].isel(location=at).sel(season=season).to_numpy()
                ax.imshow(true_color(dn10, names, white=WHITE), interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.set_title(f"{season}, {index.loc[season, 'datetime']:%d %b %Y}", fontsize=9)
                ax.spines[:].set(visible=True, color=season_color(season, order), linewidth=2.5)
            draw_curve(
                row[-1], greenness.isel(location=at), seasons[seasons["location_id"] == location_id], order
            )
            row[-1].set_title(f"{location_id}: EVI, fitted curve, windows", fontsize=9)
        canvas.savefig(path, dpi=110, pil_kwargs={"quality": 82}, facecolor="white")


def draw_curve(ax: mpl.axes.Axes, series: xr.Dataset, windows: pd.DataFrame, order: list[str]) -> None:
    """Draw the last two years of a series with the windows of the seasons."""
    date = series["date"].to_numpy().astype("datetime64[D]")
    index, quality = (
        series["index"].to_numpy().astype(np.float32),
        series["reliability"].to_numpy().astype(np.int8),
    )
    day = np.where(np.isnat(date), MISSING_DAY, date.astype(np.int64))
    curve_day, curve, _ = fit_curve(day, index, quality, PhenologyOptions())
    end = pd.Timestamp(curve_day[-1], unit="D")
    span = (end - pd.Timedelta(days=800), end)
    for window in windows.itertuples():
        for start, stop in occurrences(window, span):
            ax.axvspan(start, stop, color=season_color(window.season, order), alpha=0.2, lw=0)
    good = quality <= 1
    ax.plot(pd.to_datetime(date[good]), index[good], "o", ms=2.5, color=INK)
    ax.plot(pd.to_datetime(curve_day.astype("datetime64[D]")), curve, color=OKABE_ITO[0])
    ax.set(xlim=span)
    ax.tick_params(axis="x", labelsize=8)
    ax.xaxis.set_major_locator(mpl.dates.MonthLocator(bymonth=(1, 7)))
    ax.xaxis.set_major_formatter(mpl.dates.DateFormatter("%b %Y"))


def main() -> None:
    """Draw both pictures."""
    if not (DATASET / "patches.parquet").exists():
        raise SystemExit("docs/make_pictures.py: the demo has not been run here; run `make demo` first")
    PICTURES.mkdir(exist_ok=True)
    draw_pipeline(PICTURES / "pipeline.svg")
    draw_result(PICTURES / "result.jpg")


if __name__ == "__main__":
    main()
