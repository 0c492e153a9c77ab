"""Greenness series with the dates and windows drawn in, seasons by latitude."""

from collections.abc import Sequence
from statistics import median

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.report import page
from workflow_scripts.report.drawing import (
    GRAY,
    INK,
    OKABE_ITO,
    date_axis,
    legend_below,
    picture,
    season_color,
)
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.maps import biome_of, pick_examples
from workflow_scripts.report.reference import known_dates

SHOWN_YEARS = 2.6
QUALITY = (
    (0, "good", INK, "o"),
    (1, "marginal", GRAY, "o"),
    (2, "snow", OKABE_ITO[5], "*"),
    (3, "cloud", OKABE_ITO[3], "x"),
    (-1, "quality not given", INK, "o"),
)
"""Reliability class, its name, color and marker."""


def phenology_section(dataset: Dataset) -> str:
    """Show series, seasons and, where the dataset names them, known dates."""
    parts = [
        _series_grid(dataset),
        _seasons_by_latitude(dataset),
        season_table(dataset),
        known_dates(dataset),
    ]
    return "".join(part for part in parts if part)


def season_table(dataset: Dataset) -> str:
    """Count where the windows came from, per season."""
    if dataset.seasons is None:
        return ""
    seasons = dataset.seasons
    sources = sorted(seasons["source"].unique())
    rows = []
    for season in dataset.season_names:
        part = seasons[seasons["season"] == season]
        has = part[part["source"] != "none"]
        lengths, spreads = (has[name].dropna().tolist() for name in ("length_days", "spread_days"))
        counts = [page.count((part["source"] == source).sum()) for source in sources]
        length = page.number(median(lengths), 0) if lengths else "–"
        spread = page.number(median(spreads), 1) if spreads else "–"
        rows.append([season, *counts, length, spread])
    header = [
        "Season",
        *(f"Windows {source}" for source in sources),
        "Median length, days",
        "Median spread, days",
    ]
    return page.table(header, rows, caption="Season windows by source")


def _seasons_by_latitude(dataset: Dataset) -> str:
    if dataset.seasons is None or dataset.locations is None:
        return ""
    seasons = dataset.seasons[dataset.seasons["target_doy"].notna()]
    if seasons.empty:
        return ""
    merged = seasons.merge(dataset.locations[["location_id", "lat"]], on="location_id")
    with picture(5.2, 3.2, raster=True) as drawn:
        ax = drawn.ax
        for season in dataset.season_names:
            part = merged[merged["season"] == season]
            color = season_color(season, dataset.season_names)
            size = float(np.clip(5000 / len(merged), 2, 18))
            ax.scatter(part["target_doy"], part["lat"], s=size, color=color, label=season, alpha=0.7, lw=0)
        ax.set(xlim=(0, 367), xlabel="target day of the year", ylabel="latitude, degrees")
        ax.set_xticks([1, 91, 182, 274, 366])
        legend_below(ax)
    alt = "Target day of each season against latitude, one point per location and season."
    return page.grid([page.figure(drawn.uri, alt=alt, caption="The day each season aims at, by latitude.")])


def _series_grid(dataset: Dataset) -> str:
    if dataset.greenness is None or dataset.cycles is None or dataset.locations is None:
        return ""
    counted = dataset.locations["location_id"].map(dataset.cycles.groupby("location_id").size()).fillna(0)
    usable = dataset.locations["location_id"].loc[counted.sort_values(ascending=False, kind="stable").index]
    chosen = pick_examples(dataset.locations, list(usable), dataset.settings["report"]["examples"])
    figures = [_series(dataset, location_id) for location_id in chosen]
    if not any(figures):
        return ""
    note = page.paragraph(
        "Points are observations by their quality; bands are the season windows. The line joins the dates of a cycle at "
        "their level of its amplitude, above the floor (dotted); it is a sketch of the fitted curve, not the curve itself."
    )
    return page.heading("Series") + note + page.grid(figures)


def _series(dataset: Dataset, location_id: str) -> str:
    location = int(dataset.locations.index[dataset.locations["location_id"] == location_id][0])
    greenness = dataset.greenness.isel(location=location).load()
    cycles = dataset.cycles[dataset.cycles["location_id"] == location_id]
    place = dataset.locations.loc[location]
    series = pd.DataFrame(
        {
            "date": pd.to_datetime(greenness["date"].to_numpy()),
            "index": greenness["index"].to_numpy(),
            "reliability": greenness["reliability"].to_numpy(),
        }
    ).dropna(subset=["date", "index"])
    if series.empty:
        return ""
    name = str(greenness.attrs.get("index", dataset.greenness.attrs.get("index", "greenness"))).upper()
    end = series["date"].max()
    if len(cycles):
        end = min(end, cycles["dormancy"].max() + pd.Timedelta(days=90))
    start = end - pd.Timedelta(days=365.25 * SHOWN_YEARS)
    series = series[series["date"].between(start, end)]
    with picture(5.2, 2.9) as drawn:
        ax = drawn.ax
        _draw_windows(ax, dataset, location_id, (start, end))
        for reliability, label, color, marker in QUALITY:
            part = series[series["reliability"] == reliability]
            if len(part):
                ax.scatter(
                    part["date"],
                    part["index"],
                    s=15,
                    color=color,
                    marker=marker,
                    lw=0.9,
                    label=label,
                    zorder=3,
                )
        low, high = (dataset.settings["phenology"][level] for level in ("low", "high"))
        _draw_cycles(ax, cycles[cycles["dormancy"] > start], levels=(low, 0.5, high, 1, high, 0.5, low))
        ax.set(xlim=(start, end), ylabel=f"{name}, unitless")
        date_axis(ax)
        ax.set_title(location_id)
        legend_below(ax, n_columns=5)
    biome = biome_of(dataset.locations.loc[[location]]).iloc[0]
    source = "" if len(cycles) else "; no cycle was found, the windows come from a donor or are missing"
    caption = f"{location_id}: {biome}{source}."
    alt = (
        f"{name} of location {location_id} at {page.place_name(place.lon, place.lat)} from {start:%B %Y} to {end:%B %Y}, "
        f"with {len(cycles)} estimated growing cycles and the season windows."
    )
    return page.figure(drawn.uri, alt=alt, caption=caption)


def _draw_cycles(ax: Axes, cycles: pd.DataFrame, *, levels: Sequence[float]) -> None:
    for cycle in cycles.itertuples():
        dates = pd.Series([getattr(cycle, name) for name in TRANSITIONS])
        heights = cycle.minimum + np.array(levels) * cycle.amplitude
        ok = dates.notna().to_numpy()
        label = None if "dates" in ax.get_legend_handles_labels()[1] else "dates"
        ax.plot(dates[ok], heights[ok], "-", color=OKABE_ITO[0], lw=1.3, zorder=2)
        ax.plot(
            dates[ok], heights[ok], "o", ms=5, mfc="white", mec=OKABE_ITO[0], mew=1.2, zorder=4, label=label
        )
        if ok.any():
            ax.hlines(cycle.minimum, dates[ok].min(), dates[ok].max(), color=OKABE_ITO[0], lw=1, ls=":")


def _draw_windows(
    ax: Axes, dataset: Dataset, location_id: str, span: tuple[pd.Timestamp, pd.Timestamp]
) -> None:
    if dataset.seasons is None:
        return
    for window in dataset.seasons[dataset.seasons["location_id"] == location_id].itertuples():
        color = season_color(window.season, dataset.season_names)
        label = window.season
        for start, end in occurrences(window, span):
            ax.axvspan(start, end, color=color, alpha=0.16, lw=0, label=label)
            label = None


def occurrences(
    window: tuple, span: tuple[pd.Timestamp, pd.Timestamp]
) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """List a window's dates within a span of time: once if absolute, each year if circular.

    Parameters
    ----------
    window : row of the seasons table
    span : first and last day
    """
    if pd.notna(window.start_date):
        found = [(window.start_date, window.end_date)]
    elif np.isnan(window.start_doy):
        found = []
    else:
        starts = [
            pd.Timestamp(year, 1, 1) + pd.Timedelta(days=window.start_doy - 1)
            for year in range(span[0].year - 1, span[1].year + 1)
        ]
        found = [(start, start + pd.Timedelta(days=window.length_days)) for start in starts]
    return [(max(a, span[0]), min(b, span[1])) for a, b in found if a < span[1] and b > span[0]]
