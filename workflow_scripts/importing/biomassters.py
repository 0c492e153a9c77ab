"""BioMassters: chips of Finnish forest, twelve months of Sentinel-2, above-ground biomass.

`train_features/<chip>_S2_MM.tif` (ten bands and a cloud probability, 256 × 256 pixels),
`train_agbm/<chip>_agbm.tif` (tonnes per hectare), the same for `test`, and
`The_BioMassters_-_features_metadata.csv.csv` (Nascetti et al. 2023). Months are numbered from
September (00) to August (11). Chips have no coordinates. Sentinel-1 files are not read.

The target is the distribution of a chip's biomass over eight bins with the edges of the SSL4Eco
paper, biomass clipped at 500.
"""

import calendar
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.importing.base import (
    Image,
    Place,
    Scan,
    find,
    need,
    opened,
    read_raster,
    refuse_duplicates,
    relative,
    to_dn,
)
from workflow_scripts.importing.layouts import LAYOUTS

BIN_EDGES = (0, 4.57, 21.78, 45.64, 66.72, 87.46, 113.28, 156.9, 500)
"""Tonnes per hectare (SSL4Eco)."""
BINS = [f"agbm_bin{i}" for i in range(len(BIN_EDGES) - 1)]
MONTHS = LAYOUTS["biomassters"]["seasons"]
_COLUMNS = ("filename", "chip_id", "satellite", "split", "corresponding_agbm")
_FILE = re.compile(r"(?P<chip>\w+)_S2_(?P<month>\d\d)\.tif")


def scan(folders: Sequence[Place], options: Mapping[str, Any]) -> Scan:
    """List the Sentinel-2 images of the months wanted, and bin the biomass of each chip."""
    path = need(folders, "*features_metadata*.csv*", what="BioMassters metadata")
    table = pd.read_csv(opened(path))
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{str(path)!r} lacks the columns {missing}; it has {list(table.columns)}")
    table = table[table["satellite"] == "S2"].sort_values("filename", ignore_index=True)
    refuse_duplicates(table["filename"], str(path))
    table["season"] = [_month(row) for row in table.to_dict("records")]
    chips = table.drop_duplicates("chip_id")[["chip_id", "split", "corresponding_agbm"]]
    chips = chips.rename(columns={"chip_id": "location_id"}).reset_index(drop=True)
    table = table[table["season"].isin(options.get("seasons") or MONTHS)]
    images = {
        split: need(folders, f"{split}_features", what="BioMassters images")
        for split in table["split"].unique()
    }
    table["path"] = [
        relative(images[split] / name, folders)
        for split, name in zip(table["split"], table["filename"], strict=True)
    ]
    maps = {split: find(folders, f"{split}_agbm") for split in chips["split"].unique()}
    shares = [
        bin_biomass(maps[split] and maps[split] / str(name))
        for split, name in zip(chips["split"], chips["corresponding_agbm"], strict=True)
    ]
    labels = pd.concat(
        [chips[["location_id", "split"]], pd.DataFrame(np.array(shares), columns=BINS)], axis=1
    )
    return Scan(
        places=chips[["location_id"]].assign(lon=np.nan, lat=np.nan),
        samples=table.rename(columns={"chip_id": "location_id"})[["location_id", "season", "path"]].assign(
            datetime=pd.NaT
        ),
        labels=labels,
    )


def _month(row: Mapping[str, Any]) -> str:
    """Give the month of a file from its number, which counts from September."""
    match = _FILE.fullmatch(str(row["filename"]))
    if not match or match["chip"] != row["chip_id"] or int(match["month"]) >= len(MONTHS):
        raise ValueError(
            f"BioMassters: {row['filename']!r} is no file of chip {row['chip_id']!r} and month 00 to 11"
        )
    month = MONTHS[int(match["month"])]
    said = str(row.get("month", "")).strip().lower()
    if said in map(str.lower, (*calendar.month_name[1:], *calendar.month_abbr[1:])) and month[:3] != said[:3]:
        raise ValueError(
            f"BioMassters: {row['filename']!r} should be of {month}, but the metadata say {said!r}"
        )
    return month


def bin_biomass(path: Place | None) -> np.ndarray:
    """Give the share of a chip's pixels in each bin of biomass; NaN where the labels are not published.

    Pixels that are no number are not counted.
    """
    if path is None or not path.exists():
        return np.full(len(BINS), np.nan)
    values = _read_biomass(path).astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return np.full(len(BINS), np.nan)
    counts = np.histogram(np.clip(values, BIN_EDGES[0], BIN_EDGES[-1]), BIN_EDGES)[0]
    return counts / counts.sum()


def _read_biomass(path: Place) -> np.ndarray:
    side = LAYOUTS["biomassters"]["label_maps"]["agbm"]["side_px"]
    return read_raster(path, n_bands=1, side_px=side)[0][0].astype(np.float32)


def read_maps(folders: Sequence[Place], chip: str, split: str) -> dict[str, np.ndarray]:
    """Read a chip's biomass, tonnes per hectare, 256 × 256 pixels of 10 m."""
    path = _folder_of_maps(tuple(folders), split)
    path = path and path / f"{chip}_agbm.tif"
    return {"agbm": _read_biomass(path)} if path and path.exists() else {}


@cache
def _folder_of_maps(folders: tuple[Place, ...], split: str) -> Place | None:
    return find(folders, f"{split}_agbm")


def read(path: Place) -> Image:
    """Read the ten bands of an image; the cloud probability behind them is left out."""
    layout = LAYOUTS["biomassters"]["arrays"]["dn10"]
    values, *_ = read_raster(
        path, n_bands=len(layout["bands"]) + 1, side_px=layout["side_px"], names=[*layout["bands"], "CLP"]
    )
    return Image({"dn10": to_dn(values[:-1])})
