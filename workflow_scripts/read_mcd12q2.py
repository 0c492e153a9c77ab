"""Read vegetation cycles from files of the product MCD12Q2 itself, in place of estimating them.

Reads
-----
locations.parquet
files of MCD12Q2 (the user's): HDF4 as distributed (layers rows × columns × 2 cycles), or GeoTIFF
in any CRS. A band of a GeoTIFF is known by its description, else by the end of its file's name
(``Greenup_1`` … ``Dormancy_2``, ``EVI_Amplitude_1``, …); the year by ``A2019001`` or a single
``2019`` in the file's name.

Writes
------
phenology_cycles.parquet : one row per location, year and cycle, from the product's dates; what the
product does not tell (fit, observations, gaps, snow) is missing

Cycles of which a date is missing are left out and counted. Of several files with the same year at
a location the last one by name counts: the newest production in the product's naming.

References
----------
Gray, Sulla-Menashe and Friedl, user guide of MCD12Q2 collection 6 (bands, scale, fill 32767,
dates as days since 1970-01-01 from 11138 to 32766).
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform

from workflow_scripts.core import grid
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.core.stage import run_stage
from workflow_scripts.core.tables import COLUMNS, read_table, write_table
from workflow_scripts.phenology import hdf4
from workflow_scripts.phenology.rasters import sample_raster

logger = logging.getLogger(__name__)

BANDS: Mapping[str, str] = {
    "Greenup": "greenup",
    "MidGreenup": "mid_greenup",
    "Maturity": "maturity",
    "Peak": "peak",
    "Senescence": "senescence",
    "MidGreendown": "mid_greendown",
    "Dormancy": "dormancy",
    "EVI_Amplitude": "amplitude",
    "EVI_Minimum": "minimum",
    "QA_Overall": "qa",
    "QA_Detailed": "qa_detailed",
}
"""Layers of the product and our names."""
OPTIONAL = ("minimum", "qa", "qa_detailed")
VALID_DAYS = (11138, 32766)
FILL = 32767
EVI_SCALE = 1e-4
_BAND = re.compile(rf"(?:^|[._:\W])({'|'.join(sorted(BANDS, key=len, reverse=True))})[_.]([12])$")
_YEARS = (re.compile(r"A(\d{4})\d{3}(?!\d)"), re.compile(r"(?<!\d)(20\d{2})(?!\d)"))


def year_of(name: str) -> int:
    """Give the year a file is about, from its name.

    Raises
    ------
    ValueError
        If the name tells none, or several.
    """
    for pattern in _YEARS:
        found = set(pattern.findall(name))
        if len(found) == 1:
            return int(found.pop())
    raise ValueError(
        f"greenness.path: no year can be told from the file name {name!r}; expected 'A2019001' or one '2019' in it"
    )


def read_layers(path: Path, lon: np.ndarray, lat: np.ndarray) -> Iterator[tuple[str, int, np.ndarray]]:
    """Read what a file holds at points: our name of the layer, the cycle, stored values (NaN outside the file).

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    if path.suffix.lower() == ".hdf":
        x, y = map(np.array, transform("EPSG:4326", grid.MODIS_CRS, lon, lat))
        for name, values in hdf4.read_points(path, BANDS, x, y):
            yield from ((BANDS[name], i + 1, values[:, i]) for i in range(values.shape[1]))
        return
    try:
        file = rasterio.open(path)
    except RasterioError as error:
        raise ValueError(f"greenness.path: {path} cannot be read as a raster ({error})") from None
    with file:
        for band, description in zip(file.indexes, file.descriptions, strict=True):
            match = _BAND.search(description or "") or (_BAND.search(path.stem) if file.count == 1 else None)
            if match is None:
                continue
            if file.crs is None:
                raise ValueError(f"greenness.path: {path} has no CRS")
            x, y = map(np.array, transform("EPSG:4326", file.crs, lon, lat))
            yield BANDS[match[1]], int(match[2]), sample_raster(file, x, y, band=band)


def read_cycles(paths: Sequence[Path], locations: pd.DataFrame) -> pd.DataFrame:
    """Read the product's cycles at locations.

    Parameters
    ----------
    paths : files
    locations : `location_id`, `lon`, `lat`

    Returns
    -------
    DataFrame in the layout of table `cycles`, sorted by location and date

    Raises
    ------
    ValueError
        If no file holds a layer of the product, or one that is needed is missing.
    """
    lon, lat = locations["lon"].to_numpy(float), locations["lat"].to_numpy(float)
    values: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for path in sorted(paths, key=lambda path: path.name):
        for name, cycle, read in read_layers(path, lon, lat):
            known = np.isfinite(read) & (read != FILL)
            store = values.setdefault((year_of(path.name), cycle), {})
            store[name] = np.where(known, read, store.get(name, np.full(lon.size, np.nan)))
    if not values:
        raise ValueError(
            f"greenness.path: none of {len(paths)} files holds a band of MCD12Q2 such as 'Greenup_1' "
            f"(first file: {str(paths[0]) if paths else 'none'}). Name the bands, or end the file names with them."
        )
    parts = [_cycle_rows(key, layers, locations) for key, layers in sorted(values.items())]
    table = pd.concat(parts, ignore_index=True)
    order = np.lexsort((table["peak"], table["position"]))
    table = table.iloc[order].drop(columns="position").reset_index(drop=True)
    table["cycle"] = (table.groupby(["location_id", "year"], sort=False).cumcount() + 1).astype(np.int8)
    return table[list(COLUMNS["cycles"])]


def _cycle_rows(
    key: tuple[int, int], layers: Mapping[str, np.ndarray], locations: pd.DataFrame
) -> pd.DataFrame:
    """Rows of one year and cycle, of the locations where all dates are there."""
    year, cycle = key
    missing = [name for name in BANDS if BANDS[name] not in layers and BANDS[name] not in OPTIONAL]
    if missing:
        raise ValueError(
            f"greenness.path: year {year}, cycle {cycle}: no file with the bands {[f'{m}_{cycle}' for m in missing]}"
        )
    days = np.stack([layers[name] for name in TRANSITIONS], axis=1)
    valid = (days >= VALID_DAYS[0]) & (days <= VALID_DAYS[1])
    rows = np.flatnonzero(valid.all(axis=1) & np.isfinite(layers["amplitude"]))
    n_partial = int((valid.any(axis=1)).sum()) - rows.size
    if n_partial:
        logger.warning(
            "%d, cycle %d: %d of %d cycles lack a date or the amplitude and are left out",
            year,
            cycle,
            n_partial,
            n_partial + rows.size,
        )
    nothing = np.full(len(locations), np.nan)
    dates = {
        name: days[rows, k].astype(np.int64).astype("datetime64[D]").astype("datetime64[ns]")
        for k, name in enumerate(TRANSITIONS)
    }
    numbers = {name: layers.get(name, nothing)[rows] for name in ("amplitude", *OPTIONAL)}
    return pd.DataFrame(
        {
            "position": rows,
            "location_id": locations["location_id"].astype(str).to_numpy()[rows],
            "year": np.int16(year),
            **dates,
            "amplitude": (numbers["amplitude"] * EVI_SCALE).astype(np.float32),
            "minimum": (numbers["minimum"] * EVI_SCALE).astype(np.float32),
            "r2": np.float32(np.nan),
            "n_observations": np.int16(-1),
            "max_gap_days": np.float32(np.nan),
            "snow_fraction": np.float32(np.nan),
            "qa": np.nan_to_num(numbers["qa"], nan=-1).astype(np.int8),
            "qa_detailed": np.nan_to_num(numbers["qa_detailed"], nan=-1).astype(np.int32),
        }
    )


def main(job: Any) -> None:
    """Read the cycles of one dataset."""
    locations = read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    paths = [Path(path) for path in job.input.files]
    cycles = read_cycles(paths, locations)
    n_with = cycles["location_id"].nunique()
    logger.info("%d cycles at %d of %d locations, %d files", len(cycles), n_with, len(locations), len(paths))
    if n_with < len(locations):
        logger.warning("%d of %d locations have no cycle", len(locations) - n_with, len(locations))
    write_table(cycles, job.output.cycles, "cycles")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
