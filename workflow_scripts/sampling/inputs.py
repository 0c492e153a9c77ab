"""The files that the options of `locations` name, read and checked."""

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core.polygons import read_polygons
from workflow_scripts.sampling.frame import ECOREGION_COLUMNS, Strata, stratum_column
from workflow_scripts.sampling.points import read_points

RASTERS = (".tif", ".tiff", ".vrt", ".nc")
"""Suffixes of files whose stratum is a raster's value."""


def one(files: str | Sequence[str]) -> str | None:
    """Give the one file of an input that may be empty."""
    return files if isinstance(files, str) else next(iter(files), None)


def read_ecoregions(path: str | None, strata: str) -> gpd.GeoDataFrame | None:
    """Read ecoregions in the order that decides overlaps: lowest ECO_ID first.

    Parameters
    ----------
    path : polygon file; None without
    strata : a further column that is needed; "" for none
    """
    if path is None:
        return None
    columns = dict.fromkeys([*ECOREGION_COLUMNS, *([stratum_column(strata)] if strata else [])])
    ecoregions = read_polygons(path, list(columns), key="locations.ecoregions")
    return ecoregions.sort_values("ECO_ID", kind="stable").reset_index(drop=True)


def read_strata(path: str | None, column: str, ecoregions: gpd.GeoDataFrame | None) -> Strata | None:
    """Give what names the stratum of a place.

    Parameters
    ----------
    path : polygons or raster of `locations.strata_path`; None takes the ecoregions
    column : `locations.strata`
    ecoregions : as from `read_ecoregions`

    Returns
    -------
    Strata; None where there is neither a file nor ecoregions
    """
    if path is None:
        return None if ecoregions is None else Strata(column, polygons=ecoregions)
    if Path(path).suffix.lower() in RASTERS:
        if not column.isdigit():
            raise ValueError(
                f"locations.strata = {column!r}, but locations.strata_path = {path!r} is a raster: "
                "write the number of its band, '1' for the first"
            )
        return Strata(column, raster=path)
    polygons = read_polygons(path, [column], key="locations.strata_path")
    return Strata(column, polygons=polygons.sort_values(column, kind="stable").reset_index(drop=True))


def read_stratum_values(path: str | None, column: str, *, key: str) -> pd.Series | None:
    """Read one number per stratum from a CSV file with the columns `stratum` and `column`.

    Returns
    -------
    Series of float, index stratum; None without a file
    """
    if path is None:
        return None
    if not Path(path).exists():
        raise FileNotFoundError(f"{key}: no file {path!r}. Correct the path in config.yaml.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in ("stratum", column) if name not in table.columns]
    if missing:
        raise ValueError(
            f"{key}: {path!r} lacks the column(s) {missing!r}; it has {table.columns.tolist()!r}"
        )
    if table["stratum"].duplicated().any():
        repeated = table["stratum"][table["stratum"].duplicated()].unique()[:5].tolist()
        raise ValueError(f"{key}: {path!r} repeats the strata {repeated!r}")
    numbers = pd.to_numeric(table[column].replace("", np.nan), errors="coerce").astype(float)
    return numbers.set_axis(table["stratum"])


def read_evaluation(paths: Sequence[str]) -> pd.DataFrame | None:
    """Read the points to keep away from; None without files."""
    if not paths:
        return None
    key = "locations.evaluation.points"
    return pd.concat([read_points(path, key=key, need_ids=False) for path in paths])
