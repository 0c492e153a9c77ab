"""Print and draw what an intermediate store holds: what is there, what is missing and why.

    python -m workflow_scripts.inspect_store results/datasets/demo/patches.zarr

Reads : greenness.zarr, patches.zarr or embeddings.zarr; beside patches.zarr the retrieved/ tables.
Writes: text to the terminal; a quicklook, by default the store's path with the ending .png.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from workflow_scripts.core import bands, store, tables

N_SHOWN = 8
"""Locations drawn, evenly spread over the store."""
N_EMBEDDED = 2000
"""Locations whose embeddings are measured and drawn."""
CLOUDY = 3
"""Reliability of an observation under cloud (MOD13)."""
MAX_REFLECTANCE = 0.3
"""Drawn white in true color."""


@dataclass(frozen=True)
class View:
    """How one kind of store is told and drawn."""

    variable: str
    """The variable that only this kind has."""
    tell: Callable[[xr.Dataset, Path], Iterator[str]]
    draw: Callable[[xr.Dataset, Figure, np.ndarray], None]


def open_any(path: Path) -> tuple[str, xr.Dataset]:
    """Open a store and say which kind it is.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    ValueError
        If it is of no known kind.
    """
    if not (path / "zarr.json").exists():
        raise FileNotFoundError(f"{path} holds no store (no zarr.json): run the stage that writes it")
    dataset = xr.open_zarr(path, chunks=None)
    for kind, view in VIEWS.items():
        if view.variable in dataset:
            return kind, dataset
    raise ValueError(f"{path} holds {sorted(dataset.data_vars)}: none of {sorted(VIEWS)}")


def shown(dataset: xr.Dataset, is_there: np.ndarray) -> np.ndarray:
    """Choose the locations to be drawn: evenly spread among those that have something."""
    there = np.flatnonzero(is_there)
    return there[np.unique(np.linspace(0, len(there) - 1, min(N_SHOWN, len(there))).round().astype(int))]


def _share(n: int, of: int) -> str:
    return f"{n} of {of} ({100 * n / max(of, 1):.1f} %)"


def _range(values: np.ndarray, form: str = ".3g") -> str:
    values = values[np.isfinite(values)]
    if values.size == 0:
        return "none"
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _ids(dataset: xr.Dataset, rows: np.ndarray) -> str:
    names = dataset["location_id"].values[rows[:5]]
    return ", ".join(map(str, names)) + (", …" if len(rows) > 5 else "")


# ---- greenness -------------------------------------------------------------------------------


def _tell_greenness(dataset: xr.Dataset, path: Path) -> Iterator[str]:
    del path
    index, usable = dataset["index"], _n_usable(dataset)
    yield f"{index.attrs.get('long_name', 'index')} of {dataset.sizes['location']} locations"
    yield f"usable observations per location: median (5 to 95 %): {_range(usable.astype(float), '.0f')}"
    there = np.isfinite(index.values)
    if there.any():
        dates = dataset["date"].values[there].astype("datetime64[D]")
        yield f"from {dates.min()} to {dates.max()}"
        yield f"values: {_range(index.values[there].astype(float))}"
    codes, counts = np.unique(dataset["reliability"].values[there], return_counts=True)
    names = dict(enumerate(("good", "marginal", "snow", "cloud")))
    listed = (f"{names.get(int(code), 'unknown')} {n}" for code, n in zip(codes, counts, strict=True))
    yield f"reliability: {', '.join(listed) or 'none'}"
    without = np.flatnonzero(usable == 0)
    if without.size:
        yield f"without any usable observation: {_share(without.size, usable.size)}: {_ids(dataset, without)}"


def _n_usable(dataset: xr.Dataset) -> np.ndarray:
    """Observations per location that are not under cloud."""
    is_usable = np.isfinite(dataset["index"].values) & (dataset["reliability"].values < CLOUDY)
    return is_usable.sum(axis=1)


def _draw_greenness(dataset: xr.Dataset, figure: Figure, rows: np.ndarray) -> None:
    axes = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    for axis, row in zip(axes, rows, strict=True):
        one = dataset.isel(location=row).load()
        there = np.isfinite(one["index"].values)
        is_good = one["reliability"].values <= 1
        for chosen, color in ((there & is_good, "tab:green"), (there & ~is_good, "silver")):
            dates = one["date"].values[chosen].astype("datetime64[D]")
            axis.plot(dates, one["index"].values[chosen], ".", color=color, markersize=3)
        axis.set_title(str(one["location_id"].values), fontsize=7, loc="left")
        axis.set_ylim(-0.2, 1)
        axis.tick_params(labelsize=6)


# ---- patches ---------------------------------------------------------------------------------


def _tell_patches(dataset: xr.Dataset, path: Path) -> Iterator[str]:
    facts = store.layout(path)
    is_patch = dataset["epsg"].values > 0
    yield (
        f"{dataset.sizes['location']} locations, {len(facts['seasons'])} seasons, patches of "
        f"{facts['size_m']} m, {facts['per_shard']} locations per shard, {facts['codec']}"
    )
    absent = [name for name in _objects(facts) if not (path / name).exists()]
    if absent:
        yield f"objects not there: {len(absent)}, such as {', '.join(absent[:3])}"
    n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    yield f"patches: {_share(int(is_patch.sum()), is_patch.size)}; {n_bytes / 1e6:.1f} MB"
    reasons = _reasons(path)
    for i, season in enumerate(facts["seasons"]):
        listed = ", ".join(f"{reason} {n}" for reason, n in reasons.get(season, {}).items())
        missing = int((~is_patch[:, i]).sum())
        why = f"; missing {missing}: {listed or 'reason unknown, no retrieved/ tables'}" if missing else ""
        yield f"  {season}: {_share(int(is_patch[:, i].sum()), len(is_patch))}{why}"
    per_location = np.bincount(is_patch.sum(axis=1), minlength=len(facts["seasons"]) + 1)
    yield "locations by number of seasons: " + ", ".join(f"{n}: {k}" for n, k in enumerate(per_location))
    yield f"aligned: {_share(int(dataset['aligned'].values.sum()), len(is_patch))}"
    for name in ("cloud_fraction", "valid_fraction", "sun_zenith"):
        yield f"{name}, median (5 to 95 %): {_range(dataset[name].values[is_patch].astype(float))}"
    for name, values in (
        ("years", dataset["datetime"].dt.year.values),
        ("EPSG", dataset["epsg"].values),
        ("offset", dataset["dn_offset"].values),
    ):
        found, counts = np.unique(values[is_patch].astype(int), return_counts=True)
        yield f"{name}: " + ", ".join(f"{value}: {n}" for value, n in zip(found, counts, strict=True))
    if "scl_fraction" in dataset:
        share = dataset["scl_fraction"].values[is_patch]
        share = share[np.isfinite(share).all(axis=1)].sum(axis=0)
        named = zip(bands.SCL_CLASSES.values(), 100 * share / max(share.sum(), 1), strict=True)
        listed = ", ".join(f"{name} {value:.1f} %" for name, value in named if value > 0)
        yield f"scene classes: {listed or 'unknown'}"
        yield f"days from first to last scene of a location: {_range(dataset['span_days'].values, '.0f')}"
    nothing = np.flatnonzero(~is_patch.any(axis=1))
    if nothing.size:
        yield f"locations without any patch: {_share(nothing.size, len(is_patch))}: {_ids(dataset, nothing)}"


def _objects(facts: Mapping[str, Any]) -> Iterator[str]:
    for shard in range(-(-facts["n_locations"] // facts["per_shard"])):
        yield from store.shard_objects(shard, store.array_names(facts["arrays"]))


def _reasons(path: Path) -> dict[str, dict[str, int]]:
    """Count the reasons of missing patches per season, from the tables beside the store."""
    files = sorted((path.resolve().parent / "retrieved").glob("*.parquet"))
    if not files:
        return {}
    parts = [tables.read_table(file, "retrieved", ["season", "status", "reason"]) for file in files]
    table = pd.concat(parts, ignore_index=True)
    missing = table[table["status"] != "ok"]
    return {season: group["reason"].value_counts().to_dict() for season, group in missing.groupby("season")}


def _draw_patches(dataset: xr.Dataset, figure: Figure, rows: np.ndarray) -> None:
    seasons = dataset["season"].values
    grid = figure.subplots(len(rows), len(seasons), squeeze=False)
    held = dataset["band10"].values.tolist()  # an imported archive has its own bands here
    order = [held.index(name) for name in ("B04", "B03", "B02") if name in held]
    order = order if len(order) == len("RGB") else [0] * len("RGB")
    for axes, row in zip(grid, rows, strict=True):
        one = dataset[["dn10", "datetime", "epsg"]].isel(location=row).load()
        for i, axis in enumerate(axes):
            axis.set_xticks([])
            axis.set_yticks([])
            title = f"{one['location_id'].values} {seasons[i]}"
            if one["epsg"].values[i] > 0:
                color = one["dn10"].values[i, order].transpose(1, 2, 0) * bands.REFLECTANCE_SCALE
                axis.imshow(np.clip(color / MAX_REFLECTANCE, 0, 1))
                title += f" {str(one['datetime'].values[i])[:10]}"
            axis.set_title(title, fontsize=5)


# ---- embeddings ------------------------------------------------------------------------------


def _tell_embeddings(dataset: xr.Dataset, path: Path) -> Iterator[str]:
    del path
    array = dataset["embedding"]
    there = np.isfinite(array.isel(feature=0).values)
    values = _some(dataset).values
    facts = {key: dataset.attrs[key] for key in ("model", "dataset") if key in dataset.attrs}
    yield f"{array.sizes['feature']} features of {array.sizes['location']} locations; {facts}"
    for i, season in enumerate(dataset["season"].values):
        n_there = int(there[:, i].sum())
        why = "" if n_there == len(there) else "; the others have no patch"
        yield f"  {season}: {_share(n_there, len(there))}{why}"
    known = values[np.isfinite(values).all(axis=-1)].astype(float)
    if len(known):
        yield f"length, median (5 to 95 %): {_range(np.linalg.norm(known, axis=1))}"
        yield f"standard deviation per feature: {_range(known.std(axis=0))}"
        yield f"features that never change: {int((known.std(axis=0) == 0).sum())}"
    n_partly = int(np.isfinite(values).any(axis=-1).sum()) - len(known)
    if n_partly:
        yield f"embeddings with some NaN, which must not be: {n_partly}"


def _some(dataset: xr.Dataset) -> xr.DataArray:
    """Give embeddings of at most `N_EMBEDDED` locations, evenly spread."""
    step = -(-dataset.sizes["location"] // N_EMBEDDED)
    return dataset["embedding"].isel(location=slice(None, None, step))


def _draw_embeddings(dataset: xr.Dataset, figure: Figure, rows: np.ndarray) -> None:
    del rows
    values = _some(dataset).values.astype(float)
    there = np.isfinite(values).all(axis=-1)
    known = values[there] - values[there].mean(axis=0)
    _, _, axes = np.linalg.svd(known[:N_EMBEDDED], full_matrices=False)
    scores = known @ axes[:2].T
    axis = figure.subplots()
    season = np.nonzero(there)[1]
    for i, name in enumerate(dataset["season"].values):
        axis.plot(*scores[season == i].T[:2], ".", markersize=3, label=str(name))
    axis.set_xlabel("first principal component")
    axis.set_ylabel("second")
    axis.legend()


VIEWS = {
    "greenness": View("index", _tell_greenness, _draw_greenness),
    "patches": View("dn10", _tell_patches, _draw_patches),
    "embeddings": View("embedding", _tell_embeddings, _draw_embeddings),
}


def _has_something(kind: str, dataset: xr.Dataset) -> np.ndarray:
    if kind == "greenness":
        return _n_usable(dataset) > 0
    if kind == "patches":
        return (dataset["epsg"].values > 0).any(axis=1)
    return np.isfinite(dataset["embedding"].isel(feature=0).values).any(axis=1)


def quicklook(kind: str, dataset: xr.Dataset, path: Path) -> bool:
    """Draw a store into a PNG; False where it has nothing to draw."""
    rows = shown(dataset, _has_something(kind, dataset))
    if rows.size < 1 or (kind == "embeddings" and rows.size < 2):
        return False
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(7, max(4, 1.5 * len(rows))), dpi=100)
        VIEWS[kind].draw(dataset, figure, rows)
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.06, top=0.96, wspace=0.05, hspace=0.4)
        figure.savefig(path)
    return True


def command(arguments: list[str]) -> int:
    """Inspect a store from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.inspect_store", description="Print and draw what a store holds."
    )
    parser.add_argument("store", type=Path, help="greenness.zarr, patches.zarr or embeddings.zarr")
    parser.add_argument("--png", type=Path, help="where the quicklook goes; default: beside the store")
    options = parser.parse_args(arguments)
    try:
        kind, dataset = open_any(options.store)
        sys.stdout.write(f"{options.store}: {kind}\n")
        for line in VIEWS[kind].tell(dataset, options.store):
            sys.stdout.write(line + "\n")
        picture = options.png or options.store.with_suffix(".png")
        is_drawn = quicklook(kind, dataset, picture)
    except (FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"quicklook: {picture}\n" if is_drawn else "nothing to draw\n")
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
