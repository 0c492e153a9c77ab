"""In which order the candidates of a location and season are tried."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import grid

CHOICES: Mapping[str, tuple[str, ...]] = {
    "clearest": ("cloudiness", "days", "item_id"),
    "closest_to_target": ("days", "cloudiness", "item_id"),
    "same_cycle": ("is_off_cycle", "cloudiness", "days", "item_id"),
    "score": ("score", "days", "item_id"),
}
"""What candidates are sorted by, per `scenes.choice`."""


def rank_candidates(
    rows: pd.DataFrame, items: pd.DataFrame, locations: pd.DataFrame, *, settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Sort the candidates of each location and season as `scenes.choice` says; `rank` counts from 0.

    Scenes that only fill up (`is_filler`) come last. Further views of one data take in the same zone
    (from an overlapping tile) are left out: their pixels are the same. Their `rank` is -1.
    """
    own_zone = pd.Series(
        grid.utm_epsg(locations["lon"], locations["lat"]), index=locations["location"].to_numpy()
    )
    rows = rows.assign(
        epsg=items["epsg"].to_numpy()[rows["item"]],
        datatake=items["datatake"].to_numpy()[rows["item"]],
        item_id=items["item_id"].to_numpy()[rows["item"]],
        cloudiness=items["cloud_cover"].fillna(np.inf).to_numpy(float)[rows["item"]],
        days=rows["days_from_target"].abs(),
    )
    weights = settings.get("score", {})
    rows["score"] = weights.get("days", 0) * rows["days"]
    for name in ("cloud_cover", "nodata", "sun_zenith"):
        if weights.get(name):
            rows["score"] += weights[name] * items[name].fillna(100).to_numpy(float)[rows["item"]]
    rows["is_own_zone"] = rows["epsg"] == rows["location"].map(own_zone)
    rows["is_off_zone"] = _is_not_best(rows, "epsg", ["is_own_zone"])
    rows["is_off_cycle"] = _is_not_best(rows, "cycle", ["cycle"])
    order = ["location", "season", "is_filler", "is_off_zone", *CHOICES[settings["choice"]]]
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    view = ["location", "season", "epsg", "datatake"]
    repeated = rows.duplicated(view)
    rows["rank"] = rows[~repeated].groupby(["location", "season"]).cumcount()
    rows["rank"] = rows["rank"].fillna(-1).astype(np.int16)
    return rows


def _is_not_best(rows: pd.DataFrame, column: str, prefer: Sequence[str]) -> np.ndarray:
    """Tell which rows lie off their location's best group: that which serves the most seasons.

    Scenes that only fill up have no voice. Ties go to the group that is larger in `prefer`, then to the clearer one.
    """
    best = (
        rows[~rows["is_filler"]]
        .groupby(["location", column, "season"], as_index=False)
        .agg(cloudiness=("cloudiness", "min"), **{f"by_{name}": (name, "max") for name in prefer})
    )
    groups = best.groupby(["location", column], as_index=False).agg(
        n=("season", "size"),
        cloudiness=("cloudiness", "sum"),
        **{f"by_{name}": (f"by_{name}", "max") for name in prefer},
    )
    keys = ["n", *[f"by_{name}" for name in prefer], "cloudiness"]
    groups = groups.sort_values(["location", *keys], ascending=[True, *[False] * (len(keys) - 1), True])
    chosen = groups.drop_duplicates("location").set_index("location")[column]
    return (rows[column] != rows["location"].map(chosen)).to_numpy()
