"""What the report shows, read from the files of the stages; what was not made is None."""

import json
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from workflow_scripts.core import store, tables
from workflow_scripts.core.objects import open_folder, parent
from workflow_scripts.core.stage import read_json

LOG = logging.getLogger(__name__)

PATCH_COLUMNS = [
    "location_id",
    "location",
    "season",
    "status",
    "checksum",
    "reason",
    "collection",
    "datetime",
    "days_from_target",
    "scene_cloud_cover",
    "cloud_fraction",
    "sun_zenith",
    "mgrs_tile",
    "epsg",
    "baseline",
    "dn_offset",
    "lon",
    "lat",
    "is_complete",
]
"""Columns of `patches.parquet` that the report uses."""

MAPPED_COLUMNS = ["location_id", "location", "lon", "lat", "red", "green", "blue"]
"""Columns of `embeddings.parquet` that the report uses."""


@dataclass(frozen=True)
class Mapped:
    """A model's embeddings of a dataset."""

    places: pd.DataFrame
    """`location_id`, `location` (row in the store), `lon`, `lat`, `red`, `green`, `blue`."""
    neighbors: Sequence[Mapping[str, Any]]
    """Places, and those most like each; see `map_embeddings`."""


@dataclass(frozen=True)
class Dataset:
    """One dataset: its options and what its stages wrote."""

    name: str
    settings: Mapping[str, Any]
    """Resolved options."""
    locations: pd.DataFrame | None = None
    cycles: pd.DataFrame | None = None
    seasons: pd.DataFrame | None = None
    patches: pd.DataFrame | None = None
    rejections: pd.DataFrame | None = None
    """season, reason, n: scenes that were no candidates, and candidates."""
    greenness: xr.Dataset | None = None
    """Lazy: dims (location, time)."""
    store: xr.Dataset | None = None
    """Lazy: the patches."""
    store_path: str | None = None
    bands: Mapping[str, Any] | None = None
    weights: Mapping[str, Any] | None = None
    """Shares of the sampling weights."""
    verification: Mapping[str, Any] | None = None
    reference_phenology: pd.DataFrame | None = None
    reference_ndvi: pd.DataFrame | None = None
    land: str | None = None
    """Path of the land polygons."""
    sampling: Mapping[str, Any] | None = None
    """What the locations were chosen from."""
    areas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Files that the options `locations.region` and `exclude` name."""
    compare: Mapping[str, str] = field(default_factory=dict)
    """Paths of what the locations are compared with: ecoregions, baseline, land_cover."""

    embeddings: Mapping[str, Mapped] = field(default_factory=dict)
    """Model -> what is shown of its embeddings."""

    @property
    def season_names(self) -> list[str]:
        """Season labels in their order."""
        return list(dict.fromkeys(self.seasons["season"])) if self.seasons is not None else []

    @property
    def n_needed(self) -> int:
        """Patches a location needs to be of use: two seasons, or the only one."""
        return min(2, len(self.season_names))

    @property
    def stored(self) -> pd.DataFrame | None:
        """Patches that are in the store."""
        return None if self.patches is None else self.patches[self.patches["status"] == "ok"]


@dataclass(frozen=True)
class Model:
    """One trained encoder."""

    name: str
    family: str
    """The entry of `models` it was expanded from."""
    seed: int | None
    settings: Mapping[str, Any]
    metrics: pd.DataFrame | None = None
    """One row per logged step."""
    encoder: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the encoder's file."""


def load_dataset(name: str, settings: Mapping[str, Any], files: Mapping[str, Any]) -> Dataset:
    """Read a dataset's tables and open its stores.

    Parameters
    ----------
    name : of the dataset
    settings : its resolved options
    files : kind -> path, or list of paths (scenes); kinds that were not made are absent
    """

    def table(kind: str, schema: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        return (
            pd.DataFrame(tables.read_table(files[kind], schema, columns=columns)) if kind in files else None
        )

    def content(kind: str) -> Any:
        return read_json(files[kind]) if kind in files else None

    store_path = parent(files["store"]) if "store" in files else None
    return Dataset(
        name=name,
        settings=settings,
        locations=table("locations", "locations"),
        cycles=table("cycles", "cycles"),
        seasons=table("seasons", "seasons"),
        patches=table("patches", "patches", PATCH_COLUMNS),
        rejections=count_rejections(files["scenes"]) if "scenes" in files else None,
        greenness=xr.open_zarr(
            open_folder(parent(files["greenness"])).zarr_store(), chunks=None, consolidated=False
        )
        if "greenness" in files
        else None,
        store=store.open_store(store_path) if store_path else None,
        store_path=store_path,
        bands=content("bands"),
        weights=content("weights"),
        verification=content("verification"),
        reference_phenology=read_reference(files.get("reference_phenology")),
        reference_ndvi=read_reference(files.get("reference_ndvi")),
        land=files.get("land"),
        sampling=content("sampling"),
        areas={kind: files[kind] for kind in ("region", "exclude") if kind in files},
        compare={kind: files[kind] for kind in ("ecoregions", "baseline", "land_cover") if kind in files},
        embeddings={
            kind.split("/", 1)[1]: Mapped(
                pd.read_parquet(path, columns=MAPPED_COLUMNS),
                read_json(files[kind.replace("embeddings/", "neighbors/", 1)])["examples"],
            )
            for kind, path in files.items()
            if kind.startswith("embeddings/")
        },
    )


def load_model(name: str, settings: Mapping[str, Any], files: Mapping[str, str]) -> Model:
    """Read what a training wrote; `settings` holds `family` and `seed` beside the model's options."""
    return Model(
        name=name,
        family=settings["family"],
        seed=settings.get("seed"),
        settings=settings,
        metrics=read_lines(files["metrics"]) if "metrics" in files else None,
        encoder=encoder_metadata(files["encoder"]) if "encoder" in files else {},
    )


def count_rejections(paths: Iterable[str]) -> pd.DataFrame:
    """Sum the scenes of all shards by season and reason; a season without any counts as one."""
    counts = []
    for path in paths:
        scenes = tables.read_table(path, "scenes", columns=["season", "reason", "n"])
        scenes = scenes.assign(n=scenes["n"].clip(lower=1))
        counts.append(scenes.groupby(["season", "reason"], as_index=False)["n"].sum())
    if not counts:
        return pd.DataFrame({"season": [], "reason": [], "n": []})
    return pd.concat(counts).groupby(["season", "reason"], as_index=False)["n"].sum()


def encoder_metadata(path: str) -> dict[str, str]:
    """Read the metadata of a safetensors file: eight bytes of length, then JSON."""
    with Path(path).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)).get("__metadata__", {})


def read_lines(path: str) -> pd.DataFrame:
    """Read one JSON object per line; a last line cut short by a kill is left out."""
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            LOG.warning("%s: line %d is not JSON and is left out of the report", path, len(rows) + 1)
    return pd.DataFrame(rows)


def read_reference(path: str | None) -> pd.DataFrame | None:
    """Read a reference table (Parquet or CSV) that a dataset names."""
    if not path:
        return None
    if not Path(path).exists():
        raise FileNotFoundError(
            f"report.reference: {path} does not exist. Name an existing table, or null for none."
        )
    return pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path)
