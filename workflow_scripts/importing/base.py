"""What all formats share: what a scan of an archive gives, and how its images are read."""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from workflow_scripts.core import grid
from workflow_scripts.importing.members import Member, is_readable, open_archives

Place = Path | Member
"""A file or folder, on disk or in an archive that is read where it is."""

SINGLE = "single"
"""Season of an archive with one image per place."""


@dataclass(frozen=True)
class Scan:
    """What an archive holds."""

    places: pd.DataFrame
    """`location_id` (unique), `lon`, `lat` (degrees; NaN where the place is not published)."""
    samples: pd.DataFrame
    """One row per image: `location_id`, `season`, `path` (below one of the folders), `datetime` (or NaT)."""
    labels: pd.DataFrame
    """`location_id`, the targets, and `split` (train, validation, test, …; "" for none)."""


@dataclass(frozen=True)
class Image:
    """One image: arrays uint16 (band, y, x), DN = reflectance × 10,000, 0 = no data; and where it lies."""

    arrays: Mapping[str, np.ndarray]
    epsg: int = 0
    origin_x: float = float("nan")
    origin_y: float = float("nan")


@dataclass(frozen=True)
class Format:
    """How one archive is read."""

    scan: Callable[[Sequence[Place], Mapping[str, Any]], Scan]
    """(folders, options of `import`) to what is there."""
    read: Callable[[Place], Image]
    """Path of a sample to its image."""
    scaling: str
    """Where the stored DN come from."""
    read_maps: Callable[[Sequence[Place], str, str], Mapping[str, np.ndarray]] | None = None
    """(folders, id, split) to a place's targets with y and x, of the layout's names; empty where not published."""


def open_folders(path: Path, dataset: Path) -> list[Place]:
    """Give the folders an archive's files are looked for in.

    Parameters
    ----------
    path : folder with what was downloaded, or one archive
    dataset : folder of the dataset, with `unpacked/` where an archive had to be unpacked

    Returns
    -------
    the folder, what was unpacked, and what is in archives that can be read where they are
    """
    if not path.exists():
        raise FileNotFoundError(f"import.path: no file or folder {str(path)!r}")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    folders = [folder for folder in (path, dataset / "unpacked") if folder.is_dir()]
    packed = [file for file in files if is_readable(file)]
    return [*folders, *([open_archives(packed)] if packed else [])]


def find(folders: Sequence[Place], *names: str) -> Place | None:
    """Give the first file or folder of one of these names, in the folders or up to three levels below."""
    for name in names:
        for pattern in (name, f"*/{name}", f"*/*/{name}", f"*/*/*/{name}"):
            for folder in folders:
                for path in sorted(folder.glob(pattern), key=str):
                    return path
    return None


def need(folders: Sequence[Place], *names: str, what: str) -> Place:
    """Give what `find` does, or say what is missing."""
    path = find(folders, *names)
    if path is None:
        listed = " or ".join(map(repr, names))
        raise FileNotFoundError(
            f"{what}: no {listed} in {', '.join(map(str, folders))}. Download it into that folder."
        )
    return path


def resolve(folders: Sequence[Place], path: str) -> Place:
    """Give the place of a sample's path: in the first folder that has it (the first, where none has)."""
    return next((folder / path for folder in folders if (folder / path).exists()), folders[0] / path)


def relative(path: Place, folders: Sequence[Place]) -> str:
    """Give a path relative to the folder it lies in."""
    same = [folder for folder in folders if isinstance(folder, Member) == isinstance(path, Member)]
    return next(str(path.relative_to(folder)) for folder in same if path.is_relative_to(folder))


def walk_folders(folder: Place, depth: int) -> Iterator[Place]:
    """List the folders below one, `depth` levels down, without listing files in the deepest."""
    if isinstance(folder, Member):
        inner = [path for path in folder.iterdir() if path.is_dir()]
    else:
        with os.scandir(folder) as entries:
            inner = [Path(e.path) for e in sorted(entries, key=lambda e: e.name) if e.is_dir()]
    for path in inner:
        yield path
        if depth > 1:
            yield from walk_folders(path, depth - 1)


def opened(path: Place) -> Any:
    """Give what rasterio and PIL open: the path, or the member of an archive in memory."""
    return path.open() if isinstance(path, Member) else path


def refuse_duplicates(ids: pd.Series, what: str) -> None:
    """Raise if an id stands twice."""
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        listed = ", ".join(map(repr, map(str, repeated[:5])))
        raise ValueError(f"{what}: {len(repeated)} id(s) stand twice, such as {listed}. Each may stand once.")


def read_raster(
    path: Place, *, n_bands: int, side_px: int, names: Sequence[str] | None = None
) -> tuple[np.ndarray, int, float, float]:
    """Read a whole square raster.

    Parameters
    ----------
    n_bands, side_px : what the format says
    names : the bands in the order wanted, which is the published one; a file that describes its bands
        is read by their names

    Returns
    -------
    values (band, y, x) as stored; EPSG code (0 without) and upper left corner (NaN without)

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, cannot be read, or has other bands or another size than the format says.
    """
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} is missing. Download the archive again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(opened(path)) as file:
                values = file.read()
                described = [_band_name(text) for text in file.descriptions]
                epsg = file.crs.to_epsg() if file.crs else None
                origin = (file.transform.c, file.transform.f) if epsg else (np.nan, np.nan)
    except RasterioIOError as error:
        raise ValueError(
            f"{str(path)!r} cannot be read ({error}): it is truncated or damaged. Download the archive again."
        ) from None
    if values.shape != (n_bands, side_px, side_px):
        raise ValueError(
            f"{str(path)!r} has {values.shape[0]} band(s) of {values.shape[1]} × {values.shape[2]} pixels; the "
            f"format has {n_bands} of {side_px} × {side_px}"
        )
    if names is not None and all(described):
        lacking = [name for name in names if name not in described]
        if lacking:
            raise ValueError(
                f"{str(path)!r} lacks the band(s) {lacking}; it describes its bands as {described}"
            )
        values = values[[described.index(name) for name in names]]
    return values, int(epsg or 0), float(origin[0]), float(origin[1])


def _band_name(description: str | None) -> str:
    """Give one spelling to a described band: B2, b02 and B02 are the same; "" where there is none."""
    match = re.fullmatch(r"B0?(\d{1,2}A?)|(CLP)", (description or "").strip().upper())
    return "" if match is None else match[2] or f"B{match[1].zfill(2)}"


def to_dn(values: np.ndarray) -> np.ndarray:
    """Round to uint16 DN; what is not finite or below 0 is no data."""
    if values.dtype == np.uint16:
        return values
    values = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
    return np.clip(np.rint(values), 0, 65_535).astype(np.uint16)


def center(path: Place, size_m: int) -> tuple[float, float]:
    """Give longitude and latitude of the center of a raster in a projected CRS."""
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} is missing. Download the archive again.")
    try:
        with rasterio.open(opened(path)) as file:
            epsg, x, y = file.crs and file.crs.to_epsg(), file.transform.c, file.transform.f
    except RasterioIOError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error})") from None
    if not epsg:
        raise ValueError(f"{str(path)!r} names no CRS with an EPSG code, so its place is unknown")
    lon, lat = grid.unproject(x + size_m / 2, y - size_m / 2, int(epsg))
    return float(lon), float(lat)
