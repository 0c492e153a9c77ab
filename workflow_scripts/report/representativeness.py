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
from workflow_scripts.core.land import Ground, land_cells, read_ground
from workflow_scripts.core.polygons import areas_km2, locate, read_polygons, read_vector
from workflow_scripts.core.rasters import raster_values
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, OKABE_ITO, legend_below, picture
from workflow_scripts.report.inputs import Dataset

MAX_ROWS = 15
"""Groups that pictures and tables show; the smallest are summed up."""
N_MEASURED = 50_000
"""Cells on which shares of an area are measured."""
ALL_LAND = (
    "Land area is that of the region asked for, without what is excluded; all land is everything in the "
    "land file."
)
ID_COLUMNS = ("location_id", "sample_id")
"""Columns that tell places with several images apart."""


def representativeness_section(dataset: Dataset) -> str:
    """Compare the locations with the land they were drawn from, and that with all land."""
    facts = dataset.sampling
    if facts is None or facts["n_places"] is None:
        return ""
    groups = pd.DataFrame(facts["ecoregions"])
    parts = [f"<p>{page.text(_summary(facts))}</p>"]
    compared = dataset.compare
    land, all_land = measured_land(dataset, with_all=bool(compared.get("ecoregions")))
    ecoregions = None
    if compared.get("ecoregions") and (compared.get("baseline") or all_land is not None):
        columns = ["ECO_NAME", "BIOME_NAME"]
        ecoregions = read_polygons(compared["ecoregions"], columns, key="locations.ecoregions")
    baseline = read_baseline(compared.get("baseline"), ecoregions)
    if groups["biome_name"].ne("").any():
        biomes = share_table(
            groups, "biome_name", baseline=None if baseline is None else baseline["biome_name"]
        )
        if all_land is not None:
            biomes = biomes.join(shares_by(all_land, ecoregion_names(all_land, ecoregions)["biome_name"]))
        parts.append(page.grid([_shares_picture(biomes, has_baseline=baseline is not None)], kind="solo"))
        parts.append(_table(biomes, "Share of locations and of land area by biome", first="Biome"))
        parts.append(_ecoregion_table(groups, baseline=baseline))
    if land is not None:
        classes = cover_shares(dataset.locations, land, compared["land_cover"], all_land=all_land)
        caption = "Share of locations and of land area by class of the land-cover raster"
        parts.append(_table(classes, caption, first="Class"))
    if all_land is not None:
        parts.append(f"<p>{page.text(ALL_LAND)}</p>")
    parts.append(page.grid([_distance_picture(dataset.locations, baseline)], kind="solo"))
    parts.append(_missed_table(facts["without_location"]))
    return "".join(parts)


def measured_land(dataset: Dataset, *, with_all: bool) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Give cells of grids on land, on which shares of area are measured.

    Parameters
    ----------
    dataset : with the files of land, region and what is excluded
    with_all : whether all land is of use without a raster of classes

    Returns
    -------
    land : cells where locations may lie: `lon`, `lat`, `area_km2`; None without a raster of classes
    all_land : those of the whole land file; None if they are the same or of no use
    """
    options, has_cover = dataset.settings.get("locations", {}), bool(dataset.compare.get("land_cover"))
    is_part = options.get("region") is not None or bool(options.get("exclude"))
    if not dataset.land or not (has_cover or (is_part and with_all)):
        return None, None
    region = next(iter(dataset.areas.get("region", [])), None)
    ground = read_ground(
        dataset.land,
        region,
        dataset.areas.get("exclude", []),
        settings={"region": None, "exclude": []} | options,
    )
    whole = Ground(ground.land)

    def cells(ground: Ground, area_km2: float) -> pd.DataFrame:
        found = land_cells(float(np.clip(1000 * np.sqrt(area_km2 / N_MEASURED), 10, 100_000)), ground=ground)
        return found[["lon", "lat"]].assign(area_km2=grid.cell_area_km2(found))

    return (
        cells(ground, dataset.sampling["land_area_km2"]) if has_cover else None,
        cells(whole, areas_km2(whole.land).sum()) if is_part else None,
    )


def shares_by(land: pd.DataFrame, group: pd.Series) -> pd.Series:
    """Give the share (%) of each group in the area of `land`, named `all_land`; "" and NA are left out."""
    area = land["area_km2"].groupby(group.mask(group == "")).sum()
    return (100 * area / area.sum()).rename("all_land")


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


def read_baseline(path: str | None, ecoregions: gpd.GeoDataFrame | None) -> pd.DataFrame | None:
    """Read the places of another dataset, one row per place, with ecoregion and biome.

    Parameters
    ----------
    path : CSV, Parquet or vector file with `lon` and `lat`, or with geometries (WKB in degrees where the
        file names no CRS), of which the middle counts; None for no baseline
    ecoregions : polygons with `ECO_NAME` and `BIOME_NAME`; without them all names are ""

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
    places = pd.DataFrame(frame[["lon", "lat"]]).reset_index(drop=True)
    return places.join(ecoregion_names(places, ecoregions))


def ecoregion_names(places: pd.DataFrame, ecoregions: gpd.GeoDataFrame | None) -> pd.DataFrame:
    """Name ecoregion (`eco_name`) and biome (`biome_name`) of places, "" outside all."""
    if ecoregions is None:
        return pd.DataFrame({"eco_name": "", "biome_name": ""}, index=places.index)
    row = locate(places["lon"], places["lat"], ecoregions)
    names = ecoregions[["ECO_NAME", "BIOME_NAME"]].fillna("").astype(str).rename(columns=str.lower)
    return names.reindex(row, fill_value="").set_axis(places.index)


def cover_shares(
    locations: pd.DataFrame, land: pd.DataFrame, raster: str, *, all_land: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Give the share (%) of the land and of the locations in each class of a raster.

    Parameters
    ----------
    locations : `lon`, `lat`
    land : as from `measured_land`: where locations may lie
    raster : its first band holds the classes; pixels without data are left out
    all_land : all land of the land file, where locations may not lie on all of it

    Returns
    -------
    DataFrame, index class: `area`, `locations` and, with it, `all_land`; each adds up to 100
    """
    places = locations[["lon", "lat"]].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "area": shares_by(land, raster_values(land, raster)),
            "locations": raster_values(places, raster).value_counts(normalize=True) * 100,
        },
        dtype=float,
    )
    if all_land is not None:
        table = table.join(shares_by(all_land, raster_values(all_land, raster)), how="outer")
    return table.fillna(0).sort_values("area", ascending=False)


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
    further = {
        name: title
        for name, title in (("all_land", "All land %"), ("baseline", "Baseline %"))
        if name in shares
    }
    header = [first, "Land area %", "Locations %", "Difference", *further.values()]
    rows = []
    shown = shares.head(MAX_ROWS)
    rest = shares.iloc[MAX_ROWS:].sum()
    if len(shares) > MAX_ROWS:
        shown = pd.concat([shown, rest.to_frame(f"{len(shares) - MAX_ROWS} others").T])
    for name, row in shown.iterrows():
        cells = [str(name), page.number(row["area"]), page.number(row["locations"])]
        cells.append(f"{row['locations'] - row['area']:+.2f}")
        rows.append(cells + [page.number(row[column]) for column in further])
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
