"""Fetch the patches of one shard from the best scenes and write them into the store.

Reads : scenes/{shard}.parquet (candidates in order); patches.zarr (metadata, location coordinates,
        and this shard as far as it is there); retrieved/{shard}.parquet of an earlier run.
Writes: the shard's objects in patches.zarr; retrieved/{shard}.parquet, one row per location and
        season with the choice and its reason, moved into place last.

For each location and season the candidates are tried in order: the scene classification over the
patch is read first; a patch that is cloudier than `max_cloud_fraction` or has more holes than
`max_nodata_fraction` gives way to the next candidate, and so does one whose files cannot be read:
there the same product of a second catalog comes first (`failover_from` records it).
Then the native windows of all bands are read and harmonized. Rounds go over all patches of the
shard together, so that each file is opened once.

A rerun keeps every patch whose choice is unchanged and whose checksum holds, takes what was learned
in screening from the earlier table, and fetches the rest. After a kill only checksums are trusted.
Where one pixel object of the shard is lost, only its bands are read again.
"""

import errno
import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import network, store, tables
from workflow_scripts.core.objects import is_remote, parent
from workflow_scripts.core.patches import PARTS, READERS, scl_fractions
from workflow_scripts.core.stage import run_stage
from workflow_scripts.retrieval.fetching import check_service, clear, keep_patches, screen, take_pixels
from workflow_scripts.retrieval.slots import Limits, Slot, make_slots, missing_reason

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised by hand when the meaning of what is stored changes: every patch is then fetched again."""


def retrieved_table(slots: Sequence[Slot]) -> pd.DataFrame:
    """Put the outcome of each slot into the table `retrieved`."""
    return pd.DataFrame([_retrieved_row(slot) for slot in slots])


def _retrieved_row(slot: Slot) -> dict[str, Any]:
    row = {
        "location_id": slot.location_id,
        "location": slot.location,
        "season": slot.season,
        "screened": json.dumps(slot.screened),
    }
    chosen = slot.candidate if slot.result is not None else None
    if chosen is None:
        text = ("item_id", "collection", "catalog", "mgrs_tile", "baseline", "offset_source", "checksum")
        text += ("failover_from",)
        numbers = ("scene_cloud_cover", "cloud_fraction", "valid_fraction", "sun_zenith")
        return {
            **row,
            "status": "missing",
            "reason": missing_reason(slot),
            **dict.fromkeys(text, ""),
            **dict.fromkeys((*numbers, "origin_x", "origin_y"), np.nan),
            "datetime": pd.NaT,
            "target_date": pd.NaT,
            "days_from_target": 0,
            "rank": -1,
            "epsg": 0,
            "dn_offset": -1,
        }
    same = ("item_id", "collection", "catalog", "datetime", "days_from_target", "rank", "sun_zenith")
    same += ("mgrs_tile", "epsg", "baseline", "dn_offset", "offset_source")
    moment = pd.Timestamp(chosen["datetime"])
    is_twin = chosen["reason"] == "failover"
    first = slot.candidates[slot.tried - 1] if is_twin else chosen
    return {
        **row,
        "status": "ok",
        "reason": first["reason"],
        "failover_from": first["catalog"] if is_twin else "",
        **{name: chosen[name] for name in same},
        "target_date": moment.normalize() - pd.Timedelta(days=int(chosen["days_from_target"])),
        "scene_cloud_cover": chosen["cloud_cover"],
        **{k: v for k, v in slot.result.items() if k != "is_kept"},
    }


def fill_small_arrays(table: pd.DataFrame, slots: Sequence[Slot], arrays: Mapping[str, np.ndarray]) -> bool:
    """Write the facts of each patch beside its pixels; clear what is no patch.

    Returns
    -------
    whether anything in the arrays differs from before
    """
    before = {name: values.copy() for name, values in arrays.items() if name not in store.PIXELS}
    changed = False
    for slot, row in zip(slots, table.to_dict("records"), strict=True):
        here = slot.row, slot.column
        if row["status"] != "ok":
            changed |= any(arrays[part][here].any() for part in PARTS)
            clear(slot, arrays)
            continue
        changed |= not slot.result["is_kept"]
        arrays["datetime"][here] = int(pd.Timestamp(row["datetime"]).timestamp())
        for name in ("epsg", "origin_x", "origin_y", "cloud_fraction", "valid_fraction"):
            arrays[name][here] = row[name]
        arrays["dn_offset"][here], arrays["sun_zenith"][here] = row["dn_offset"], row["sun_zenith"]
        has_scl = not np.isnan(row["cloud_fraction"])
        arrays["scl_fraction"][here] = scl_fractions(arrays["scl"][here]) if has_scl else np.nan
    arrays["span_days"][:] = store.span_days(arrays["datetime"])
    arrays["aligned"][:] = store.aligned(arrays["epsg"], arrays["origin_x"], arrays["origin_y"])
    same = (np.array_equal(values, arrays[name], equal_nan=True) for name, values in before.items())
    return changed or not all(same)


def check_catalogs(scenes: pd.DataFrame, catalogs: Collection[str], shard: int) -> None:
    """Refuse candidates of a catalog that the job was not told how to read."""
    unknown = set(scenes.loc[scenes["rank"] >= 0, "catalog"]) - set(catalogs)
    if unknown:
        raise ValueError(
            f"shard {shard}: its scenes are of catalogs {sorted(unknown)}, the dataset names "
            f"{sorted(catalogs)}. Delete the dataset's folders items/ and scenes/ and run again."
        )


def read_previous(path: Path) -> pd.DataFrame | None:
    """Read the table of an earlier run; None if there is none that can be read."""
    try:
        return tables.read_table(path, "retrieved")
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s; every patch of the shard is fetched again", error)
        return None


def publish(
    path: Path, shard: int, arrays: Mapping[str, np.ndarray], *, is_changed: bool, threads: int
) -> None:
    """Write the shard's objects, or mark them as current where nothing changed.

    Raises
    ------
    RuntimeError
        If they cannot be written, as on a full disk; what was there stays.
    """
    try:
        if is_changed:
            store.write_shard(path, shard, arrays, threads=threads)
            return
        for name in store.shard_objects(shard):
            os.utime(path / name)
    except OSError as error:
        raise RuntimeError(_write_failure(path, shard, error)) from None


def _write_failure(path: Path, shard: int, error: OSError) -> str:
    advice = "Free space on it and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Run again"
    return (
        f"shard {shard}: writing into {path} failed: {error.strerror or error}. Nothing half written "
        f"is left. {advice}: what was stored before is kept."
    )


def main(job: SimpleNamespace) -> None:
    """Retrieve the patches of one shard; see the module's docstring."""
    shard, source = int(job.wildcards.shard), parent(job.input.store)
    path = Path(source)
    if is_remote(source):  # the shard's objects are made here, Snakemake brings them to the bucket
        path = Path(job.output.objects[0]).parents[1]
        store.copy_layout(source, path)
    facts = store.layout(path)
    first, last = store.shard_range(path, shard)
    coordinates = store.open_store(source)[["location_id", "lon", "lat"]].isel(location=slice(first, last))
    locations = pd.DataFrame(
        {
            "location_id": coordinates["location_id"].values.astype(object),
            "location": np.arange(first, last),
            "lon": coordinates["lon"].values,
            "lat": coordinates["lat"].values,
        }
    )
    scenes = tables.read_table(job.input.scenes, "scenes")
    unknown = set(scenes["location_id"]) ^ set(locations["location_id"])
    if unknown:
        raise ValueError(
            f"shard {shard}: {job.input.scenes} and {path} hold different locations, such as "
            f"{sorted(unknown)[:3]}. Delete the scenes table and run again."
        )
    previous = read_previous(Path(job.output.retrieved))
    slots = make_slots(scenes, locations, facts["seasons"], previous=previous, version=VERSION)
    arrays, readable = store.read_shard(path, shard)
    limits = Limits(job.params.max_cloud_fraction, job.params.max_nodata_fraction)
    size_m, catalogs = facts["size_m"], job.params.catalogs
    check_catalogs(scenes, catalogs, shard)
    without_scl = {name for name, entry in catalogs.items() if entry["conventions"] == "plain"}
    with ExitStack() as stack:
        readers = {
            name: stack.enter_context(
                READERS[job.params.reader](cores=int(job.threads), access=network.Access.of(entry))
            )
            for name, entry in catalogs.items()
        }
        keep_patches(slots, arrays, readable, readers, limits=limits, size_m=size_m)
        while any(slot.is_open for slot in slots):
            screen(slots, readers, limits=limits, size_m=size_m, without_scl=without_scl)
            take_pixels(slots, arrays, readers, limits=limits, size_m=size_m)
    check_service(slots, shard)
    table = retrieved_table(slots)
    is_changed = fill_small_arrays(table, slots, arrays) or not all(readable.values())
    publish(path, shard, arrays, is_changed=is_changed, threads=int(job.threads))
    try:
        tables.write_table(table, job.output.retrieved, "retrieved")
    except OSError as error:
        raise RuntimeError(_write_failure(Path(job.output.retrieved), shard, error)) from None
    _log_summary(shard, table, slots, sum(reader.n_opened for reader in readers.values()))


def _log_summary(shard: int, table: pd.DataFrame, slots: Sequence[Slot], n_opened: int) -> None:
    n_kept = sum(slot.result is not None and slot.result["is_kept"] for slot in slots)
    missing = table.loc[table["status"] != "ok", "reason"].value_counts()
    logger.info(
        "shard %d: %d of %d patches (%d kept, %d fetched from %d opened files); missing: %s",
        shard,
        (table["status"] == "ok").sum(),
        len(table),
        n_kept,
        (table["status"] == "ok").sum() - n_kept,
        n_opened,
        ", ".join(f"{reason} {n}" for reason, n in missing.items()) or "none",
    )


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
