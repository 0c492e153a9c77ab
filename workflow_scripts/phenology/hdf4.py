"""Layers of an HDF4-EOS file on the MODIS sinusoidal grid, at points. Wheels of GDAL cannot read HDF4."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from pyhdf.error import HDF4Error
from pyhdf.SD import SD, SDC

from workflow_scripts.core import grid

_EDGE = 1e-3
"""Pixels by which a point may lie outside: the grid's constants are rounded."""


def grid_of(metadata: str) -> tuple[float, float, float, float, int, int]:
    """Give the edges and the size of the grid that the text `StructMetadata.0` describes.

    Returns
    -------
    left, top, right, bottom : meters of the sinusoidal grid
    width, height : pixels

    Raises
    ------
    ValueError
        If the text describes no grid, or one in another projection.
    """
    number = r"([-+\d.eE]+)"
    patterns = (
        r"\bXDim=(\d+)",
        r"\bYDim=(\d+)",
        rf"UpperLeftPointMtrs=\({number},{number}\)",
        rf"LowerRightMtrs=\({number},{number}\)",
        rf"ProjParams=\({number},",
    )
    found = [re.search(pattern, metadata) for pattern in patterns]
    if not all(found):
        raise ValueError("its StructMetadata.0 describes no HDF-EOS grid")
    is_sinusoidal = re.search(r"Projection=\S*GCTP_SNSOID\b", metadata) is not None
    if not is_sinusoidal or abs(float(found[4][1]) - grid.MODIS_RADIUS_M) > 1:
        raise ValueError(
            f"its grid is not sinusoidal on a sphere of {grid.MODIS_RADIUS_M:g} m, the MODIS grid (GCTP_SNSOID)"
        )
    corners = [float(match[k]) for match in found[2:4] for k in (1, 2)]
    return *corners, int(found[0][1]), int(found[1][1])


def read_points(
    path: Path, names: Collection[str], x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Read the layers of a file at points.

    Parameters
    ----------
    path : HDF4-EOS file with one grid
    names : layers wanted; those the file lacks are skipped
    x, y : meters of the sinusoidal grid

    Yields
    ------
    name, values : shape (point, layer's third dimension), stored integers as float; NaN outside the grid and
        where the layer has its fill value

    Raises
    ------
    ValueError
        If the file is no HDF4, is damaged, or has no sinusoidal grid.
    """
    try:
        file = SD(str(path), SDC.READ)
    except HDF4Error as error:
        raise ValueError(f"{path} cannot be read as HDF4 ({error})") from None
    try:
        wanted = [name for name in file.datasets() if name in names]
        if wanted:
            left, top, right, bottom, width, height = grid_of(
                str(file.attributes().get("StructMetadata.0", ""))
            )
        for name in wanted:
            across = (x - left) / (right - left) * width
            down = (y - top) / (bottom - top) * height
            inside = (
                (across >= -_EDGE) & (across <= width + _EDGE) & (down >= -_EDGE) & (down <= height + _EDGE)
            )
            column = np.clip(np.floor(across), 0, width - 1).astype(np.int64)[inside]
            row = np.clip(np.floor(down), 0, height - 1).astype(np.int64)[inside]
            yield name, _pick(file, name, row, column, inside)
    except (HDF4Error, ValueError) as error:  # pyhdf raises either for data it cannot read
        raise ValueError(f"{path} cannot be used ({error}). Fetch it again, or check what it is.") from None
    finally:
        file.end()


def _pick(file: SD, name: str, row: np.ndarray, column: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Values of one layer; of its rows and columns only those between the outermost points are read."""
    layer = file.select(name)
    try:
        shape = layer.info()[2]
        depth = shape[2:] if isinstance(shape, list | tuple) else ()
        values = np.full((inside.size, *(depth or (1,))), np.nan)
        if row.size:
            start = [int(row.min()), int(column.min()), *(0 for _ in depth)]
            count = [int(row.max()) - start[0] + 1, int(column.max()) - start[1] + 1, *depth]
            block = layer.get(start=start, count=count).reshape(*count[:2], -1)
            picked = block[row - start[0], column - start[1]].astype(float)
            fill = layer.attributes().get("_FillValue")
            values[inside] = picked if fill is None else np.where(picked == fill, np.nan, picked)
    finally:
        layer.endaccess()
    return values
