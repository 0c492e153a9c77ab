"""Gather the scenes of a dataset's tiles from catalogs that lie in many files, each read once.

Reads : jobs.json (which tiles); stac-geoparquet files, local or remote.
Writes: items.parquet, table `items`, sorted by tile and time.

This is the route of a global run: some hundred files instead of a search per tile. Files are read by
processes, their rows sorted into one pile per grid zone on disk, and the piles written one after the
other, so that memory holds some thousand rows per process, or the scenes of one zone. `select_scenes`
then reads only the groups of rows that hold its tiles.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflow_scripts.core import item_files, network, stac, tables
from workflow_scripts.core.items import mgrs_tile
from workflow_scripts.core.ranges import Ranges
from workflow_scripts.core.stage import read_json, run_stage

logger = logging.getLogger(__name__)

ROWS = 10_000
"""Scenes converted, and rows written, at a time."""


def read_files(
    paths: Sequence[str],
    catalog: Mapping[str, Any],
    *,
    tiles: Sequence[str],
    years: tuple[int, int],
    prefix: str,
) -> int:
    """Read files, and write the rows of some tiles and years into piles, one per grid zone.

    Parameters
    ----------
    paths : files or addresses
    catalog : entry of `catalogs`, and its `name`
    tiles : MGRS tiles
    years : first and last year
    prefix : the pile of zone 32 is ``{prefix}.32.arrow``

    Returns
    -------
    number of rows
    """
    ranges, known, n_rows = Ranges(access=network.Access.of(catalog)), frozenset(tiles), 0
    piles: dict[str, pa.ipc.RecordBatchFileWriter] = {}
    try:
        for path in paths:
            items = item_files.read_parquet(
                path, catalog, tiles=tiles, years=years, kind="sentinel-2", ranges=ranges
            )
            rows = stac.item_rows(
                items,
                catalog,
                years=years,
                kind="sentinel-2",
                is_wanted=lambda item: mgrs_tile(item) in known,
            )
            for table in _tables(rows):
                n_rows += table.num_rows
                zones = pc.utf8_slice_codeunits(table["mgrs_tile"], 0, 2)
                for zone in pc.unique(zones).to_pylist():
                    if zone not in piles:
                        options = pa.ipc.IpcWriteOptions(compression="lz4")
                        piles[zone] = pa.ipc.new_file(f"{prefix}.{zone}.arrow", table.schema, options=options)
                    piles[zone].write_table(table.filter(pc.equal(zones, zone)))
    finally:
        for pile in piles.values():
            pile.close()
    return n_rows


def _tables(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    while part := list(islice(rows, ROWS)):
        yield tables.arrow_table(pd.DataFrame(part), "items")


def sorted_parts(piles: Sequence[Path]) -> Iterator[pa.Table]:
    """Give the rows of a zone's piles by tile, time and id, some at a time."""
    pile = pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in piles])
    order = pc.sort_indices(pile, [(name, "ascending") for name in ("mgrs_tile", "datetime", "item_id")])
    for first in range(0, len(order), ROWS):
        yield pile.take(order.slice(first, ROWS))


def gather(
    catalogs: Mapping[str, Mapping[str, Any]],
    path: str | os.PathLike,
    *,
    tiles: Sequence[str],
    years: tuple[int, int],
    processes: int = 1,
) -> int:
    """Gather the scenes of some tiles and years from catalogs in files.

    Parameters
    ----------
    catalogs : name → entry of `catalogs`
    path : Parquet file to be written
    tiles : MGRS tiles
    years : first and last year
    processes : files read at a time

    Returns
    -------
    number of scenes

    Raises
    ------
    ValueError
        If a catalog has none.
    """
    with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".gathering.") as folder:
        total = 0
        for name, entry in catalogs.items():
            catalog = {**entry, "name": name}
            files = item_files.parquet_files(catalog, Ranges(access=network.Access.of(catalog)))
            shares = [files[i::processes] for i in range(min(processes, len(files)))]
            options = {"tiles": list(tiles), "years": years}
            if len(shares) == 1:
                found = read_files(files, catalog, prefix=f"{folder}/{name}.0", **options)
            else:
                with ProcessPoolExecutor(len(shares), get_context("forkserver")) as pool:
                    jobs = [
                        pool.submit(read_files, share, catalog, prefix=f"{folder}/{name}.{i}", **options)
                        for i, share in enumerate(shares)
                    ]
                    found = sum(job.result() for job in jobs)
            if not found:
                raise ValueError(
                    f"catalog {name!r} ({entry['path']}): none of its {len(files)} files has a scene on the "
                    f"{len(tiles)} tiles in {years[0]} to {years[1]}. Check the catalog's path, collection and "
                    "conventions, and scenes.years, in config.yaml."
                )
            logger.info("catalog %r: %d scenes in %d files", name, found, len(files))
            total += found
        zones = sorted({pile.name.split(".")[-2] for pile in Path(folder).glob("*.arrow")})
        with tables.write_in_parts(path, "items") as write:
            for zone in zones:
                for part in sorted_parts(sorted(Path(folder).glob(f"*.{zone}.arrow"))):
                    write(part)
    return total


def main(job: SimpleNamespace) -> None:
    """Gather the scenes of a dataset; see the module's docstring."""
    shards = read_json(job.input.jobs)["shards"]
    tiles = sorted({tile for shard in shards.values() for tile in shard["mgrs_tiles"]})
    n_scenes = gather(
        job.params.catalogs,
        job.output.found,
        tiles=tiles,
        years=tuple(job.params.years),
        processes=job.threads,
    )
    logger.info("%d scenes on %d tiles", n_scenes, len(tiles))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
