"""Check a patch store against its index, and a sample of it against the scenes.

Reads : patches.zarr; patches.parquet; locations.parquet.
Writes: verification.json: what was checked, counts, and every problem found.

Checked per patch: its pixels against their checksum, its facts in the store against the index, its
place (center within 10 m per axis of the location, on the 20 m lines, covered by the 60 m window),
its share of clouds and holes counted again, the level of its water or vegetation against the offset
that was removed; per dataset: objects, ids, duplicates, rows. Only reading
again from the scenes notices a valid block from a wrong place:

    python -m workflow_scripts.verify_store results/datasets/demo/patches.zarr --reread 0.01
"""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import bands, grid, network, store, tables
from workflow_scripts.core.objects import has_object, open_folder, parent
from workflow_scripts.core.patches import (
    PARTS,
    READERS,
    Failure,
    Place,
    Wish,
    cloud_fraction,
    fetch,
    scl_fractions,
    valid_fraction,
)
from workflow_scripts.core.stage import LOG_FORMAT, progress, run_stage, write_json

logger = logging.getLogger(__name__)

MAX_LISTED = 100
"""Problems of one kind that are listed; all are counted."""
FRACTION_TOLERANCE = 1e-5
"""Fractions are stored as float32."""

_FACTS = ("epsg", "origin_x", "origin_y", "cloud_fraction", "valid_fraction", "dn_offset", "sun_zenith")


def check_shard(path: str | os.PathLike, shard: int, index: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Check all patches of one shard.

    Parameters
    ----------
    path : the store's folder
    shard : number of the shard
    index : rows of table `patches`, those of this shard

    Yields
    ------
    kind of problem and what it is about
    """
    first, last = store.shard_range(path, shard)
    labels = store.layout(path)["seasons"]
    facts = store.layout(path)
    size_m = facts["size_m"] if store.is_own(facts) else None
    arrays, readable = store.read_shard(path, shard)
    for name, object_path in zip(arrays, store.shard_objects(shard, arrays), strict=True):
        if not readable[name]:
            state = "damaged" if has_object(open_folder(path), object_path) else "absent"
            yield "object", f"{object_path} is {state}"
    ids = dict(zip(index["location"], index["location_id"], strict=True))
    yield from _check_locations(arrays, [ids.get(i, str(i)) for i in range(first, last)])
    if len(index) != (last - first) * len(labels):
        yield "rows", f"shard {shard}: {len(index)} rows, expected {(last - first) * len(labels)}"
    for row in index.to_dict("records"):
        if row["season"] not in labels or not first <= row["location"] < last:
            yield "rows", f"{row['location_id']}, {row['season']} is not in the store"
            continue
        here = row["location"] - first, labels.index(row["season"])
        patch = {name: values[here] for name, values in arrays.items() if name not in store.PER_LOCATION}
        for kind, what in _check_patch(patch, row, size_m):
            yield kind, f"{row['location_id']}, {row['season']}: {what}"


def _check_patch(
    patch: Mapping[str, np.ndarray], row: Mapping[str, Any], size_m: int | None
) -> Iterator[tuple[str, str]]:
    """Check one patch; `size_m` is None for an imported one, whose place is the archive's own."""
    parts = [part for part in PARTS if part in patch]
    if row["status"] != "ok":
        if any(patch[part].any() for part in parts) or patch["epsg"] != 0:
            yield "missing", f"has no patch ({row['reason']}), but pixels in the store"
        return
    checksum = store.patch_checksum(*(patch[part] for part in parts))
    if checksum != row["checksum"]:
        yield "checksum", f"{checksum}, expected {row['checksum']}"
    for name in _FACTS:
        if not np.isclose(patch[name], row[name], rtol=0, atol=FRACTION_TOLERANCE, equal_nan=True):
            yield "facts", f"{name} is {patch[name]} in the store, {row[name]} in the index"
    moment = pd.Timestamp(row["datetime"])
    seconds = store.MISSING_TIME if pd.isna(moment) else int(moment.timestamp())
    if patch["datetime"] != seconds:
        yield "facts", f"datetime is {patch['datetime']} s in the store, {seconds} s in the index"
    if size_m is None:
        return
    yield from _check_place(patch, row, size_m)
    place = Place(int(row["epsg"]), row["origin_x"], row["origin_y"], size_m)
    has_scl = not np.isnan(row["cloud_fraction"])
    origin60 = float(patch["origin60_x"]), float(patch["origin60_y"])
    if _covers(origin60, row, size_m):
        valid = valid_fraction(patch, place, origin60, has_scl=has_scl)
        if abs(valid - row["valid_fraction"]) > FRACTION_TOLERANCE:
            yield "no_data", f"valid share counted {valid:.5f}, recorded {row['valid_fraction']:.5f}"
    if has_scl and abs(cloud_fraction(patch["scl"]) - row["cloud_fraction"]) > FRACTION_TOLERANCE:
        yield "cloud", f"counted {cloud_fraction(patch['scl']):.5f}, recorded {row['cloud_fraction']:.5f}"

    yield from _check_classes(patch, has_scl=has_scl)
    levels = patch["dn10"], patch["dn20"], patch["scl"]
    doubt = bands.offset_doubt(*levels, int(row["dn_offset"])) if has_scl else ""
    if doubt:
        yield "radiometry", f"item {row['item_id']}, by {row['offset_source']}: {doubt}"


def _check_classes(patch: Mapping[str, np.ndarray], *, has_scl: bool) -> Iterator[tuple[str, str]]:
    """Count the scene classes again."""
    counted = scl_fractions(patch["scl"]) if has_scl else np.full(len(bands.SCL_CLASSES), np.nan)
    recorded = patch["scl_fraction"]
    if not np.allclose(counted, recorded, rtol=0, atol=FRACTION_TOLERANCE, equal_nan=True):
        yield "cloud", f"shares of the scene classes are {counted.round(4)}, recorded {recorded.round(4)}"


def _check_locations(arrays: Mapping[str, np.ndarray], ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Work out again what the store says of whole locations."""
    expected = {
        "aligned": store.aligned(arrays["epsg"], arrays["origin_x"], arrays["origin_y"]),
        "span_days": store.span_days(arrays["datetime"]),
    }
    for name, values in expected.items():
        same = np.isclose(arrays[name], values, rtol=0, atol=1e-3, equal_nan=True)
        for row in np.flatnonzero(~same):
            yield "facts", f"{ids[row]}: {name} is {arrays[name][row]}, expected {values[row]}"


def _check_place(
    patch: Mapping[str, np.ndarray], row: Mapping[str, Any], size_m: int
) -> Iterator[tuple[str, str]]:
    x, y = grid.project(row["lon"], row["lat"], int(row["epsg"]))
    off_x = row["origin_x"] + size_m / 2 - x
    off_y = row["origin_y"] - size_m / 2 - y
    if max(abs(off_x), abs(off_y)) > grid.ORIGIN_STEP_M / 2 + 1e-3:
        yield "place", f"center lies {off_x:.1f}, {off_y:.1f} m off the location"
    if row["origin_x"] % grid.ORIGIN_STEP_M or row["origin_y"] % grid.ORIGIN_STEP_M:
        yield "place", f"origin {row['origin_x']}, {row['origin_y']} is not on a 20 m line"
    origin60 = float(patch["origin60_x"]), float(patch["origin60_y"])
    if not _covers(origin60, row, size_m):
        yield "place", f"the 60 m window that begins at {origin60} does not cover the patch"


def _covers(origin60: tuple[float, float], row: Mapping[str, Any], size_m: int) -> bool:
    """Tell whether the 60 m window covers the patch."""
    reach = grid.n_pixels(size_m, 60) * 60 - size_m
    return 0 <= row["origin_x"] - origin60[0] <= reach and 0 <= origin60[1] - row["origin_y"] <= reach


def check_dataset(
    path: str | os.PathLike, index: pd.DataFrame, locations: pd.DataFrame
) -> Iterator[tuple[str, str]]:
    """Check ids, positions and duplicates over the whole dataset."""
    ids = store.open_store(path)["location_id"].values.astype(object)
    if list(ids) != list(locations["location_id"]):
        yield "ids", "location ids of the store and of locations.parquet differ"
    known = dict(zip(locations["location_id"], range(len(locations)), strict=True))
    for row in index.drop_duplicates("location_id").itertuples():
        if known.get(row.location_id) != row.location:
            yield "ids", f"{row.location_id} stands at {row.location}, expected {known.get(row.location_id)}"
    for row in index[index.duplicated(["location_id", "season"])].itertuples():
        yield "duplicates", f"{row.location_id}, {row.season} stands twice in the index"
    there = index[index["status"] == "ok"]
    views = there.drop_duplicates(["location_id", "item_id"])
    for row in views[views.duplicated("checksum")].itertuples():
        kind = "same_pixels" if row.catalog == "import" else "duplicates"
        yield kind, f"{row.location_id}, {row.season} has the pixels of another patch"
    for row in there[there.duplicated(["location_id", "item_id"])].itertuples():
        yield "same_scene", f"{row.location_id}: {row.item_id} serves two seasons"


REMARKS = ("same_scene", "radiometry", "same_pixels")
"""Findings that are no fault of the store: overlapping windows may share a scene, a catalog may be wrong,
a published archive may hold an image twice."""


def verify(
    path: str | os.PathLike, index: pd.DataFrame, locations: pd.DataFrame, *, threads: int = 1
) -> dict[str, Any]:
    """Verify a store.

    Parameters
    ----------
    path : the store's folder
    index : table `patches`
    locations : `location_id`, `lon`, `lat`
    threads : shards checked at once, each takes a shard's memory

    Returns
    -------
    JSON-like report; `is_good` tells whether there is no problem
    """
    facts = store.layout(path)
    shards = range(-(-facts["n_locations"] // facts["per_shard"]))
    of_shard = dict(list(index.groupby(index["location"] // facts["per_shard"])))
    empty = index.iloc[:0]

    def look(shard: int) -> list[tuple[str, str]]:
        return list(check_shard(path, shard, of_shard.get(shard, empty)))

    findings = list(check_dataset(path, index, locations))
    with ThreadPoolExecutor(threads) as pool:
        for found in progress(pool.map(look, shards), len(shards), what="shards"):
            findings += found
    return report(findings, index, facts, n_objects=len(shards) * len(store.array_names(facts["arrays"])))


def report(
    findings: list[tuple[str, str]], index: pd.DataFrame, facts: Mapping[str, Any], *, n_objects: int
) -> dict[str, Any]:
    """Put the findings and the counts of a dataset into one document."""
    counts = Counter(kind for kind, _ in findings)
    there = index[index["status"] == "ok"]
    listed: dict[str, list[str]] = {}
    for kind, what in findings:
        listed.setdefault(kind, [])
        if len(listed[kind]) < MAX_LISTED:
            listed[kind].append(what)
    return {
        "is_good": not set(counts) - set(REMARKS),
        "n_locations": int(facts["n_locations"]),
        "seasons": list(facts["seasons"]),
        "size_m": int(facts["size_m"]),
        "n_objects": n_objects,
        "n_patches": len(there),
        "n_missing": len(index) - len(there),
        "n_missing_by_reason": {
            str(k): int(v) for k, v in index.loc[index["status"] != "ok", "reason"].value_counts().items()
        },
        "n_patches_by_season": {
            str(season): int((there["season"] == season).sum()) for season in facts["seasons"]
        },
        "n_locations_complete": int(index.drop_duplicates("location_id")["is_complete"].sum()),
        "n_patches_by_offset": {str(k): int(v) for k, v in there["dn_offset"].value_counts().items()},
        "n_patches_without_scl": int(there["cloud_fraction"].isna().sum()),
        "mean_cloud_fraction": _mean(there["cloud_fraction"]),
        "mean_valid_fraction": _mean(there["valid_fraction"]),
        "n_findings": dict(counts),
        "findings": listed,
    }


def _mean(values: pd.Series) -> float | None:
    return None if values.isna().all() else round(float(values.mean()), 6)


def reread(
    path: Path,
    index: pd.DataFrame,
    scenes: pd.DataFrame,
    *,
    share: float,
    seed: int,
    access: network.Access = network.OPEN,
) -> Iterator[tuple[str, str]]:
    """Read a random sample of patches from their scenes again and compare every pixel.

    Parameters
    ----------
    path : the store's folder
    index : table `patches`
    scenes : table `scenes` of all shards, for the addresses
    share : share of the patches, at least one patch
    seed : of the draw
    access : how the catalog's files are reached
    """
    there = index[index["status"] == "ok"]
    sample = there.sample(n=min(len(there), max(1, round(share * len(there)))), random_state=seed)
    key = ["location_id", "season", "catalog", "item_id"]
    sample = sample.merge(scenes.loc[scenes["rank"] >= 0, [*key, "hrefs"]], on=key, how="left")
    size_m = store.layout(path)["size_m"]
    wishes = [_wish(row, size_m) for row in sample.itertuples()]
    dataset = store.open_store(path)
    with READERS["rasterio"](access=access) as reader:
        results = dict(fetch(reader, wishes))
    for i, row in enumerate(sample.itertuples()):
        got = results[i]
        about = f"{row.location_id}, {row.season}, item {row.item_id}"
        if isinstance(got, Failure):
            yield "unreadable", f"{about}: {got.message}"
            continue
        stored = dataset.isel(location=row.location).sel(season=row.season)
        for part, values in got.arrays.items():
            n_different = int((stored[part].values != values).sum())
            if n_different:
                yield "pixels", f"{about}: {n_different} of {values.size} values of {part} differ"
    logger.info("%d of %d patches read again from their scenes", len(sample), len(there))


def _wish(row: Any, size_m: int) -> Wish:
    place = Place(int(row.epsg), row.origin_x, row.origin_y, size_m)
    hrefs = json.loads(row.hrefs) if isinstance(row.hrefs, str) and row.hrefs else {}
    parts = tuple(part for part in PARTS if part != "scl" or "SCL" in hrefs)
    return Wish(place, hrefs, parts, int(row.dn_offset))


def main(job: SimpleNamespace) -> None:
    """Verify a dataset's store; see the module's docstring."""
    path = parent(job.input.store)
    index = tables.read_table(job.input.patches, "patches")
    locations = tables.read_table(job.input.locations, "locations", ["location_id", "lon", "lat"])
    result = verify(path, index, locations, threads=job.threads)
    for kind, whats in result["findings"].items():
        for what in whats:
            logger.info("%s: %s", kind, what)
    if not result["is_good"]:
        counted = {k: v for k, v in result["n_findings"].items() if k not in REMARKS}
        first = next(whats[0] for kind, whats in result["findings"].items() if kind not in REMARKS)
        raise RuntimeError(
            f"{path} has problems: {counted}; the first: {first}. `python -m workflow_scripts.repair "
            f"{path}` deletes the bad objects; running again fetches them."
        )
    write_json(job.output.verification, result)
    logger.info("%d patches are good", result["n_patches"])


def command(arguments: list[str]) -> int:
    """Verify a store from the command line; 1 if there is a problem."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.verify_store", description="Check a patch store."
    )
    parser.add_argument("store", type=Path, help="folder patches.zarr of a dataset")
    parser.add_argument("--reread", type=float, default=0.0, metavar="SHARE", help="share read again, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="of the sample that is read again")
    parser.add_argument("--sign", choices=["planetary-computer"], help="as the catalog's option sign")
    parser.add_argument("--s3", choices=["anonymous", "requester_pays"], help="as in the catalog's option s3")
    options = parser.parse_args(arguments)
    access = network.Access(options.sign, {options.s3: True} if options.s3 else {})
    folder = options.store.resolve().parent
    index = tables.read_table(folder / "patches.parquet", "patches")
    locations = tables.read_table(folder / "locations.parquet", "locations", ["location_id", "lon", "lat"])
    result = verify(options.store, index, locations)
    if options.reread > 0:
        files = sorted((folder / "scenes").glob("*.parquet"))
        scenes = pd.concat([tables.read_table(file, "scenes") for file in files], ignore_index=True)
        found = list(
            reread(options.store, index, scenes, share=options.reread, seed=options.seed, access=access)
        )
        result["reread"] = [f"{kind}: {what}" for kind, what in found]
        result["is_good"] &= not found
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if result["is_good"] else 1


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
elif __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    sys.exit(command(sys.argv[1:]))
