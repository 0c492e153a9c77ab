"""Comparison with what is known: dates of growing cycles, NDVI through time."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree

from workflow_scripts.core import store
from workflow_scripts.core.bands import SCL_CLOUD
from workflow_scripts.core.grid import MEAN_RADIUS_KM, modis_pixel, project, sphere_xyz
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, date_axis, legend_below, picture, season_color
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.maps import biome_of, pick_examples

MATCH_DAYS = 90
"""A cycle and a known one are the same if their peaks, or first common dates, are at most this far apart."""
MAX_COMPARED = 60
"""Locations whose stored NDVI is compared with a known curve."""
WINDOW_PX = 5
"""Side, in 10 m pixels, of the window whose NDVI is compared with a known place."""


def known_dates(dataset: Dataset) -> str:
    """Compare estimated cycles with the known ones the dataset names."""
    if dataset.reference_phenology is None or dataset.cycles is None:
        return ""
    limit = dataset.settings["report"]["reference"]["max_distance_km"]
    compared = compare_dates(
        dataset.cycles, dataset.locations, dataset.reference_phenology, max_distance_km=limit
    )
    rows = [
        [
            row.date.replace("_", " "),
            page.count(row.n_known),
            page.share(row.n, row.n_known),
            page.number(row.mae_days, 1),
            f"{row.bias_days:+.1f}" if row.n else "–",
        ]
        for row in compared.itertuples()
    ]
    header = ["Date", "Known", "Found", "Mean absolute error, days", "Median difference, days"]
    note = page.paragraph(
        f"Every known cycle of the years with estimates counts; found are those with an estimated cycle at most {MATCH_DAYS} "
        "days away. Differences are estimated minus known."
    )
    return (
        page.heading("Against known dates")
        + page.table(header, rows, caption="Estimated and known dates")
        + note
    )


def known_ndvi(dataset: Dataset) -> str:
    """Draw stored NDVI over the known curves the dataset names."""
    if dataset.reference_ndvi is None or dataset.store is None or dataset.stored is None:
        return ""
    known = dataset.reference_ndvi.assign(date=pd.to_datetime(dataset.reference_ndvi["date"]))
    if "location_id" in known:
        places = dataset.locations[["location_id", "lon", "lat"]]
        known = known.drop(columns=["lon", "lat"], errors="ignore").merge(places, on="location_id")
    compared = compare_ndvi(
        dataset.store, known, dataset.stored, size_m=dataset.settings["patches"]["size_m"]
    )
    if compared.empty:
        return page.paragraph("No place with known NDVI lies in a stored patch.")
    usable = compared.groupby("location_id").size().sort_values(ascending=False, kind="stable")
    chosen = pick_examples(
        dataset.locations, list(usable.index), min(4, dataset.settings["report"]["examples"])
    )
    figures = [
        _ndvi_curve(dataset, known, compared[compared["location_id"] == name], name) for name in chosen
    ]
    difference = compared["stored"] - compared["known"]
    note = page.paragraph(
        f"NDVI of the stored pixels around each known place ({WINDOW_PX} × {WINDOW_PX} at 10 m, left out where the scene "
        f"classification sees cloud or shadow) on the days of the scenes: {len(compared)} patches at "
        f"{compared['location_id'].nunique()} locations, mean absolute difference {difference.abs().mean():.3f}, "
        f"median difference {difference.median():+.3f}."
    )
    return page.heading("Stored NDVI against known NDVI") + note + page.grid(figures)


def compare_dates(
    cycles: pd.DataFrame, locations: pd.DataFrame, reference: pd.DataFrame, *, max_distance_km: float
) -> pd.DataFrame:
    """Compare estimated dates with known ones.

    Parameters
    ----------
    cycles : estimated cycles
    locations : for the place of each cycle
    reference : known cycles by `location_id`, by MODIS pixel (`tile`, `row`, `column`), or by `lon` and `lat` (the
        nearest place counts); at least one date
    max_distance_km : a known place further away is not compared

    Returns
    -------
    DataFrame, one row per date that both have: date, n_known (at the locations, in years with estimates),
    n (found), mae_days, bias_days (estimated minus known, median)
    """
    dates = [name for name in TRANSITIONS if name in reference]
    known = at_locations(reference, locations, max_distance_km=max_distance_km)
    anchor = "peak" if "peak" in dates else dates[0]
    known = known[pd.to_datetime(known[anchor]).dt.year.isin(cycles["year"].unique())].reset_index(drop=True)
    pairs = known.reset_index(names="known_row").merge(cycles, on="location_id", suffixes=("_known", ""))
    gap = (pairs[anchor] - pairs[f"{anchor}_known"]).abs().dt.total_seconds() / 86400
    pairs = pairs.assign(gap=gap)[gap <= MATCH_DAYS].sort_values("gap").drop_duplicates("known_row")
    rows = []
    for name in dates:
        difference = (pairs[name] - pairs[f"{name}_known"]).dt.total_seconds().dropna() / 86400
        rows.append(
            {
                "date": name,
                "n_known": int(known[name].notna().sum()),
                "n": len(difference),
                "mae_days": difference.abs().mean(),
                "bias_days": difference.median(),
            }
        )
    return pd.DataFrame(rows)


def at_locations(reference: pd.DataFrame, locations: pd.DataFrame, *, max_distance_km: float) -> pd.DataFrame:
    """Give each location the known rows of its place; the result has `location_id`, sorted by it."""
    places = locations[["location_id"]].reset_index(drop=True)
    if "location_id" in reference:
        matched = places.merge(reference, on="location_id")
    elif {"tile", "row", "column"} <= set(reference):
        tile, row, column = modis_pixel(locations["lon"], locations["lat"])
        places = places.assign(tile=tile, row=row, column=column)
        matched = places.merge(reference, on=["tile", "row", "column"])
    else:
        known = reference[["lon", "lat"]].drop_duplicates().reset_index(drop=True)
        tree = cKDTree(sphere_xyz(known["lon"], known["lat"]))
        distance, nearest = tree.query(sphere_xyz(locations["lon"], locations["lat"]))
        is_near = distance * MEAN_RADIUS_KM <= max_distance_km
        matched = known.iloc[nearest[is_near]].assign(location_id=places["location_id"].to_numpy()[is_near])
        matched = matched.merge(reference, on=["lon", "lat"])
    return matched.sort_values("location_id", kind="stable", ignore_index=True)


def compare_ndvi(
    patches: xr.Dataset, known: pd.DataFrame, stored: pd.DataFrame, *, size_m: int
) -> pd.DataFrame:
    """Put the stored NDVI of each patch that holds a known place beside the known one of its day.

    Parameters
    ----------
    patches : lazy store
    known : `lon`, `lat`, `date`, `ndvi`
    stored : index rows of stored patches
    size_m : side of a patch

    Returns
    -------
    DataFrame: location_id, season, datetime, lon, lat (of the known place nearest to the patch's center), stored,
    known (interpolated in time; days outside the known ones are left out)
    """
    curves = {place: curve.sort_values("date") for place, curve in known.groupby(["lon", "lat"])}
    places = np.array(list(curves))
    centers = stored.drop_duplicates("location_id").sort_values("location_id")
    distance, nearest = cKDTree(sphere_xyz(*places.T)).query(sphere_xyz(centers["lon"], centers["lat"]))
    near = distance * MEAN_RADIUS_KM * 1000 <= size_m * 0.71
    rows = []
    for center, (lon, lat) in list(zip(centers[near].itertuples(), places[nearest[near]], strict=True))[
        :MAX_COMPARED
    ]:
        one = patches[["dn10", "scl", "epsg", "origin_x", "origin_y"]].isel(location=center.location).load()
        curve = curves[lon, lat]
        days = curve["date"].to_numpy("datetime64[ns]").astype("int64")
        for patch in stored[stored["location_id"] == center.location_id].itertuples():
            value = ndvi_around(one.sel(season=patch.season), lon, lat)
            at = np.interp(
                patch.datetime.value, days, curve["ndvi"].to_numpy(float), left=np.nan, right=np.nan
            )
            rows.append((patch.location_id, patch.season, patch.datetime, lon, lat, value, at))
    columns = ["location_id", "season", "datetime", "lon", "lat", "stored", "known"]
    return pd.DataFrame(rows, columns=columns).dropna(ignore_index=True)


def ndvi_around(patch: xr.Dataset, lon: float, lat: float) -> float:
    """Average NDVI of the pixels around a place; NaN if they leave the patch or one is under cloud or shadow.

    Parameters
    ----------
    patch : store of one location and season
    """
    x, y = project(lon, lat, int(patch["epsg"]))
    column = int((x - float(patch["origin_x"])) // 10) - WINDOW_PX // 2
    row = int((float(patch["origin_y"]) - y) // 10) - WINDOW_PX // 2
    n = patch.sizes["y10"]
    if min(row, column) < 0 or max(row, column) + WINDOW_PX > n:
        return float("nan")
    end_row, end_column = row + WINDOW_PX, column + WINDOW_PX
    classes = patch["scl"].to_numpy()[row // 2 : (end_row + 1) // 2, column // 2 : (end_column + 1) // 2]
    if np.isin(classes, SCL_CLOUD).any():
        return float("nan")
    window = patch[["dn10"]].isel(y10=slice(row, end_row), x10=slice(column, end_column))
    return float(store.ndvi10(window).mean())


def _ndvi_curve(dataset: Dataset, known: pd.DataFrame, points: pd.DataFrame, location_id: str) -> str:
    margin = pd.Timedelta(days=120)
    start, end = points["datetime"].min() - margin, points["datetime"].max() + margin
    is_here = (known["lon"] == points["lon"].iloc[0]) & (known["lat"] == points["lat"].iloc[0])
    curve = known[is_here & known["date"].between(start, end)].sort_values("date")
    place = dataset.locations[dataset.locations["location_id"] == location_id]
    with picture(5.2, 2.9) as drawn:
        ax = drawn.ax
        ax.plot(curve["date"], curve["ndvi"], color=GRAY, lw=1.4, label="known")
        for point in points.itertuples():
            color = season_color(point.season, dataset.season_names)
            ax.plot(
                point.datetime, point.stored, "o", ms=7, color=color, mec="white", mew=0.8, label=point.season
            )
        ax.set(ylabel="NDVI, unitless", ylim=(min(-0.05, curve["ndvi"].min()), 1), xlim=(start, end))
        date_axis(ax)
        ax.set_title(location_id)
        legend_below(ax, n_columns=5)
    alt = f"Known NDVI curve of location {location_id} with the NDVI of its {len(points)} stored patches at their dates."
    return page.figure(drawn.uri, alt=alt, caption=f"{location_id}: {biome_of(place).iloc[0]}.")
