"""Rehearse a full-size dataset without the network: every stage up to the store, for time, memory and files.

    python benchmarks/rehearsal.py [POLYGONS] [--out FOLDER] [--parts sample,series,…]

The stages run as the workflow runs them, each in a process of its own: sampling of the 23 km grid, cycles
from made series, seasons, choice of scenes from a made GeoParquet catalog (3 million items, 800 a
tile, as Sentinel-2 has in eight years), the store at full shape, a hundred of its shards, opening it, reading
patches at random. POLYGONS is as in benchmarks/sampling.py; without it polygons are generated. FOLDER takes
about 15 GB and is deleted at the end if not given; with it, parts can be run one by one.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

N_SHARDS = 100
"""Shards whose scenes are chosen, and shards that are written."""
ITEMS_PER_TILE, N_ITEMS = 800, 3_000_000
N_READS = 2_000
N_OPENINGS = 5
YEARS = (2017, 2024)
SIZE_M, PER_SHARD, SEASONS = 2560, 64, ["spring", "summer", "autumn", "winter"]
CATALOG = {"type": "geoparquet", "conventions": "earth-search-c1", "name": "made"}


def job(
    folder: Path, *, params: dict | None = None, wildcards: dict | None = None, **inputs
) -> SimpleNamespace:
    """What a stage is given, with every file of the dataset as input and output."""
    files = {
        name: folder / file
        for name, file in {
            "locations": "locations.parquet",
            "jobs": "jobs.json",
            "sampling": "sampling.json",
            "greenness": "greenness.zarr/zarr.json",
            "cycles": "phenology_cycles.parquet",
            "seasons": "seasons.parquet",
            "metadata": "patches.zarr/zarr.json",
        }.items()
    }
    return SimpleNamespace(
        input=SimpleNamespace(**{**files, **inputs}),
        output=SimpleNamespace(**{**files, **inputs}),
        params=SimpleNamespace(**(params or {})),
        wildcards=SimpleNamespace(**{"dataset": "rehearsal", **(wildcards or {})}),
        threads=2,
    )


def sample(folder: Path, polygons: Path) -> str:
    import yaml
    from sampling import files

    from workflow_scripts import sample_locations
    from workflow_scripts.core.stage import read_json

    properties = yaml.safe_load((ROOT / "schemas/locations.schema.yaml").read_text())["properties"]
    settings = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    settings |= {"design": "grid", "spacing_m": 23_000, "per_shard": PER_SHARD}
    settings["splits"] = {"validation_fraction": 0.1, "block_km": 100}
    names = ("mountains", "region", "exclude", "path", "spread", "strata_path", "strata_areas", "evaluation")
    inputs = {name: [] for name in names} | {name: [str(path)] for name, path in files(polygons).items()}
    given = job(folder, params={"settings": settings, "size_m": SIZE_M, "seed": 1}, **inputs)
    sample_locations.main(given)
    jobs = read_json(folder / "jobs.json")
    return f"{jobs['n_locations']} locations, {len(jobs['shards'])} shards"


def series(folder: Path) -> str:
    """Made input, not a stage of the workflow."""
    from phenology import make_series

    from workflow_scripts import extract_greenness
    from workflow_scripts.core import tables

    locations = tables.read_table(folder / "locations.parquet", "locations", ["location_id", "lon", "lat"])
    n = len(locations)
    blocks = [make_series(min(16_384, n - i), seed=i) for i in range(0, n, 16_384)]
    day, value, code = (np.concatenate(part) for part in zip(*blocks, strict=True))
    made = extract_greenness.Series(
        np.arange(n), np.round(value / 1e-4).astype(np.int16), day.astype(np.int32), code
    )
    extract_greenness.write_store(folder / "greenness.zarr", locations, made, index="evi", source="made")
    return f"{n} series of eight years"


def phenology(folder: Path) -> str:
    from workflow_scripts import estimate_phenology

    estimate_phenology.main(job(folder, params={"settings": {}}))
    return f"{len(pd.read_parquet(folder / 'phenology_cycles.parquet', columns=['year']))} cycles"


def seasons(folder: Path) -> str:
    from workflow_scripts import define_seasons

    params = {
        "settings": {"strategy": "phenology", "names": SEASONS},
        "climatology": {"min_years": 3, "group_days": 60},
        "seed": 1,
        "max_sun_zenith": 85,
    }
    define_seasons.main(job(folder, params=params))
    return f"{len(pd.read_parquet(folder / 'seasons.parquet', columns=['season']))} windows"


def shards_together(folder: Path) -> dict[int, list[str]]:
    """A hundred neighboring shards from the middle of the table, and the tiles of each."""
    from workflow_scripts.core.stage import read_json

    shards = read_json(folder / "jobs.json")["shards"]
    first = len(shards) // 2
    return {n: shards[str(n)]["mgrs_tiles"] for n in range(first, first + N_SHARDS)}


def catalog(folder: Path) -> str:
    """Made input: a file of items per UTM zone, sorted by tile, the tiles of our shards among them."""
    import pyarrow.parquet as pq

    from workflow_scripts.core.stage import read_json

    of_ours = sorted({tile for tiles in shards_together(folder).values() for tile in tiles})
    of_all = {t for shard in read_json(folder / "jobs.json")["shards"].values() for t in shard["mgrs_tiles"]}
    others = sorted(of_all.difference(of_ours))
    rng = np.random.default_rng(3)
    n_others = min(len(others), N_ITEMS // ITEMS_PER_TILE - len(of_ours))
    tiles = sorted([*of_ours, *rng.choice(others, n_others, replace=False)])
    (folder / "catalog").mkdir(exist_ok=True)
    n = 0
    for zone in sorted({tile[:2] for tile in tiles}):
        writer = None
        for tile in (t for t in tiles if t[:2] == zone):
            table = made_items(str(tile), rng)
            writer = writer or pq.ParquetWriter(folder / "catalog" / f"{zone}.parquet", table.schema)
            writer.write_table(table)
            n += table.num_rows
        writer.close()
    return f"{n} items on {len(tiles)} of {len(of_all)} tiles"


def made_items(tile: str, rng: np.random.Generator):
    """Items of one tile with the fields Earth Search gives, a scene every 3.65 days."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import shapely

    from workflow_scripts.core import grid
    from workflow_scripts.core.bands import ASSET_NAMES, RESOLUTION_M

    n = ITEMS_PER_TILE
    epsg, xmin, ymin, xmax, ymax = grid.mgrs_tile_bounds(tile)
    lon, lat = grid.unproject([xmin, xmax, xmax, xmin], [ymax, ymax, ymin, ymin], epsg)
    outline = shapely.to_wkb(shapely.Polygon(np.column_stack([lon, lat])))
    span = np.datetime64(f"{YEARS[1] + 1}-01-01", "s") - np.datetime64(f"{YEARS[0]}-01-01", "s")
    times = np.datetime64(f"{YEARS[0]}-01-01", "s") + span * np.arange(n) // n
    days = pd.DatetimeIndex(times).strftime("%Y%m%dT%H%M%S")
    ids = pa.array([f"S2A_T{tile}_{day}_L2A" for day in days])
    root = f"https://made.example/sentinel-2-c1-l2a/{int(tile[:2])}/{tile[2]}/{tile[3:]}/"

    def asset(key: str, resolution: int):
        size = int(109_800 / resolution)
        href = pc.binary_join_element_wise(pa.scalar(root), ids, pa.scalar(f"{key}.tif"), pa.scalar("/"))
        shape = pa.array([[size, size]] * n, pa.list_(pa.int64()))
        place = [[resolution, 0, xmin, 0, -resolution, ymax]] * n
        fields = {
            "href": href,
            "proj:shape": shape,
            "proj:transform": pa.array(place, pa.list_(pa.float64())),
        }
        return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))

    names = ASSET_NAMES["earth-search-c1"]
    assets = {key: asset(key, RESOLUTION_M.get(band, 20)) for band, key in names.items()}
    cloud = rng.beta(0.5, 0.4, n) * 100
    columns = {
        "id": ids,
        "collection": pa.array(["sentinel-2-c1-l2a"] * n),
        "geometry": pa.array([outline] * n, pa.binary()),
        "datetime": pa.array(times.astype("datetime64[us]")),
        "created": pa.array(times.astype("datetime64[us]")),
        "platform": pa.array(["sentinel-2a"] * n),
        "proj:code": pa.array([f"EPSG:{epsg}"] * n),
        "grid:code": pa.array([f"MGRS-{tile}"] * n),
        "eo:cloud_cover": pa.array(cloud),
        "view:sun_elevation": pa.array(rng.uniform(20, 70, n)),
        "s2:nodata_pixel_percentage": pa.array(np.zeros(n)),
        "s2:processing_baseline": pa.array(["05.00"] * n),
        "s2:datatake_id": pa.array([f"GS2A_{day}_{number:06d}_N05.00" for number, day in enumerate(days)]),
        "assets": pa.StructArray.from_arrays(list(assets.values()), names=list(assets)),
    }
    return pa.table(columns)


def gather(folder: Path) -> str:
    from workflow_scripts import gather_items

    params = {"catalogs": {"made": {**CATALOG, "path": str(folder / "catalog")}}, "years": list(YEARS)}
    gather_items.main(job(folder, params=params, found=folder / "items.parquet"))
    return f"{len(pd.read_parquet(folder / 'items.parquet', columns=['epsg']))} scenes"


def scenes(folder: Path) -> str:
    import yaml

    from workflow_scripts import select_scenes

    settings = yaml.safe_load((ROOT / "config.yaml").read_text())["defaults"]["scenes"]
    settings |= {"catalog": "made", "years": list(YEARS)}

    for shard in shards_together(folder):
        select_scenes.main(
            job(
                folder,
                params={"settings": settings, "size_m": SIZE_M},
                wildcards={"shard": str(shard)},
                found=[str(folder / "items.parquet")],
                scenes=folder / "scenes" / f"{shard}.parquet",
            )
        )
    return f"{N_SHARDS} shards"


def store(folder: Path) -> str:
    from workflow_scripts import create_store

    params = {
        "seasons": SEASONS,
        "per_shard": PER_SHARD,
        "size_m": SIZE_M,
        "codec": "blosc-lz4-bitshuffle",
    }
    create_store.main(job(folder, params=params))
    return f"{sum(1 for f in (folder / 'patches.zarr').rglob('*') if f.is_file())} files of metadata"


def written_shards(folder: Path) -> np.ndarray:
    """Shards that are written, over the whole length of the store."""
    from workflow_scripts.core import store as stores

    facts = stores.layout(folder / "patches.zarr")
    return np.linspace(0, facts["n_locations"] // facts["per_shard"] - 1, N_SHARDS).astype(int)


def shards(folder: Path) -> str:
    """Made pixels, smooth with noise: they compress about as real ones do."""
    from workflow_scripts.core import store as stores

    path = folder / "patches.zarr"
    rng = np.random.default_rng(4)
    arrays = stores.empty_shard(path, 0)
    for name in stores.PIXELS:
        values = arrays[name]
        y, x = np.indices(values.shape[-2:]) / 20
        smooth = 1500 + 600 * np.sin(x + rng.uniform(0, 6)) * np.cos(y + rng.uniform(0, 6))
        noise = rng.normal(0, 40, (8, *values.shape[-2:]))
        flat = values.reshape(-1, *values.shape[-2:])
        for k in range(len(flat)):
            flat[k] = 4 if name == "scl" else smooth + noise[k % 8]
    arrays["epsg"][:] = 32632
    for shard in written_shards(folder):
        stores.write_shard(path, int(shard), arrays)
    size = sum((path / n).stat().st_size for s in written_shards(folder) for n in stores.shard_objects(s))
    return f"{size / 1e9:.1f} GB, {size / N_SHARDS / PER_SHARD / len(SEASONS) / 1e6:.3f} MB a patch"


def opening(folder: Path) -> str:
    import xarray as xr

    took, cpu = [], []
    for _ in range(N_OPENINGS):
        begin = time.perf_counter(), time.process_time()
        dataset = xr.open_zarr(folder / "patches.zarr")
        took.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    print(f"CLAIM open_full_store_s {np.median(took):.2f} <= 2")
    return f"{dataset['dn10'].shape}: {np.median(took):.2f} s, {np.median(cpu):.2f} s of processor time"


def reads(folder: Path) -> str:
    """Patches at random, all bands, as training reads them, and as zarr-python does."""
    from pretrain.reader import open_arrays

    begin = time.perf_counter()
    arrays = {direct: open_arrays(folder / "patches.zarr", direct=direct) for direct in (True, False)}
    opened = time.perf_counter() - begin
    rng = np.random.default_rng(5)
    locations = rng.choice(written_shards(folder), N_READS) * PER_SHARD + rng.integers(0, PER_SHARD, N_READS)
    speed = {}
    for direct, n in ((True, N_READS), (False, N_READS // 20)):
        begin = time.perf_counter()
        for location in locations[:n]:
            for array in arrays[direct].values():
                array.read(int(location), int(location) % len(SEASONS))
        speed[direct] = n / (time.perf_counter() - begin)
    return f"{speed[True]:.0f} patches/s, through zarr-python {speed[False]:.0f}; opened in {opened:.2f} s"


PARTS: dict[str, Callable[..., str]] = {
    part.__name__: part
    for part in (sample, series, phenology, seasons, catalog, gather, scenes, store, shards, opening, reads)
}


def run_part(name: str, folder: Path, polygons: Path) -> None:
    """Run a part in this process and print what it took."""
    begin = time.perf_counter()
    text = PARTS[name](folder, polygons) if name == "sample" else PARTS[name](folder)
    wall = time.perf_counter() - begin
    usage = resource.getrusage(resource.RUSAGE_SELF)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    cpu = usage.ru_utime + usage.ru_stime
    gb = usage.ru_maxrss * 1024 / 1e9
    print(
        f"| {name} | {wall:.1f} s | {cpu:.1f} s | {gb:.2f} GB | {text} | {len(files)} files, {size / 1e9:.2f} GB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("polygons", nargs="?", type=Path, default=os.environ.get("SSL4ECO_REAL_DATA"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.out or Path(made) / "out"
        folder.mkdir(parents=True, exist_ok=True)
        polygons = options.polygons
        if polygons is None:
            from sampling import made_polygons

            polygons = folder / "polygons"
            if not polygons.exists():
                made_polygons(polygons)
        names = options.parts.split(",")
        if options.here:
            run_part(names[0], folder, Path(polygons))
            return
        print(
            "| part | wall | CPU | memory | result | in all so far |\n|---|---|---|---|---|---|", flush=True
        )
        for name in names:
            command = [
                sys.executable,
                __file__,
                str(polygons),
                "--out",
                str(folder),
                "--parts",
                name,
                "--here",
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
