"""Greenness series with the dates and windows drawn in, seasons by latitude."""

from dataclasses import fields
from statistics import median

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.phenology.curve import PhenologyOptions, fit_curve
from workflow_scripts.phenology.kernels import MISSING_DAY
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
from workflow_scripts.report.phenology_maps import phenology_maps
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
        phenology_maps(dataset),
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
    options = dataset.settings.get("seasons", {})
    shortest = options.get("min_window_days", 0) if options.get("strategy") == "phenology" else 0
    rows = []
    for season in dataset.season_names:
        part = seasons[seasons["season"] == season]
        has = part[part["source"] != "none"]
        lengths, spreads = (has[name].dropna().tolist() for name in ("length_days", "spread_days"))
        counts = [page.count((part["source"] == source).sum()) for source in sources]
        length = page.number(median(lengths), 0) if lengths else "–"
        spread = page.number(median(spreads), 1) if spreads else "–"
        n_widened = page.count((part["length_days"] <= shortest + 0.01).sum())
        n_dark = page.count((part["sunlit_days"] == 0).sum())
        rows.append([season, *counts, length, spread, *([n_widened] if shortest else []), n_dark])
    header = [
        "Season",
        *(f"Windows {source}" for source in sources),
        "Median length, days",
        "Median spread, days",
        *([f"Widened to {shortest:g} days"] if shortest else []),
        "Without sun",
    ]
    return page.table(header, rows, caption="Season windows by source")


def _seasons_by_latitude(dataset: Dataset) -> str:
    if dataset.seasons is None or dataset.locations is None:
        return ""
    seasons = dataset.seasons[dataset.seasons["target_doy"].notna()]
    if seasons.empty:
        return ""
    merged = seasons.merge(dataset.locations[["location_id", "lat"]], on="location_id")
    views = (
        ("target_doy", "target day of the year", (0, 367), "The day each season aims at, by latitude."),
        ("length_days", "length of the window, days", None, "How long each season's window is, by latitude."),
    )
    figures = []
    for column, label, limits, caption in views:
        with picture(5.2, 3.2, raster=True) as drawn:
            ax = drawn.ax
            for season in dataset.season_names:
                part = merged[merged["season"] == season]
                color = season_color(season, dataset.season_names)
                size = float(np.clip(5000 / len(merged), 2, 18))
                ax.scatter(part[column], part["lat"], s=size, color=color, label=season, alpha=0.7, lw=0)
            ax.set(xlabel=label, ylabel="latitude, degrees")
            if limits is not None:
                ax.set(xlim=limits, xticks=[1, 91, 182, 274, 366])
            legend_below(ax)
        alt = f"{label} of each season against latitude, one point per location and season."
        figures.append(page.figure(drawn.uri, alt=alt[0].upper() + alt[1:], caption=caption))
    return page.grid(figures)


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
        "Points are observations by their quality; bands are the season windows. The line is the fitted curve, which "
        "snow and low values do not pull below the floor (dotted); circles are the dates at their levels of the amplitude."
    )
    return page.heading("Series") + note + _composites(dataset) + page.grid(figures)


def _composites(dataset: Dataset) -> str:
    """Tell how many composites the catalog lacked; nothing where the series are the user's own."""
    known = dataset.greenness.attrs
    if "n_composites" not in known:
        return ""
    missing, asked = (page.count(known[name]) for name in ("n_composites_missing", "n_composites"))
    return page.paragraph(f"Of {asked} composites (tiles × 23 a year), {missing} were not in the catalog.")


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
        curve = _draw_curve(ax, greenness, _options(dataset), (start, end))
        _draw_dates(ax, cycles, curve)
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


def _options(dataset: Dataset) -> PhenologyOptions:
    known = {field.name for field in fields(PhenologyOptions)}
    return PhenologyOptions(**{k: v for k, v in dataset.settings["phenology"].items() if k in known})


def _draw_curve(
    ax: Axes, greenness: xr.Dataset, options: PhenologyOptions, span: tuple[pd.Timestamp, pd.Timestamp]
) -> pd.Series:
    """Draw the curve as the estimation fits it, and its floor; gives the curve by date."""
    date = greenness["date"].to_numpy().astype("datetime64[D]")
    day = np.where(np.isnat(date), MISSING_DAY, date.astype(np.int64))
    index, codes = greenness["index"].to_numpy().astype(np.float32), greenness["reliability"].to_numpy()
    day, values, floor = fit_curve(day, index, codes.astype(np.int8), options)
    curve = pd.Series(values, index=pd.to_datetime(day.astype("datetime64[D]")))[span[0] : span[1]]
    if len(curve):
        ax.plot(curve.index, curve, "-", color=OKABE_ITO[0], lw=1.3, zorder=2, label="fitted curve")
        ax.axhline(floor, color=OKABE_ITO[0], lw=1, ls=":")
    return curve


def _draw_dates(ax: Axes, cycles: pd.DataFrame, curve: pd.Series) -> None:
    """Mark the dates of the cycles on the curve."""
    dates = pd.DatetimeIndex(cycles[list(TRANSITIONS)].to_numpy().ravel())
    shown = curve[curve.index.isin(dates)]
    if len(shown):
        style = {"ms": 5, "mfc": "white", "mec": OKABE_ITO[0], "mew": 1.2, "zorder": 4}
        ax.plot(shown.index, shown, "o", label="dates", **style)


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
