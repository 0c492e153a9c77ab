"""Encoders without a network: how much of a score is color, place or climate.

Mean spectrum and band quantiles describe a patch's pixels and no texture. Coordinates see the place alone, a
table what a user knows of it (climate, soil); joined ones put several encoders side by side, so that a task shows
what imagery adds to them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from pretrain import recipes
from pretrain.data import NDVI_BANDS, BandPlan, Batch
from pretrain.downstream.embedder import Embedder, Files
from workflow_scripts.core import provenance
from workflow_scripts.core.bands import REFLECTANCE_SCALE

STATISTICS = ("mean", "std")
"""What the mean spectrum holds of each band."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""What the band quantiles hold of each band."""
PIXEL_SCALING = "reflectance (0 to about 1), NDVI (-1 to 1)"
N_FREQUENCIES = 8
"""Of the coordinates: 1, 2, 4 … 128 waves around the globe, the shortest about 300 km at the equator."""


def open_mean_spectrum(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    """Describe a patch by means and deviations of its bands."""
    return _pixels(settings, {"encoder": "mean_spectrum", "statistics": list(STATISTICS)}, spectrum, 2)


def open_band_quantiles(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    """Describe a patch by quantiles of its bands."""
    facts = {"encoder": "band_quantiles", "quantiles": list(QUANTILES)}
    return _pixels(settings, facts, quantiles, len(QUANTILES))


def _pixels(settings: Mapping[str, Any], facts: dict[str, Any], embed: Any, n_per_band: int) -> Embedder:
    bands = recipes.resolve({"objective": "seco", **settings}).bands
    facts = {**facts, "scaling": PIXEL_SCALING}
    return Embedder(
        bands=bands,
        n_features=len(bands) * n_per_band,
        digest=provenance.digest({**facts, "bands": bands}),
        facts=facts,
        embed=embed,
    )


def pixel_values(batch: Batch, plan: BandPlan) -> list[Tensor]:
    """Give each band's reflectance, and NDVI, at native resolution: float32 (N, pixels), NaN = no data."""
    values: dict[str, Tensor] = {}
    for name, bands in plan.stored.items():
        dn = batch.dn[name][:, 0].to(torch.float32).flatten(2)
        reflectance = torch.where(dn > 0, dn * REFLECTANCE_SCALE, torch.nan)
        values |= dict(zip(bands, reflectance.unbind(1), strict=True))
    if "NDVI" in plan.bands:
        near_infrared, red = (values[band] for band in NDVI_BANDS)
        values["NDVI"] = (near_infrared - red) / (near_infrared + red)
    return [values[band] for band in plan.bands]


def spectrum(batch: Batch, plan: BandPlan) -> Tensor:
    """Describe each patch by the mean and standard deviation of its bands' reflectance.

    Parameters
    ----------
    batch : one season; bands at native resolution, 60 m bands over their covering window

    Returns
    -------
    float32 (N, 2 × bands): means, then deviations, over the pixels with data; 0 where a band has none
    """
    values = pixel_values(batch, plan)
    means = [band.nanmean(dim=1) for band in values]
    deviations = [
        (band - mean[:, None]).square().nanmean(dim=1).sqrt()
        for band, mean in zip(values, means, strict=True)
    ]
    return torch.nan_to_num(torch.stack([*means, *deviations], dim=1))


def quantiles(batch: Batch, plan: BandPlan) -> Tensor:
    """Describe each patch by quantiles of its bands' reflectance.

    Returns
    -------
    float32 (N, bands × quantiles), band after band; 0 where a band has no data
    """
    at = torch.tensor(QUANTILES, device=batch.lonlat.device)
    found = [torch.nanquantile(band, at, dim=1).T for band in pixel_values(batch, plan)]
    return torch.nan_to_num(torch.cat(found, dim=1))


def open_coordinates(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    """Describe a place by Fourier features of its coordinates, and see no pixel."""
    facts = {"encoder": "coordinates", "scaling": "none", "frequencies": N_FREQUENCIES}
    return Embedder(
        bands=(),
        n_features=4 * N_FREQUENCIES,
        digest=provenance.digest(facts),
        facts=facts,
        embed=lambda batch, plan: waves(batch.lonlat),
    )


def waves(lonlat: Tensor) -> Tensor:
    """Give sine and cosine of longitude and latitude (degrees) times 1, 2, 4, …: float32 (N, 4 × frequencies)."""
    angles = torch.deg2rad(lonlat.to(torch.float64))[:, :, None] * 2.0 ** torch.arange(
        N_FREQUENCIES, device=lonlat.device
    )
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1).to(torch.float32)


def open_table(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    """Describe a place by columns of a table, joined by `location_id`, as z-scores over the table's complete rows.

    Locations that the table lacks, or where a value is missing, have no embedding.
    """
    path = files.table
    if path is None or not path.exists():
        raise FileNotFoundError(
            f"encoder `table`: {path} does not exist. Give `path`, a CSV or Parquet file with location_id"
        )
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    columns = list(settings["columns"])
    missing = [name for name in ("location_id", *columns) if name not in frame]
    if missing:
        raise ValueError(f"encoder `table`: {path} lacks columns {missing}; it has {list(frame)[:50]}")
    if frame["location_id"].duplicated().any():
        raise ValueError(f"encoder `table`: {path} names a location_id twice")
    values = frame.set_index(frame["location_id"].astype(str))[columns].astype(float).dropna()
    deviation = values.std(ddof=0)
    scaled = ((values - values.mean()) / deviation.where(deviation > 0, 1)).astype(np.float32)

    def embed(batch: Batch, plan: BandPlan | None) -> Tensor:
        return torch.from_numpy(scaled.reindex(list(batch.location_id)).to_numpy()).to(batch.lonlat.device)

    facts = {"encoder": "table", "columns": columns, "scaling": "z-scores over the table's rows"}
    return Embedder(
        bands=(),
        n_features=len(columns),
        digest=provenance.digest({**facts, "values": pd.util.hash_pandas_object(scaled).sum().item()}),
        facts=facts,
        embed=embed,
        may_lack=True,
    )


def open_joined(settings: Mapping[str, Any], files: Files, device: str) -> Embedder:
    """Put embeddings of several models side by side, each divided by its mean length.

    They are joined by `location_id` and season; a location that one of them lacks has none.
    """
    tables, digests = [], []
    for folder in files.parts:
        with xr.open_zarr(folder, chunks=None) as dataset:
            values = dataset["embedding"].to_numpy()
            names = dataset["location_id"].values.astype(object)
            digests.append(dataset.attrs["encoder_digest"])
        present = np.isfinite(values).all(axis=2)
        length = np.linalg.norm(values[present], axis=1).mean() if present.any() else 1.0
        tables.append((pd.Index(names), values / np.float32(length or 1)))

    def embed(batch: Batch, plan: BandPlan | None) -> Tensor:
        season = batch.season[:, 0].cpu().numpy()
        found = [values[index.get_indexer(list(batch.location_id)), season] for index, values in tables]
        return torch.from_numpy(np.concatenate(found, axis=1)).to(batch.lonlat.device)

    facts = {
        "encoder": "joined",
        "parts": list(settings["parts"]),
        "scaling": "each part by its mean length",
    }
    return Embedder(
        bands=(),
        n_features=sum(values.shape[2] for _, values in tables),
        digest=provenance.digest({**facts, "digests": digests}),
        facts=facts,
        embed=embed,
        may_lack=True,
    )
