"""Settling the slots of a shard: keep what is there, screen candidates, read pixels."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from workflow_scripts.core import store
from workflow_scripts.core.patches import (
    PARTS,
    Failure,
    Fetched,
    Reader,
    Wish,
    cloud_fraction,
    fetch,
    scl_valid_fraction,
    valid_fraction,
)
from workflow_scripts.core.stage import progress
from workflow_scripts.retrieval.slots import Limits, Slot, is_unchanged, item_key, place_of

logger = logging.getLogger(__name__)

PIXEL_PARTS = ("dn10", "dn20", "dn60")


def keep_patches(
    slots: Sequence[Slot],
    arrays: Mapping[str, np.ndarray],
    readable: Mapping[str, bool],
    readers: Mapping[str, Reader],
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
        if slot.candidate is None or not is_unchanged(slot, slot.candidate, size_m):
            continue
        wish = _wish(slot, size_m, tuple(part for part in PARTS if part in lost))
        if wish.parts:
            waiting.append((slot, wish))
        else:
            _keep_if_whole(slot, arrays)
    for slot, _, got in _fetch(readers, waiting):
        if isinstance(got, Fetched):
            _scatter(slot, got, arrays)
            _keep_if_whole(slot, arrays)


def _skip_known(slot: Slot, limits: Limits) -> None:
    """Pass over candidates of which an earlier run learned that they fail."""
    while slot.candidate is not None:
        entry = slot.known.get(item_key(slot.candidate))
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
    entry = slot.known[item_key(slot.candidate)]
    cloud, valid = (_number(entry[name]) for name in ("cloud_fraction", "valid_fraction"))
    slot.note("ok", cloud, valid)
    same = ("cloud_fraction", "valid_fraction", "origin_x", "origin_y", "checksum")
    slot.result = {name: slot.previous[name] for name in same} | {"is_kept": True}


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


def clear(slot: Slot, arrays: Mapping[str, np.ndarray]) -> None:
    """Set everything the store has of a slot to missing."""
    for name, values in arrays.items():
        if name not in store.PER_LOCATION:
            values[slot.row, slot.column] = store.ARRAYS[name].fill_value


def _fetch(
    readers: Mapping[str, Reader], waiting: Sequence[tuple[Slot, Wish]]
) -> Iterator[tuple[Slot, Wish, Fetched | Failure]]:
    """Read what slots wait for, each from the catalog of its candidate, and give it as it comes."""
    # who takes an answer may go on to the next candidate, of another catalog
    catalogs = [slot.candidate["catalog"] for slot, _ in waiting]
    for catalog, reader in readers.items():
        mine = [pair for pair, name in zip(waiting, catalogs, strict=True) if name == catalog]
        for i, got in fetch(reader, [wish for _, wish in mine]):
            yield *mine[i], got


def screen(
    slots: Sequence[Slot],
    readers: Mapping[str, Reader],
    *,
    limits: Limits,
    size_m: int,
    without_scl: Collection[str],
) -> None:
    """Look at the scene classification of each open slot's candidate until one passes.

    Parameters
    ----------
    slots : those to be settled
    readers : catalog → what reads its windows
    limits : of the patch
    size_m : side of a patch
    without_scl : catalogs whose candidates may be taken without scene classification
    """
    while True:
        waiting = []
        for slot in slots:
            _skip_known(slot, limits)
            if slot.is_open and slot.scl is None:
                wish = _wish(slot, size_m, ("scl",))
                if wish.parts or slot.candidate["catalog"] not in without_scl:
                    waiting.append((slot, wish if wish.parts else Wish(wish.place, wish.hrefs, ("scl",), 0)))
        if not waiting:
            return
        for slot, _, got in _fetch(readers, waiting):
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
    readers: Mapping[str, Reader],
    *,
    limits: Limits,
    size_m: int,
) -> None:
    """Read all bands of the candidates that passed; those with holes or unreadable files fail."""
    waiting = [(slot, _wish(slot, size_m, PIXEL_PARTS)) for slot in slots if slot.is_open]
    for slot, wish, got in progress(_fetch(readers, waiting), len(waiting), what="patches"):
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
        if not has_scl:
            clear(slot, arrays)
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
    slot.outage = failure.message if failure.is_passing else ""
    slot.reject("read_error", float("nan"), float("nan"), error=failure.message)


def check_service(slots: Sequence[Slot], shard: int) -> None:
    """Refuse a shard in which nothing at all could be read because a service failed.

    Else an outage would look like a place without scenes.

    Raises
    ------
    RuntimeError
        With the last failure; running again tries again.
    """
    cut_off = [slot for slot in slots if slot.result is None and slot.outage]
    is_any_read = any(slot.result is not None and not slot.result["is_kept"] for slot in slots)
    if cut_off and not is_any_read:
        raise RuntimeError(
            f"shard {shard}: none of the {len(cut_off)} patches that were wanted could be read; the "
            f"last failure: {cut_off[-1].outage} Nothing was changed."
        )
