"""Draw the places of a labelled dataset by a rule, from the labels' own source.

Reads : what `points.path` names.
Writes: `points.parquet`: `location_id`, `lon`, `lat`, and the labels that come with the places.

Rules: `sphere` draws uniformly on the sphere and keeps what lies in a polygon with a wanted code (Biomes);
`raster` draws pixels with a class, each as likely (CAVM); `cells` takes the cells of a grid in which
species occur (EU-Forest); `index` takes the rows of an index file published with the SSL4Eco paper.
More points of the same draw are added at its end.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import rasterio.warp

from workflow_scripts.core import grid
from workflow_scripts.core.classes import CODE_MAPS
from workflow_scripts.core.polygons import locate, read_polygons
from workflow_scripts.core.stage import atomic_path, run_stage

logger = logging.getLogger(__name__)

MAX_TRIES = 2000
"""Points drawn for each one wanted before a rule that finds none is given up."""
CELL_EPSG, CELL_M = 3035, 1000
"""Grid of EU-Forest: cells of 1 km, named by their centers (Mauri et al. 2017)."""
LIST_COLUMNS = ("genus", "species")
"""Columns of the published index files that hold several codes, separated by commas."""


def draw_on_sphere(options: Mapping[str, Any], rng: np.random.Generator) -> pd.DataFrame:
    """Draw points uniformly on the sphere; keep those in a polygon whose code is not dropped.

    Longitude is uniform, the sine of latitude too. Points in no polygon (the sea) are left out.
    """
    column, dropped = options["column"], {str(code) for code in options["drop"]}
    polygons = read_polygons(options["path"], [column], key="points.path")
    codes = polygons[column].map(_plain).to_numpy(object)
    parts, n_wanted, n_found, n_drawn = [], int(options["n_points"]), 0, 0
    while n_found < n_wanted:
        n = 65_536  # of a fixed size, so that a larger draw begins with the smaller one
        lon, lat = rng.uniform(-180, 180, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
        row = locate(lon, lat, polygons)
        keep = row >= 0
        keep[keep] = [code not in dropped for code in codes[row[keep]]]
        parts.append(pd.DataFrame({"lon": lon[keep], "lat": lat[keep]}))
        n_found, n_drawn = n_found + int(keep.sum()), n_drawn + n
        if n_drawn > MAX_TRIES * n_wanted and n_drawn > MAX_TRIES * max(n_found, 1):
            raise ValueError(
                f"points: {n_found} of {n_drawn} random points lie in polygons of {options['path']!r} whose "
                f"{column} is not of {sorted(dropped)}. Correct points.path or points.drop."
            )
    logger.info("%d of %d points on the sphere lie in a wanted polygon", n_found, n_drawn)
    return _numbered(pd.concat(parts, ignore_index=True).iloc[:n_wanted])


def _plain(code: Any) -> str:
    """Give one spelling to a code: 98 and 98.0 are the same."""
    return str(int(code)) if isinstance(code, float) and code.is_integer() else str(code)


def _numbered(points: pd.DataFrame) -> pd.DataFrame:
    return points.assign(location_id=[f"p{i:06d}" for i in range(len(points))])


def draw_pixels(options: Mapping[str, Any], rng: np.random.Generator) -> pd.DataFrame:
    """Draw pixels that have a class, each as likely, and take their centers."""
    table = CODE_MAPS[options["map"]]
    is_wanted = np.zeros(2**16, bool)
    is_wanted[list(table)] = True
    if not Path(options["path"]).exists():
        raise FileNotFoundError(f"points.path: no file {options['path']!r}. Correct the path in config.yaml.")
    found = []
    with rasterio.open(options["path"]) as file:
        if file.crs is None or np.dtype(file.dtypes[0]).kind not in "iu":
            raise ValueError(f"points.path: {options['path']!r} is no raster of codes with a CRS")
        for _, window in file.block_windows(1):
            codes = file.read(1, window=window).astype(np.int64)
            down, across = np.nonzero(is_wanted[np.clip(codes, 0, 2**16 - 1)] & (codes >= 0))
            found.append((down + window.row_off) * file.width + across + window.col_off)
        pixels = np.sort(np.concatenate(found))
        n = min(int(options["n_points"]), pixels.size)
        if not n:
            raise ValueError(f"points: no pixel of {options['path']!r} has a code of {options['map']!r}")
        chosen = rng.permutation(pixels)[:n]
        x, y = file.transform @ (chosen % file.width + 0.5, chosen // file.width + 0.5)
        lon, lat = rasterio.warp.transform(file.crs, "EPSG:4326", x, y)
    logger.info("%d of %d pixels with a class", n, pixels.size)
    return _numbered(pd.DataFrame({"lon": lon, "lat": lat}))


def take_cells(options: Mapping[str, Any], rng: np.random.Generator) -> pd.DataFrame:
    """Take the cells in which species occur, with the lists of those that occur often enough.

    A row of the table is a species in a cell, named by the cell's center (`X`, `Y`, EPSG:3035). A species
    counts where it occurs in `min_occurrences` cells or more, and so does a genus, the first word of
    the name. Cells with neither are left out, and so are rows that name no center.
    """
    column = options["column"] or "SPECIES NAME"
    table = pd.read_csv(options["path"], usecols=lambda name: name in ("X", "Y", column))
    missing = [name for name in ("X", "Y", column) if name not in table.columns]
    if missing:
        raise ValueError(f"points.path: {options['path']!r} lacks the columns {missing}")
    table = table.rename(columns={column: "species"}).dropna().drop_duplicates()
    is_center = cell_centers(table["X"], table["Y"])
    if not is_center.all():
        logger.warning(
            "%d of %d rows name no center of a cell and are left out", (~is_center).sum(), len(table)
        )
    table = table[is_center]
    table["genus"] = table["species"].str.split().str[0]
    cells = table[["X", "Y"]].drop_duplicates().set_index(["X", "Y"]).sort_index()
    for level in LIST_COLUMNS:
        once = table[["X", "Y", level]].drop_duplicates()
        counts = once[level].value_counts()
        kept = once[once[level].isin(counts.index[counts >= options["min_occurrences"]])]
        cells[level] = kept.groupby(["X", "Y"])[level].agg(lambda names: sorted(names))
    cells = cells.dropna(how="all").reset_index()
    if cells.empty:
        raise ValueError(f"points: nothing occurs {options['min_occurrences']} times in {options['path']!r}")
    for level in LIST_COLUMNS:
        cells[level] = [names if isinstance(names, list) else [] for names in cells[level]]
    lon, lat = grid.unproject(cells["X"].to_numpy(float), cells["Y"].to_numpy(float), CELL_EPSG)
    names = [f"E{x:.0f}N{y:.0f}" for x, y in zip(cells["X"], cells["Y"], strict=True)]
    points = pd.DataFrame(
        {"location_id": names, "lon": lon, "lat": lat, **{k: cells[k] for k in LIST_COLUMNS}}
    )
    if options["n_points"] is not None:
        points = points.iloc[np.sort(rng.permutation(len(points))[: options["n_points"]])]
    return points


def cell_centers(x: pd.Series, y: pd.Series) -> np.ndarray:
    """Tell which points are centers of a cell of 1 km."""
    return ((x % CELL_M == CELL_M / 2) & (y % CELL_M == CELL_M / 2)).to_numpy()


def read_index(options: Mapping[str, Any], rng: np.random.Generator) -> pd.DataFrame:
    """Read an index file published with the paper: `ind`, `lon`, `lat` and labels.

    Rows with equal coordinates are all kept: folds keep them together. Image ids are left out.
    """
    path = options["path"]
    if not Path(path).exists():
        raise FileNotFoundError(f"labels.path: no file {path!r}. Correct the path in config.yaml.")
    table = pd.read_csv(path, dtype={"ind": str})
    missing = [name for name in ("ind", "lon", "lat") if name not in table.columns]
    if missing:
        raise ValueError(
            f"labels.path: index file {path!r} lacks the columns {missing}; it has {list(table)}"
        )
    repeated = table["ind"][table["ind"].duplicated()].unique()
    if repeated.size:
        raise ValueError(f"labels.path: {path!r} repeats {repeated.size} `ind`: {repeated[:5].tolist()}")
    shared = table.duplicated(["lon", "lat"], keep=False).sum()
    logger.info("%d rows, %d of which share their coordinates with another", len(table), shared)
    labels = {}
    for name in table.columns:
        if name in ("ind", "lon", "lat") or name.startswith("image_id"):
            continue
        values = table[name]
        if name in LIST_COLUMNS:
            values = [
                [] if pd.isna(text) else list(dict.fromkeys(map(str.strip, str(text).split(","))))
                for text in values
            ]
        labels[name] = values
    return pd.DataFrame(
        {"location_id": table["ind"].str.zfill(6), "lon": table["lon"], "lat": table["lat"], **labels}
    )


RULES: Mapping[str, Callable[[Mapping[str, Any], np.random.Generator], pd.DataFrame]] = MappingProxyType(
    {"sphere": draw_on_sphere, "raster": draw_pixels, "cells": take_cells, "index": read_index}
)
NEEDED = MappingProxyType(
    {"sphere": ("n_points", "column"), "raster": ("n_points", "map"), "cells": (), "index": ()}
)
"""Options that a rule cannot do without, beside `path`."""
DEFAULTS = MappingProxyType(
    {"n_points": None, "column": None, "drop": (), "map": None, "min_occurrences": 200}
)


def main(job: Any) -> None:
    """Draw the points of one dataset."""
    options = {**DEFAULTS, **job.params.options}
    missing = [name for name in NEEDED[options["rule"]] if options[name] is None]
    if missing:
        raise ValueError(f"points: rule {options['rule']!r} needs {missing}")
    points = RULES[options["rule"]](options, np.random.default_rng(job.params.seed))
    first = ["location_id", "lon", "lat"]
    points = points[[*first, *(name for name in points.columns if name not in first)]].reset_index(drop=True)
    grid.check_coordinates(points["lon"], points["lat"], points["location_id"])
    with atomic_path(job.output.points) as temporary:
        pq.write_table(pa.Table.from_pandas(points, preserve_index=False), temporary, compression="zstd")
    logger.info("rule %s: %d points", options["rule"], len(points))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
