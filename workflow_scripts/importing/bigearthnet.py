"""BigEarthNet: one folder per patch, one GeoTIFF per band, CORINE labels in 19 classes.

Version 1 (Sumbul et al. 2019, 2021): `BigEarthNet-v1.0/<patch>/<patch>_B02.tif` and
`<patch>_labels_metadata.json` with labels of the 43 classes; split lists `train.csv`, `val.csv`,
`test.csv`. Version 2 (Clasen et al. 2024, reBEN): `BigEarthNet-S2/<tile>/<patch>/<patch>_B02.tif` and
`metadata.parquet` with labels of the 19 classes and the split.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj

from workflow_scripts.core import grid
from workflow_scripts.core.classes import BIGEARTHNET_19, CLASS_TABLES, CORINE_DROPPED
from workflow_scripts.importing.base import (
    SINGLE,
    Image,
    Place,
    Scan,
    center,
    find,
    need,
    opened,
    read_raster,
    refuse_duplicates,
    relative,
    to_dn,
    walk_folders,
)
from workflow_scripts.importing.layouts import LAYOUTS

logger = logging.getLogger(__name__)

SIZE_M = 1200
_PATCH = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d+(_N\d{4}_R\d{3}_T\w{5})?_\d+_\d+")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_CLASSES = [code for code, _ in CLASS_TABLES["bigearthnet-19"]]


def merge_labels(labels: Sequence[str], patch: str) -> list[str] | None:
    """Give the classes of the 19 that a patch's labels stand for; None where none is left.

    Raises
    ------
    ValueError
        For a label of neither nomenclature.
    """
    unknown = [label for label in labels if label not in BIGEARTHNET_19 and label not in CORINE_DROPPED]
    if unknown:
        raise ValueError(f"BigEarthNet patch {patch!r}: unknown label(s) {unknown}; expected CORINE classes")
    found = {BIGEARTHNET_19[label] for label in labels if label in BIGEARTHNET_19}
    return [name for name in _CLASSES if name in found] or None


def scan_v1(folders: Sequence[Place], options: Mapping[str, Any]) -> Scan:
    """List the patches of version 1; where there are split lists, those that stand in one."""
    found = {}
    for folder in folders:
        for entry in walk_folders(folder, 3):
            if _PATCH.fullmatch(entry.name):
                if entry.name in found:
                    raise ValueError(
                        f"BigEarthNet patch {entry.name!r} is there twice: {found[entry.name]} and {entry}"
                    )
                found[entry.name] = entry
    if not found:
        raise FileNotFoundError(f"BigEarthNet: no folder of a patch in {', '.join(map(str, folders))}")
    split = _read_splits(folders)
    missing = sorted(set(split) - set(found))
    if missing:
        raise ValueError(
            f"BigEarthNet: {len(missing)} patches of the split lists are not there, such as {missing[:3]}"
        )
    names = sorted(split or found)
    rows = [
        {"location_id": name, **_read_metadata(found[name]), "split": split.get(name, "")} for name in names
    ]
    frame = pd.DataFrame(rows)
    frame["path"] = [relative(found[name], folders) for name in names]
    logger.info("BigEarthNet: %d patches, %d of them in split lists", len(found), len(split))
    return _scan(frame)


def _read_splits(folders: Sequence[Place]) -> dict[str, str]:
    split: dict[str, str] = {}
    for name, part in _SPLITS.items():
        path = find(folders, f"{name}.csv", f"bigearthnet-{name}.csv")
        if path is None:
            continue
        lines = path.read_text().splitlines()
        ids = pd.Series([line.split(",")[0].strip() for line in lines], dtype=object)
        ids = ids[ids.map(lambda text: bool(_PATCH.fullmatch(text)))]
        refuse_duplicates(ids, f"BigEarthNet split list {path.name!r}")
        both = [text for text in ids if text in split]
        if both:
            raise ValueError(
                f"BigEarthNet: {len(both)} patches stand in {path.name!r} and another list, such as {both[:3]}"
            )
        split |= dict.fromkeys(ids, part)
    return split


@cache
def _epsg(projection: str) -> int:
    return int(pyproj.CRS.from_wkt(projection).to_epsg())


def _read_metadata(folder: Place) -> dict[str, Any]:
    path = folder / f"{folder.name}_labels_metadata.json"
    try:
        content = json.loads(path.read_text())
        corner = content["coordinates"]
        x, y = (corner["ulx"] + corner["lrx"]) / 2, (corner["uly"] + corner["lry"]) / 2
        lon, lat = grid.unproject(x, y, _epsg(content["projection"]))
        moment = pd.Timestamp(content["acquisition_date"])
        labels = merge_labels(content["labels"], folder.name)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"BigEarthNet patch {folder.name!r} lacks its labels: no file {path}"
        ) from None
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{str(path)!r} is not BigEarthNet's metadata: {error!r}") from None
    return {"lon": float(lon), "lat": float(lat), "datetime": moment, "labels": labels}


def scan_v2(folders: Sequence[Place], options: Mapping[str, Any]) -> Scan:
    """List the patches of version 2: those of `metadata.parquet`."""
    path = need(folders, "metadata.parquet", what="BigEarthNet version 2")
    present = pq.read_schema(opened(path)).names
    missing = [name for name in ("patch_id", "labels", "split") if name not in present]
    if missing:
        raise ValueError(f"{str(path)!r} lacks the columns {missing}; it has {present}")
    frame = pd.read_parquet(opened(path), columns=["patch_id", "labels", "split"])
    frame = frame.rename(columns={"patch_id": "location_id"}).sort_values("location_id", ignore_index=True)
    refuse_duplicates(frame["location_id"], str(path))
    root = need(folders, "BigEarthNet-S2", what="BigEarthNet version 2")
    patches = [root / name.rsplit("_", 2)[0] / name for name in frame["location_id"]]
    frame["labels"] = [
        merge_labels(list(labels), name)
        for name, labels in zip(frame["location_id"], frame["labels"], strict=True)
    ]
    places = [center(folder / f"{folder.name}_B02.tif", SIZE_M) for folder in patches]
    frame["lon"], frame["lat"] = zip(*places, strict=True)
    frame["path"] = [relative(folder, folders) for folder in patches]
    frame["datetime"] = [pd.Timestamp(name.split("_")[2]) for name in frame["location_id"]]
    return _scan(frame)


def _scan(frame: pd.DataFrame) -> Scan:
    return Scan(
        places=frame[["location_id", "lon", "lat"]],
        samples=frame[["location_id", "path", "datetime"]].assign(season=SINGLE),
        labels=frame[["location_id", "labels", "split"]],
    )


def read(folder: Place) -> Image:
    """Read the twelve bands of a patch, each at its own resolution."""
    arrays, place = {}, (0, np.nan, np.nan)
    for name, entry in LAYOUTS["bigearthnet"]["arrays"].items():
        parts = []
        for band in entry["bands"]:
            path = folder / f"{folder.name}_{band}.tif"
            if not path.exists():
                raise FileNotFoundError(
                    f"BigEarthNet patch {folder.name!r} lacks band {band}: no file {path}"
                )
            values, *where = read_raster(path, n_bands=1, side_px=entry["side_px"])
            parts.append(to_dn(values[0]))
            if place[0] and tuple(where) != place:
                raise ValueError(
                    f"BigEarthNet patch {folder.name!r}: band {band} lies elsewhere than the others"
                )
            place = tuple(where)
        arrays[name] = np.stack(parts)
    return Image(arrays, *place)
