"""Embeddings of places on a map, and the places most like some of them."""

import numpy as np
import pandas as pd
import xarray as xr

from workflow_scripts.core.pictures import true_color
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, picture, pixels_uri

N_EXAMPLES = 4
N_NEIGHBORS = 5
WHITE = 0.35
"""Reflectance shown as white."""
LONGEST_PIXELS = 192
COMPONENTS = 3


def mean_embeddings(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average a place's embeddings over its seasons.

    Parameters
    ----------
    embedding : (location, season, feature), NaN where there is no patch

    Returns
    -------
    rows that have any, and their means (rows, feature)
    """
    present = np.isfinite(embedding).all(axis=2)
    rows = np.flatnonzero(present.any(axis=1))
    total = np.where(present[rows][..., None], embedding[rows], 0).sum(axis=1)
    return rows, total / present[rows].sum(axis=1)[:, None]


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
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    scores = left[:, :COMPONENTS] * sizes[:COMPONENTS]
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


def color_map(table: pd.DataFrame) -> str:
    """Draw places in their colors (columns lon, lat, red, green, blue)."""
    with picture(6.4, 4.4) as drawn:
        stretch = 1 / np.cos(np.radians(table["lat"].clip(-80, 80).mean()))
        drawn.ax.set_aspect(stretch)
        drawn.ax.scatter(
            table["lon"],
            table["lat"],
            c=table[["red", "green", "blue"]].to_numpy(),
            s=22,
            edgecolors=GRAY,
            linewidths=0.3,
        )
        drawn.ax.set(xlabel="longitude, °", ylabel="latitude, °")
    return page.figure(
        drawn.uri,
        alt=f"{len(table)} places on a map, colored by the principal components of their embeddings.",
        caption="Places of one color have similar embeddings: red, green and blue are the first three principal components.",
    )


def neighbors_of(table: pd.DataFrame, values: np.ndarray, store: xr.Dataset, row: int) -> str:
    """Show one place and those most like it.

    Parameters
    ----------
    table : `location_id`, `lon`, `lat`, and `location`, the row in the store
    values : (n, features), rows as the table's
    """
    found, similarity = nearest(values, row, N_NEIGHBORS)
    pictures = [_quicklook(store, table.iloc[row], "this place")]
    pictures += [
        _quicklook(store, table.iloc[i], f"similarity {s:.3f}")
        for i, s in zip(found, similarity, strict=True)
    ]
    place = table.iloc[row]
    title = f"{place['location_id']} ({page.place_name(place['lon'], place['lat'], 3)})"
    return page.heading(title) + page.grid(pictures, kind="strip pixels")


def _quicklook(store: xr.Dataset, place: pd.Series, words: str) -> str:
    patches = store["dn10"].isel(location=int(place["location"])).load()
    present = np.flatnonzero((patches != 0).any(dim=("band10", "y10", "x10")).to_numpy())
    caption = f"{place['location_id']}, {words}"
    if not len(present):
        return f'<figure><div class="missing">no patch</div><figcaption>{page.text(caption)}</figcaption></figure>'
    names = patches["band10"].to_numpy().tolist()
    rgb = true_color(patches.isel(season=int(present[0])).to_numpy(), names, white=WHITE)
    return page.figure(
        pixels_uri(rgb, longest=LONGEST_PIXELS), alt=f"True color patch of {caption}", caption=caption
    )
