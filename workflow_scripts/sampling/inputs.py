"""The files that the options of `locations` name, read and checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core.polygons import read_polygons
from workflow_scripts.sampling.frame import ECOREGION_COLUMNS, Strata, stratum_column
from workflow_scripts.sampling.land import Ground, box_polygon
from workflow_scripts.sampling.points import read_points

RASTERS = (".tif", ".tiff", ".vrt", ".nc")
"""Suffixes of files whose stratum is a raster's value."""


def one(files: str | Sequence[str]) -> str | None:
    """Give the one file of an input that may be empty."""
    return files if isinstance(files, str) else next(iter(files), None)


def read_ground(
    land: str | None, region: str | None, exclude: Sequence[str], *, settings: Mapping[str, Any]
) -> Ground | None:
    """Read where locations may lie.

    Parameters
    ----------
    land, region : files, None where not configured
    exclude : the files among the entries of `locations.exclude`, in their order
    settings : section `locations`: boxes and filters of `region` and `exclude`

    Returns
    -------
    Ground; None without land
    """
    if land is None:
        return None
    files = iter(exclude)
    areas = [
        read_area(None if _is_box(entry) else next(files), entry, key=f"locations.exclude[{i}]")
        for i, entry in enumerate(settings["exclude"])
    ]
    return Ground(
        land=read_polygons(land, key="locations.land"),
        region=None
        if settings["region"] is None
        else read_area(region, settings["region"], key="locations.region"),
        exclude=tuple(areas),
    )


def _is_box(entry: object) -> bool:
    return isinstance(entry, list | tuple)


def read_area(path: str | None, entry: Any, *, key: str) -> gpd.GeoDataFrame:
    """Read an area given as a box, a polygon file, or the features of one with given attributes.

    Parameters
    ----------
    path : the file; None for a box
    entry : [west, south, east, north], a path, or {path, where: {column: value or values}}
    key : config key, for messages

    Raises
    ------
    ValueError
        If no feature has the attributes; the values there are named.
    """
    if _is_box(entry):
        return box_polygon(entry, key=key)
    where = entry.get("where") or {} if isinstance(entry, Mapping) else {}
    polygons = read_polygons(path, list(where), key=key)
    for column, wanted in where.items():
        wanted = wanted if isinstance(wanted, list) else [wanted]
        present = polygons[column]
        chosen = present.isin(wanted) | present.astype(str).isin([str(value) for value in wanted])
        if not chosen.any():
            examples = sorted(present.dropna().astype(str).unique())
            listed = ", ".join(map(repr, examples[:12])) + (", …" if len(examples) > 12 else "")
            raise ValueError(
                f"{key}.where: no feature of {str(path)!r} has {column} = {wanted!r}. It holds: {listed}"
            )
        polygons = polygons[chosen].reset_index(drop=True)
    return polygons


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
