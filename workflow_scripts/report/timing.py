"""When the chosen scenes were taken, how cloudy they are, and what was lost on the way."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from workflow_scripts.core.seasons import in_window
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, OKABE_ITO, legend_below, picture, season_color
from workflow_scripts.report.inputs import Dataset

REASONS = {
    "no_window": "the location has no season window",
    "no_scene": "seasons with no scene in their window",
    "no_candidate": "no scene passed the selection",
    "cloudy": "every candidate was too cloudy over the patch",
    "nodata": "every candidate had holes over the patch",
    "read_error": "no candidate's file could be read",
    "candidate": "candidates handed to retrieval",
    "second_pass": "candidates of the second, less strict pass",
    "failover": "the same products in the catalog that stands in",
    "unresolved": "images of the published index that no item answers to",
    "no_image": "the published index names no image",
    "cloud_cover": "scene cloud cover above the limit",
    "sun_zenith": "sun too low",
    "footprint": "the scene's footprint does not hold the patch",
    "duplicate": "another processing of the same scene was taken",
    "not_in_top": "further down the ranking than the candidates kept",
    "offset_undecided": "the catalog does not say which radiometric offset applies",
}
"""What the reasons of the tables `patches` and `scenes` mean."""


def timing_section(dataset: Dataset) -> str:
    """Show days from target, years and clouds of the stored patches."""
    stored = dataset.stored
    if stored is None or stored.empty:
        return ""
    figures = [_days_from_target(dataset, stored), _years(dataset, stored), _clouds(stored)]
    return page.grid(figures) + timing_table(dataset, stored)


def losses_section(dataset: Dataset) -> str:
    """Count missing patches and scenes turned down, by reason."""
    if dataset.patches is None:
        return ""
    missing = dataset.patches[dataset.patches["status"] != "ok"]
    parts = [_reason_table(missing.assign(n=1), dataset.season_names, caption="Missing patches by reason")]
    if missing.empty:
        parts = [page.paragraph("No patch is missing.")]
    if dataset.rejections is not None:
        title = "Scenes considered, per location and season, by what became of them"
        parts.append(_reason_table(dataset.rejections, dataset.season_names, caption=title))
    return "".join(parts)


def is_in_window(patches: pd.DataFrame, seasons: pd.DataFrame) -> pd.Series:
    """Tell for each patch whether its scene was taken within its season's window.

    Parameters
    ----------
    patches : stored patches
    seasons : table of seasons

    Returns
    -------
    bool Series, index as `patches`; False where there is no window
    """
    windows = seasons.set_index(["location_id", "season"])
    keys = pd.MultiIndex.from_frame(patches[["location_id", "season"]])
    windows = windows[["start_doy", "end_doy", "start_date", "end_date"]].reindex(keys)
    time = pd.DatetimeIndex(patches["datetime"])
    day = time.dayofyear.to_numpy(float)
    circular = in_window(day, windows["start_doy"].to_numpy(), windows["end_doy"].to_numpy())
    circular |= (
        np.isclose(np.mod(windows["end_doy"] - windows["start_doy"], 365.25), 0)
        & windows["start_doy"].notna()
    )
    date = time.normalize()
    absolute = (date >= windows["start_date"].to_numpy()) & (date < windows["end_date"].to_numpy())
    return pd.Series(np.where(windows["start_date"].notna(), absolute, circular), index=patches.index)


def timing_table(dataset: Dataset, stored: pd.DataFrame) -> str:
    """Sum up the days from target per season."""
    rows = []
    inside = is_in_window(stored, dataset.seasons) if dataset.seasons is not None else None
    for season in dataset.season_names:
        part = stored[stored["season"] == season]
        days = part["days_from_target"]
        row = [season, page.count(len(part))]
        if len(part):
            low, middle, high = days.quantile([0.25, 0.5, 0.75])
            row += [f"{middle:+.0f}", f"{low:+.0f} to {high:+.0f}", f"{days.abs().max():.0f}"]
        else:
            row += ["–"] * 3
        if inside is not None:
            row.append(page.share(inside[part.index].sum(), len(part)))
        rows.append(row)
    header = ["Season", "Patches", "Median, days", "Middle half, days", "Farthest, days"]
    header += ["Within the window"] if inside is not None else []
    return page.table(header, rows, caption="Days from the season's target to the scene (minus: earlier)")


def _reason_table(counts: pd.DataFrame, seasons: list[str], *, caption: str) -> str:
    table = counts.pivot_table(index="reason", columns="season", values="n", aggfunc="sum", fill_value=0)
    table = table.reindex(columns=seasons, fill_value=0)
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    rows = [
        [REASONS.get(reason, reason.replace("_", " ")), *(page.count(n) for n in row), page.count(row.sum())]
        for reason, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return page.table(["Reason", *seasons, "All"], rows, caption=caption)


def _days_from_target(dataset: Dataset, stored: pd.DataFrame) -> str:
    seasons = dataset.season_names
    reach = float(max(10, stored["days_from_target"].abs().max()))
    bins = np.linspace(-reach, reach, 41)
    with picture(5.2, 0.6 + 0.85 * len(seasons), n_rows=len(seasons)) as drawn:
        for ax, season in zip(drawn.axes, seasons, strict=True):
            days = stored.loc[stored["season"] == season, "days_from_target"]
            ax.hist(days, bins=bins, color=season_color(season, seasons), lw=0)
            ax.axvline(0, color=GRAY, lw=1)
            ax.set(xlim=(-reach, reach))
            ax.set_ylabel(season, rotation=0, ha="right", va="center")
            ax.yaxis.set_major_locator(_few_integers())
            if season != seasons[-1]:
                ax.tick_params(labelbottom=False)
        drawn.axes[-1].set_xlabel("days from target (minus: earlier)")
    alt = f"Histograms of the days between scene and target for {', '.join(seasons)}."
    return page.figure(drawn.uri, alt=alt, caption="Days from the target of the season, patches.")


def _years(dataset: Dataset, stored: pd.DataFrame) -> str:
    counts = pd.crosstab(stored["datetime"].dt.year, stored["season"]).reindex(
        columns=dataset.season_names, fill_value=0
    )
    years = list(range(int(counts.index.min()), int(counts.index.max()) + 1))
    counts = counts.reindex(years, fill_value=0)
    with picture(5.2, 3.0) as drawn:
        ax = drawn.ax
        below = np.zeros(len(years))
        for season in dataset.season_names:
            color = season_color(season, dataset.season_names)
            ax.bar(years, counts[season], bottom=below, color=color, label=season, width=0.7)
            below += counts[season].to_numpy()
        ax.set(ylabel="patches", xticks=years)
        ax.grid(visible=False, axis="x")
        ax.yaxis.set_major_locator(_few_integers(5))
        legend_below(ax)
    alt = (
        "Stored patches per year and season: "
        + ", ".join(f"{year} {counts.loc[year].sum()}" for year in years)
        + "."
    )
    return page.figure(drawn.uri, alt=alt, caption="Year of the scene.")


def _clouds(stored: pd.DataFrame) -> str:
    scene = stored["scene_cloud_cover"].dropna()
    patch = 100 * stored["cloud_fraction"].dropna()
    reach = max([5.0, *scene, *patch])
    bins = np.linspace(0, reach, 26)
    with picture(5.2, 3.0) as drawn:
        ax = drawn.ax
        for values, label, color, style in (
            (scene, "whole scene (catalog)", OKABE_ITO[4], "--"),
            (patch, "patch (scene classification)", OKABE_ITO[0], "-"),
        ):
            if len(values):
                ax.hist(values, bins=bins, histtype="step", color=color, ls=style, lw=1.6, label=label)
        ax.set(xlabel="cloud, %", ylabel="patches", xlim=(0, reach * 1.02))
        ax.yaxis.set_major_locator(_few_integers(5))
        legend_below(ax, n_columns=2)
    median = f"median {patch.median():.1f} %" if len(patch) else "no scene classification"
    alt = f"Histogram of cloud over the patch ({median}) and of the whole scene's cloud cover."
    return page.figure(drawn.uri, alt=alt, caption="Cloud over the patch against cloud over the whole scene.")


def _few_integers(n: int = 2) -> MaxNLocator:
    return MaxNLocator(n, integer=True)
