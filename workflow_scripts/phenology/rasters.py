"""Reading rasters at points, each block once."""

from collections.abc import Iterator

import numpy as np
import rasterio
from rasterio.windows import Window

DENSE_SHARE = 0.5
"""From this share of blocks on, a rectangle of blocks is read in one piece. Twice the bytes at most."""


def sample_raster(
    raster: rasterio.DatasetReader, x: np.ndarray, y: np.ndarray, *, band: int = 1
) -> np.ndarray:
    """Read the pixels that hold points, each block of the file once.

    Where the blocks that hold points fill at least half of their bounding rectangle, this is read in one
    piece (GDAL asks a server for all its blocks together); else block by block.

    Parameters
    ----------
    raster : open, north up
    x, y : in the raster's CRS
    band : counted from 1

    Returns
    -------
    float array, NaN outside the raster and at its nodata value
    """
    transform = raster.transform
    across = (np.asarray(x, float) - transform.c) / transform.a
    down = (np.asarray(y, float) - transform.f) / transform.e
    edge = 1e-3  # pixels; ±180° lies 4e-6 pixels beyond the sinusoidal grid, whose constants are rounded
    inside = (across >= -edge) & (across <= raster.width + edge)
    inside &= (down >= -edge) & (down <= raster.height + edge)
    column = np.clip(np.floor(across), 0, raster.width - 1).astype(np.int64)
    row = np.clip(np.floor(down), 0, raster.height - 1).astype(np.int64)
    values = np.full(np.shape(x), np.nan)
    height, width = raster.block_shapes[0]
    for here, window in _windows(row // height, column // width, inside):
        window = Window.from_slices(
            (window[0] * height, min(window[1] * height, raster.height)),
            (window[2] * width, min(window[3] * width, raster.width)),
        )
        pixels = raster.read(band, window=window)
        values[here] = pixels[row[here] - window.row_off, column[here] - window.col_off]
    if raster.nodata is not None:
        values[values == raster.nodata] = np.nan
    return values


def _windows(
    block_row: np.ndarray, block_column: np.ndarray, inside: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """List what to read: points, and rows and columns of blocks (first and one past the last)."""
    points = np.flatnonzero(inside)
    if points.size == 0:
        return
    top, left = block_row[points].min(), block_column[points].min()
    bottom, right = block_row[points].max() + 1, block_column[points].max() + 1
    number = (block_row - top) * (right - left) + block_column - left
    wanted = np.unique(number[points])
    if wanted.size >= DENSE_SHARE * (bottom - top) * (right - left):
        yield points, (top, bottom, left, right)
        return
    for block in wanted:
        here = points[number[points] == block]
        i, j = block_row[here[0]], block_column[here[0]]
        yield here, (i, i + 1, j, j + 1)
