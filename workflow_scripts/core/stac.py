"""Catalogs of scenes behind one function: STAC APIs, GeoParquet items and static catalogs.

Also the one place where the network is asked again after a failure, and where addresses are
signed: signed addresses are used at once and never stored, logged or put into an error message.
"""

import functools
import glob
import json
import logging
import operator
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import rasterio
import requests
import shapely
from rasterio.errors import RasterioError

from workflow_scripts.core import bands
from workflow_scripts.core.items import KINDS, moment_of, resolve, tile_area

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 5
"""How often a failing request is made before the job fails."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 120.0
PAGE_SIZE = 100
"""Items per page; Earth Search answers 502 at 250 (pystac-client issue 659)."""
TIMEOUT_S = 60
PASSING_STATUS = (403, 408, 425, 429, 500, 502, 503, 504)
"""HTTP states worth another try: 403 is also an expired token and Earth Search's throttling."""

TILE_FIELDS = {
    "planetary-computer": ("s2:mgrs_tile", "{tile}"),
    "earth-search": ("grid:code", "MGRS-{tile}"),
    "earth-search-c1": ("grid:code", "MGRS-{tile}"),
}
"""Field by which an API is asked for an MGRS tile, and how the tile is written there."""

GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_TIMEOUT": str(TIMEOUT_S),
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "FALSE",
    # what a broken answer left behind must not be served again on the next attempt
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http",
}

_PROPERTIES = (
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


class TransientError(RuntimeError):
    """A failure that may pass; `retry` catches it."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(RuntimeError):
    """A service failed on every attempt; who can do without it catches this."""


def redact(text: object) -> str:
    """Remove query strings, which may hold tokens, from addresses in a message."""
    return re.sub(r"\?[^\s'\"<>)]+", "?…", str(text))


def retry(
    call: Callable[[], T],
    what: str,
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it succeeds, waiting longer after each passing failure.

    Parameters
    ----------
    call : raises `TransientError`, or requests' connection errors, where another try may help
    what : for messages, such as ``"search of tile 32TQT in earth-search"``
    attempts : calls at most
    sleep : waits for a number of seconds

    Raises
    ------
    UnavailableError
        After the last attempt, with the last failure's message.
    """
    for attempt in range(1, attempts + 1):
        pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
        try:
            return call()
        except TransientError as error:
            failure = redact(error)
            if error.retry_after_s is not None:
                pause = min(max(pause, error.retry_after_s), LONGEST_PAUSE_S)
        except (requests.ConnectionError, requests.Timeout) as error:
            failure = redact(error)
        if attempt < attempts:
            logger.info("%s: %s; attempt %d of %d in %.0f s", what, failure, attempt + 1, attempts, pause)
            sleep(pause)
    raise UnavailableError(f"{what}: failed {attempts} times, last with: {failure}. Try again later.")


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    moment = pd.to_datetime(value, utc=True, errors="coerce")
    if pd.isna(moment):
        return None
    return max(0.0, (moment - pd.Timestamp.now("UTC")).total_seconds())


# ---- opening files ---------------------------------------------------------------------------


def is_remote(href: str) -> bool:
    """Tell whether an address needs the network."""
    return "://" in str(href)


def sign(href: str, method: str | None) -> str:
    """Give an address with a token where the catalog asks for one.

    Tokens are kept by the signing library and renewed before they end.
    """
    if method is None:
        return href
    if method == "planetary-computer":
        import planetary_computer

        return planetary_computer.sign_url(href)
    raise ValueError(f"catalog option sign = {method!r} is not one of ['planetary-computer']")


def open_href(href: str, *, sign_method: str | None = None) -> rasterio.DatasetReader:
    """Open a raster file of an item, local or remote, once and without a second try.

    Raises
    ------
    TransientError
        If a remote file cannot be opened now; `retry` calls again, with a fresh token.
    RuntimeError
        If there is no such file, or it is damaged.
    """
    for key, value in GDAL_OPTIONS.items():
        os.environ.setdefault(key, value)
    # GDAL's own messages carry signed addresses
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    try:
        return rasterio.open(_gdal_path(sign(href, sign_method)))
    except RasterioError as error:
        raise read_failure(href, error) from None
    except requests.RequestException as error:
        raise TransientError(f"no token for {file_name(href)}: {type(error).__name__}") from None


def read_failure(href: str, error: Exception) -> RuntimeError:
    """Turn a failure of GDAL into ours, naming the file without its token."""
    message = f"{file_name(href)}: {redact(error)}"
    status = re.search(r"response code[: ]+(\d{3})", str(error))
    lasting = status is not None and int(status.group(1)) not in PASSING_STATUS
    if is_remote(href) and not lasting and "does not exist" not in str(error):
        return TransientError(message)
    return RuntimeError(message)


def file_name(href: str) -> str:
    """Give the last parts of an address, without query: enough to find the file again."""
    return "/".join(str(href).split("?")[0].rstrip("/").split("/")[-2:])


def _gdal_path(href: str) -> str:
    if href.startswith(("http://", "https://")):
        return f"/vsicurl/{href}"
    if href.startswith("s3://"):
        return f"/vsis3/{href.removeprefix('s3://')}"
    return href.removeprefix("file://")


# ---- searching -------------------------------------------------------------------------------


def catalog_files(catalog: Mapping[str, Any]) -> list[str]:
    """List the local files a catalog is read from; empty for one on the network.

    Raises
    ------
    FileNotFoundError
        If the path names nothing.
    """
    if catalog["type"] == "api":
        return []
    paths = catalog["path"] if isinstance(catalog["path"], list) else [catalog["path"]]
    files: list[str] = []
    for path in map(str, paths):
        if is_remote(path):
            continue
        suffix = "*.parquet" if catalog["type"] == "geoparquet" else "*.json"
        pattern = os.path.join(path, suffix) if os.path.isdir(path) else path
        found = sorted(glob.glob(pattern))
        if not found:
            raise FileNotFoundError(f"catalog {catalog.get('name', '')!r}: no file {pattern!r}")
        files += found
    return files


def search_items(
    catalog: Mapping[str, Any],
    *,
    tile: str,
    years: Sequence[int],
    kind: str,
    collection: str | None = None,
) -> pd.DataFrame:
    """List the items of one tile and a range of years, one search each.

    Parameters
    ----------
    catalog : entry of `catalogs` in config.yaml, and its `name`
    tile : MGRS tile (``32TQT``) or sinusoidal tile (``h18v04``)
    years : first and last year, both included
    kind : ``"sentinel-2"`` or ``"modis"``
    collection : instead of the catalog's own

    Returns
    -------
    For Sentinel-2 a GeoDataFrame with the columns of table `items`, for MODIS a DataFrame with
    `item_id`, `collection`, `catalog`, `datetime` (start of the composite), `platform`,
    `produced`, `tile` and `hrefs` (JSON, asset key → href). Sorted by time and id; empty where
    the catalog has nothing there.

    Raises
    ------
    RuntimeError
        If the catalog does not answer.
    ValueError
        If a catalog in files holds no item at all for these years.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {sorted(KINDS)}")
    if kind == "sentinel-2" and catalog.get("conventions") not in bands.ASSET_NAMES:
        raise ValueError(
            f"catalog {catalog.get('name', '')!r}: conventions = {catalog.get('conventions')!r}, "
            f"a catalog of Sentinel-2 scenes needs one of {sorted(bands.ASSET_NAMES)}"
        )
    first, last = int(years[0]), int(years[-1])
    options = {**catalog, "collection": collection or catalog.get("collection")}
    reader = _READERS[catalog["type"]]
    is_of_tile, make_row, finish = KINDS[kind]
    found: dict[str, dict[str, Any]] = {}
    n_items = 0
    for item in reader(options, tile, (first, last), kind):
        moment = moment_of(item["properties"])
        if pd.isna(moment) or not first <= moment.year <= last:
            continue
        if options["collection"] not in (None, item.get("collection") or options["collection"]):
            continue
        n_items += 1
        if is_of_tile(item, tile):
            row = make_row(item, options, moment)
            found[row["item_id"]] = row if row.get("epsg", -1) else {**row, **_grid_of_file(row, catalog)}
    name = catalog.get("name", "")
    if n_items == 0 and _must_hold_items(catalog):
        raise ValueError(
            f"catalog {name!r} ({catalog['path']}): no item of collection "
            f"{options['collection']!r} in {first} to {last} (asked for tile {tile}). Check the "
            "catalog's path and collection, and the years of the dataset, in config.yaml."
        )
    logger.info("catalog %r, tile %s, %d to %d: %d items", name, tile, first, last, len(found))
    rows = sorted(found.values(), key=lambda row: (row["datetime"], row["item_id"]))
    return finish(rows)


def _must_hold_items(catalog: Mapping[str, Any]) -> bool:
    """Whether finding nothing means a fault, as the reader went through the whole catalog.

    A GeoParquet catalog is asked for the rows of the tile only; it is at fault if it has no rows.
    """
    if catalog["type"] != "geoparquet" or catalog.get("conventions") not in TILE_FIELDS:
        return catalog["type"] != "api"
    files = catalog_files(catalog)
    return bool(files) and all(pq.read_metadata(path).num_rows == 0 for path in files)


def _grid_of_file(row: Mapping[str, Any], catalog: Mapping[str, Any]) -> dict[str, Any]:
    """Read CRS and extent from a file, for items that tell nothing about their grid."""
    href = json.loads(row["hrefs"]).get("B02")
    if href is None:
        return {}

    def look() -> dict[str, Any]:
        with open_href(href, sign_method=catalog.get("sign")) as file:
            box = file.bounds
            epsg = file.crs.to_epsg() if file.crs else None
            size = {"width_m": box.right - box.left, "height_m": box.top - box.bottom}
            return {"epsg": int(epsg or 0), "origin_x": box.left, "origin_y": box.top, **size}

    return retry(look, f"reading the grid of {file_name(href)}")


# ---- readers: one per type of catalog, each yields items as plain dictionaries ----------------


def _read_api(
    catalog: Mapping[str, Any], tile: str, years: tuple[int, int], kind: str
) -> Iterator[dict[str, Any]]:
    """Search a STAC API: one search per tile, by the tile's field where the server can query."""
    from pystac_client import Client

    what = f"search of tile {tile}, {years[0]} to {years[1]}, in catalog {catalog.get('name', '')!r}"
    client = Client.open(catalog["url"], stac_io=_patient_io(what, catalog))
    query = None
    if client.conforms_to("QUERY"):
        if kind == "modis":
            h, v = int(tile[1:3]), int(tile[4:6])
            query = {"modis:horizontal-tile": {"eq": h}, "modis:vertical-tile": {"eq": v}}
        elif catalog.get("conventions") in TILE_FIELDS:
            field, values = _tile_values(catalog["conventions"], tile)
            query = {field: {"eq": values[0]} if len(values) == 1 else {"in": values}}
    search = client.search(
        collections=[catalog["collection"]],
        datetime=f"{years[0]}-01-01T00:00:00Z/{years[1]}-12-31T23:59:59Z",
        intersects=shapely.geometry.mapping(tile_area(tile, kind)),
        query=query,
        limit=int(catalog.get("page_size", PAGE_SIZE)),
    )
    seen: set[str] = set()
    for page in search.pages_as_dicts():
        new = [item for item in page["features"] if item["id"] not in seen]
        if not new:
            raise RuntimeError(f"{what}: the server repeats its pages ({len(seen)} items so far)")
        seen.update(item["id"] for item in new)
        for item in new:
            yield _with_base(item, catalog["url"])


def _patient_io(what: str, catalog: Mapping[str, Any]) -> Any:
    """pystac-client's HTTP layer, with our retries instead of urllib3's."""
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    class PatientIO(StacApiIO):
        def request(self, *arguments: Any, **options: Any) -> str:
            return retry(lambda: self.once(*arguments, **options), what)

        def once(self, *arguments: Any, **options: Any) -> str:
            headers: dict[str, str] = {}
            self.session.hooks["response"] = [lambda answer, **_: headers.update(answer.headers)]
            try:
                return super().request(*arguments, **options)
            except APIError as error:
                status = getattr(error, "status_code", None)
                message = f"HTTP {status}: {redact(error)[:200]}" if status else redact(error)[:200]
                if status is None or status in PASSING_STATUS:
                    after = {k.lower(): v for k, v in headers.items()}.get("retry-after")
                    raise TransientError(message, retry_after_s=_retry_after_s(after)) from None
                raise RuntimeError(f"{what}: {message}") from None

    return PatientIO(timeout=float(catalog.get("timeout_s", TIMEOUT_S)), max_retries=None)


def _read_geoparquet(
    catalog: Mapping[str, Any], tile: str, years: tuple[int, int], kind: str
) -> Iterator[dict[str, Any]]:
    """Read stac-geoparquet files: only the needed columns, of the rows of the tile and years."""
    paths = catalog["path"] if isinstance(catalog["path"], list) else [catalog["path"]]
    remote = [str(path) for path in paths if is_remote(str(path))]
    for path in [*catalog_files(catalog), *remote]:
        what = f"reading {file_name(path)} of catalog {catalog.get('name', '')!r}"
        yield from retry(lambda path=path: _parquet_items(path, catalog, tile, years, kind), what)


def _parquet_items(
    path: str, catalog: Mapping[str, Any], tile: str, years: tuple[int, int], kind: str
) -> list[dict[str, Any]]:
    filesystem, path_there = None, path
    if is_remote(path):
        import fsspec

        filesystem, path_there = fsspec.core.url_to_fs(sign(path, catalog.get("sign")))
    try:
        table = _scan(path_there, filesystem, catalog, tile, years, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{file_name(path)} is not a readable stac-geoparquet file ({error})") from None
    except OSError as error:
        if not is_remote(path):
            raise
        raise TransientError(redact(error)) from None
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    rows = table.drop_columns(["geometry"]).to_pylist()
    items = []
    for row, shape in zip(rows, geometry, strict=True):
        assets: dict[str, dict[str, Any]] = {}
        for column in [column for column in row if column.startswith("assets|")]:
            value = row.pop(column)
            if value is not None:
                _, key, field = column.split("|")
                assets.setdefault(key, {})[field] = value
        item = {"id": row.pop("id"), "collection": row.pop("collection", None), "geometry": shape}
        assets = {key: value for key, value in assets.items() if "href" in value}
        items.append(_with_base({**item, "assets": assets, "properties": row}, path))
    return items


def _scan(
    path: str,
    filesystem: Any,
    catalog: Mapping[str, Any],
    tile: str,
    years: tuple[int, int],
    kind: str,
) -> pa.Table:
    """Read the needed columns of the rows of a tile and some years; asset fields as ``assets|key|field``."""
    dataset = ds.dataset(path, filesystem=filesystem, format="parquet")
    schema = dataset.schema
    names = [name for name in ("id", "collection", "geometry", *_PROPERTIES) if name in schema.names]
    columns = {name: ds.field(name) for name in names}
    for key, field in _asset_fields(schema, catalog, kind):
        columns[f"assets|{key}|{field}"] = ds.field("assets", key, field)
    wanted = [*_tile_filter(schema, catalog, tile, kind), *_year_filter(schema, years)]
    if dataset.count_rows() == 0:  # its columns may have no type to compare with
        wanted = []
    condition = functools.reduce(operator.and_, wanted) if wanted else None
    return dataset.to_table(columns=columns, filter=condition)


def _asset_fields(schema: pa.Schema, catalog: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    """Asset and field names that are read: the address, and the grid where it stands there."""
    if "assets" not in schema.names:
        raise ValueError(f"catalog {catalog.get('name', '')!r}: its Parquet file has no column 'assets'")
    assets = schema.field("assets").type
    keys = [field.name for field in assets] if pa.types.is_struct(assets) else []  # without rows: no type
    fields = ("href",)
    if kind == "sentinel-2":
        wanted = set(bands.ASSET_NAMES[catalog["conventions"]].values())
        keys = [key for key in keys if key in wanted]
        fields = ("href", "proj:shape", "proj:transform")
    return [(key, field.name) for key in keys for field in assets.field(key).type if field.name in fields]


def _tile_filter(schema: pa.Schema, catalog: Mapping[str, Any], tile: str, kind: str) -> list[ds.Expression]:
    if kind == "modis":
        names = ("modis:horizontal-tile", "modis:vertical-tile")
        if all(name in schema.names for name in names):
            return [ds.field(names[0]) == int(tile[1:3]), ds.field(names[1]) == int(tile[4:6])]
        return []
    if catalog.get("conventions") not in TILE_FIELDS:
        return []
    field, values = _tile_values(catalog["conventions"], tile)
    return [ds.field(field).isin(values)] if field in schema.names else []


def _tile_values(conventions: str, tile: str) -> tuple[str, list[str]]:
    """Give the field of a tile and its spellings: zones below 10 are met with and without a zero."""
    field, form = TILE_FIELDS[conventions]
    return field, [form.format(tile=name) for name in dict.fromkeys((tile, tile.lstrip("0")))]


def _year_filter(schema: pa.Schema, years: tuple[int, int]) -> list[ds.Expression]:
    if "start_datetime" in schema.names:  # composites may have no `datetime`
        return []
    kind = schema.field("datetime").type if "datetime" in schema.names else pa.null()
    if not pa.types.is_timestamp(kind):
        return []
    edges = [pa.scalar(pd.Timestamp(f"{y}-01-01", tz=kind.tz), kind) for y in (years[0], years[1] + 1)]
    return [ds.field("datetime") >= edges[0], ds.field("datetime") < edges[1]]


def _read_static(
    catalog: Mapping[str, Any], tile: str, years: tuple[int, int], kind: str
) -> Iterator[dict[str, Any]]:
    """Walk a static catalog, an item collection, or a folder of items."""
    del tile, years, kind
    paths = catalog["path"] if isinstance(catalog["path"], list) else [catalog["path"]]
    pending = [str(path) for path in paths if is_remote(str(path))] + catalog_files(catalog)
    visited: set[str] = set()
    while pending:
        path = pending.pop()
        if path in visited:
            continue
        visited.add(path)
        content = _read_json(path, catalog)
        kind_of = content.get("type") if isinstance(content, dict) else None
        if kind_of == "Feature":
            yield _with_base(content, path)
        elif kind_of == "FeatureCollection":
            yield from (_with_base(item, path) for item in content["features"])
        elif kind_of in ("Catalog", "Collection"):
            links = [link for link in content.get("links", []) if link.get("rel") in ("item", "child")]
            pending += [resolve(link["href"], path) for link in links]
        else:
            raise ValueError(f"{file_name(path)}: not a STAC item, item collection or catalog")


def _read_json(path: str, catalog: Mapping[str, Any]) -> Any:
    what = f"reading {file_name(path)} of catalog {catalog.get('name', '')!r}"
    text = retry(lambda: _download(path), what) if is_remote(path) else Path(path).read_text()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what}: not valid JSON ({error})") from None


def _download(url: str) -> str:
    answer = requests.get(url, timeout=TIMEOUT_S)
    if answer.status_code in PASSING_STATUS:
        after = _retry_after_s(answer.headers.get("Retry-After"))
        raise TransientError(f"HTTP {answer.status_code}", retry_after_s=after)
    if not answer.ok:
        raise RuntimeError(f"{file_name(url)}: HTTP {answer.status_code}")
    return answer.text


def _with_base(item: dict[str, Any], base: str) -> dict[str, Any]:
    """Remember where an item came from: its relative addresses start there."""
    return {**item, "base": base}


_READERS: dict[str, Callable[..., Iterable[dict[str, Any]]]] = {
    "api": _read_api,
    "geoparquet": _read_geoparquet,
    "static": _read_static,
}
