"""Embeddings of places on a map, and the places most like some of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workflow_scripts.core.pictures import true_color
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, picture, pixels_uri
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.maps import find_regions

N_EXAMPLES = 4
N_NEIGHBORS = 5
LONGEST_PIXELS = 160
"""Side of a quicklook: 5 to 10 kB each."""
RASTER_FROM = 500
"""Places from which on a map is drawn as pixels, so that its size does not grow with their number."""
COMPONENTS = 3


def mean_embeddings(embedding: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Average a place's embeddings over its seasons, of which one is in memory at a time.

    Parameters
    ----------
    embedding : dims (location, season, feature), NaN where there is no patch

    Returns
    -------
    rows that have any, and their means, float32 (rows, feature)
    """
    total = np.zeros((embedding.sizes["location"], embedding.sizes["feature"]), np.float32)
    count = np.zeros(len(total), np.int32)
    for season in range(embedding.sizes["season"]):
        values = embedding.isel(season=season).to_numpy()
        is_present = np.isfinite(values).all(axis=1)
        np.add(total, values, out=total, where=is_present[:, None])
        count += is_present
    rows = np.flatnonzero(count)
    return rows, total[rows] / count[rows, None].astype(np.float32)


def principal_colors(values: np.ndarray) -> np.ndarray:
    """Turn the first three principal components into red, green and blue.

    Each from its 2nd to its 98th percentile; the sign of a component is that which makes its skew positive.

    Parameters
    ----------
    values : (n, features)

    Returns
    -------
    (n, 3), 0 to 1
    """
    centered = values - values.mean(axis=0)
    directions = np.linalg.eigh((centered.T @ centered).astype(np.float64))[1][:, ::-1]
    scores = (centered @ directions[:, :COMPONENTS].astype(values.dtype)).astype(np.float64)
    scores = np.pad(scores, ((0, 0), (0, COMPONENTS - scores.shape[1])))
    scores = scores * np.where((scores**3).sum(axis=0) < 0, -1, 1)
    low, high = np.percentile(scores, (2, 98), axis=0)
    return np.clip((scores - low) / np.where(high > low, high - low, 1), 0, 1)


def nearest(values: np.ndarray, row: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the rows most similar to one by cosine, itself left out, and their similarities."""
    lengths = np.linalg.norm(values, axis=1)
    similarity = values @ values[row] / np.maximum(lengths * lengths[row], 1e-12)
    similarity[row] = -np.inf
    chosen = np.argsort(-similarity, kind="stable")[: min(n, len(values) - 1)]
    return chosen, similarity[chosen]


def spread_examples(values: np.ndarray, n: int) -> list[int]:
    """Choose rows that are unlike each other: each the farthest from those before, the first the most ordinary."""
    units = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    chosen = [int(np.argmax(units @ units.mean(axis=0)))]
    while len(chosen) < min(n, len(values)):
        chosen.append(int(np.argmin((units @ units[chosen].T).max(axis=1))))
    return chosen


def neighbors_of(table: pd.DataFrame, values: np.ndarray, row: int) -> dict[str, Any]:
    """Name one place and those most like it.

    Parameters
    ----------
    table : `location_id`
    values : (n, features), rows as the table's

    Returns
    -------
    dict of `location_id` and `neighbors`, a list of `location_id` and `similarity` (cosine), the most similar first
    """
    ids = table["location_id"]
    found, similarity = nearest(values, row, N_NEIGHBORS)
    neighbors = [
        {"location_id": str(ids.iloc[i]), "similarity": round(float(s), 4)}
        for i, s in zip(found, similarity, strict=True)
    ]
    return {"location_id": str(ids.iloc[row]), "neighbors": neighbors}


def embeddings_section(dataset: Dataset) -> str:
    """Show a dataset's embeddings on a map, and places with those most like them, model by model."""
    parts = []
    for model, mapped in dataset.embeddings.items():
        parts += [page.heading(f"Model {model}: {len(mapped.places):,} places"), color_map(mapped.places)]
        parts += [_strip(dataset, mapped.places, example) for example in mapped.neighbors]
    if not parts:
        return ""
    note = "Of each place the mean embedding over its seasons; similarity is the cosine of two of them."
    return page.paragraph(note) + "".join(parts)


def color_map(table: pd.DataFrame) -> str:
    """Draw places in their colors (columns lon, lat, red, green, blue), each region where they are few."""
    regions = find_regions(table["lon"].to_numpy(), table["lat"].to_numpy())
    panels = [_panel(table[regions == region]) for region in np.unique(regions)]
    note = "Places of one color have similar embeddings: red, green and blue are the first three principal components."
    return page.grid(panels, kind="solo" if len(panels) == 1 else "grid narrow") + page.paragraph(note)


def _panel(table: pd.DataFrame) -> str:
    is_dense = len(table) > RASTER_FROM
    stretch = 1 / np.cos(np.radians(table["lat"].clip(-80, 80).mean()))
    with picture(4.6, 3.4, raster=is_dense) as drawn:
        drawn.ax.set_aspect(stretch, adjustable="datalim")
        drawn.ax.scatter(
            table["lon"],
            table["lat"],
            c=table[["red", "green", "blue"]].to_numpy(),
            s=4 if is_dense else 44,
            edgecolors="none" if is_dense else GRAY,
            linewidths=0.3,
        )
        drawn.ax.ticklabel_format(useOffset=False)
        drawn.ax.set(xlabel="longitude, °", ylabel="latitude, °")
    where = page.place_name(table["lon"].mean(), table["lat"].mean(), 1)
    words = f"{len(table):,} places about {where}"
    return page.figure(
        drawn.uri, alt=f"{words}, colored by the principal components of their embeddings.", caption=words
    )


def _strip(dataset: Dataset, places: pd.DataFrame, example: Mapping[str, Any]) -> str:
    """Show one place and those most like it."""
    by_id = places.set_index("location_id")
    place = by_id.loc[example["location_id"]]
    pictures = [_quicklook(dataset, place, "this place")]
    pictures += [
        _quicklook(dataset, by_id.loc[other["location_id"]], f"similarity {other['similarity']:.3f}")
        for other in example["neighbors"]
    ]
    where = page.place_name(place["lon"], place["lat"], 3)
    return page.heading(f"Most like {place.name} ({where})") + page.grid(pictures, kind="strip pixels")


def _quicklook(dataset: Dataset, place: pd.Series, words: str) -> str:
    patches = dataset.store["dn10"].isel(location=int(place["location"])).load()
    present = np.flatnonzero((patches != 0).any(dim=("band10", "y10", "x10")).to_numpy())
    season = str(patches["season"].values[present[0]]) if len(present) else ""
    caption = ", ".join(filter(None, (str(place.name), season, words)))
    if not len(present):
        return f'<figure><div class="missing">no patch</div><figcaption>{page.text(caption)}</figcaption></figure>'
    names = patches["band10"].to_numpy().tolist()
    white = dataset.settings["report"]["max_reflectance"]
    rgb = true_color(patches.isel(season=int(present[0])).to_numpy(), names, white=white)
    return page.figure(
        pixels_uri(rgb, longest=LONGEST_PIXELS), alt=f"True color patch of {caption}", caption=caption
    )
