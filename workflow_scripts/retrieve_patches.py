"""Fetch the patches of one shard from the best scenes and write them into the store.

Reads : scenes/{shard}.parquet (candidates in order); patches.zarr (metadata, location coordinates,
        and this shard as far as it is there); retrieved/{shard}.parquet of an earlier run.
Writes: the shard's objects in patches.zarr; retrieved/{shard}.parquet, one row per location and
        season with the choice and its reason, moved into place last.

For each location and season the candidates are tried in order: the scene classification over the
patch is read first; a patch that is cloudier than `max_cloud_fraction` or has more holes than
`max_nodata_fraction` gives way to the next candidate, and so does one whose files cannot be read.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import grid, store, tables
from workflow_scripts.core.patches import (
    PARTS,
    READERS,
    Failure,
    Fetched,
    Place,
    Reader,
    Wish,
    cloud_fraction,
    fetch,
    scl_valid_fraction,
    valid_fraction,
)
from workflow_scripts.core.stage import run_stage

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised by hand when the meaning of what is stored changes: every patch is then fetched again."""

THREADS_PER_CORE = 4
"""Readers wait for the network more than they compute."""

PIXEL_PARTS = ("dn10", "dn20", "dn60")
REJECTIONS = ("cloudy", "nodata", "read_error")
"""Reasons of a missing patch, the one that is reported first if candidates failed by several."""


@dataclass
class Slot:
    """One location and season of the shard: its candidates, and how far they were tried."""

    row: int
    """Row of the location within the shard."""
    column: int
    """Index of the season."""
    location: int
    location_id: str
    season: str
    lon: float
    lat: float
    candidates: list[dict[str, Any]]
    has_window: bool
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What earlier runs learned, item id → entry of `screened`."""
    previous: dict[str, Any] | None = None
    """Row of the earlier table if that patch was retrieved."""
    tried: int = 0
    """Index of the candidate under trial."""
    screened: list[dict[str, Any]] = field(default_factory=list)
    scl: np.ndarray | None = None
    """Scene classification of the candidate under trial."""
    result: dict[str, Any] | None = None
    """Columns of the chosen patch."""

    @property
    def candidate(self) -> dict[str, Any] | None:
        """The candidate under trial; None when all have failed."""
        return self.candidates[self.tried] if self.tried < len(self.candidates) else None

    @property
    def is_open(self) -> bool:
        """Whether a candidate is still to be tried."""
        return self.result is None and self.candidate is not None

    def reject(self, outcome: str, cloud: float, valid: float, *, error: str = "") -> None:
        """Record why the candidate fails, and go on to the next."""
        self.note(outcome, cloud, valid, error=error)
        self.tried += 1
        self.scl = None

    def note(self, outcome: str, cloud: float, valid: float, *, error: str = "") -> None:
        """Record what was learned about the candidate."""
        entry = {
            "item_id": self.candidate["item_id"],
            "cloud_fraction": None if np.isnan(cloud) else round(cloud, 6),
            "valid_fraction": None if np.isnan(valid) else round(valid, 6),
            "outcome": outcome,
            "version": VERSION,
        }
        self.screened.append(entry | ({"error": error} if error else {}))


@dataclass(frozen=True)
class Limits:
    """What a patch must satisfy."""

    max_cloud_fraction: float
    max_nodata_fraction: float

    def judge(self, cloud: float, valid: float) -> str:
        """Give "ok", "cloudy" or "nodata"; NaN passes."""
        if 1 - valid > self.max_nodata_fraction + 1e-6:
            return "nodata"
        return "cloudy" if cloud > self.max_cloud_fraction + 1e-6 else "ok"


# ---- what is asked for -----------------------------------------------------------------------


def make_slots(
    scenes: pd.DataFrame, locations: pd.DataFrame, labels: Sequence[str], previous: pd.DataFrame | None
) -> list[Slot]:
    """Set out the patches of a shard.

    Parameters
    ----------
    scenes : table `scenes` of the shard
    locations : `location_id`, `location`, `lon`, `lat` of the shard, as in the store
    labels : seasons of the store
    previous : table `retrieved` of an earlier run
    """
    tried = scenes[scenes["rank"] >= 0].sort_values(["location", "season", "rank"])
    candidates = {key: group.to_dict("records") for key, group in tried.groupby(["location_id", "season"])}
    silent = scenes[scenes["reason"] == "no_window"]
    without = set(zip(silent["location_id"], silent["season"], strict=True))
    before: dict[tuple[str, str], dict[str, Any]] = {}
    if previous is not None:
        rows = previous.to_dict("records")
        before = {(row["location_id"], row["season"]): row for row in rows}
    slots = []
    for row, place in enumerate(locations.itertuples(index=False)):
        for column, label in enumerate(labels):
            key = place.location_id, label
            slot = Slot(
                row,
                column,
                int(place.location),
                place.location_id,
                label,
                float(place.lon),
                float(place.lat),
                candidates.get(key, []),
                key not in without,
            )
            _remember(slot, before.get(key))
            slots.append(slot)
    return slots


def _remember(slot: Slot, before: Mapping[str, Any] | None) -> None:
    """Take over what an earlier run learned about the slot's candidates."""
    if before is None:
        return
    entries = json.loads(before["screened"] or "[]")
    slot.known = {entry["item_id"]: entry for entry in entries if entry.get("version") == VERSION}
    is_offered = any(candidate["item_id"] == before["item_id"] for candidate in slot.candidates)
    if before["status"] == "ok" and is_offered and before["item_id"] in slot.known:
        slot.previous = dict(before)
    else:  # a file that could not be read is tried again
        slot.known = {k: v for k, v in slot.known.items() if v["outcome"] != "read_error"}


def place_of(slot: Slot, candidate: Mapping[str, Any], size_m: int) -> Place:
    """Give the patch's place on the grid of a candidate."""
    epsg = int(candidate["epsg"])
    x, y = grid.project(slot.lon, slot.lat, epsg)
    origin_x, origin_y = grid.patch_origin(x, y, size_m)
    return Place(epsg, float(origin_x), float(origin_y), size_m)


def _is_unchanged(slot: Slot, candidate: Mapping[str, Any], size_m: int) -> bool:
    """Whether the candidate is what the earlier run stored, at the same place."""
    before = slot.previous
    if before is None or before["item_id"] != candidate["item_id"]:
        return False
    same = ("catalog", "collection", "dn_offset", "epsg")
    place = place_of(slot, candidate, size_m)
    return all(before[name] == candidate[name] for name in same) and (
        (before["origin_x"], before["origin_y"]) == (place.origin_x, place.origin_y)
    )


# ---- keeping ---------------------------------------------------------------------------------


def keep_patches(
    slots: Sequence[Slot],
    arrays: Mapping[str, np.ndarray],
    readable: Mapping[str, bool],
    reader: Reader,
    *,
    limits: Limits,
    size_m: int,
) -> None:
    """Settle each slot whose choice is unchanged and whose pixels are there, as far as they are.

    Goes through the candidates by what is known of them. Parts whose object is lost are read
    again; the patch is kept if its checksum then holds.
    """
    lost = {part for part in PARTS if not readable[part]}
    if not (readable["origin60_x"] and readable["origin60_y"]):
        lost.add("dn60")
    waiting: list[tuple[Slot, Wish]] = []
    for slot in slots:
        _skip_known(slot, limits)
        if slot.candidate is None or not _is_unchanged(slot, slot.candidate, size_m):
            continue
        wish = _wish(slot, size_m, tuple(part for part in PARTS if part in lost))
        if wish.parts:
            waiting.append((slot, wish))
        else:
            _keep_if_whole(slot, arrays)
    for (slot, _), got in zip(waiting, fetch(reader, [wish for _, wish in waiting]), strict=True):
        if isinstance(got, Fetched):
            _scatter(slot, got, arrays)
            _keep_if_whole(slot, arrays)


def _skip_known(slot: Slot, limits: Limits) -> None:
    """Pass over candidates of which an earlier run learned that they fail."""
    while slot.candidate is not None:
        entry = slot.known.get(slot.candidate["item_id"])
        if entry is None:
            return
        cloud, valid = (_number(entry[name]) for name in ("cloud_fraction", "valid_fraction"))
        outcome = "read_error" if entry["outcome"] == "read_error" else limits.judge(cloud, valid)
        if outcome == "ok":
            return
        slot.reject(outcome, cloud, valid, error=entry.get("error", ""))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _keep_if_whole(slot: Slot, arrays: Mapping[str, np.ndarray]) -> None:
    here = slot.row, slot.column
    checksum = store.patch_checksum(*(arrays[part][here] for part in PARTS))
    if checksum != slot.previous["checksum"]:
        logger.info("%s, %s: pixels differ from their checksum, fetched again", slot.location_id, slot.season)
        return
    entry = slot.known[slot.candidate["item_id"]]
    cloud, valid = (_number(entry[name]) for name in ("cloud_fraction", "valid_fraction"))
    slot.note("ok", cloud, valid)
    same = ("cloud_fraction", "valid_fraction", "origin_x", "origin_y", "checksum")
    slot.result = {name: slot.previous[name] for name in same} | {"is_kept": True}


# ---- fetching --------------------------------------------------------------------------------


def _wish(slot: Slot, size_m: int, parts: tuple[str, ...]) -> Wish:
    candidate = slot.candidate
    hrefs = candidate["hrefs"]
    hrefs = json.loads(hrefs) if isinstance(hrefs, str) else hrefs
    if "SCL" not in hrefs:
        parts = tuple(part for part in parts if part != "scl")
    return Wish(place_of(slot, candidate, size_m), hrefs, parts, int(candidate["dn_offset"]))


def _scatter(slot: Slot, got: Fetched, arrays: Mapping[str, np.ndarray]) -> None:
    here = slot.row, slot.column
    for part, values in got.arrays.items():
        arrays[part][here] = values
    if "dn60" in got.arrays:
        arrays["origin60_x"][here], arrays["origin60_y"][here] = got.origin60


def _clear(slot: Slot, arrays: Mapping[str, np.ndarray]) -> None:
    for name, values in arrays.items():
        if name != "aligned":
            values[slot.row, slot.column] = store.ARRAYS[name].fill_value


def screen(slots: Sequence[Slot], reader: Reader, *, limits: Limits, size_m: int, needs_scl: bool) -> None:
    """Look at the scene classification of each open slot's candidate until one passes.

    Parameters
    ----------
    slots : those to be settled
    reader : reads windows
    limits : of the patch
    size_m : side of a patch
    needs_scl : whether a candidate without scene classification cannot be taken
    """
    while True:
        waiting = []
        for slot in slots:
            _skip_known(slot, limits)
            if slot.is_open and slot.scl is None:
                wish = _wish(slot, size_m, ("scl",))
                if wish.parts or needs_scl:
                    waiting.append((slot, wish if wish.parts else Wish(wish.place, wish.hrefs, ("scl",), 0)))
        if not waiting:
            return
        for (slot, _), got in zip(waiting, fetch(reader, [wish for _, wish in waiting]), strict=True):
            if isinstance(got, Failure):
                _fail(slot, got)
                continue
            scl = got.arrays["scl"]
            cloud, valid = cloud_fraction(scl), scl_valid_fraction(scl)
            outcome = limits.judge(cloud, valid)
            if outcome == "ok":
                slot.scl = scl
            else:
                slot.reject(outcome, cloud, valid)


def take_pixels(
    slots: Sequence[Slot],
    arrays: Mapping[str, np.ndarray],
    reader: Reader,
    *,
    limits: Limits,
    size_m: int,
) -> None:
    """Read all bands of the candidates that passed; those with holes or unreadable files fail."""
    waiting = [(slot, _wish(slot, size_m, PIXEL_PARTS)) for slot in slots if slot.is_open]
    for (slot, wish), got in zip(waiting, fetch(reader, [wish for _, wish in waiting]), strict=True):
        if isinstance(got, Failure):
            _fail(slot, got)
            continue
        has_scl = slot.scl is not None
        parts = {**got.arrays, **({"scl": slot.scl} if has_scl else {})}
        cloud = cloud_fraction(slot.scl) if has_scl else float("nan")
        valid = valid_fraction(parts, wish.place, got.origin60, has_scl=has_scl)
        outcome = limits.judge(cloud, valid)
        if outcome != "ok":
            slot.reject(outcome, cloud, valid)
            continue
        _clear(slot, arrays)
        _scatter(slot, Fetched(parts, got.origin60), arrays)
        slot.note("ok", cloud, valid)
        here = slot.row, slot.column
        slot.result = {
            "cloud_fraction": cloud,
            "valid_fraction": valid,
            "origin_x": wish.place.origin_x,
            "origin_y": wish.place.origin_y,
            "checksum": store.patch_checksum(*(arrays[part][here] for part in PARTS)),
            "is_kept": False,
        }
        slot.scl = None


def _fail(slot: Slot, failure: Failure) -> None:
    logger.warning(
        "%s, %s: item %s cannot be read, next candidate: %s",
        slot.location_id,
        slot.season,
        slot.candidate["item_id"],
        failure.message,
    )
    slot.reject("read_error", float("nan"), float("nan"), error=failure.message)


# ---- results ---------------------------------------------------------------------------------


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
    return {
        **row,
        "status": "ok",
        "reason": "",
        **{name: chosen[name] for name in same},
        "target_date": moment.normalize() - pd.Timedelta(days=int(chosen["days_from_target"])),
        "scene_cloud_cover": chosen["cloud_cover"],
        **{k: v for k, v in slot.result.items() if k != "is_kept"},
    }


def missing_reason(slot: Slot) -> str:
    """Say why a slot has no patch."""
    if not slot.has_window:
        return "no_window"
    outcomes = {entry["outcome"] for entry in slot.screened}
    return next((reason for reason in REJECTIONS if reason in outcomes), "no_candidate")


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
            _clear(slot, arrays)
            continue
        changed |= not slot.result["is_kept"]
        arrays["datetime"][here] = int(pd.Timestamp(row["datetime"]).timestamp())
        for name in ("epsg", "origin_x", "origin_y", "cloud_fraction", "valid_fraction"):
            arrays[name][here] = row[name]
        arrays["dn_offset"][here], arrays["sun_zenith"][here] = row["dn_offset"], row["sun_zenith"]
    arrays["aligned"][:] = aligned(arrays["epsg"], arrays["origin_x"], arrays["origin_y"])
    same = (np.array_equal(values, arrays[name], equal_nan=True) for name, values in before.items())
    return changed or not all(same)


def aligned(epsg: np.ndarray, origin_x: np.ndarray, origin_y: np.ndarray) -> np.ndarray:
    """Tell per location whether it has patches and all share one CRS and origin."""
    there = epsg > 0
    result = there.any(axis=1)
    for values in (epsg, origin_x, origin_y):
        lowest = np.where(there, values, np.inf).min(axis=1, initial=np.inf)
        highest = np.where(there, values, -np.inf).max(axis=1, initial=-np.inf)
        result &= lowest == highest
    return result


def read_previous(path: Path) -> pd.DataFrame | None:
    """Read the table of an earlier run; None if there is none that can be read."""
    try:
        return tables.read_table(path, "retrieved")
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s; every patch of the shard is fetched again", error)
        return None


def publish(path: Path, shard: int, arrays: Mapping[str, np.ndarray], *, is_changed: bool) -> None:
    """Write the shard's objects, or mark them as current where nothing changed.

    Raises
    ------
    RuntimeError
        If they cannot be written, as on a full disk; what was there stays.
    """
    try:
        if is_changed:
            store.write_shard(path, shard, arrays)
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
    shard, path = int(job.wildcards.shard), Path(job.input.store).parent
    facts = store.layout(path)
    first, last = store.shard_range(path, shard)
    coordinates = store.open_store(path)[["location_id", "lon", "lat"]].isel(location=slice(first, last))
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
    slots = make_slots(scenes, locations, facts["seasons"], read_previous(Path(job.output.retrieved)))
    arrays, readable = store.read_shard(path, shard)
    limits = Limits(job.params.max_cloud_fraction, job.params.max_nodata_fraction)
    reader = READERS[job.params.reader](
        threads=THREADS_PER_CORE * int(job.threads), sign_method=job.params.sign
    )
    size_m, needs_scl = facts["size_m"], job.params.conventions != "plain"
    with reader:
        keep_patches(slots, arrays, readable, reader, limits=limits, size_m=size_m)
        while any(slot.is_open for slot in slots):
            screen(slots, reader, limits=limits, size_m=size_m, needs_scl=needs_scl)
            take_pixels(slots, arrays, reader, limits=limits, size_m=size_m)
    table = retrieved_table(slots)
    is_changed = fill_small_arrays(table, slots, arrays) or not all(readable.values())
    publish(path, shard, arrays, is_changed=is_changed)
    try:
        tables.write_table(table, job.output.retrieved, "retrieved")
    except OSError as error:
        raise RuntimeError(_write_failure(Path(job.output.retrieved), shard, error)) from None
    _log_summary(shard, table, slots, reader.n_opened)


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
