"""Catalogs of scenes behind one function: STAC APIs, GeoParquet items and static catalogs."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import requests
import shapely

from workflow_scripts.core import bands, item_files, network
from workflow_scripts.core.items import KINDS, moment_of, resolve, tile_area
from workflow_scripts.core.ranges import Ranges

logger = logging.getLogger(__name__)

PAGE_SIZE = 100
"""Items per page; Earth Search answers 502 at 250 (pystac-client issue 659)."""
REQUEST_EVERY_S = 0.5
"""Least time between two requests of a search. How many search at once is the rules' resource `searches`."""


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
    is_of_tile, _, finish = KINDS[kind]
    n_items = 0

    def is_wanted(item: Mapping[str, Any]) -> bool:
        nonlocal n_items
        n_items += 1
        return is_of_tile(item, tile)

    items = _READERS[catalog["type"]](options, tile, (first, last), kind)
    rows = item_rows(items, options, years=(first, last), kind=kind, is_wanted=is_wanted)
    found = {row["item_id"]: row for row in rows}
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


def item_rows(
    items: Iterable[Mapping[str, Any]],
    catalog: Mapping[str, Any],
    *,
    years: tuple[int, int],
    kind: str,
    is_wanted: Callable[[Mapping[str, Any]], bool],
) -> Iterator[dict[str, Any]]:
    """Turn items of a collection and some years into rows of their table.

    Parameters
    ----------
    items : STAC items, and where each came from as `base`
    catalog : entry of `catalogs`, and its `name`
    years : first and last year
    kind : key of `KINDS`
    is_wanted : asked about every item of the collection and years
    """
    make_row = KINDS[kind][1]
    wanted = catalog.get("collection")
    for item in items:
        moment = moment_of(item["properties"])
        if pd.isna(moment) or not years[0] <= moment.year <= years[1]:
            continue
        if wanted not in (None, item.get("collection") or wanted) or not is_wanted(item):
            continue
        row = make_row(item, catalog, moment)
        yield row if row.get("epsg", -1) else {**row, **_grid_of_file(row, catalog)}


def _must_hold_items(catalog: Mapping[str, Any]) -> bool:
    """Whether finding nothing means a fault, as the reader went through the whole catalog.

    A GeoParquet catalog is asked for the rows of the tile only; it is at fault if it has no rows.
    """
    if catalog["type"] != "geoparquet" or catalog.get("conventions") not in item_files.TILE_FIELDS:
        return catalog["type"] != "api"
    files = item_files.catalog_files(catalog)
    return bool(files) and all(item_files.n_rows(path) == 0 for path in files)


def _grid_of_file(row: Mapping[str, Any], catalog: Mapping[str, Any]) -> dict[str, Any]:
    """Read CRS and extent from a file, for items that tell nothing about their grid."""
    href = json.loads(row["hrefs"]).get("B02")
    if href is None:
        return {}

    def look() -> dict[str, Any]:
        with network.open_href(href, access=network.Access.of(catalog)) as file:
            box = file.bounds
            epsg = file.crs.to_epsg() if file.crs else None
            size = {"width_m": box.right - box.left, "height_m": box.top - box.bottom}
            return {"epsg": int(epsg or 0), "origin_x": box.left, "origin_y": box.top, **size}

    return network.retry(look, f"reading the grid of {network.file_name(href)}")


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
        elif catalog.get("conventions") in item_files.TILE_FIELDS:
            field, values = item_files.tile_values(catalog["conventions"], [tile])
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
    """pystac-client's HTTP layer, with our retries instead of urllib3's, and never faster than `REQUEST_EVERY_S`."""
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    class PatientIO(StacApiIO):
        next_s = 0.0

        def request(self, *arguments: Any, **options: Any) -> str:
            return network.retry(lambda: self.once(*arguments, **options), what)

        def once(self, *arguments: Any, **options: Any) -> str:
            time.sleep(max(0.0, self.next_s - time.monotonic()))
            self.next_s = time.monotonic() + REQUEST_EVERY_S
            headers: dict[str, str] = {}
            self.session.hooks["response"] = [lambda answer, **_: headers.update(answer.headers)]
            try:
                return super().request(*arguments, **options)
            except APIError as error:
                status = getattr(error, "status_code", None)
                message = (
                    f"HTTP {status}: {network.redact(error)[:200]}" if status else network.redact(error)[:200]
                )
                if status is None or status in network.PASSING_STATUS:
                    after = {k.lower(): v for k, v in headers.items()}.get("retry-after")
                    raise network.TransientError(
                        message, retry_after_s=network.retry_after_s(after)
                    ) from None
                raise RuntimeError(f"{what}: {message}") from None

    return PatientIO(timeout=float(catalog.get("timeout_s", network.TIMEOUT_S)), max_retries=None)


def _read_geoparquet(
    catalog: Mapping[str, Any], tile: str, years: tuple[int, int], kind: str
) -> Iterator[dict[str, Any]]:
    """Read stac-geoparquet files: only the needed columns, of the rows of the tile and years."""
    ranges = Ranges(access=network.Access.of(catalog))
    for path in item_files.parquet_files(catalog, ranges):
        yield from item_files.read_parquet(path, catalog, tiles=[tile], years=years, kind=kind, ranges=ranges)


def _read_static(
    catalog: Mapping[str, Any], tile: str, years: tuple[int, int], kind: str
) -> Iterator[dict[str, Any]]:
    """Walk a static catalog, an item collection, or a folder of items."""
    del tile, years, kind
    paths = catalog["path"] if isinstance(catalog["path"], list) else [catalog["path"]]
    pending = [str(path) for path in paths if network.is_remote(str(path))] + item_files.catalog_files(
        catalog
    )
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
            raise ValueError(f"{network.file_name(path)}: not a STAC item, item collection or catalog")


def _read_json(path: str, catalog: Mapping[str, Any]) -> Any:
    what = f"reading {network.file_name(path)} of catalog {catalog.get('name', '')!r}"
    text = network.retry(lambda: _download(path), what) if network.is_remote(path) else Path(path).read_text()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what}: not valid JSON ({error})") from None


def _download(url: str) -> str:
    answer = requests.get(url, timeout=network.TIMEOUT_S)
    if answer.status_code in network.PASSING_STATUS:
        after = network.retry_after_s(answer.headers.get("Retry-After"))
        raise network.TransientError(f"HTTP {answer.status_code}", retry_after_s=after)
    if not answer.ok:
        raise RuntimeError(f"{network.file_name(url)}: HTTP {answer.status_code}")
    return answer.text


def _with_base(item: dict[str, Any], base: str) -> dict[str, Any]:
    """Remember where an item came from: its relative addresses start there."""
    return {**item, "base": base}


_READERS: dict[str, Callable[..., Iterable[dict[str, Any]]]] = {
    "api": _read_api,
    "geoparquet": _read_geoparquet,
    "static": _read_static,
}
