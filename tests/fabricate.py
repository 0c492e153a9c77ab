"""Small datasets as the stages write them, invented where a test needs no real stage.

Three regions (temperate north, tropical, temperate south), a yearly cycle of greenness, patches of
64 pixels whose NDVI follows it. Deterministic.
"""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from shapely.geometry import Point, box

from workflow_scripts.core import bands, grid, store, tables
from workflow_scripts.core.seasons import SEASONS, TRANSITIONS, wrap_doy
from workflow_scripts.core.stage import write_json

CENTERS = ((12.0, 47.3), (14.5, -0.8), (18.9, -33.0))
BIOMES = (
    "Temperate Broadleaf & Mixed Forests",
    "Tropical Grasslands",
    "Deserts & Xeric Shrublands",
    "Boreal Forests",
)
SIZE_M = 640
PER_SHARD = 4
YEARS = range(2019, 2023)
REFLECTANCE = dict(
    zip(bands.ALL_BANDS, (300, 400, 600, 700, 1100, 2000, 2300, 2500, 2600, 2700, 1900, 1100), strict=True)
)
"""DN of each band at full green, but for B04 and B08."""


def settings(**report):
    """Options of a dataset, as resolved from a configuration."""
    return {
        "locations": {"design": "stratified", "spacing_m": 700, "land": None},
        "greenness": {"source": "modis", "index": "evi", "years": [2019, 2022]},
        "phenology": {"low": 0.15, "high": 0.9},
        "seasons": {"strategy": "phenology", "names": list(SEASONS)},
        "scenes": {"years": [2021, 2022], "max_cloud_cover": 20, "choice": "clearest"},
        "patches": {"size_m": SIZE_M},
        "weights": {
            "non_vegetated": 0.25,
            "mountain": 2.0,
            "max_ndvi": 0.1,
            "mask_clouds": False,
            "mask_snow": False,
        },
        "report": {
            "title": None,
            "notice": None,
            "sources": [],
            "reference": {"phenology": None, "ndvi": None, "max_distance_km": 1.0},
            "examples": 4,
            "max_reflectance": 0.35,
            **report,
        },
    }


def locations(n=12):
    """Table of locations around three centers."""
    rng = np.random.default_rng(0)
    lon, lat = (np.array([CENTERS[i % 3][axis] for i in range(n)]) for axis in (0, 1))
    lon, lat = lon + rng.uniform(-0.03, 0.03, n), lat + rng.uniform(-0.03, 0.03, n)
    biome = np.arange(n) % len(BIOMES)
    frame = pd.DataFrame(
        {
            "location_id": [f"P{i:03d}" for i in range(n)],
            "lon": lon,
            "lat": lat,
            "shard": np.arange(n) // PER_SHARD,
            "eco_id": 9000 + biome,
            "eco_name": [f"eco {b}" for b in biome],
            "biome_num": biome + 1,
            "biome_name": [BIOMES[b] for b in biome],
            "realm": "Nowhere",
            "stratum": "s",
            "inclusion_probability": 0.5,
            "is_mountain": np.arange(n) % 5 == 0,
            "split": "train",
            "distance_to_evaluation_km": np.nan,
        }
    )
    return gpd.GeoDataFrame(frame, geometry=[Point(p) for p in zip(lon, lat, strict=True)], crs=4326)


def dates_of_year(lat, year):
    """The seven dates of a year's cycle: peak in July in the north, in January in the south."""
    peak = pd.Timestamp(year, 7, 10) if lat > -5 else pd.Timestamp(year, 1, 12)
    days = dict(zip(TRANSITIONS, (-90, -60, -35, 0, 45, 75, 110), strict=True))
    return {name: peak + pd.Timedelta(days=shift) for name, shift in days.items()}


def cycles(places):
    """Table of cycles, one a year at each place but the last."""
    rows = [
        {
            "location_id": place.location_id,
            "year": year,
            "cycle": 1,
            **dates_of_year(place.lat, year),
            "amplitude": 0.5,
            "minimum": 0.15,
            "r2": 0.97,
            "n_observations": 23,
            "max_gap_days": 20.0,
            "snow_fraction": 0.0,
            "qa": 0,
            "qa_detailed": 0,
        }
        for place in places.iloc[:-1].itertuples()
        for year in YEARS
    ]
    return pd.DataFrame(rows)


def seasons(places):
    """Table of seasons between the transitions; the last place is filled from the first."""
    rows = []
    borders = ("greenup", "maturity", "senescence", "dormancy", "greenup")
    for place in places.itertuples():
        days = [float(dates_of_year(place.lat, 2020)[name].dayofyear) for name in borders]
        filled = place.location_id == places["location_id"].iloc[-1]
        for season, start, end in zip(SEASONS, days[:-1], days[1:], strict=True):
            length = (end - start) % 365.25
            rows.append(
                {
                    "location_id": place.location_id,
                    "season": season,
                    "start_doy": start,
                    "end_doy": end,
                    "start_date": pd.NaT,
                    "end_date": pd.NaT,
                    "target_doy": float(wrap_doy(start + length / 2)),
                    "target_date": pd.NaT,
                    "length_days": length,
                    "source": "filled" if filled else "observed",
                    "donor_id": places["location_id"].iloc[0] if filled else "",
                    "donor_distance_km": 1.0 if filled else np.nan,
                    "n_years": 0 if filled else 4,
                    "spread_days": np.nan if filled else 3.0,
                    "sunlit_days": 30.0,
                }
            )
    return pd.DataFrame(rows)


def greenness(places):
    """Flat store of a noisy yearly curve every 16 days."""
    rng = np.random.default_rng(1)
    dates = pd.date_range("2019-01-01", "2022-12-31", freq="16D")
    day = np.tile((dates - pd.Timestamp("1970-01-01")).days.to_numpy(np.int32), (len(places), 1))
    phase = np.where(places["lat"].to_numpy() > -5, 191, 12)[:, None]
    curve = 0.4 + 0.25 * np.cos(2 * np.pi * (dates.dayofyear.to_numpy() - phase) / 365.25)
    value = np.round((curve + rng.normal(0, 0.02, curve.shape)) * 1e4).astype(np.int16)
    reliability = rng.choice(4, value.shape, p=(0.7, 0.15, 0.05, 0.1)).astype(np.int8)
    value[reliability == 3] = -32768
    scaled = {"scale_factor": 1e-4, "_FillValue": -32768, "long_name": "evi"}
    return xr.Dataset(
        {
            "index": (("location", "time"), value, scaled),
            "date": (("location", "time"), day, {"units": "days since 1970-01-01"}),
            "reliability": (("location", "time"), reliability),
        },
        coords={"location_id": ("location", places["location_id"].to_numpy(object))},
        attrs={"index": "evi", "source": "invented", "years": [2019, 2022]},
    )


def fill_store(path, places, windows):
    """Write patches whose NDVI follows the season; P001 lacks winter, P002 all but summer. Gives the index."""
    store.create_store(path, locations=places, seasons=SEASONS, size_m=SIZE_M, per_shard=PER_SHARD)
    rng = np.random.default_rng(2)
    lost = {("P001", "winter"): "cloudy", **{("P002", s): "no_candidate" for s in SEASONS if s != "summer"}}
    targets = windows.set_index(["location_id", "season"])["target_doy"]
    rows = []
    for shard in range(-(-len(places) // PER_SHARD)):
        arrays = store.empty_shard(path, shard)
        for row, place in enumerate(places[places["shard"] == shard].itertuples()):
            for s, season in enumerate(SEASONS):
                reason = lost.get((place.location_id, season), "")
                time = pd.Timestamp(2021 + row % 2, 1, 1) + pd.Timedelta(
                    days=targets[place.location_id, season] + 2
                )
                if not reason:
                    _draw_patch(arrays, row, s, place=place, green=(0.6, 0.9, 0.5, 0.2)[s], rng=rng)
                    arrays["datetime"][row, s] = int(time.timestamp())
                rows.append(_index_row(place, shard * PER_SHARD + row, season, reason, time))
        arrays["span_days"][:] = store.span_days(arrays["datetime"])
        arrays["aligned"][:] = (arrays["epsg"] > 0).any(axis=1)
        store.write_shard(path, shard, arrays)
    frame = pd.DataFrame(rows)
    n_stored = frame["status"].eq("ok").groupby(frame["location_id"]).transform("sum")
    return gpd.GeoDataFrame(
        frame.assign(is_complete=n_stored >= 2), geometry=[box(0, 0, 1, 1)] * len(frame), crs=4326
    )


def where_is(place):
    """EPSG code and upper left corner of a place's patch."""
    epsg = int(grid.utm_epsg([place.lon], [place.lat])[0])
    x, y = grid.patch_origin(*grid.project(place.lon, place.lat, epsg), SIZE_M)
    return epsg, float(x), float(y)


def _draw_patch(arrays, row, s, *, place, green, rng):
    texture = rng.uniform(0.8, 1.2, (64, 64))
    green = 0.02 if place.biome_num == 3 else green
    for array in ("dn10", "dn20", "dn60"):
        names = {"dn10": bands.BANDS10, "dn20": bands.BANDS20, "dn60": bands.BANDS60}[array]
        n = arrays[array].shape[-1]
        for i, name in enumerate(names):
            level = {"B04": 1500 - 1200 * green, "B08": 1600 + 1600 * green}.get(name, REFLECTANCE[name])
            arrays[array][row, s, i] = level * texture[:n, :n]
    arrays["scl"][row, s] = 4
    arrays["scl"][row, s, :2] = 9
    arrays["scl_fraction"][row, s] = np.bincount(arrays["scl"][row, s].ravel(), minlength=12) / 32**2
    epsg, x, y = where_is(place)
    arrays["epsg"][row, s], arrays["dn_offset"][row, s] = epsg, 0
    arrays["origin_x"][row, s], arrays["origin_y"][row, s] = x, y
    arrays["origin60_x"][row, s], arrays["origin60_y"][row, s] = x, y + 20
    arrays["cloud_fraction"][row, s], arrays["valid_fraction"][row, s] = 1 / 16, 1


def _index_row(place, location, season, reason, time):
    ok = not reason
    epsg, x, y = where_is(place)
    return {
        "location_id": place.location_id,
        "location": location,
        "season": season,
        "status": "ok" if ok else "missing",
        "reason": reason,
        "item_id": f"S2A_{place.location_id}_{season}" if ok else "",
        "collection": "sentinel-2-l2a" if ok else "",
        "catalog": "made" if ok else "",
        "datetime": time if ok else pd.NaT,
        "target_date": time - pd.Timedelta(days=3) if ok else pd.NaT,
        "days_from_target": 3 if ok else 0,
        "rank": 0 if ok else -1,
        "scene_cloud_cover": 8.0 if ok else np.nan,
        "cloud_fraction": 1 / 16 if ok else np.nan,
        "valid_fraction": 1.0 if ok else np.nan,
        "sun_zenith": 40.0 if ok else np.nan,
        "mgrs_tile": "32TQT" if ok else "",
        "epsg": epsg if ok else 0,
        "origin_x": x if ok else np.nan,
        "origin_y": y if ok else np.nan,
        "baseline": "05.09" if ok else "",
        "dn_offset": 0 if ok else -1,
        "offset_source": "invented" if ok else "",
        "failover_from": "",
        "checksum": f"{location}{season}" if ok else "",
        "lon": place.lon,
        "lat": place.lat,
    }


def scenes(places):
    """Counts of scenes: candidates and those turned down."""
    empty = {name: None for name in tables.COLUMNS["scenes"]}
    numbers = dict.fromkeys(("rank", "days_from_target", "dn_offset"), -1) | {"epsg": 0}
    rows = [
        empty
        | numbers
        | {"location_id": place.location_id, "location": i, "season": season, "reason": reason, "n": n}
        for i, place in enumerate(places.itertuples())
        for season in SEASONS
        for reason, n in (("candidate", 3), ("cloud_cover", 7), ("sun_zenith", 1))
    ]
    floats = ("cloud_cover", "nodata", "sun_zenith")
    return pd.DataFrame(rows).astype(dict.fromkeys(floats, float))


def sampling(places):
    """What the locations were chosen from, as sampling.json tells it: two cells per location."""
    groups = places.groupby(["eco_id", "eco_name", "biome_num", "biome_name", "realm"]).size()
    groups = groups.rename("n_locations").reset_index()
    groups = groups.assign(n_places=2 * groups["n_locations"], area_km2=1.0 + groups["n_locations"])
    return {
        "design": "stratified",
        "spacing_m": 700.0,
        "n_locations": len(places),
        "n_places": 2 * len(places),
        "land_area_km2": float(groups["area_km2"].sum()),
        "strata": [],
        "ecoregions": groups.to_dict("records"),
        "without_location": [],
        "balance": {"sample": 0.1, "simple_random": 0.25},
    }


def write_dataset(folder, n=12):
    """Write the tables and stores of one dataset; gives kind -> path as the report's inputs name them."""
    folder = Path(folder)
    places = locations(n)
    windows = seasons(places)
    tables.write_table(places, folder / "locations.parquet", "locations")
    tables.write_table(windows, folder / "seasons.parquet", "seasons")
    tables.write_table(cycles(places), folder / "phenology_cycles.parquet", "cycles")
    tables.write_table(scenes(places), folder / "scenes" / "0.parquet", "scenes")
    greenness(places).to_zarr(folder / "greenness.zarr", zarr_format=3, consolidated=False)
    index = fill_store(folder / "patches.zarr", places, windows)
    tables.write_table(index, folder / "patches.parquet", "patches")
    write_json(folder / "sampling.json", sampling(places))
    write_json(folder / "verification.json", {"n_patches": len(index), "n_wrong": 0})
    return {
        "locations": str(folder / "locations.parquet"),
        "sampling": str(folder / "sampling.json"),
        "seasons": str(folder / "seasons.parquet"),
        "cycles": str(folder / "phenology_cycles.parquet"),
        "greenness": str(folder / "greenness.zarr" / "zarr.json"),
        "scenes": [str(folder / "scenes" / "0.parquet")],
        "patches": str(folder / "patches.parquet"),
        "store": str(folder / "patches.zarr" / "zarr.json"),
        "verification": str(folder / "verification.json"),
    }


def write_model(folder, *, dataset_digest="", seed=1):
    """Write metrics and an encoder file without weights; gives kind -> path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(10, 400, 10):
        line = {
            "step": step,
            "epoch": step // 50,
            "loss": 12 * np.exp(-step / 200) + 0.1 * seed,
            "feature_std": 0.8,
        }
        for i, space in enumerate(("invariant", "augmentation", "season")):
            line |= {f"loss_{space}": line["loss"] / 3, f"top1_{space}": 1 - np.exp(-step / (100 + 40 * i))}
            line |= {f"std_{space}": 0.9 - 0.1 * i}
        lines.append(json.dumps(line | {"samples_per_s": 55.0, "wait_share": 0.03}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    header = json.dumps({"__metadata__": {"dataset_digest": dataset_digest, "backbone": "resnet18"}}).encode()
    (folder / "encoder.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return {"metrics": str(folder / "metrics.jsonl"), "encoder": str(folder / "encoder.safetensors")}


def score(model, probe, value, task="biome"):
    """Document of a probe, as far as the report reads it."""
    part = {
        "n_folds": 5,
        "block_km": None,
        "sizes": [20, 19, 19, 19, 19],
        "digest": "of the folds",
        "train_test_distance_km": {"median": 1.5},
        "scores": {
            "macro_f1": {"mean": value, "std": 0.04, "n": 5, "folds": [value] * 5},
            "accuracy": {"mean": value + 0.05, "std": 0.03, "n": 5, "folds": [value] * 5},
        },
    }
    return {
        "model": model,
        "probe": probe,
        "task": task,
        "kind": "classification",
        "main_metric": "macro_f1",
        "counts": {"n_used": 96},
        "folds": {"random": part, "blocked": json.loads(json.dumps(part))},
    }


def job(*, inputs, outputs, params, threads=1, **wildcards):
    """A job as Snakemake hands it to a script."""
    return SimpleNamespace(
        input=SimpleNamespace(**inputs, items=lambda: inputs.items()),
        output=SimpleNamespace(**{name: str(path) for name, path in outputs.items()}),
        params=SimpleNamespace(**params),
        wildcards=SimpleNamespace(**wildcards),
        threads=threads,
    )
