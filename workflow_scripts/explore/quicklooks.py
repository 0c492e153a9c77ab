"""Small pictures of patches, all of a shard in one file."""

import numpy as np
from PIL import Image

from workflow_scripts.core.pictures import NO_DATA_GRAY, true_color

QUICKLOOK_PX = 96
"""Side of a quicklook; larger patches are averaged down to it."""
COLUMNS = 16
"""Quicklooks side by side in the shard's picture."""


def quicklook(dn10: np.ndarray, names: list[str], *, white: float) -> np.ndarray:
    """Give a patch in true color, `QUICKLOOK_PX` wide."""
    picture = Image.fromarray(true_color(dn10, names, white=white))
    way = Image.Resampling.BOX if picture.width >= QUICKLOOK_PX else Image.Resampling.NEAREST
    return np.asarray(picture.resize((QUICKLOOK_PX, QUICKLOOK_PX), way))


def mosaic(pictures: list[np.ndarray]) -> np.ndarray:
    """Put quicklooks side by side, `COLUMNS` in a row; a single gray one where there is none."""
    n_rows = max(1, -(-len(pictures) // COLUMNS))
    n_columns = min(max(1, len(pictures)), COLUMNS)
    whole = np.full((n_rows * QUICKLOOK_PX, n_columns * QUICKLOOK_PX, 3), NO_DATA_GRAY, np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, COLUMNS)
        y, x = row * QUICKLOOK_PX, column * QUICKLOOK_PX
        whole[y : y + QUICKLOOK_PX, x : x + QUICKLOOK_PX] = picture
    return whole
