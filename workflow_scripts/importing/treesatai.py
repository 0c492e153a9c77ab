"""TreeSatAI: Sentinel-2 patches of 6 × 6 pixels with the genera of the trees in them.

`s2/60m/<name>.tif` (12 bands, all at 10 m, in the order of the layout), `train_filenames.lst`,
`test_filenames.lst`, `labels/TreeSatBA_v9_60m_multi_labels.json`: name → list of [genus, share of the
area] (Ahlswede et al. 2023, Zenodo 6780578). The order of the bands is that of the archive's
documentation; files that describe their bands must agree with it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workflow_scripts.core.classes import CLASS_TABLES
from workflow_scripts.importing.base import (
    SINGLE,
    Image,
    Place,
    Scan,
    center,
    need,
    read_raster,
    refuse_duplicates,
    relative,
    to_dn,
)
from workflow_scripts.importing.layouts import LAYOUTS

SIZE_M = 60
_GENERA = [code for code, _ in CLASS_TABLES["treesatai-genera"]]


def scan(folders: Sequence[Place], options: Mapping[str, Any]) -> Scan:
    """List the patches of both file lists; genera with more than `min_label_share` of the area."""
    parts = []
    for part in ("train", "test"):
        path = need(folders, f"{part}_filenames.lst", what="TreeSatAI")
        names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        parts.append(pd.DataFrame({"file": names, "split": part}))
    frame = pd.concat(parts, ignore_index=True)
    refuse_duplicates(frame["file"], "TreeSatAI file lists")
    path = need(folders, "TreeSatBA_v9_60m_multi_labels.json", what="TreeSatAI labels")
    table = json.loads(path.read_text())
    unlabelled = [name for name in frame["file"] if name not in table]
    if unlabelled:
        raise ValueError(
            f"{str(path)!r} lacks {len(unlabelled)} files of the lists, such as {unlabelled[:3]}"
        )
    threshold = float(options.get("min_label_share", 0.0))
    frame["genus"] = [_genera(table[name], name, threshold) for name in frame["file"]]
    images = need(folders, "s2/60m", what="TreeSatAI images")
    places = [center(images / name, SIZE_M) for name in frame["file"]]
    frame["lon"], frame["lat"] = zip(*places, strict=True)
    frame["location_id"] = frame["file"].str.removesuffix(".tif")
    frame["path"] = [relative(images / name, folders) for name in frame["file"]]
    return Scan(
        places=frame[["location_id", "lon", "lat"]],
        samples=frame[["location_id", "path"]].assign(season=SINGLE, datetime=pd.NaT),
        labels=frame[["location_id", "genus", "split"]],
    )


def _genera(entries: Sequence[Sequence[Any]], name: str, threshold: float) -> list[str]:
    unknown = [genus for genus, _ in entries if genus not in _GENERA]
    if unknown:
        raise ValueError(f"TreeSatAI file {name!r}: unknown genus {unknown}; expected of {_GENERA}")
    found = {genus for genus, share in entries if share > threshold}
    return [genus for genus in _GENERA if genus in found]


def read(path: Place) -> Image:
    """Read the twelve bands of a patch."""
    layout = LAYOUTS["treesatai"]["arrays"]["dn10"]
    values, *where = read_raster(
        path, n_bands=len(layout["bands"]), side_px=layout["side_px"], names=layout["bands"]
    )
    return Image({"dn10": to_dn(values)}, *where)
