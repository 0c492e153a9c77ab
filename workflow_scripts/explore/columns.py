"""What the map knows of every location, as plain columns of numbers that a browser reads in one go."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

EPOCH = np.datetime64("2015-01-01", "D")
"""Day 0 of `day`; Sentinel-2 has no earlier scene."""
NO_DAY = 65535
NO_CLOUD = 255
MAX_CLASSES = 250


@dataclass(frozen=True)
class Column:
    """One column as the page reads it; the numbers are little-endian."""

    name: str
    values: np.ndarray
    season: str | None = None
    """Season it belongs to; None where it is the location's."""
    labels: Sequence[str] | None = None
    """What each value means, for classes."""

    def described(self, offset: int) -> dict:
        """Say where the column stands in its file and what it holds."""
        kind = {"f4": "Float32Array", "u2": "Uint16Array", "u1": "Uint8Array"}[self.values.dtype.str[1:]]
        facts = {"name": self.name, "type": kind, "offset": offset}
        facts |= {} if self.season is None else {"season": self.season}
        return facts | ({} if self.labels is None else {"labels": list(self.labels)})


def classes(values: pd.Series, *, first: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """Code texts as numbers, the most frequent ones first, after those named.

    Parameters
    ----------
    values : text
    first : labels that keep the codes 0, 1, … whether they occur or not

    Returns
    -------
    codes : uint8
    labels : of the codes; beyond `MAX_CLASSES` all rarer ones are one, "other"
    """
    found = [str(name) for name in values.value_counts().index if name not in first]
    labels = [*first, *found]
    if len(labels) > MAX_CLASSES:
        labels = [*labels[:MAX_CLASSES], "other"]
    codes = {name: min(i, len(labels) - 1) for i, name in enumerate([*first, *found])}
    return values.map(codes).to_numpy().astype(np.uint8), labels


def place_columns(locations: pd.DataFrame) -> list[Column]:
    """Give where the locations lie, and their biomes."""
    biome, labels = classes(locations["biome_name"].replace("", "biome not given"))
    return [
        Column("lon", locations["lon"].to_numpy(np.float32)),
        Column("lat", locations["lat"].to_numpy(np.float32)),
        Column("biome", biome, labels=labels),
    ]


def season_columns(
    locations: pd.DataFrame, seasons: pd.DataFrame, patches: pd.DataFrame | None
) -> list[Column]:
    """Give what is known per season: source of the window, day and cloud of the patch, what is missing.

    Parameters
    ----------
    locations, seasons : tables
    patches : table, None where no patch was asked for

    Returns
    -------
    `source` (classes), `day` (since `EPOCH`, `NO_DAY` missing), `cloud` (%, `NO_CLOUD` missing) and
    `outcome` (classes, 0 = stored) of each season
    """
    order = list(dict.fromkeys(seasons["season"]))
    ids = locations["location_id"]
    sources, source_labels = classes(seasons["source"])
    columns = []
    if patches is not None:
        outcomes, outcome_labels = classes(
            patches["reason"].where(patches["status"] != "ok", "stored"), first=["stored"]
        )
        patches = patches.assign(outcome=outcomes)
    for season in order:
        here = (seasons["season"] == season).to_numpy()
        source = pd.Series(sources[here], index=seasons.loc[here, "location_id"]).reindex(ids)
        codes = source.to_numpy().astype(np.uint8)
        columns.append(Column("source", codes, season=season, labels=source_labels))
        if patches is None:
            continue
        part = patches[patches["season"] == season].set_index("location_id").reindex(ids)
        is_stored = (part["status"] == "ok").to_numpy()
        day = (part["datetime"].to_numpy().astype("datetime64[D]") - EPOCH).astype(np.int64)
        cloud = np.rint(100 * part["cloud_fraction"].to_numpy(float, na_value=np.nan))
        known = is_stored & ~np.isnan(cloud)
        columns += [
            Column("day", np.where(is_stored, day, NO_DAY).astype(np.uint16), season=season),
            Column("cloud", np.where(known, cloud, NO_CLOUD).astype(np.uint8), season=season),
            Column("outcome", part["outcome"].to_numpy(np.uint8), season=season, labels=outcome_labels),
        ]
    return columns


def packed(columns: Sequence[Column]) -> tuple[bytes, list[dict]]:
    """Put columns one after the other, each beginning at a multiple of 4 bytes.

    Returns
    -------
    content : of the file
    descriptions : of its columns
    """
    content, descriptions = bytearray(), []
    for column in columns:
        descriptions.append(column.described(len(content)))
        values = column.values.astype(column.values.dtype.newbyteorder("<"))
        content += values.tobytes() + bytes(-values.nbytes % 4)
    return bytes(content), descriptions
