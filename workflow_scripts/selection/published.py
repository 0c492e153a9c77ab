"""A published choice of scenes, taken over scene for scene: a table of Earth Engine image ids.

An id such as ``20230811T105629_20230811T105939_T30TYN`` (the index of COPERNICUS/S2_SR_HARMONIZED)
names the start of the data take, the start of its strip or the time of processing, and the MGRS tile.
With tile and data take any catalog's item of that scene is found, whatever its own id looks like.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

ID_COLUMNS = ("location_id", "index", "ind")
"""What the id of a location is called, the first that is there; the numbers of SSL4Eco's tables have six
digits in the names of its folders, and so here."""
MAX_AFTER_START = pd.Timedelta(minutes=35)
"""A data take lasts no longer; the same tile is seen again after 50 minutes at the earliest, near the poles."""

_IMAGE = re.compile(r"(?:^|/)(\d{8}T\d{6})_(\d{8}T\d{6})_T(\d{2}[C-X][A-Z]{2})$")
_TAKE = re.compile(r"_(\d{8}T\d{6})")
_STRIP = re.compile(r"_S(\d{8}T\d{6})$")


def read_index(path: str | os.PathLike, labels: Sequence[str]) -> pd.DataFrame:
    """Read a table of locations and image ids.

    Parameters
    ----------
    path : CSV or Parquet with a column of `ID_COLUMNS` and `image_id_1`, `image_id_2`, …
    labels : seasons, in the order of these columns

    Returns
    -------
    DataFrame with `location_id`, `season`, `image_id`; the rows without an image are left out

    Raises
    ------
    FileNotFoundError, ValueError
        If the table is missing or lacks a column.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"scenes.path: no file {str(path)!r}")
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
    key = next((name for name in ID_COLUMNS if name in table), None)
    images = [name for name in table if re.fullmatch(r"image_id_\d+", name)]
    images = sorted(images, key=lambda name: int(name.rpartition("_")[2]))
    if key is None or not images or len(images) > len(labels):
        raise ValueError(
            f"scenes.path: {str(path)!r} has columns {list(table)}; expected one of {list(ID_COLUMNS)} and "
            f"image_id_1 to image_id_{len(labels)} at most, one per season of seasons.names ({', '.join(labels)})"
        )
    ids = table[key].astype(str) if key == "location_id" else table[key].astype(str).str.zfill(6)
    parts = [
        pd.DataFrame({"location_id": ids, "season": label, "image_id": table[image]})
        for image, label in zip(images, labels, strict=False)
    ]
    result = pd.concat(parts, ignore_index=True).dropna(subset="image_id")
    return result[result["image_id"] != ""].reset_index(drop=True)


def parse_image_ids(image_ids: pd.Series) -> pd.DataFrame:
    """Take Earth Engine ids apart.

    Returns
    -------
    DataFrame with `start` (of the data take), `second` (the other time in the id) and `mgrs_tile`;
    NaT and "" where it is no such id
    """
    parts = image_ids.str.extract(_IMAGE)
    times = {
        name: pd.to_datetime(parts[i], format="%Y%m%dT%H%M%S", errors="coerce")
        for i, name in enumerate(("start", "second"))
    }
    return pd.DataFrame({**times, "mgrs_tile": parts[2].fillna("")}, index=image_ids.index)


def resolve(wanted: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Find the items of the scenes that image ids name.

    Parameters
    ----------
    wanted : `image_id` and further columns, which are kept
    items : table `items`

    Returns
    -------
    DataFrame with the columns of `wanted`, `item` (row number in `items`) and `order` (0 for the best:
    the same strip, then the newest processing, then the id); without the ids that match no item
    """
    parsed = parse_image_ids(wanted["image_id"])
    rows = wanted.assign(start=parsed["start"], second=parsed["second"], mgrs_tile=parsed["mgrs_tile"])
    take = pd.to_datetime(items["datatake"].str.extract(_TAKE)[0], format="%Y%m%dT%H%M%S", errors="coerce")
    strip = pd.to_datetime(items["datatake"].str.extract(_STRIP)[0], format="%Y%m%dT%H%M%S", errors="coerce")
    numbered = pd.DataFrame(
        {
            "mgrs_tile": items["mgrs_tile"].to_numpy(),
            "take": take.to_numpy(),
            "strip": strip.to_numpy(),
            "datetime": items["datetime"].to_numpy(),
            "baseline": items["baseline"].to_numpy(),
            "created": items["created"].to_numpy(),
            "item_id": items["item_id"].to_numpy(),
            "item": np.arange(len(items)),
        }
    )
    found = rows[rows["mgrs_tile"] != ""].merge(numbered, on="mgrs_tile")
    since = found["datetime"] - found["start"]
    by_time = found["take"].isna() & (since >= pd.Timedelta(0)) & (since <= MAX_AFTER_START)
    found = found[(found["take"] == found["start"]) | by_time]
    found = found.assign(is_other=found["strip"] != found["second"])
    found = found.sort_values(
        ["is_other", "baseline", "created", "item_id"], ascending=[True, False, False, True], kind="stable"
    )
    found["order"] = found.groupby(list(wanted.columns), sort=False).cumcount()
    return found[[*wanted.columns, "item", "order"]].reset_index(drop=True)
