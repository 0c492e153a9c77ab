"""Rows of table `scenes`: candidates with their facts, all other scenes as counts by reason."""

from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import tables

OF_ITEM = (
    "item_id",
    "collection",
    "catalog",
    "datetime",
    "cloud_cover",
    "nodata",
    "sun_zenith",
    "mgrs_tile",
    "epsg",
    "baseline",
    "dn_offset",
    "offset_source",
    "hrefs",
)
"""What a candidate's row tells of its scene."""
KEPT = ["location", "season", "rank", "days_from_target", "reason", "n", "item"]
"""Columns of candidates; `item` is the row number of the scene."""


def with_facts(kept: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Put the facts of each candidate's scene beside it."""
    of_item = items[list(OF_ITEM)].iloc[kept["item"]].reset_index(drop=True)
    return pd.concat([kept.drop(columns="item"), of_item], axis=1)


def without_facts(counts: pd.DataFrame) -> pd.DataFrame:
    """Fill in what only a candidate has."""
    text = ("item_id", "collection", "catalog", "mgrs_tile", "baseline", "offset_source", "hrefs")
    missing: dict[str, Any] = dict.fromkeys(text, "") | dict.fromkeys(
        ("cloud_cover", "nodata", "sun_zenith"), np.nan
    )
    missing |= {"rank": -1, "days_from_target": 0, "epsg": 0, "dn_offset": -1, "datetime": pd.NaT}
    return counts.assign(**{name: value for name, value in missing.items() if name not in counts})


def count(left_out: pd.DataFrame, silence: pd.DataFrame, taken: pd.DataFrame) -> pd.DataFrame:
    """Count the scenes left out by reason; a season without any has the reason of its silence.

    Parameters
    ----------
    left_out : `location`, `season`, `reason`
    silence : the same, one row for each season there is
    taken : `location`, `season` of what is accounted for
    """
    key = ["location", "season"]
    counts = left_out.groupby([*key, "reason"], as_index=False).size().rename(columns={"size": "n"})
    seen = pd.concat([counts[key], taken[key]]).drop_duplicates()
    silent = silence.assign(n=0).merge(seen, how="left", on=key, indicator=True)
    silent = silent[silent["_merge"] == "left_only"].drop(columns="_merge")
    return without_facts(pd.concat([counts, silent], ignore_index=True))


def in_order(result: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Bring the table into its columns and order: location, season, candidates first."""
    columns = list(tables.COLUMNS["scenes"])
    labels = {label: i for i, label in enumerate(windows["season"].drop_duplicates())}
    result = result.assign(order=result["season"].map(labels), after=result["rank"] < 0)
    result["is_failover"] = result["reason"] == "failover"
    order = ["location", "order", "after", "rank", "is_failover", "reason"]
    result = result.sort_values(order, ignore_index=True)
    types = {"location": np.int32, "rank": np.int16, "n": np.int32, "days_from_target": np.int16}
    types |= {"epsg": np.int32, "dn_offset": np.int16}
    types |= dict.fromkeys(("cloud_cover", "nodata", "sun_zenith"), np.float32)
    return result[columns].astype(types).astype({"datetime": "datetime64[ns]"})
