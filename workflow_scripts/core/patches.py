"""Native windows of patches: which pixels of which files, read exactly, judged, harmonized.

A reader gets a batch of windows per file and opens each file once. `rasterio` is the reference;
another reader is another entry of `READERS`.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Protocol

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as PixelWindow

from workflow_scripts.core import bands, grid, stac

logger = logging.getLogger(__name__)

PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"dn10": bands.BANDS10, "dn20": bands.BANDS20, "dn60": bands.BANDS60, "scl": ("SCL",)}
)
"""Bands of each pixel array of the store, in its order."""

MAX_OPEN_FILES = 256
"""Files a job keeps open; usual limits allow a process 1,024."""

_IS_CLOUD = np.isin(np.arange(256), bands.SCL_CLOUD)
_IS_HOLE = np.isin(np.arange(256), bands.SCL_NODATA)


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

    def read(self, wanted: Mapping[str, Sequence[Window]]) -> dict[str, list[Pixels | Failure]]:
        """Read the windows of each file (address → windows); results in the same order."""


class RasterioReader:
    """Reads by GDAL: a thread per file, files kept open for the windows that come later."""

    def __init__(self, *, threads: int = 4, sign_method: str | None = None) -> None:
        self._threads = threads
        self._sign_method = sign_method
        self._open: dict[str, rasterio.DatasetReader] = {}
        self.n_opened = 0

    def __enter__(self) -> "RasterioReader":
        """Begin."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def read(self, wanted: Mapping[str, Sequence[Window]]) -> dict[str, list[Pixels | Failure]]:
        """Read the windows of each file; results in the same order."""
        with ThreadPoolExecutor(self._threads) as pool:
            return dict(zip(wanted, pool.map(self._read_file, wanted, wanted.values()), strict=True))

    def _read_file(self, href: str, windows: Sequence[Window]) -> list[Pixels | Failure]:
        results: list[Pixels | Failure] = []
        is_open = False

        def proceed() -> None:
            nonlocal is_open
            is_open = False
            file = self._file(href)
            is_open = True
            while len(results) < len(windows):
                results.append(self._read_window(file, href, windows[len(results)]))

        while len(results) < len(windows):
            try:
                stac.retry(proceed, f"reading {stac.file_name(href)}")
            except RuntimeError as error:
                # a file that opens may be damaged in one block only: go on with its other windows
                n_lost = 1 if is_open else len(windows) - len(results)
                is_passing = isinstance(error, stac.UnavailableError)
                results += [Failure(str(error), is_passing)] * n_lost
        if len(self._open) > MAX_OPEN_FILES:
            self._close(href)
        return results

    def _file(self, href: str) -> rasterio.DatasetReader:
        if href not in self._open:
            self._open[href] = stac.open_href(href, sign_method=self._sign_method)
            self.n_opened += 1
        return self._open[href]

    def _close(self, href: str) -> None:
        file = self._open.pop(href, None)
        if file is not None:
            file.close()

    def _read_window(self, file: rasterio.DatasetReader, href: str, window: Window) -> Pixels | Failure:
        try:
            return _read_pixels(file, window)
        except ValueError as error:
            return Failure(f"{stac.file_name(href)}: {error}")
        except RasterioError as error:
            failure = stac.read_failure(href, error)
            if isinstance(failure, stac.TransientError):
                self._close(href)
                raise failure from None
            return Failure(str(failure))


READERS = MappingProxyType({"rasterio": RasterioReader})
"""Readers by the name they have in config (`patches.reader`)."""


def _read_pixels(file: rasterio.DatasetReader, window: Window) -> Pixels:
    """Read one window exactly, without resampling."""
    place, step, transform = window.place, window.resolution_m, file.transform
    if (transform.a, transform.b, transform.d, transform.e) != (step, 0, 0, -step):
        raise ValueError(f"its pixels are {transform.a:g} x {-transform.e:g} m, expected {step} m")
    epsg = file.crs.to_epsg() if file.crs else None
    if epsg != place.epsg:
        raise ValueError(f"its CRS is EPSG:{epsg}, the catalog says EPSG:{place.epsg}")
    if file.dtypes[0] != window.dtype:
        raise ValueError(f"its pixels are {file.dtypes[0]}, expected {window.dtype}")
    x, y, n = place.origin_x, place.origin_y, grid.n_pixels(place.size_m, step)
    if step == 60:
        x, y, n = grid.window60(x, y, place.size_m, (transform.c, transform.f))
    column, row = (x - transform.c) / step, (transform.f - y) / step
    if column != round(column) or row != round(row):
        raise ValueError(
            f"its corner ({transform.c:g}, {transform.f:g}) is not on the {step} m lattice of the "
            f"patch at ({x:g}, {y:g})"
        )
    column, row = round(column), round(row)
    first_column, first_row = max(column, 0), max(row, 0)
    last_column, last_row = min(column + n, file.width), min(row + n, file.height)
    inside = last_column - first_column, last_row - first_row
    if min(inside) <= 0 or (step != 60 and inside != (n, n)):
        raise ValueError(f"the patch at ({x:g}, {y:g}) reaches beyond the file")
    values = np.zeros((n, n), file.dtypes[0])
    values[first_row - row : last_row - row, first_column - column : last_column - column] = file.read(
        1, window=PixelWindow(first_column, first_row, *inside)
    )
    return Pixels(values, x, y)


# ---- patches ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """Parts of a patch that are wanted from one scene."""

    place: Place
    hrefs: Mapping[str, str]
    """Band → address, as in table `items`."""
    parts: tuple[str, ...]
    """Which of `PARTS`."""
    dn_offset: int
    """DN to subtract."""


@dataclass(frozen=True)
class Fetched:
    """Parts of a patch as they belong into the store."""

    arrays: Mapping[str, np.ndarray]
    """Part → pixels; DN harmonized, (band, y, x); `scl` (y, x)."""
    origin60: tuple[float, float]
    """Upper left corner of `dn60`; NaN if that part was not wanted."""


def fetch(reader: Reader, wishes: Sequence[Wish]) -> list[Fetched | Failure]:
    """Read parts of many patches, each file opened once.

    Returns
    -------
    one entry per wish; a `Failure` if any of its windows could not be read
    """
    wanted: dict[str, list[Window]] = {}
    where: dict[tuple[int, str], tuple[str, int]] = {}
    results: list[Fetched | Failure | None] = [None] * len(wishes)
    for i, wish in enumerate(wishes):
        names = [band for part in wish.parts for band in PARTS[part]]
        absent = [band for band in names if band not in wish.hrefs]
        if absent:
            results[i] = Failure(f"the item has no asset for {', '.join(absent)}")
            continue
        for band in names:
            resolution, dtype = (20, "uint8") if band == "SCL" else (bands.RESOLUTION_M[band], "uint16")
            windows = wanted.setdefault(wish.hrefs[band], [])
            where[i, band] = wish.hrefs[band], len(windows)
            windows.append(Window(wish.place, resolution, dtype))
    pixels = reader.read(wanted)
    for i, wish in enumerate(wishes):
        if results[i] is None:
            got = {
                band: pixels[where[i, band][0]][where[i, band][1]]
                for part in wish.parts
                for band in PARTS[part]
            }
            results[i] = _assemble(wish, got)
    return results


def _assemble(wish: Wish, got: Mapping[str, Pixels | Failure]) -> Fetched | Failure:
    failures = [entry for entry in got.values() if isinstance(entry, Failure)]
    if failures:
        message = "; ".join(dict.fromkeys(failure.message for failure in failures))
        return Failure(message, any(failure.is_passing for failure in failures))
    arrays = {}
    for part in wish.parts:
        stack = np.stack([got[band].values for band in PARTS[part]])
        arrays[part] = stack[0] if part == "scl" else bands.harmonize(stack, wish.dn_offset)
    corner = got[bands.BANDS60[0]] if "dn60" in wish.parts else None
    return Fetched(arrays, (corner.x, corner.y) if corner else (np.nan, np.nan))


def cloud_fraction(scl: np.ndarray) -> float:
    """Give the share of pixels under cloud, cirrus or shadow; snow never counts."""
    return float(_IS_CLOUD[scl].mean())


def scl_valid_fraction(scl: np.ndarray) -> float:
    """Give the share of pixels that the scene classification does not call no data or defective."""
    return float(1 - _IS_HOLE[scl].mean())


def valid_fraction(
    arrays: Mapping[str, np.ndarray], place: Place, origin60: tuple[float, float], *, has_scl: bool
) -> float:
    """Give the share of 20 m pixels with data in every band and, where there is one, in the SCL.

    A 20 m pixel has data if its own six bands, its four 10 m pixels and the 60 m pixel around its
    center are not 0. Pixels of the 60 m window outside the patch do not count.
    """
    n = grid.n_pixels(place.size_m, 20)
    valid = (arrays["dn20"] != 0).all(axis=0)
    valid &= (arrays["dn10"] != 0).all(axis=0).reshape(n, 2, n, 2).all(axis=(1, 3))
    centers = 20 * np.arange(n) + 10
    columns = ((place.origin_x + centers - origin60[0]) // 60).astype(int)
    rows = ((origin60[1] - place.origin_y + centers) // 60).astype(int)
    valid &= (arrays["dn60"] != 0).all(axis=0)[np.ix_(rows, columns)]
    if has_scl:
        valid &= ~_IS_HOLE[arrays["scl"]]
    return float(valid.mean())
