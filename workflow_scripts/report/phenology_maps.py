"""Maps of when the seasons begin, of amplitude, cycles per year and of how far windows were taken from."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pyproj import Transformer

from workflow_scripts.core.seasons import TRANSITIONS, wrap_doy
from workflow_scripts.phenology.climatology import usual_year
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, picture
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.maps import EQUAL_EARTH, find_regions

CYCLIC = "twilight_shifted"
"""Colors that meet at New Year."""
BEGINNING = {
    "spring": "greenup",
    "summer": "maturity",
    "autumn": "senescence",
    "winter": "dormancy",
}


@dataclass(frozen=True)
class Layer:
    """One map: a value per location."""

    title: str
    values: pd.Series
    """By location id; NaN where there is none."""
    label: str
    is_cyclic: bool = False


def phenology_maps(dataset: Dataset) -> str:
    """Map dates, amplitude, cycles per year and fill distance; empty without observed seasons."""
    if dataset.locations is None or dataset.seasons is None or dataset.cycles is None:
        return ""
    figures = [_map(dataset.locations, layer) for layer in layers(dataset) if layer.values.notna().any()]
    if not figures:
        return ""
    is_product = dataset.settings["greenness"]["source"] == "mcd12q2"
    origin = (
        "The dates were read from files of the product MCD12Q2."
        if is_product
        else "They are estimated from a vegetation index and are not the product MCD12Q2."
    )
    note = page.paragraph(
        "The dates of each location's usual year: those on which a window begins, also where it was taken from a donor or "
        "widened, and the others where cycles were found. The colors of the days meet at New Year. " + origin
    )
    return page.heading("Dates of the usual year") + note + page.grid(figures)


def layers(dataset: Dataset) -> list[Layer]:
    """List the maps' values.

    Cycles per year are cycles ÷ years in which the dataset has any cycle: its years of record.
    """
    seasons, cycles = dataset.seasons.set_index("location_id"), dataset.cycles
    ids = dataset.locations["location_id"]
    found = [
        Layer(
            f"Begin of {season}: {BEGINNING[season]}", part["start_doy"].reindex(ids), "day of the year", True
        )
        for season, part in seasons.groupby("season", sort=False)
        if season in BEGINNING
    ]
    found += [
        Layer(name.replace("_", "-").capitalize(), days, "day of the year", True)
        for name, days in _middle_dates(dataset).items()
    ]
    by_location = cycles.groupby("location_id")
    n_years = max(1, cycles["year"].nunique())
    first = seasons[seasons["season"] == dataset.season_names[0]]
    return [
        *found,
        Layer("Amplitude", by_location["amplitude"].median().reindex(ids), "index units"),
        Layer("Vegetation cycles per year", (by_location.size() / n_years).reindex(ids), "cycles per year"),
        Layer("Distance of the donor", first["donor_distance_km"].reindex(ids), "km, filled locations only"),
    ]


def _middle_dates(dataset: Dataset) -> pd.DataFrame:
    """Days of the year of the dates at which no window begins, by location id."""
    ids, cycles, options = dataset.locations["location_id"], dataset.cycles, dataset.settings["phenology"]
    row = pd.Index(ids).get_indexer(cycles["location_id"])
    days = np.stack([cycles[name].to_numpy("datetime64[D]").astype(np.int64) for name in TRANSITIONS], axis=1)
    usual = usual_year(
        row[row >= 0],
        days[row >= 0],
        cycles["amplitude"].to_numpy(float)[row >= 0],
        n_locations=len(ids),
        **{key: options[key] for key in ("min_years", "group_days") if key in options},
    )
    table = pd.DataFrame(wrap_doy(usual.doy), index=ids, columns=TRANSITIONS)
    return table.drop(columns=list(BEGINNING.values()))


def _map(locations: pd.DataFrame, layer: Layer) -> str:
    lon, lat = locations["lon"].to_numpy(), locations["lat"].to_numpy()
    regions = find_regions(lon, lat)
    n_panels = max(1, regions.max() + 1)
    values = layer.values.to_numpy(float)
    known = values[np.isfinite(values)]
    low, high = (1, 366) if layer.is_cyclic else (min(0, known.min()), max(known.max(), 1e-6))
    with picture(5.2, 2.7, n_columns=n_panels, raster=True) as drawn:
        for i, ax in enumerate(drawn.axes):
            here = (regions == i) if regions.max() >= 0 else np.ones(lon.size, bool)
            here &= np.isfinite(values)
            x, y = _projected(lon[here], lat[here], is_world=regions.max() < 0)
            _bare(ax)
            if regions.max() < 0:
                edge = _projected(*_outline(), is_world=True)
                ax.fill(*edge, facecolor="#f4f6f7", edgecolor=GRAY, lw=0.6)
            size = float(np.clip(3000 / max(1, here.sum()), 0.5, 20))
            cmap = CYCLIC if layer.is_cyclic else "viridis"
            points = ax.scatter(
                x,
                y,
                c=values[here],
                s=size,
                cmap=cmap,
                vmin=low,
                vmax=high,
                ec=GRAY,
                lw=0.3 if size > 4 else 0,
            )
            if i == 0 or here.any():
                ax.set_title(
                    ""
                    if regions.max() < 0
                    else page.place_name(lon[regions == i].mean(), lat[regions == i].mean(), 0)
                )
        bar = drawn.ax.figure.colorbar(
            points, ax=drawn.axes, location="bottom", shrink=0.7, aspect=40, label=layer.label
        )
        if layer.is_cyclic:
            bar.set_ticks([1, 91, 182, 274, 366])
    alt = f"{layer.title}, {layer.label}, at {known.size} locations; median {np.median(known):.3g}."
    return page.figure(drawn.uri, alt=alt, caption=f"{layer.title}, {layer.label}.")


def _projected(lon: np.ndarray, lat: np.ndarray, *, is_world: bool) -> tuple[np.ndarray, np.ndarray]:
    """Equal-area coordinates of the world or of a region."""
    if lon.size == 0:
        return lon, lat
    local = f"+proj=laea +lon_0={lon.mean()} +lat_0={lat.mean()} +datum=WGS84 +units=m"
    target = EQUAL_EARTH if is_world else local
    return Transformer.from_crs("EPSG:4326", target, always_xy=True).transform(lon, lat)


def _outline() -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes around the world's edge."""
    up = np.linspace(-90, 90, 91)
    return np.repeat([-180.0, 180.0], 91), np.concatenate([up, up[::-1]])


def _bare(ax: Axes) -> None:
    ax.set_aspect("equal", adjustable="datalim")
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
