"""Files of STAC items: which there are, and how those in GeoParquet are read.

Of a stac-geoparquet file only the needed columns are read, and only the groups of rows that may hold
what is asked for: a file sorted by tile gives the items of a tile at the price of a few of them.
"""

import functools
import glob
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import shapely
from pyarrow.fs import LocalFileSystem

from workflow_scripts.core import bands, network
from workflow_scripts.core.ranges import Ranges, RemoteFile

TILE_FIELDS = {
    "planetary-computer": ("s2:mgrs_tile", "{tile}"),
    "earth-search": ("grid:code", "MGRS-{tile}"),
    "earth-search-c1": ("grid:code", "MGRS-{tile}"),
}
"""Field by which an API is asked for an MGRS tile, and how the tile is written there."""

BATCH_ROWS = 8192
"""Rows converted at a time."""

PROPERTIES = (
    "datetime",
    "start_datetime",
    "platform",
    "created",
    "updated",
    "proj:epsg",
    "proj:code",
    "proj:shape",
    "proj:transform",
    "grid:code",
    "mgrs:utm_zone",
    "mgrs:latitude_band",
    "mgrs:grid_square",
    "eo:cloud_cover",
    "view:sun_elevation",
    "earthsearch:boa_offset_applied",
    "dn_offset",
    "modis:horizontal-tile",
    "modis:vertical-tile",
    "s2:mgrs_tile",
    "s2:nodata_pixel_percentage",
    "s2:mean_solar_zenith",
    "s2:processing_baseline",
    "s2:generation_time",
    "s2:datatake_id",
    "s2:datastrip_id",
    "s2:product_uri",
)
"""The properties of an item that are read."""


def _paths(catalog: Mapping[str, Any]) -> list[str]:
    return catalog["path"] if isinstance(catalog["path"], list) else [catalog["path"]]


def catalog_files(catalog: Mapping[str, Any]) -> list[str]:
    """List the local files a catalog is read from; empty for one on the network.

    Raises
    ------
    FileNotFoundError
        If the path names nothing.
    """
    if catalog["type"] == "api":
        return []
    files: list[str] = []
    for path in map(str, _paths(catalog)):
        if network.is_remote(path):
            continue
        suffix = "*.parquet" if catalog["type"] == "geoparquet" else "*.json"
        pattern = os.path.join(path, suffix) if os.path.isdir(path) else path
        found = sorted(glob.glob(pattern))
        if not found:
            raise FileNotFoundError(f"catalog {catalog.get('name', '')!r}: no file {pattern!r}")
        files += found
    return files


def parquet_files(catalog: Mapping[str, Any], ranges: Ranges) -> list[str]:
    """List the files of a GeoParquet catalog, local ones first; folders of buckets and containers are looked into.

    Parameters
    ----------
    catalog : entry of `catalogs`
    ranges : reads the network, with the catalog's access
    """
    files = catalog_files(catalog)
    for path in map(str, _paths(catalog)):
        if path.endswith("/") or (path.startswith("s3://") and not path.endswith(".parquet")):
            found = network.retry(lambda path=path: ranges.list_folder(path), f"listing {path}")
            files += [name for name in found if name.endswith(".parquet")]
        elif network.is_remote(path):
            files.append(path)
    return files


def read_parquet(
    path: str,
    catalog: Mapping[str, Any],
    *,
    tiles: Sequence[str],
    years: tuple[int, int],
    kind: str,
    ranges: Ranges,
) -> Iterator[dict[str, Any]]:
    """Read the items of some tiles and years from one stac-geoparquet file, as plain dictionaries.

    Items that cannot be told apart by a column are all given: the caller looks at each.

    Parameters
    ----------
    path : local file or address
    catalog : entry of `catalogs`
    tiles : MGRS tiles, or one sinusoidal tile
    years : first and last year
    kind : ``"sentinel-2"`` or ``"modis"``
    ranges : reads the network, with the catalog's access

    Raises
    ------
    ValueError
        If it is no stac-geoparquet file.
    UnavailableError
        If the server does not answer.
    """
    try:
        for batch in _batches(path, catalog, tiles, years, kind, ranges):
            yield from _items_of(batch, path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"{network.file_name(path)} is not a readable stac-geoparquet file ({error})"
        ) from None


def n_rows(path: str) -> int:
    """Count the items of a local file."""
    return pq.read_metadata(path).num_rows


def _batches(
    path: str,
    catalog: Mapping[str, Any],
    tiles: Sequence[str],
    years: tuple[int, int],
    kind: str,
    ranges: Ranges,
) -> Iterator[pa.RecordBatch]:
    """Read the needed columns of the wanted rows; asset fields as ``assets|key|field``."""
    form = ds.ParquetFileFormat()
    source = RemoteFile(ranges, path) if network.is_remote(path) else path
    fragment = form.make_fragment(
        pa.PythonFile(source, "r") if source is not path else path, LocalFileSystem()
    )
    schema = fragment.physical_schema
    names = [name for name in ("id", "collection", "geometry", *PROPERTIES) if name in schema.names]
    columns = {name: ds.field(name) for name in names}
    for key, name in _asset_fields(schema, catalog, kind):
        columns[f"assets|{key}|{name}"] = ds.field("assets", key, name)
    wanted = [*_tile_filter(schema, catalog, tiles, kind), *_year_filter(schema, years)]
    if fragment.metadata.num_rows == 0:  # its columns may have no type to compare with
        return
    condition = functools.reduce(operator.and_, wanted) if wanted else None
    yield from fragment.to_batches(
        schema, columns=columns, filter=condition, batch_size=BATCH_ROWS, batch_readahead=2, use_threads=False
    )


def _items_of(batch: pa.RecordBatch, path: str) -> Iterator[dict[str, Any]]:
    """Give the items of some rows as STAC writes them."""
    shapes = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
    columns = {
        name: values.to_pylist()
        for name, values in zip(batch.schema.names, batch.columns, strict=True)
        if name != "geometry"
    }
    of_assets = [
        (name.split("|")[1:], columns.pop(name)) for name in list(columns) if name.startswith("assets|")
    ]
    ids, collections = columns.pop("id"), columns.pop("collection", [None] * batch.num_rows)
    for i, shape in enumerate(shapes):
        assets: dict[str, dict[str, Any]] = {}
        for (key, name), values in of_assets:
            if values[i] is not None:
                assets.setdefault(key, {})[name] = values[i]
        yield {
            "id": ids[i],
            "collection": collections[i],
            "geometry": shape,
            "assets": {key: asset for key, asset in assets.items() if "href" in asset},
            "properties": {name: values[i] for name, values in columns.items()},
            "base": path,
        }


def _asset_fields(schema: pa.Schema, catalog: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    """Asset and field names that are read: the addresses, and the grid of one file."""
    if "assets" not in schema.names:
        raise ValueError(f"catalog {catalog.get('name', '')!r}: its Parquet file has no column 'assets'")
    assets = schema.field("assets").type
    keys = [field.name for field in assets] if pa.types.is_struct(assets) else []  # without rows: no type
    grid_of = None
    if kind == "sentinel-2":
        names = bands.ASSET_NAMES[catalog["conventions"]]
        keys = [key for key in keys if key in set(names.values())]
        having = [key for key in keys if "proj:transform" in [part.name for part in assets.field(key).type]]
        grid_of = next((key for key in (names["B02"], *having) if key in having), None)
    found = [(key, "href") for key in keys]
    return found + [(grid_of, name) for name in ("proj:shape", "proj:transform") if grid_of is not None]


def _tile_filter(
    schema: pa.Schema, catalog: Mapping[str, Any], tiles: Sequence[str], kind: str
) -> list[ds.Expression]:
    if kind == "modis":
        names = ("modis:horizontal-tile", "modis:vertical-tile")
        if all(name in schema.names for name in names):
            (tile,) = tiles
            return [ds.field(names[0]) == int(tile[1:3]), ds.field(names[1]) == int(tile[4:6])]
        return []
    if catalog.get("conventions") not in TILE_FIELDS:
        return []
    name, values = tile_values(catalog["conventions"], tiles)
    return [ds.field(name).isin(values)] if name in schema.names else []


def tile_values(conventions: str, tiles: Sequence[str]) -> tuple[str, list[str]]:
    """Give the field of a tile and its spellings: zones below 10 are met with and without a zero."""
    name, form = TILE_FIELDS[conventions]
    spelled = dict.fromkeys(spelling for tile in tiles for spelling in (tile, tile.lstrip("0")))
    return name, [form.format(tile=tile) for tile in spelled]


def _year_filter(schema: pa.Schema, years: tuple[int, int]) -> list[ds.Expression]:
    if "start_datetime" in schema.names:  # composites may have no `datetime`
        return []
    kind = schema.field("datetime").type if "datetime" in schema.names else pa.null()
    if not pa.types.is_timestamp(kind):
        return []
    edges = [pa.scalar(pd.Timestamp(f"{y}-01-01", tz=kind.tz), kind) for y in (years[0], years[1] + 1)]
    return [ds.field("datetime") >= edges[0], ds.field("datetime") < edges[1]]
