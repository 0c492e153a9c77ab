"""Maps of the locations in equal-area projections."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import geopandas as gpd
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pyproj import Transformer
from scipy import ndimage
from shapely.geometry import LineString, Polygon, box

from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, INK, LIGHT, MARKERS, OKABE_ITO, legend_below, picture
from workflow_scripts.report.inputs import Dataset

EQUAL_EARTH = "EPSG:8857"
LAND_COLOR = "#f0eee8"
CLUSTER_CELL_DEG = 2
"""Locations in neighboring cells of this size belong to one region."""
MAX_REGIONS = 6
MAX_REGION_DEG = 30
MAX_CLASSES = 14
KM = 1000.0
METERS_PER_DEGREE = 111_000


def locations_section(dataset: Dataset) -> str:
    """Show where the locations lie: the globe, and each region where they are few."""
    points = dataset.locations
    if points is None or points.empty:
        return ""
    points = points.assign(group=biome_of(points), is_usable=_is_usable(dataset))
    styles = group_styles(points["group"])
    land = _land(dataset.land)
    regions = find_regions(points["lon"].to_numpy(), points["lat"].to_numpy())
    globe = _globe(points, land=land, styles=styles, regions=regions)
    figures = [
        _region(points[regions == region], land=land, styles=styles, letter=chr(ord("A") + region))
        for region in range(regions.max() + 1)
    ]
    maps = page.grid([globe], kind="solo") + page.grid(figures, kind="grid narrow")
    return maps + biome_table(points, has_patches=dataset.patches is not None)


def biome_of(locations: pd.DataFrame) -> pd.Series:
    """Name each location's biome; places without one (the user's own points) are one group."""
    return locations["biome_name"].fillna("").replace("", "biome not given")


def pick_examples(locations: pd.DataFrame, usable: Sequence[str], n: int) -> list[str]:
    """Choose locations of different biomes: in turn one of each, the most frequent biome first.

    Parameters
    ----------
    locations : table of locations
    usable : location ids to choose from, the preferred ones first
    n : how many
    """
    order = {location_id: rank for rank, location_id in enumerate(usable)}
    pool = locations[locations["location_id"].isin(order)]
    pool = pool.assign(group=biome_of(pool), rank=pool["location_id"].map(order)).sort_values("rank")
    pool = pool.assign(
        turn=pool.groupby("group").cumcount(), size=pool.groupby("group")["rank"].transform("size")
    )
    pool = pool.sort_values(["turn", "size", "group"], ascending=[True, False, True])
    return pool["location_id"].head(n).tolist()


def group_styles(groups: pd.Series) -> Mapping[str, tuple[str, str]]:
    """Give each group, the most frequent first, a color and a marker that no other has."""
    names = groups.value_counts().index
    return {
        name: (OKABE_ITO[i % len(OKABE_ITO)], MARKERS[(i // len(OKABE_ITO) + i) % len(MARKERS)])
        for i, name in enumerate(names[:MAX_CLASSES])
    } | dict.fromkeys(names[MAX_CLASSES:], (GRAY, "."))


def biome_table(points: pd.DataFrame, *, has_patches: bool) -> str:
    """Count locations, mountains and complete locations per biome."""
    header = ["Biome", "Locations", "Share", "In mountains"] + (["Usable"] if has_patches else [])
    rows = []
    for name, part in sorted(points.groupby("group"), key=lambda pair: -len(pair[1])):
        row = [name, page.count(len(part)), page.share(len(part), len(points))]
        row.append(page.count(part["is_mountain"].sum()))
        rows.append(row + ([page.count(part["is_usable"].sum())] if has_patches else []))
    return page.table(header, rows, caption="Locations by biome")


def find_regions(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Group locations into regions worth a map of their own.

    Returns
    -------
    region of each location, 0 upwards from the north; all -1 where locations cover too many or too wide regions
    """
    column = np.clip(((lon + 180) / CLUSTER_CELL_DEG).astype(int), 0, 360 // CLUSTER_CELL_DEG - 1)
    row = np.clip(((90 - lat) / CLUSTER_CELL_DEG).astype(int), 0, 180 // CLUSTER_CELL_DEG - 1)
    cells = np.zeros((180 // CLUSTER_CELL_DEG, 360 // CLUSTER_CELL_DEG), bool)
    cells[row, column] = True
    labels, n_regions = ndimage.label(cells, structure=np.ones((3, 3)))
    regions = labels[row, column] - 1
    spans = [max(np.ptp(lon[regions == i]), np.ptp(lat[regions == i])) for i in range(n_regions)]
    return regions if n_regions <= MAX_REGIONS and max(spans) <= MAX_REGION_DEG else np.full(len(lon), -1)


def _is_usable(dataset: Dataset) -> np.ndarray:
    """Tell which locations have patches of enough seasons; all where no patches were made."""
    if dataset.patches is None:
        return np.ones(len(dataset.locations), bool)
    stored = dataset.stored.groupby("location_id").size()
    return dataset.locations["location_id"].map(stored).fillna(0).to_numpy() >= dataset.n_needed


def _land(path: str | None) -> gpd.GeoDataFrame | None:
    if not path:
        return None
    land = gpd.read_parquet(path) if path.endswith(".parquet") else gpd.read_file(path)
    return land[["geometry"]].to_crs("EPSG:4326")


def _globe(
    points: pd.DataFrame, *, land: gpd.GeoDataFrame | None, styles: Mapping, regions: np.ndarray
) -> str:
    edge = np.linspace(-90, 90, 91)
    outline = Polygon(
        [*zip(np.full(91, -180), edge, strict=True), *zip(np.full(91, 180), edge[::-1], strict=True)]
    )
    lines = [LineString(zip(np.full(91, lon), edge, strict=True)) for lon in range(-120, 180, 60)]
    lines += [
        LineString(zip(np.linspace(-180, 180, 181), np.full(181, lat), strict=True))
        for lat in (-60, -30, 0, 30, 60)
    ]
    project = Transformer.from_crs("EPSG:4326", EQUAL_EARTH, always_xy=True).transform
    with picture(7.2, 3.7, raster=True) as drawn:
        ax = drawn.ax
        _as_map(ax)
        gpd.GeoSeries([outline], crs="EPSG:4326").to_crs(EQUAL_EARTH).plot(
            ax=ax, color="#f7fafc", edgecolor=GRAY, lw=0.7
        )
        if land is not None:
            shapes = land.set_geometry(land.geometry.simplify(0.05)).to_crs(EQUAL_EARTH)
            shapes[~shapes.is_empty].plot(ax=ax, color=LAND_COLOR, edgecolor=GRAY, lw=0.25)
        gpd.GeoSeries(lines, crs="EPSG:4326").to_crs(EQUAL_EARTH).plot(ax=ax, color=LIGHT, lw=0.5, zorder=1)
        if regions.max() < 0:
            size = float(np.clip(4000 / len(points), 0.4, 16))
            for name, part in points.groupby("group"):
                color, marker = styles[name]
                x, y = project(part["lon"], part["lat"])
                ax.scatter(
                    x,
                    y,
                    s=size,
                    c=color,
                    marker=marker if size > 4 else ".",
                    lw=0,
                    zorder=3,
                    label=fill(name, 36),
                )
            legend_below(ax, n_columns=2)
        for region in range(regions.max() + 1):
            part = points[regions == region]
            x, y = project(part["lon"].mean(), part["lat"].mean())
            ax.plot(x, y, "o", ms=9, mfc="none", mec=OKABE_ITO[1], mew=1.6, zorder=3)
            label = f" {chr(ord('A') + region)} ({len(part)})"
            ax.annotate(label, (x, y), xytext=(5, 3), textcoords="offset points", weight="bold")
    where = _describe_extent(points)
    caption = "Equal Earth projection (EPSG:8857): equal areas on the map are equal areas on the ground."
    return page.figure(drawn.uri, alt=f"World map of {len(points)} locations, {where}.", caption=caption)


def _region(points: pd.DataFrame, *, land: gpd.GeoDataFrame | None, styles: Mapping, letter: str) -> str:
    lon, lat = points["lon"].mean(), points["lat"].mean()
    local = f"+proj=laea +lon_0={lon} +lat_0={lat} +datum=WGS84 +units=m"
    x, y = Transformer.from_crs("EPSG:4326", local, always_xy=True).transform(
        points["lon"].to_numpy(), points["lat"].to_numpy()
    )
    half = max(np.ptp(x), np.ptp(y)) / 2 * 1.2 + 0.5 * KM
    x_mid, y_mid = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    with picture(3.7, 4.2, raster=True) as drawn:
        ax = drawn.ax
        _as_map(ax)
        ax.set_facecolor("#f7fafc")
        ax.axis("on")
        ax.set(xticks=[], yticks=[])
        ax.spines[["top", "right"]].set_visible(True)
        if land is not None:
            high = 1.5 * half / METERS_PER_DEGREE
            wide = high / max(np.cos(np.radians(lat)), 0.05)
            shapes = gpd.clip(land, box(lon - wide, lat - high, lon + wide, lat + high)).to_crs(local)
            if not shapes.empty:
                shapes.plot(ax=ax, color=LAND_COLOR, edgecolor=GRAY, lw=0.6)
                ax.set(xlabel="", ylabel="")
        for name in styles:
            is_group = (points["group"] == name).to_numpy()
            color, marker = styles[name]
            few = is_group & ~points["is_usable"].to_numpy()
            full = is_group & points["is_usable"].to_numpy()
            if is_group.any():
                ax.scatter(
                    x[full],
                    y[full],
                    s=26,
                    c=color,
                    marker=marker,
                    lw=0.4,
                    ec="white",
                    zorder=3,
                    label=fill(name, 36),
                )
            ax.scatter(x[few], y[few], s=26, fc="none", ec=color, marker=marker, lw=1.2, zorder=3)
        ax.set(xlim=(x_mid - half, x_mid + half), ylim=(y_mid - half, y_mid + half))
        _scale_bar(ax, half)
        ax.set_title(f"{letter}: {page.place_name(lon, lat, 1)}")
        legend_below(ax, n_columns=1)
    alt = f"Map of region {letter} with {len(points)} locations colored by biome, {_describe_extent(points)}."
    note = "" if points["is_usable"].all() else " Hollow: too few seasons have a patch."
    return page.figure(
        drawn.uri, alt=alt, caption=f"Region {letter}, {len(points)} locations, equal-area.{note}"
    )


def _as_map(ax: Axes) -> None:
    ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.axis("off")


def _scale_bar(ax: Axes, half: float) -> None:
    length = 10 ** np.floor(np.log10(half))
    length *= max(step for step in (1, 2, 5) if step * length <= half)
    x, y = ax.get_xlim()[0] + 0.06 * half, ax.get_ylim()[0] + 0.08 * half
    ax.plot([x, x + length], [y, y], color=INK, lw=2, solid_capstyle="butt", zorder=4)
    label = f"{length / KM:g} km" if length >= KM else f"{length:g} m"
    ax.text(x + length / 2, y + 0.03 * half, label, ha="center", va="bottom", zorder=4)


def _describe_extent(points: pd.DataFrame) -> str:
    corners = (page.place_name(points["lon"].agg(f), points["lat"].agg(f), 1) for f in ("min", "max"))
    return "between " + " and ".join(corners)
