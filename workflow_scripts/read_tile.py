"""Read the vegetation index at the locations on one tile of the MODIS sinusoidal grid.

Reads
-----
locations.parquet : locations; those on the tile are taken
vegetation-index catalog : items of MOD13 (Terra) or MYD13 (Aqua) composites, 500 m or 250 m

Writes
------
greenness/{tile}.parquet : one row per location and composite: day of observation, index (-0.2 to
1, NaN missing), pixel reliability (0 good, 1 marginal, 2 snow or ice, 3 cloud, -1 none)

The day is that of the chosen observation (layer composite_day_of_the_year), not the composite's
first day: that would make every date 7 to 10 days early. Each block of a file is read once.

References
----------
Didan et al., MOD13 collection 6.1 user guide (scale 1e-4, valid ranges, reliability classes);
Huete et al. 2002, doi:10.1016/S0034-4257(02)00096-2 (EVI); Jiang et al. 2008,
doi:10.1016/j.rse.2008.06.006 (EVI2).
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import rasterio

from workflow_scripts.core import grid, network, stac
from workflow_scripts.core.stage import progress, run_stage
from workflow_scripts.core.tables import read_table, write_table
from workflow_scripts.phenology.rasters import sample_raster

logger = logging.getLogger(__name__)

SCALE = 1e-4
"""Of index and reflectance in MOD13 (user guide)."""
VALID_INDEX = (-0.2, 1.0)
COMPOSITE_DAYS = 16
RELIABILITY, DAY = "pixel_reliability", "composite_day_of_the_year"


def _evi2(red: np.ndarray, nir: np.ndarray) -> np.ndarray:
    """Two-band EVI of reflectances (Jiang et al. 2008)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2.5 * (nir - red) / (nir + 2.4 * red + 1)


INDICES: Mapping[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    "evi": (("EVI",), lambda evi: evi),
    "ndvi": (("NDVI",), lambda ndvi: ndvi),
    "evi2": (("red_reflectance", "NIR_reflectance"), _evi2),
}
"""Layers of MOD13 each index is made of, and how."""


def select_items(items: pd.DataFrame, platforms: Sequence[str]) -> pd.DataFrame:
    """Keep the newest production of each composite of the wanted satellites.

    Parameters
    ----------
    items : one row per item: `item_id`, `datetime` (first day of the composite), `platform`,
        `produced` (production stamp; later ones sort last)
    platforms : ``"terra"``, ``"aqua"``

    Returns
    -------
    the rows kept, sorted by time
    """
    prefix = items["item_id"].str[:3].map({"MOD": "terra", "MYD": "aqua"})
    named = items["platform"].str.lower().replace("", np.nan)
    items = items.assign(platform=named.fillna(prefix).fillna(""))
    items = items[items["platform"].isin([name.lower() for name in platforms])]
    items = items.sort_values(["datetime", "platform", "produced", "item_id"])
    day = items["datetime"].dt.normalize()
    newest = ~pd.DataFrame({"day": day, "platform": items["platform"]}).duplicated(keep="last")
    return items[newest].reset_index(drop=True)


def missing_composites(items: pd.DataFrame, years: Sequence[int], platforms: Sequence[str]) -> dict[str, int]:
    """Count how many of the 23 composites of each year and satellite have no item."""
    counts = items.groupby([items["platform"], items["datetime"].dt.year]).size()
    expected = [(p.lower(), year) for p in platforms for year in range(years[0], years[-1] + 1)]
    missing = {key: grid.MODIS_COMPOSITES_PER_YEAR - int(counts.get(key, 0)) for key in expected}
    return {f"{platform} {year}": n for (platform, year), n in missing.items() if n > 0}


def observation_days(composite: np.datetime64, day_of_year: np.ndarray) -> np.ndarray:
    """Turn a composite's days of the year into dates.

    A composite that begins in December reaches into the next year: there a day of the year before
    its first one belongs to the next year.

    Parameters
    ----------
    composite : first day of the composite
    day_of_year : 1 to 366; anything else is missing

    Returns
    -------
    datetime64[D]; NaT where missing or outside the composite's 16 days
    """
    start = np.datetime64(composite, "D")
    january = start.astype("datetime64[Y]").astype("datetime64[D]")
    next_january = (start.astype("datetime64[Y]") + 1).astype("datetime64[D]")
    day = np.asarray(day_of_year, np.int64)
    date = january + (day - 1)
    date = np.where(date < start, next_january + (day - 1), date)
    inside = (day >= 1) & (day <= 366) & (date < start + COMPOSITE_DAYS)
    return np.where(inside, date, np.datetime64("NaT", "D"))


def sinusoidal(lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project degrees to the sphere of the MODIS sinusoidal grid, meters."""
    phi = np.radians(np.asarray(lat, float))
    x = grid.MODIS_RADIUS_M * np.radians(np.asarray(lon, float)) * np.cos(phi)
    return x, grid.MODIS_RADIUS_M * phi


def _read_layer(
    hrefs: Mapping[str, str],
    layer: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    item_id: str,
    access: network.Access,
) -> np.ndarray:
    """Sample one layer of an item, trying again after failures that pass."""
    keys = [key for key in hrefs if key.endswith(f"16_days_{layer}") or key == layer]
    if not keys:
        raise ValueError(
            f"item {item_id!r} has no asset '…16_days_{layer}'; it has {sorted(hrefs)}. "
            "Check greenness.collection and greenness.index."
        )
    href = hrefs[keys[0]]

    def read() -> np.ndarray:
        with network.open_href(href, access=access) as raster:
            try:
                return sample_raster(raster, x, y)
            except rasterio.errors.RasterioError as error:
                raise network.read_failure(href, error) from None

    return network.retry(read, f"reading {layer} of item {item_id!r}")


def read_composite(
    item: Mapping[str, Any],
    x: np.ndarray,
    y: np.ndarray,
    *,
    index: str,
    access: network.Access = network.OPEN,
) -> pd.DataFrame:
    """Read one composite at points.

    Parameters
    ----------
    item : `item_id`, `datetime` and `hrefs` (JSON, asset key → href)
    x, y : meters of the sinusoidal grid
    index : key of `INDICES`
    access : how the catalog's files are reached

    Returns
    -------
    DataFrame, one row per point: `date`, `index`, `reliability`, `composite`, as in table
    `greenness`; NaT and NaN where the product has no value
    """
    hrefs = json.loads(item["hrefs"])
    layers, combine = INDICES[index]
    read = {
        layer: _read_layer(hrefs, layer, x, y, item_id=item["item_id"], access=access)
        for layer in (*layers, RELIABILITY, DAY)
    }
    values = combine(*(read[layer] * SCALE for layer in layers))
    reliability, day = read[RELIABILITY], read[DAY]
    date = observation_days(item["datetime"].to_datetime64(), np.nan_to_num(day, nan=-1))
    # half a unit of the scale: 1e-4 times an integer is not exact
    valid = (values >= VALID_INDEX[0] - SCALE / 2) & (values <= VALID_INDEX[1] + SCALE / 2)
    valid &= ~np.isnat(date)
    for layer in layers:
        valid &= read[layer] >= (-2000 if layer in ("EVI", "NDVI") else 0)
    known = np.isin(reliability, (0, 1, 2, 3))
    return pd.DataFrame(
        {
            "date": np.where(valid, date, np.datetime64("NaT", "D")).astype("datetime64[ns]"),
            "index": np.where(valid, values, np.nan).astype(np.float32),
            "reliability": np.where(known, reliability, -1).astype(np.int8),
            "composite": item["datetime"].normalize(),
        }
    )


def read_points(
    items: pd.DataFrame,
    locations: pd.DataFrame,
    *,
    index: str,
    access: network.Access = network.OPEN,
    threads: int = 1,
) -> pd.DataFrame:
    """Read all composites at all locations of a tile.

    Parameters
    ----------
    items : from `select_items`
    locations : `location_id`, `lon`, `lat`
    index : key of `INDICES`
    access : how the catalog's files are reached
    threads : composites read at a time

    Returns
    -------
    DataFrame in the layout of table `greenness`, sorted by location (in the given order) and date
    """
    x, y = sinusoidal(locations["lon"].to_numpy(), locations["lat"].to_numpy())
    ids = locations["location_id"].to_numpy()
    with ThreadPoolExecutor(max(1, int(threads))) as pool:
        reading = pool.map(
            lambda item: read_composite(item, x, y, index=index, access=access), items.to_dict("records")
        )
        parts = list(progress(reading, len(items), what="composites"))
    columns = ["date", "index", "reliability", "composite"]
    if not parts:
        empty = {"location_id": [], "index": [], "reliability": []}
        times = {"date": pd.to_datetime([]), "composite": pd.to_datetime([])}
        return pd.DataFrame(empty | times)[["location_id", *columns]]
    series = pd.concat(parts, ignore_index=True)
    series.insert(0, "location_id", np.tile(ids, len(parts)))
    order = np.argsort(np.tile(np.arange(ids.size), len(parts)), kind="stable")
    return series.iloc[order].reset_index(drop=True)


def main(job: Any) -> None:
    """Read one tile of one dataset."""
    tile, settings = job.wildcards.tile, job.params.settings
    catalog, platforms = job.params.catalog, settings.get("platforms", ["terra"])
    locations = read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    on_tile = grid.modis_tile(locations["lon"].to_numpy(), locations["lat"].to_numpy()) == tile
    locations = locations[on_tile]
    years = settings["years"]
    found = stac.search_items(
        catalog, tile=tile, years=tuple(years), kind="modis", collection=settings["collection"]
    )
    items = select_items(found, platforms)
    missing = missing_composites(items, years, platforms)
    if missing:
        logger.warning(
            "tile %s: %d of %d composites are not in catalog %r (%s)",
            tile,
            sum(missing.values()),
            grid.MODIS_COMPOSITES_PER_YEAR * len(platforms) * (years[-1] - years[0] + 1),
            catalog.get("name", ""),
            ", ".join(f"{year}: {n} missing" for year, n in missing.items()),
        )
    series = read_points(
        items, locations, index=settings["index"], access=network.Access.of(catalog), threads=job.threads
    )
    logger.info(
        "tile %s: %d locations, %d items (%d before taking the newest production of %s), "
        "%.1f %% of the values missing",
        tile,
        len(locations),
        len(items),
        len(found),
        "/".join(platforms),
        100 * series["index"].isna().mean() if len(series) else 100.0,
    )
    write_table(series, job.output.greenness, "greenness")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
