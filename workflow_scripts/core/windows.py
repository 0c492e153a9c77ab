"""Windows of patches in raster files: which pixels, of which file, on which grid.

What every reader shares: what is asked for, what comes back, and the checks that a file is what
the catalog says it is. No pixel is resampled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from workflow_scripts.core import grid


@dataclass(frozen=True)
class Place:
    """Where a patch lies."""

    epsg: int
    """CRS of the scene."""
    origin_x: float
    """West edge, meters, on a 20 m line."""
    origin_y: float
    """North edge, meters, on a 20 m line."""
    size_m: int
    """Side of the patch."""


@dataclass(frozen=True)
class Window:
    """A patch's pixels in one file."""

    place: Place
    resolution_m: int
    """Pixel size the file must have; at 60 m the window that covers the patch is read."""
    dtype: str
    """Type the file must have."""


@dataclass(frozen=True)
class Pixels:
    """What was read for a window."""

    values: np.ndarray
    """Shape (y, x); 0 beyond the file, which only a 60 m window may reach."""
    x: float
    """West edge of the first column, meters."""
    y: float
    """North edge of the first row, meters."""


@dataclass(frozen=True)
class Failure:
    """Why something could not be read."""

    message: str
    """Names the file, never a token."""
    is_passing: bool = False
    """Whether a service failed on every attempt, so that it may be there at another time."""


class Reader(Protocol):
    """Reads windows; opens each file once while it lives."""

    n_opened: int
    """Files opened so far."""

    def __enter__(self) -> "Reader":
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """Close all files."""

    def read(self, wanted: Mapping[str, Sequence[Window]]) -> Iterator[tuple[str, list[Pixels | Failure]]]:
        """Read windows (address → windows); each file's, in the same order, as soon as they are there."""


@dataclass(frozen=True)
class Raster:
    """Grid and type of a file, north up."""

    width: int
    height: int
    left: float
    """West edge of the first column, meters."""
    top: float
    """North edge of the first row, meters."""
    step_x: float
    """Width of a pixel, meters."""
    step_y: float
    """Height of a pixel, meters."""
    epsg: int | None
    dtype: str


@dataclass(frozen=True)
class Cut:
    """Where a window lies in a file, in pixels."""

    x: float
    """West edge of the window, meters."""
    y: float
    """North edge of the window, meters."""
    n: int
    """Side of the window."""
    column: int
    """First column, before the file's first where a 60 m window begins outside."""
    row: int
    columns: tuple[int, int]
    """First column inside the file, and the one after the last."""
    rows: tuple[int, int]

    def destination(self, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[slice, slice]:
        """Give the part of the window's array that some rows and columns of the file fill."""
        return (
            slice(rows[0] - self.row, rows[1] - self.row),
            slice(columns[0] - self.column, columns[1] - self.column),
        )


def locate(window: Window, raster: Raster) -> Cut:
    """Find a window's pixels in a file.

    Raises
    ------
    ValueError
        If the file has another pixel size, CRS or type, another lattice, or ends within the patch.
    """
    place, step = window.place, window.resolution_m
    if (raster.step_x, raster.step_y) != (step, step):
        raise ValueError(f"its pixels are {raster.step_x:g} x {raster.step_y:g} m, expected {step} m")
    if raster.epsg != place.epsg:
        raise ValueError(f"its CRS is EPSG:{raster.epsg}, the catalog says EPSG:{place.epsg}")
    if raster.dtype != window.dtype:
        raise ValueError(f"its pixels are {raster.dtype}, expected {window.dtype}")
    x, y, n = place.origin_x, place.origin_y, grid.n_pixels(place.size_m, step)
    if step == 60:
        x, y, n = grid.window60(x, y, place.size_m, (raster.left, raster.top))
    column, row = (x - raster.left) / step, (raster.top - y) / step
    if column != round(column) or row != round(row):
        raise ValueError(
            f"its corner ({raster.left:g}, {raster.top:g}) is not on the {step} m lattice of the "
            f"patch at ({x:g}, {y:g})"
        )
    column, row = round(column), round(row)
    columns = max(column, 0), min(column + n, raster.width)
    rows = max(row, 0), min(row + n, raster.height)
    inside = columns[1] - columns[0], rows[1] - rows[0]
    if min(inside) <= 0 or (step != 60 and inside != (n, n)):
        raise ValueError(f"the patch at ({x:g}, {y:g}) reaches beyond the file")
    return Cut(x, y, n, column, row, columns, rows)
