"""Patches out of scenes: their native windows, read exactly, judged, harmonized.

A reader gets a batch of windows per file and opens each file once. `rasterio` is the reference;
another reader is another entry of `READERS`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from workflow_scripts.core import bands, grid
from workflow_scripts.core.block_reader import BlockReader
from workflow_scripts.core.cube_readers import OdcReader, StackstacReader
from workflow_scripts.core.rasterio_reader import RasterioReader
from workflow_scripts.core.windows import Failure, Pixels, Place, Reader, Window

PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"dn10": bands.BANDS10, "dn20": bands.BANDS20, "dn60": bands.BANDS60, "scl": ("SCL",)}
)
"""Bands of each pixel array of the store, in its order."""

READERS = MappingProxyType(
    {
        "windows": BlockReader,
        "rasterio": RasterioReader,
        "stackstac": StackstacReader,
        "odc-stac": OdcReader,
    }
)
"""Readers by the name they have in config (`patches.reader`)."""

_IS_CLOUD = np.isin(np.arange(256), bands.SCL_CLOUD)
_IS_HOLE = np.isin(np.arange(256), bands.SCL_NODATA)


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


def fetch(reader: Reader, wishes: Sequence[Wish]) -> Iterator[tuple[int, Fetched | Failure]]:
    """Read parts of many patches, each file opened once.

    Returns
    -------
    index of each wish with its pixels as soon as they are there; a `Failure` if any of its windows
    could not be read
    """
    wanted: dict[str, list[Window]] = {}
    users: dict[str, list[tuple[int, str]]] = {}
    n_left: dict[int, int] = {}
    for i, wish in enumerate(wishes):
        names = [band for part in wish.parts for band in PARTS[part]]
        absent = [band for band in names if band not in wish.hrefs]
        if absent:
            yield i, Failure(f"the item has no asset for {', '.join(absent)}")
            continue
        for band in names:
            resolution, dtype = (20, "uint8") if band == "SCL" else (bands.RESOLUTION_M[band], "uint16")
            wanted.setdefault(wish.hrefs[band], []).append(Window(wish.place, resolution, dtype))
            users.setdefault(wish.hrefs[band], []).append((i, band))
        n_left[i] = len(names)
    pixels: dict[int, dict[str, Pixels | Failure]] = {i: {} for i in n_left}
    for href, results in reader.read(wanted):
        for (i, band), result in zip(users[href], results, strict=True):
            pixels[i][band] = result
            n_left[i] -= 1
            if not n_left[i]:
                yield i, _assemble(wishes[i], pixels.pop(i))


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


def scl_fractions(scl: np.ndarray) -> np.ndarray:
    """Give the share of a patch's pixels in each class of the scene classification."""
    return np.bincount(scl.ravel(), minlength=len(bands.SCL_CLASSES))[: len(bands.SCL_CLASSES)] / scl.size


def valid_fraction(
    arrays: Mapping[str, np.ndarray], place: Place, origin60: tuple[float, float], *, has_scl: bool
) -> float:
    """Give the share of 20 m pixels with data in every band and, where there is one, in the SCL.

    A 20 m pixel has data if its own six bands, its four 10 m pixels and the 60 m pixel around its
    center are not 0. Pixels of the 60 m window outside the patch do not count.
    """
    n = grid.n_pixels(place.size_m, 20)
    valid = np.ones((n, n), bool)
    if not all(arrays[part].min() for part in ("dn10", "dn20", "dn60")):  # holes are rare
        valid &= (arrays["dn20"] != 0).all(axis=0)
        valid &= (arrays["dn10"] != 0).all(axis=0).reshape(n, 2, n, 2).all(axis=(1, 3))
        centers = 20 * np.arange(n) + 10
        columns = ((place.origin_x + centers - origin60[0]) // 60).astype(int)
        rows = ((origin60[1] - place.origin_y + centers) // 60).astype(int)
        valid &= (arrays["dn60"] != 0).all(axis=0)[np.ix_(rows, columns)]
    if has_scl:
        valid &= ~_IS_HOLE[arrays["scl"]]
    return float(valid.mean())
