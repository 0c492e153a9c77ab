"""The patches of a shard while their candidates are tried, one slot per location and season."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import grid
from workflow_scripts.core.patches import Place

REJECTIONS = ("cloudy", "nodata", "read_error")
"""Reasons of a missing patch, the one that is reported first if candidates failed by several."""

SILENCES = ("no_window", "no_image", "unresolved")
"""Reasons of table `scenes` for which a season has no candidate, whatever the catalog holds."""


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
    silence: str
    """Why the season can have no candidate; empty where it can."""
    version: int
    """Of the retrieval; what another version learned does not count."""
    known: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """What earlier runs learned, catalog and item id → entry of `screened`."""
    previous: dict[str, Any] | None = None
    """Row of the earlier table if that patch was retrieved."""
    tried: int = 0
    """Index of the candidate under trial."""
    screened: list[dict[str, Any]] = field(default_factory=list)
    scl: np.ndarray | None = None
    """Scene classification of the candidate under trial."""
    result: dict[str, Any] | None = None
    """Columns of the chosen patch."""
    outage: str = ""
    """Message of the last candidate that a failing service kept from being read."""

    @property
    def candidate(self) -> dict[str, Any] | None:
        """The candidate under trial; None when all have failed."""
        return self.candidates[self.tried] if self.tried < len(self.candidates) else None

    @property
    def is_open(self) -> bool:
        """Whether a candidate is still to be tried."""
        return self.result is None and self.candidate is not None

    def reject(self, outcome: str, cloud: float, valid: float, *, error: str = "") -> None:
        """Record why the candidate fails, and go on to the next.

        The same product in a second catalog is of use only where the first could not be read.
        """
        self.note(outcome, cloud, valid, error=error)
        self.tried += 1
        while outcome != "read_error" and self.candidate and self.candidate["reason"] == "failover":
            self.tried += 1
        self.scl = None

    def note(self, outcome: str, cloud: float, valid: float, *, error: str = "") -> None:
        """Record what was learned about the candidate."""
        entry = {
            "item_id": self.candidate["item_id"],
            "catalog": self.candidate["catalog"],
            "cloud_fraction": None if np.isnan(cloud) else round(cloud, 6),
            "valid_fraction": None if np.isnan(valid) else round(valid, 6),
            "outcome": outcome,
            "version": self.version,
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


def make_slots(
    scenes: pd.DataFrame,
    locations: pd.DataFrame,
    labels: Sequence[str],
    *,
    previous: pd.DataFrame | None,
    version: int,
) -> list[Slot]:
    """Set out the patches of a shard.

    Parameters
    ----------
    scenes : table `scenes` of the shard
    locations : `location_id`, `location`, `lon`, `lat` of the shard, as in the store
    labels : seasons of the store
    previous : table `retrieved` of an earlier run
    version : of the retrieval
    """
    tried = scenes[scenes["rank"] >= 0].assign(is_failover=scenes["reason"] == "failover")
    tried = tried.sort_values(["location", "season", "rank", "is_failover"])
    candidates: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in tried.to_dict("records"):
        candidates.setdefault((record["location_id"], record["season"]), []).append(record)
    silent = scenes[scenes["reason"].isin(SILENCES)]
    silence = dict(
        zip(zip(silent["location_id"], silent["season"], strict=True), silent["reason"], strict=True)
    )
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
                silence.get(key, ""),
                version,
            )
            _remember(slot, before.get(key))
            slots.append(slot)
    return slots


def _remember(slot: Slot, before: Mapping[str, Any] | None) -> None:
    """Take over what an earlier run learned about the slot's candidates."""
    if before is None:
        return
    entries = json.loads(before["screened"] or "[]")
    slot.known = {item_key(entry): entry for entry in entries if entry["version"] == slot.version}
    is_offered = any(item_key(candidate) == item_key(before) for candidate in slot.candidates)
    if before["status"] == "ok" and is_offered and item_key(before) in slot.known:
        slot.previous = dict(before)
    else:  # a file that could not be read is tried again
        slot.known = {k: v for k, v in slot.known.items() if v["outcome"] != "read_error"}


def item_key(row: Mapping[str, Any]) -> tuple[str, str]:
    """Name an item: mirrors of a catalog give it the same id."""
    return row["catalog"], row["item_id"]


def place_of(slot: Slot, candidate: Mapping[str, Any], size_m: int) -> Place:
    """Give the patch's place on the grid of a candidate."""
    epsg = int(candidate["epsg"])
    x, y = grid.project(slot.lon, slot.lat, epsg)
    origin_x, origin_y = grid.patch_origin(x, y, size_m)
    return Place(epsg, float(origin_x), float(origin_y), size_m)


def is_unchanged(slot: Slot, candidate: Mapping[str, Any], size_m: int) -> bool:
    """Whether the candidate is what the earlier run stored, at the same place."""
    before = slot.previous
    if before is None or item_key(before) != item_key(candidate):
        return False
    same = ("collection", "dn_offset", "epsg")
    place = place_of(slot, candidate, size_m)
    return all(before[name] == candidate[name] for name in same) and (
        (before["origin_x"], before["origin_y"]) == (place.origin_x, place.origin_y)
    )


def missing_reason(slot: Slot) -> str:
    """Say why a slot has no patch."""
    outcomes = {entry["outcome"] for entry in slot.screened}
    return next((reason for reason in REJECTIONS if reason in outcomes), slot.silence or "no_candidate")
