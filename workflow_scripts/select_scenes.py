"""Rank, for each location and season of a shard, the scenes its patch may be taken from.

Reads : locations.parquet; seasons.parquet; items/{tile}.parquet of the tiles the shard touches, or
        items.parquet of all tiles, of which the rows of these tiles are read.
Writes: scenes/{shard}.parquet, table `scenes`: the first candidates in order (rank 0, 1, …), and
        rows of rank -1 that count the other scenes of the window by the reason they were left out.

A scene is a candidate if its day lies in the window, its radiometric offset is decided, it is the
newest processing of its data take, its footprint and files hold the whole patch, and cloud cover,
no-data share and sun zenith are within the limits. Where a season has none, scenes that fail by
cloud cover alone are admitted ("second_pass"), and so they fill up a short list: their patch may be clear. The first season-wise
choice follows SSL4Eco (section A-1: the clearest scene of the window); ties go to the fewest days
from the target day, then to the item id. All seasons of a location are taken from one UTM zone where
candidates allow, so that their pixels coincide.

With `scenes.source: index` nothing is chosen: a published table names the scene of each location and
season by its Earth Engine id, and the item of that scene is the candidate; ids that no item answers
to are listed. With `scenes.failover` the same product of a second catalog follows each candidate, to be
read if the first catalog fails.
"""

import logging
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from workflow_scripts.core import grid, tables
from workflow_scripts.core.items import sentinel2_frame
from workflow_scripts.core.stage import run_stage
from workflow_scripts.selection import published
from workflow_scripts.selection.accounts import KEPT, count, in_order, with_facts, without_facts
from workflow_scripts.selection.matching import (
    holds_patch,
    newest_processing,
    pair_with_items,
    same_products,
)
from workflow_scripts.selection.ranking import rank_candidates
from workflow_scripts.selection.windows import days_from_target, scenes_in_windows

logger = logging.getLogger(__name__)


def rejection_reasons(rows: pd.DataFrame, items: pd.DataFrame, settings: Mapping[str, Any]) -> np.ndarray:
    """Give the first reason why a scene is no candidate; "" for a candidate."""

    def above(column: str, limit: float) -> np.ndarray:
        return items[column].to_numpy(float)[rows["item"]] > limit

    tests = {
        "offset_undecided": items["dn_offset"].to_numpy()[rows["item"]] < 0,
        "duplicate": ~newest_processing(items)[rows["item"]],
        "footprint": ~rows["holds_patch"].to_numpy(bool),
        "nodata": above("nodata", settings.get("max_nodata", 100)),
        "sun_zenith": above("sun_zenith", settings["max_sun_zenith"]),
        "cloud_cover": above("cloud_cover", settings["max_cloud_cover"]),
    }
    return np.select(list(tests.values()), list(tests), "")


def second_pass(rows: pd.DataFrame, items: pd.DataFrame, n: int) -> pd.DataFrame:
    """Tell which scenes are admitted because their season has fewer than `n` candidates within the cloud limit.

    The patches of those few may all be cloudy. Only scenes whose patch can be screened by a scene
    classification.

    Returns
    -------
    DataFrame of bool, `is_second_pass`, and `is_filler` where the season has a candidate of its own
    """
    n_own = (rows["reason"] == "").groupby([rows["location"], rows["season"]]).transform("sum")
    can_be_screened = items["hrefs"].str.contains('"SCL"', regex=False).to_numpy()[rows["item"]]
    admitted = (n_own < n) & (rows["reason"] == "cloud_cover") & can_be_screened
    return pd.DataFrame({"is_second_pass": admitted, "is_filler": admitted & (n_own > 0)})


def select(
    locations: pd.DataFrame,
    windows: pd.DataFrame,
    items: gpd.GeoDataFrame,
    *,
    settings: Mapping[str, Any],
    size_m: int,
    index: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Choose the candidates of each location and season and count the rest.

    Parameters
    ----------
    locations : `location_id`, `location`, `lon`, `lat`
    windows : table `seasons` of these locations
    items : table `items`, unique by `catalog` and `item_id`
    settings : options `scenes` of the dataset
    size_m : side of a patch
    index : `location_id`, `season`, `image_id`: take these scenes over instead of choosing

    Returns
    -------
    DataFrame, table `scenes`: at least one row per location and season; where nothing was found a
    count of 0 with reason "no_window" (the season has no window) or "no_scene" (none lies in it).
    The product of a candidate in the catalog of `failover` follows it with the same rank.
    """
    numbered = locations.set_index("location_id")["location"]
    windows = windows.assign(location=windows["location_id"].map(numbered))
    is_other = (items["catalog"] == settings.get("failover")).to_numpy(bool)
    others, items = (items[which].reset_index(drop=True) for which in (is_other, ~is_other))
    if index is None:
        kept, counts = choose(locations, windows, items, settings=settings, size_m=size_m)
    else:
        wanted = index.assign(location=index["location_id"].map(numbered)).dropna(subset="location")
        kept, counts = take_over(
            wanted.astype({"location": int}), windows, items, locations=locations, size_m=size_m
        )
    twins = same_products(kept, items, others, locations, size_m).assign(reason="failover")
    parts = [with_facts(kept, items), with_facts(twins, others), counts]
    # as objects: pandas warns about columns that are all missing in one part
    result = pd.concat([part.astype(object) for part in parts if len(part)], ignore_index=True)
    result["location_id"] = result["location"].map(locations.set_index("location")["location_id"])
    return in_order(result, windows)


def choose(
    locations: pd.DataFrame,
    windows: pd.DataFrame,
    items: gpd.GeoDataFrame,
    *,
    settings: Mapping[str, Any],
    size_m: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose candidates within the windows; give them, and counts of the rest."""
    has_window = windows["start_doy"].notna() | windows["start_date"].notna()
    pairs = pair_with_items(locations, items, size_m)
    pairs["holds_patch"] = holds_patch(pairs, locations, items, size_m)
    rows = scenes_in_windows(pairs, windows[has_window], items)
    rows["reason"] = rejection_reasons(rows, items, settings)
    n_admitting = settings["candidates"] if settings["second_pass"] else 0
    rows = rows.join(second_pass(rows, items, n_admitting))
    rows.loc[rows["is_second_pass"], "reason"] = ""
    passed = rows["reason"] == ""
    ranked = rank_candidates(rows[passed], items, locations, settings=settings)
    is_kept = (ranked["rank"] >= 0) & (ranked["rank"] < settings["candidates"])
    left_out = ranked[~is_kept]
    is_view, is_filler = left_out["rank"] < 0, left_out["is_filler"]
    left_out = left_out.assign(
        reason=np.select([is_view, is_filler], ["duplicate", "cloud_cover"], "not_in_top")
    )
    silence = windows[["location", "season"]].assign(reason=np.where(has_window, "no_scene", "no_window"))
    counts = count(pd.concat([rows[~passed], left_out]), silence, ranked)
    kept = ranked[is_kept].assign(n=1)
    kept["reason"] = np.where(kept["is_second_pass"], "second_pass", "candidate")
    return kept[KEPT].reset_index(drop=True), counts


def take_over(
    wanted: pd.DataFrame,
    windows: pd.DataFrame,
    items: gpd.GeoDataFrame,
    *,
    locations: pd.DataFrame,
    size_m: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take the scenes that a published index names; give them, and counts of what is missing.

    A scene whose offset is undecided, or which does not hold the whole patch, is none. An id that no
    item answers to stands among the counts as `item_id`, with the reason "unresolved".

    Parameters
    ----------
    wanted : `location`, `season`, `image_id`
    windows : table `seasons` with `location`: which seasons there are, and their targets
    items, locations, size_m : as in `select`
    """
    key = ["location", "season"]
    wanted = wanted[[*key, "image_id"]].merge(windows[key], on=key)
    rows = published.resolve(wanted, items)
    rows["holds_patch"] = holds_patch(rows, locations, items, size_m)
    tests = {
        "offset_undecided": items["dn_offset"].to_numpy()[rows["item"]] < 0,
        "footprint": ~rows["holds_patch"].to_numpy(bool),
    }
    rows["reason"] = np.select(list(tests.values()), list(tests), "")
    passed = rows["reason"] == ""
    kept = rows[passed].sort_values([*key, "order"], ignore_index=True)
    kept["rank"] = kept.groupby(key).cumcount()
    targets = kept[key].merge(windows, on=key, how="left")
    day = items["datetime"].dt.normalize().to_numpy()[kept["item"]]
    kept["days_from_target"] = np.nan_to_num(days_from_target(targets, day))
    unknown = wanted.merge(rows[key].drop_duplicates(), on=key, how="left", indicator=True)
    unknown = unknown[unknown["_merge"] == "left_only"].rename(columns={"image_id": "item_id"})
    unknown = without_facts(unknown[[*key, "item_id"]].assign(reason="unresolved", n=1))
    silence = windows[key].assign(reason="no_image")
    counts = count(rows[~passed], silence, pd.concat([kept[key], unknown[key]]))
    counts = pd.concat([part for part in (counts, unknown) if len(part)] or [counts], ignore_index=True)
    return kept.assign(n=1, reason="candidate")[KEPT], counts


def read_items(paths: Sequence[str], tiles: Sequence[str]) -> gpd.GeoDataFrame:
    """Read the items of some tiles, and those that tell no tile; one found twice stands once."""
    wanted = [("mgrs_tile", "in", [*tiles, ""])]
    parts = [tables.read_table(path, "items", filters=wanted) for path in paths]
    items = pd.concat([part for part in parts if len(part)] or [sentinel2_frame([])], ignore_index=True)
    return items.drop_duplicates(["catalog", "item_id"]).sort_values(
        ["item_id", "catalog"], ignore_index=True
    )


def main(job: SimpleNamespace) -> None:
    """Select scenes for one shard; see the module's docstring."""
    shard = int(job.wildcards.shard)
    locations = tables.read_table(job.input.locations, "locations", ["location_id", "lon", "lat", "shard"])
    locations = locations.assign(location=np.arange(len(locations)))
    locations = locations[locations["shard"] == shard].reset_index(drop=True)
    ours = [("location_id", "in", list(locations["location_id"]))]
    windows = tables.read_table(job.input.seasons, "seasons", filters=ours)
    tiles = {
        t for held in grid.mgrs_tiles(locations["lon"], locations["lat"], job.params.size_m) for t in held
    }
    items = read_items(list(job.input.found), sorted(tiles))
    settings = job.params.settings
    if items.empty:
        logger.warning(
            "shard %d: catalog %r has no scene on any of its %d tiles in %s to %s. Check catalogs, "
            "scenes.catalog and scenes.years in config.yaml if that is not expected.",
            shard,
            settings["catalog"],
            len(tiles),
            *settings["years"],
        )
    index = None
    if settings["source"] == "index":
        index = published.read_index(job.input.index[0], job.params.seasons)
    result = select(locations, windows, items, settings=settings, size_m=job.params.size_m, index=index)
    tables.write_table(result, job.output.scenes, "scenes")
    first = result[result["rank"] == 0]
    logger.info(
        "shard %d: %d locations, %d scenes; %d of %d location-seasons have a candidate, %d by second pass",
        shard,
        len(locations),
        len(items),
        len(first),
        len(windows),
        (first["reason"] == "second_pass").sum(),
    )
    for row in result[result["reason"] == "unresolved"].itertuples():
        logger.warning("%s, %s: no item of the catalog is image %s", row.location_id, row.season, row.item_id)
    left_out = result[result["rank"] < 0].groupby("reason")["n"].sum()
    logger.info("left out: %s", ", ".join(f"{reason} {n}" for reason, n in left_out.items()) or "none")


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
