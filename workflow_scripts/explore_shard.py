"""Write what the explore page shows of the locations of one shard, once a reader clicks on one.

Reads locations.parquet and seasons.parquet of a dataset and, as far as they are made for it, the
cycles, greenness.zarr, the shard's scenes, retrieved patches and pixels.
Writes `{shard}.json`, a list with one entry per location (windows, series, fitted curve, the story of
its scenes), and `{shard}.jpg`, the quicklooks of all its patches in one picture, true color with the
report's stretch.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from workflow_scripts.core import store, tables
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.core.stage import atomic_path, run_stage
from workflow_scripts.explain import patch_lines, scene_lines, window_text
from workflow_scripts.explore.quicklooks import mosaic, quicklook
from workflow_scripts.phenology.curve import PhenologyOptions, fit_curve
from workflow_scripts.phenology.kernels import MISSING_DAY

LOG = logging.getLogger(__name__)

JPEG_QUALITY = 85
CURVE_STEP_DAYS = 4
"""Days between the points of the curve that are written; it is smooth."""
SCALE = 1000
"""Index values are written as integers, times this."""


def described(location: Mapping[str, Any], windows: pd.DataFrame) -> dict[str, Any]:
    """Describe a location and the windows of its seasons.

    Parameters
    ----------
    location : row of the locations
    windows : its rows of the seasons

    Returns
    -------
    JSON-like; each season's `window` is [first day of the year, days] or two dates, null where there is none
    """
    place = {
        "id": location["location_id"],
        "lon": round(float(location["lon"]), 5),
        "lat": round(float(location["lat"]), 5),
        "biome": location["biome_name"],
        "ecoregion": location["eco_name"],
        "is_mountain": bool(location["is_mountain"]),
        "split": location["split"],
    }
    seasons = [
        {"season": row["season"], "window": _window(row), "words": window_text(row)}
        for row in windows.to_dict("records")
    ]
    return {**place, "seasons": seasons}


def _window(row: Mapping[str, Any]) -> list[Any] | None:
    if not np.isnan(row["start_doy"]):
        return [round(float(row["start_doy"]), 1), round(float(row["length_days"]), 1)]
    if not pd.isna(row["start_date"]):
        return [f"{row['start_date']:%Y-%m-%d}", f"{row['end_date']:%Y-%m-%d}"]
    return None


def greenness_of(series: xr.Dataset, options: PhenologyOptions) -> dict[str, Any] | None:
    """Give the observations of a location and the curve fitted to them, as the estimation fits it.

    Parameters
    ----------
    series : greenness of one location, dim (time,)

    Returns
    -------
    days since 1970-01-01, values times `SCALE`; None without a value
    """
    date = series["date"].to_numpy().astype("datetime64[D]")
    index = series["index"].to_numpy().astype(np.float32)
    quality = series["reliability"].to_numpy().astype(np.int8)
    is_there = ~np.isnat(date) & ~np.isnan(index)
    if not is_there.any():
        return None
    day = np.where(np.isnat(date), MISSING_DAY, date.astype(np.int64))
    curve_day, curve, floor = fit_curve(day, index, quality, options)
    order = np.argsort(day[is_there], kind="stable")
    found = {
        "day": day[is_there][order].tolist(),
        "value": _integers(index[is_there][order]),
        "quality": quality[is_there][order].tolist(),
    }
    if curve.size:
        found["curve"] = {
            "start": int(curve_day[0]),
            "step": CURVE_STEP_DAYS,
            "value": _integers(curve[::CURVE_STEP_DAYS]),
            "floor": _integers(np.array([floor]))[0],
        }
    return found


def _integers(values: np.ndarray) -> list[int]:
    return np.rint(SCALE * values).astype(int).tolist()


def dates_of(cycles: pd.DataFrame) -> list[list[Any]]:
    """List the transition dates of a location's cycles: name, days since 1970-01-01."""
    listed = [
        [name, int(row[name].to_datetime64().astype("datetime64[D]").astype(np.int64))]
        for row in cycles.to_dict("records")
        for name in TRANSITIONS
        if not pd.isna(row[name])
    ]
    return sorted(listed, key=lambda pair: pair[1])


def story(season: str, scenes: pd.DataFrame, retrieved: pd.DataFrame) -> dict[str, Any]:
    """Tell what became of one season of a location: the candidates, the patch, or why there is none."""
    lines = [*scene_lines(scenes, retrieved, season), *patch_lines(retrieved, season)]
    here = retrieved[retrieved["season"] == season]
    facts: dict[str, Any] = {"story": [line.strip() for line in lines]}
    for patch in here[here["status"] == "ok"].to_dict("records"):
        facts["date"] = f"{patch['datetime']:%Y-%m-%d}"
        facts["days_from_target"] = int(patch["days_from_target"])
        if not np.isnan(patch["cloud_fraction"]):
            facts["cloud"] = round(100 * float(patch["cloud_fraction"]), 1)
    return facts


def main(job: SimpleNamespace) -> None:
    """Write details and quicklooks of the locations of one shard."""
    made, shard = dict(job.input.items()), int(job.wildcards.shard)
    locations = tables.read_table(made["locations"], "locations")
    locations = locations[locations["shard"] == shard]
    by_location = {
        kind: _by_location(made, kind, set(locations["location_id"]))
        for kind in ("seasons", "cycles", "scenes", "retrieved")
    }
    settings = {field.name for field in fields(PhenologyOptions)}
    options = PhenologyOptions(**{k: v for k, v in job.params.phenology.items() if k in settings})
    rows = locations.index.to_numpy()
    greenness = None
    if "greenness" in made:
        folder = Path(made["greenness"]).parent
        greenness = xr.open_zarr(folder, chunks=None, consolidated=False).isel(location=rows).load()
    pixels = None
    if "store" in made:
        pixels = store.open_store(Path(made["store"]).parent)[["dn10"]].isel(location=rows)
    entries, pictures = [], []
    for i, location in enumerate(locations.to_dict("records")):
        own = {kind: parts.get(location["location_id"]) for kind, parts in by_location.items()}
        entry = described(location, own["seasons"])
        if greenness is not None:
            entry["index"] = str(greenness.attrs.get("index", "greenness")).upper()
            entry["greenness"] = greenness_of(greenness.isel(location=i), options)
        if own["cycles"] is not None:
            entry["dates"] = dates_of(own["cycles"])
        if pixels is not None:
            patches = pixels.isel(location=i).load()
            names = patches["band10"].to_numpy().tolist()
            for season in entry["seasons"]:
                season |= story(season["season"], own["scenes"], own["retrieved"])
                if "date" in season:
                    season["picture"] = len(pictures)
                    dn10 = patches["dn10"].sel(season=season["season"]).to_numpy()
                    pictures.append(quicklook(dn10, names, white=job.params.white))
        entries.append(entry)
    with atomic_path(job.output.details) as temporary:
        temporary.write_text(json.dumps(entries, separators=(",", ":"), allow_nan=False))
    with atomic_path(job.output.quicklooks) as temporary:
        Image.fromarray(mosaic(pictures)).save(temporary, format="jpeg", quality=JPEG_QUALITY)
    LOG.info("shard %d: %d locations, %d quicklooks", shard, len(entries), len(pictures))


def _by_location(made: Mapping[str, str], kind: str, ids: set[str]) -> dict[str, pd.DataFrame]:
    """Read a table's rows of some locations, by location; empty where the table is not made."""
    if kind not in made:
        return {}
    table = pd.DataFrame(tables.read_table(made[kind], kind))
    return dict(tuple(table[table["location_id"].isin(ids)].groupby("location_id", sort=False)))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
