"""The reader `rasterio`: windows by GDAL, the reference that any other reader must equal."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as PixelWindow

from workflow_scripts.core import network
from workflow_scripts.core.windows import Failure, Pixels, Raster, Window, locate

THREADS_PER_CORE = 4
"""Threads wait for the network more than they compute."""
MAX_OPEN_FILES = 256
"""Files a job keeps open; usual limits allow a process 1,024."""


class RasterioReader:
    """Reads by GDAL: a thread per file, files kept open for the windows that come later."""

    def __init__(self, *, cores: int = 1, access: network.Access = network.OPEN) -> None:
        self._threads = THREADS_PER_CORE * cores
        self._access = access
        self._open: dict[str, rasterio.DatasetReader] = {}
        self.n_opened = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def read(self, wanted: Mapping[str, Sequence[Window]]) -> Iterator[tuple[str, list[Pixels | Failure]]]:
        """Read the windows of each file; files in their order."""
        with ThreadPoolExecutor(self._threads) as pool:
            yield from zip(wanted, pool.map(self._read_file, wanted, wanted.values()), strict=True)

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
                network.retry(proceed, f"reading {network.file_name(href)}")
            except RuntimeError as error:
                # a file that opens may be damaged in one block only: go on with its other windows
                n_lost = 1 if is_open else len(windows) - len(results)
                is_passing = isinstance(error, network.UnavailableError)
                results += [Failure(str(error), is_passing)] * n_lost
        if len(self._open) > MAX_OPEN_FILES:
            self._close(href)
        return results

    def _file(self, href: str) -> rasterio.DatasetReader:
        if href not in self._open:
            self._open[href] = network.open_href(href, access=self._access)
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
            return Failure(f"{network.file_name(href)}: {error}")
        except RasterioError as error:
            failure = network.read_failure(href, error)
            if isinstance(failure, network.TransientError):
                self._close(href)
                raise failure from None
            return Failure(str(failure))


def _read_pixels(file: rasterio.DatasetReader, window: Window) -> Pixels:
    """Read one window exactly, without resampling."""
    cut = locate(window, raster_of(file))
    (first_row, last_row), (first_column, last_column) = cut.rows, cut.columns
    inside = PixelWindow(first_column, first_row, last_column - first_column, last_row - first_row)
    values = np.zeros((cut.n, cut.n), window.dtype)
    values[cut.destination(cut.rows, cut.columns)] = file.read(1, window=inside)
    return Pixels(values, cut.x, cut.y)


def raster_of(file: rasterio.DatasetReader) -> Raster:
    """Give grid and type of an open file.

    Raises
    ------
    ValueError
        If it is not north up.
    """
    transform = file.transform
    if transform.b or transform.d:
        raise ValueError("its rows and columns do not run along the axes of its CRS")
    epsg = file.crs.to_epsg() if file.crs else None
    return Raster(
        file.width,
        file.height,
        transform.c,
        transform.f,
        transform.a,
        -transform.e,
        epsg,
        file.dtypes[0],
    )
