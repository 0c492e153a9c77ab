"""The readers `stackstac` and `odc-stac`: windows through the libraries that users know.

They serve as oracles in tests and as peers; each window is one cube of one band, on the file's own
grid, so that no pixel is resampled.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from rasterio.errors import RasterioError

from workflow_scripts.core import network
from workflow_scripts.core.rasterio_reader import THREADS_PER_CORE, raster_of
from workflow_scripts.core.windows import Failure, Pixels, Raster, Window, locate

_BAND = "band"


class CubeReader:
    """What both have in common: headers by GDAL, one load per window."""

    def __init__(self, *, cores: int = 1, access: network.Access = network.OPEN) -> None:
        self._threads = THREADS_PER_CORE * cores
        self._access = access
        self._rasters: dict[str, Raster] = {}
        self.n_opened = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End; nothing is kept open."""

    def read(self, wanted: Mapping[str, Sequence[Window]]) -> Iterator[tuple[str, list[Pixels | Failure]]]:
        """Read the windows of each file; files in their order."""
        with ThreadPoolExecutor(self._threads) as pool:
            yield from zip(wanted, pool.map(self._read_file, wanted, wanted.values()), strict=True)

    def _read_file(self, href: str, windows: Sequence[Window]) -> list[Pixels | Failure]:
        return [self._read_window(href, window) for window in windows]

    def _read_window(self, href: str, window: Window) -> Pixels | Failure:
        try:
            return network.retry(lambda: self._attempt(href, window), f"reading {network.file_name(href)}")
        except ValueError as error:
            return Failure(f"{network.file_name(href)}: {error}")
        except RuntimeError as error:
            return Failure(str(error), isinstance(error, network.UnavailableError))

    def _attempt(self, href: str, window: Window) -> Pixels:
        if href not in self._rasters:
            with network.open_href(href, access=self._access) as file:
                self._rasters[href] = raster_of(file)
            self.n_opened += 1
        raster = self._rasters[href]
        cut = locate(window, raster)
        values = np.zeros((cut.n, cut.n), window.dtype)
        try:
            part = self._load(network.sign(href, self._access), raster, cut.rows, cut.columns)
        except (RasterioError, RuntimeError) as error:
            raise network.read_failure(href, error) from None
        values[cut.destination(cut.rows, cut.columns)] = part
        return Pixels(values, cut.x, cut.y)

    def _load(self, href: str, raster: Raster, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Load some rows and columns of a file."""
        raise NotImplementedError


class StackstacReader(CubeReader):
    """Reads by `stackstac.stack`."""

    def _load(self, href: str, raster: Raster, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        import stackstac

        left, top = _corner(raster, rows[0], columns[0])
        right, bottom = _corner(raster, rows[1], columns[1])
        cube = stackstac.stack(
            [_item(href, raster)],
            assets=[_BAND],
            epsg=raster.epsg,
            resolution=raster.step_x,
            bounds=(left, bottom, right, top),
            snap_bounds=False,
            dtype=raster.dtype,
            fill_value=np.dtype(raster.dtype).type(0),
            rescale=False,
            xy_coords=False,
        )
        return cube.data[0, 0].compute(scheduler="single-threaded")


class OdcReader(CubeReader):
    """Reads by `odc.stac.load`."""

    def _load(self, href: str, raster: Raster, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        import odc.stac
        import pystac
        from affine import Affine
        from odc.geo.geobox import GeoBox

        left, top = _corner(raster, rows[0], columns[0])
        transform = Affine(raster.step_x, 0, left, 0, -raster.step_y, top)
        shape = rows[1] - rows[0], columns[1] - columns[0]
        loaded = odc.stac.load(
            [pystac.Item.from_dict(_item(href, raster))],
            bands=[_BAND],
            geobox=GeoBox(shape, transform, f"EPSG:{raster.epsg}"),
            resampling="nearest",
            stac_cfg={"*": {"assets": {"*": {"data_type": raster.dtype, "nodata": 0}}}},
        )
        return loaded[_BAND].values[0]


def _corner(raster: Raster, row: int, column: int) -> tuple[float, float]:
    return raster.left + column * raster.step_x, raster.top - row * raster.step_y


def _item(href: str, raster: Raster) -> dict[str, Any]:
    """Give an item of one asset, which says what its file's header says."""
    right, bottom = _corner(raster, raster.height, raster.width)
    transform = [raster.step_x, 0, raster.left, 0, -raster.step_y, raster.top]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": "file",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
        },
        "bbox": [-180, -90, 180, 90],
        "links": [],
        "properties": {
            "datetime": "2000-01-01T00:00:00Z",
            "proj:epsg": raster.epsg,
            "proj:bbox": [raster.left, bottom, right, raster.top],
        },
        "assets": {
            _BAND: {
                "href": href,
                "roles": ["data"],
                "type": "image/tiff; application=geotiff",
                "proj:epsg": raster.epsg,
                "proj:shape": [raster.height, raster.width],
                "proj:transform": transform,
            }
        },
    }
