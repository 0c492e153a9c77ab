"""How well the locations stand for the land: shares against area, balance, distances between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import shapely
from scipy.spatial import cKDTree

from workflow_scripts.core import grid
from workflow_scripts.core.polygons import locate, read_polygons, read_vector
from workflow_scripts.core.rasters import raster_values
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, OKABE_ITO, legend_below, picture
from workflow_scripts.report.inputs import Dataset

MAX_ROWS = 15
"""Groups that pictures and tables show; the smallest are summed up."""
COVER_SPACING_M = 20_000
"""Grid on which the land's area per class of a raster is measured."""
ID_COLUMNS = ("location_id", "sample_id")
"""Columns that tell places with several images apart."""


def representativeness_section(dataset: Dataset) -> str:
    """Compare the locations with the land they were drawn from."""
    facts = dataset.sampling
    if facts is None or facts["n_places"] is None:
        return ""
    ecoregions = pd.DataFrame(facts["ecoregions"])
    parts = [f"<p>{page.text(_summary(facts))}</p>"]
    compared = dataset.compare
    baseline = read_baseline(compared.get("baseline"), compared.get("ecoregions"))
    if ecoregions["biome_name"].ne("").any():
        biomes = share_table(
            ecoregions, "biome_name", baseline=None if baseline is None else baseline["biome_name"]
        )
        parts.append(page.grid([_shares_picture(biomes, has_baseline=baseline is not None)], kind="solo"))
        parts.append(_table(biomes, "Share of locations and of land area by biome", first="Biome"))
        parts.append(_ecoregion_table(ecoregions, baseline=baseline))
    if compared.get("land_cover") and dataset.land:
        classes = cover_shares(dataset.locations, dataset.land, compared["land_cover"])
        caption = "Share of locations and of the Earth's land area by class of the land-cover raster"
        parts.append(_table(classes, caption, first="Class"))
    parts.append(page.grid([_distance_picture(dataset.locations, baseline)], kind="solo"))
    parts.append(_missed_table(facts["without_location"]))
    return "".join(parts)


def share_table(groups: pd.DataFrame, by: str, *, baseline: pd.Series | None = None) -> pd.DataFrame:
    """Give the shares of groups in percent, the group with the largest area first.

    Parameters
    ----------
    groups : `area_km2`, `n_locations` and the column `by`; rows whose group is "" are left out
    by : column that names the group
    baseline : group of each place of another dataset, "" for none

    Returns
    -------
    DataFrame, index group: `area`, `locations` and, with a baseline, `baseline`; each adds up to 100
    """
    table = groups[groups[by] != ""].groupby(by)[["area_km2", "n_locations"]].sum()
    table = table.rename(columns={"area_km2": "area", "n_locations": "locations"})
    if baseline is not None:
        known = baseline[baseline != ""]
        table = table.join(known.value_counts().rename("baseline"), how="left").fillna({"baseline": 0})
    return (100 * table / table.sum()).sort_values("area", ascending=False)


def read_baseline(path: str | None, ecoregions: str | None) -> pd.DataFrame | None:
    """Read the places of another dataset, one row per place, with ecoregion and biome.

    Parameters
    ----------
    path : CSV, Parquet or vector file with `lon` and `lat`, or with geometries (WKB in degrees where the
        file names no CRS), of which the middle counts; None for no baseline
    ecoregions : polygons that name the ecoregion, "" where there is none

    Returns
    -------
    DataFrame with `lon`, `lat`, `eco_name`, `biome_name`
    """
    if not path:
        return None
    key = "report.compare.baseline"
    is_plain = path.endswith(".parquet") and b"geo" not in (pq.read_schema(path).metadata or {})
    frame = pd.read_parquet(path) if is_plain else pd.read_csv(path) if path.endswith(".csv") else None
    if frame is None:
        frame = read_vector(path, key=key).to_crs(4326)
    for column in ID_COLUMNS:
        if column in frame.columns:
            frame = frame.drop_duplicates(column)
    if not {"lon", "lat"} <= set(frame.columns):
        if "geometry" not in frame.columns:
            raise ValueError(f"{key}: {path!r} has neither the columns 'lon' and 'lat' nor a geometry")
        shapes = frame["geometry"].to_numpy()
        middles = shapely.centroid(shapely.from_wkb(shapes) if is_plain else shapes)
        frame = frame.assign(lon=shapely.get_x(middles), lat=shapely.get_y(middles))
    grid.check_coordinates(frame["lon"], frame["lat"])
    places = pd.DataFrame(frame[["lon", "lat"]]).reset_index(drop=True).assign(eco_name="", biome_name="")
    if ecoregions:
        polygons = read_polygons(ecoregions, ["ECO_NAME", "BIOME_NAME"], key="locations.ecoregions")
        row = locate(places["lon"], places["lat"], polygons)
        for column in ("eco_name", "biome_name"):
            names = polygons[column.upper()].fillna("").astype(str).to_numpy(object)
            places[column] = np.where(row >= 0, names[np.maximum(row, 0)], "")
    return places


def cover_shares(locations: pd.DataFrame, land: str, raster: str) -> pd.DataFrame:
    """Give the share (%) of the Earth's land and of the locations in each class of a raster.

    Parameters
    ----------
    locations : `lon`, `lat`
    land : polygon file
    raster : its first band holds the classes; pixels without data are left out

    Returns
    -------
    DataFrame, index class: `area`, `locations`
    """
    polygons: gpd.GeoDataFrame = read_polygons(land, key="locations.land")
    cells = grid.cells(COVER_SPACING_M)
    cells = cells[locate(cells["lon"], cells["lat"], polygons) >= 0].reset_index(drop=True)
    area = pd.Series(grid.cell_area_km2(cells)).groupby(raster_values(cells, raster)).sum()
    places = locations[["lon", "lat"]].reset_index(drop=True)
    counts = raster_values(places, raster).value_counts()
    table = pd.DataFrame({"area": area, "locations": counts}, dtype=float).fillna(0)
    return (100 * table / table.sum()).sort_values("area", ascending=False)


def nearest_neighbor_km(locations: pd.DataFrame) -> np.ndarray:
    """Give each location's great-circle distance to the nearest other one, in km."""
    xyz = grid.sphere_xyz(locations["lon"], locations["lat"])
    chord = cKDTree(xyz).query(xyz, k=2)[0][:, 1]
    return 2 * grid.MEAN_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))


def _summary(facts: Mapping[str, Any]) -> str:
    sentence = (
        f"{page.count(facts['n_locations'])} locations of {page.count(facts['n_places'])} places at "
        f"{facts['spacing_m'] / 1000:g} km on {page.count(facts['land_area_km2'])} km² of land."
    )
    if balance := facts["balance"]:
        share = balance["sample"] / balance["simple_random"] if balance["simple_random"] else float("nan")
        sentence += (
            f" Spatial balance: the variance of the Voronoi sums is {balance['sample']:.3f}, against "
            f"{balance['simple_random']:.3f} for simple random draws in the same strata ({100 * share:.0f} %; "
            "0 would be perfectly even)."
        )
    return sentence


def _table(shares: pd.DataFrame, caption: str, *, first: str) -> str:
    header = [first, "Land area %", "Locations %", "Difference"]
    header += ["Baseline %"] if "baseline" in shares else []
    rows = []
    shown = shares.head(MAX_ROWS)
    rest = shares.iloc[MAX_ROWS:].sum()
    if len(shares) > MAX_ROWS:
        shown = pd.concat([shown, rest.to_frame(f"{len(shares) - MAX_ROWS} others").T])
    for name, row in shown.iterrows():
        cells = [str(name), page.number(row["area"]), page.number(row["locations"])]
        cells.append(f"{row['locations'] - row['area']:+.2f}")
        rows.append(cells + ([page.number(row["baseline"])] if "baseline" in shares else []))
    return page.table(header, rows, caption=caption)


def _ecoregion_table(ecoregions: pd.DataFrame, *, baseline: pd.DataFrame | None) -> str:
    """List the ecoregions with the largest share of the land, folded; and tell how many are hit."""
    own = ecoregions[ecoregions["eco_id"] >= 0]
    shares = share_table(own, "eco_name", baseline=None if baseline is None else baseline["eco_name"])
    table = _table(shares, "Share of locations and of land area by ecoregion", first="Ecoregion")
    n_hit = int((own["n_locations"] > 0).sum())
    told = f"{n_hit} of {len(own)} ecoregions with a place hold a location"
    if baseline is not None:
        n_baseline = baseline.loc[baseline["eco_name"] != "", "eco_name"].nunique()
        told += f"; the baseline's {len(baseline):,} places lie in {n_baseline}"
    return f"<p>{page.text(told)}.</p>" + page.folded("Ecoregions", table)


def _shares_picture(shares: pd.DataFrame, *, has_baseline: bool) -> str:
    shown = shares.head(MAX_ROWS).iloc[::-1]
    at = np.arange(len(shown))
    with picture(7.2, 0.6 + 0.32 * len(shown)) as drawn:
        ax = drawn.ax
        ax.barh(at, shown["area"], height=0.7, color="#d9dfe3", label="share of land area")
        ax.plot(shown["locations"], at, "o", color=OKABE_ITO[0], ms=5, label="share of locations")
        if has_baseline:
            ax.plot(
                shown["baseline"], at, "D", color=OKABE_ITO[1], ms=4.5, label="share of the baseline's places"
            )
        ax.set_yticks(at, [str(name)[:44] for name in shown.index])
        ax.set_xlabel("%")
        ax.grid(visible=False, axis="y")
        legend_below(ax, n_columns=3)
    worst = (shares["locations"] - shares["area"]).abs().max()
    alt = f"Shares of land area and of locations in {len(shares)} biomes; the largest difference is {worst:.2f} points."
    return page.figure(
        drawn.uri, alt=alt, caption="Where points lie on the bars' ends, the locations stand for the land."
    )


def _distance_picture(locations: pd.DataFrame, baseline: pd.DataFrame | None) -> str:
    if len(locations) < 2:
        return ""
    sets: Sequence[tuple[str, np.ndarray, str]] = [
        ("locations", nearest_neighbor_km(locations), OKABE_ITO[0])
    ]
    if baseline is not None and len(baseline) > 1:
        sets = [*sets, ("baseline", nearest_neighbor_km(baseline), OKABE_ITO[1])]
    high = max(np.quantile(distance, 0.95) for _, distance, _ in sets) * 1.05
    with picture(5.2, 2.6) as drawn:
        ax = drawn.ax
        for name, distance, color in sets:
            bins = np.linspace(0, high, 60)
            weights = np.full(len(distance), 100 / len(distance))
            ax.hist(distance, bins=bins, weights=weights, histtype="step", color=color, lw=1.6, label=name)
            ax.axvline(np.median(distance), color=color if len(sets) > 1 else GRAY, lw=1, ls="--")
        ax.set_xlabel("distance to the nearest other one, km")
        ax.set_ylabel("%")
        legend_below(ax, n_columns=2)
    told = "; ".join(
        f"{name}: median {np.median(d):.1f} km, 5 to 95 % {np.quantile(d, 0.05):.1f} to {np.quantile(d, 0.95):.1f} km"
        for name, d, _ in sets
    )
    return page.figure(
        drawn.uri, alt=f"Histogram of distances to the nearest neighbor. {told}.", caption=f"{told}."
    )


def _missed_table(missed: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            entry["stratum"],
            f"{entry['area_km2']:,.1f}",
            "inside its polygon" if entry["is_placed"] else "not drawn",
        ]
        for entry in sorted(missed, key=lambda entry: -entry["area_km2"])
    ]
    table = page.table(
        ["Stratum", "Area, km²", "Place"], rows, caption="Strata that hold no location of the grid"
    )
    return page.folded(f"{len(rows)} strata hold no location of the grid", table) if rows else ""
