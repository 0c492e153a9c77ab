"""GeoLifeCLEF 2023: plant surveys in Europe with Sentinel-2 patches of four bands.

`Presences_Absences_train.csv` (one row per survey and species, separated by semicolons: `patchID`,
`lon`, `lat`, `speciesId`), the blind test `*test_blind*.csv`, and
`SatelliteImages/{rgb,nir}/CD/AB/XXXXABCD.jpeg` for patch XXXXABCD, 128 × 128 pixels of 10 m
(Botella et al. 2023).

The publisher clipped DN at 10,000, took the power 1 / 2.5 of DN / 10,000 and rounded to 0 to 255;
what is stored is the inverse, DN = 10,000 × (value / 255)^2.5, exact to about one part in a
hundred, and as JPEG left it. That the power is 1 / 2.5 follows from the publisher's description and
code; it was not checked on pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from workflow_scripts.importing.base import (
    SINGLE,
    Image,
    Place,
    Scan,
    find,
    need,
    opened,
    refuse_duplicates,
    relative,
)
from workflow_scripts.importing.layouts import LAYOUTS

GAMMA = 2.5
_MAX_DN = 10_000
_CHANNELS = {"rgb": ("B04", "B03", "B02"), "nir": ("B08",)}


def scan(folders: Sequence[Place], options: Mapping[str, Any]) -> Scan:
    """List the surveys with their species, and those of the blind test."""
    path = need(folders, "Presences_Absences_train.csv", what="GeoLifeCLEF surveys")
    table = _read_csv(path, ["patchID", "lon", "lat", "speciesId"])
    wrong = pd.to_numeric(table["speciesId"], errors="coerce").isna()
    if wrong.any():
        raise ValueError(
            f"{str(path)!r}: unknown label: speciesId {table['speciesId'][wrong].unique()[:5].tolist()} is no number"
        )
    table["species"] = pd.to_numeric(table["speciesId"]).astype(int)
    places = table.drop_duplicates(["patchID", "lon", "lat"])[["patchID", "lon", "lat"]]
    refuse_duplicates(places["patchID"], f"{str(path)!r}, patchID with several coordinates")
    species = table.groupby("patchID")["species"].agg(lambda ids: sorted(set(ids)))
    frame = places.sort_values("patchID").assign(
        location_id=lambda f: f["patchID"].astype(str),
        species=lambda f: [[str(code) for code in species[patch]] for patch in f["patchID"]],
        split="train",
        submission_id="",
    )
    blind = find(folders, "*test_blind*.csv", "*blind_test*.csv")
    if blind is not None:
        frame = pd.concat([frame, _read_blind(blind)], ignore_index=True)
    images = need(folders, "SatelliteImages", what="GeoLifeCLEF images")
    frame["path"] = [relative(_picture(images, "rgb", int(patch)), folders) for patch in frame["patchID"]]
    return Scan(
        places=frame[["location_id", "lon", "lat"]],
        samples=frame[["location_id", "path"]].assign(season=SINGLE, datetime=pd.NaT),
        labels=frame[["location_id", "species", "split", "submission_id"]],
    )


def _read_csv(path: Place, columns: Sequence[str]) -> pd.DataFrame:
    table = pd.read_csv(opened(path), sep=";", dtype={"speciesId": str})
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{str(path)!r} lacks the columns {missing}; it has {list(table.columns)}")
    return table


def _read_blind(path: Place) -> pd.DataFrame:
    """Read the blind surveys; without a column `Id` they are numbered from 1 as they stand."""
    table = _read_csv(path, ["patchID", "lon", "lat"])
    ids = table["Id"] if "Id" in table.columns else pd.Series(np.arange(1, len(table) + 1))
    refuse_duplicates(ids, f"{str(path)!r}, Id")
    return table[["patchID", "lon", "lat"]].assign(
        location_id="test-" + ids.astype(str),
        species=None,
        split="blind",
        submission_id=ids.astype(str),
    )


def _picture(images: Place, kind: str, patch: int) -> Place:
    name = str(patch)
    return images / "/".join([kind, *filter(None, (name[-2:], name[-4:-2])), f"{name}.jpeg"])


def decode(values: np.ndarray) -> np.ndarray:
    """Turn the publisher's 8-bit values back into DN; 0 stays 0."""
    dn = np.rint(_MAX_DN * (values.astype(np.float64) / 255) ** GAMMA)
    return np.where(values > 0, np.maximum(dn, 1), 0).astype(np.uint16)


def read(path: Place) -> Image:
    """Read the four bands of a patch from its two pictures."""
    layout = LAYOUTS["geolifeclef-2023"]["arrays"]["dn10"]
    images = next(folder.parent for folder in path.parents if folder.name == "rgb")
    channels = {}
    for kind, bands in _CHANNELS.items():
        picture = _picture(images, kind, int(path.stem))
        values = _read_picture(picture, len(bands), layout["side_px"])
        channels |= dict(zip(bands, np.moveaxis(values, -1, 0), strict=True))
    return Image({"dn10": np.stack([decode(channels[band]) for band in layout["bands"]])})


def _read_picture(path: Place, n_channels: int, side_px: int) -> np.ndarray:
    """Read a JPEG as (y, x, channel)."""
    if not path.exists():
        raise FileNotFoundError(f"GeoLifeCLEF patch {path.stem!r} lacks its bands: no file {str(path)!r}")
    try:
        with Picture.open(opened(path), formats=["JPEG"]) as picture:
            values = np.asarray(picture)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read ({error}): truncated or damaged. Download the archive again."
        ) from None
    values = values[..., None] if values.ndim == 2 else values
    if values.shape != (side_px, side_px, n_channels):
        raise ValueError(
            f"{str(path)!r} has {values.shape} values, expected {(side_px, side_px, n_channels)}"
        )
    return values
