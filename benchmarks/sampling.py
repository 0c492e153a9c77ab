"""Assign the 964 thousand cells of the 23 km grid to land and ecoregions, against geopandas.sjoin.

Both assign the same points to the same polygons, in turn, within one process; the fastest of three
rounds counts, and building the points that sjoin needs is not counted. Then the whole stage is run at
23 km and at 10 km (5.1 million cells), each in a process of its own, for its wall time and peak memory.

    python benchmarks/sampling.py [FOLDER]

FOLDER (or the variable SSL4ECO_REAL_DATA) holds land/ne_10m_land.parquet and
ecoregions/ecoregions2017_simplified.parquet; without it polygons are generated.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import shapely
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from workflow_scripts import sample_locations  # noqa: E402
from workflow_scripts.core import grid  # noqa: E402
from workflow_scripts.core.polygons import locate, read_polygons  # noqa: E402

N_CELLS = 963_919
N_ROUNDS = 3
GB = 1e6
"""Kilobytes, the unit of ru_maxrss."""


def made_polygons(folder):
    """Write land of 250 islands with 400,000 vertices, as Natural Earth's 1:10m has, and 850 ecoregions."""
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-170, 170, 250), np.degrees(np.arcsin(rng.uniform(-0.97, 0.97, 250)))
    angle = np.linspace(0, 2 * np.pi, 1600, endpoint=False)
    islands = []
    for x, y in zip(lon, lat, strict=True):
        waves = sum(rng.normal(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 40))
        radius = rng.uniform(1, 6.5) * np.exp(waves)
        islands.append(
            shapely.Polygon(np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)]))
        )
    earth = shapely.box(-180, -89, 180, 89)
    land = shapely.make_valid(shapely.union_all(shapely.make_valid(islands)).intersection(earth))
    parts = shapely.get_parts([land])
    rows = [shapely.MultiPolygon(list(parts[i::10])) for i in range(10)]  # as Natural Earth stores its land
    seeds = shapely.MultiPoint(np.column_stack([rng.uniform(-180, 180, 850), rng.uniform(-85, 85, 850)]))
    cells = shapely.get_parts(shapely.voronoi_polygons(seeds, extend_to=earth))
    cells = shapely.intersection(shapely.segmentize(cells, 0.1), land)
    cells = cells[~shapely.is_empty(cells)]
    number = np.arange(len(cells))
    columns = {"ECO_ID": number, "ECO_NAME": number.astype(str), "BIOME_NUM": number % 14 + 1}
    columns |= {"BIOME_NAME": (number % 14 + 1).astype(str), "REALM": "made"}
    for name, frame in (
        ("land/ne_10m_land", gpd.GeoDataFrame(geometry=rows, crs=4326)),
        ("ecoregions/ecoregions2017_simplified", gpd.GeoDataFrame(columns, geometry=cells, crs=4326)),
    ):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True)
        frame[frame.geom_type.isin(["Polygon", "MultiPolygon"])].to_parquet(path)


def files(folder):
    return {
        "land": folder / "land" / "ne_10m_land.parquet",
        "ecoregions": folder / "ecoregions" / "ecoregions2017_simplified.parquet",
    }


def joined(points, polygons):
    """Row of the polygon by sjoin, for points in exactly one; -1 in none, -2 in several."""
    pairs = gpd.sjoin(points, polygons[["geometry"]], predicate="within")
    row = np.full(len(points), -1)
    row[pairs.index] = pairs["index_right"]
    row[pairs.index[pairs.index.duplicated()]] = -2
    return row


def compare(folder):
    """Time both ways in turn and compare what they find."""
    polygons = {name: read_polygons(path, key=name) for name, path in files(folder).items()}
    cells = grid.cells(23_000)
    assert len(cells) == N_CELLS
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(cells["lon"], cells["lat"]), crs=4326)
    seconds = {(name, way): [] for name in polygons for way in ("ours", "sjoin")}
    n_same = n_once = 0
    for turn in range(N_ROUNDS):
        for name, shapes in polygons.items():
            start = time.perf_counter()
            ours = locate(cells["lon"], cells["lat"], shapes)
            middle = time.perf_counter()
            theirs = joined(points, shapes)
            seconds[name, "ours"].append(middle - start)
            seconds[name, "sjoin"].append(time.perf_counter() - middle)
            if turn == 0:
                n_once += (theirs >= 0).sum()
                n_same += (ours[theirs >= 0] == theirs[theirs >= 0]).sum()
                print(
                    f"{name}: sjoin finds one polygon for {(theirs >= 0).sum()} points, several for "
                    f"{(theirs == -2).sum()}, none for {(theirs == -1).sum()}; ours none for {(ours < 0).sum()}"
                )
    best = {key: min(values) for key, values in seconds.items()}
    for (name, way), value in best.items():
        print(f"{name} of {N_CELLS} points, {way}: {value:.2f} s")
    ratio = {name: best[name, "sjoin"] / best[name, "ours"] for name in polygons}
    both = sum(best[n, "sjoin"] for n in polygons) / sum(best[n, "ours"] for n in polygons)
    return ratio | {"both": both}, n_same / n_once


def run_stage(folder, spacing_m):
    """Run the stage once and tell its wall time and the peak memory of this process."""
    properties = yaml.safe_load((ROOT / "schemas" / "locations.schema.yaml").read_text())["properties"]
    settings = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    settings |= {"design": "grid", "spacing_m": spacing_m}
    settings["splits"] = {"validation_fraction": 0.1, "block_km": 100}
    names = ("mountains", "region", "exclude", "path", "spread", "strata_path", "strata_areas", "evaluation")
    inputs = {name: [] for name in names} | {name: [str(path)] for name, path in files(folder).items()}
    with tempfile.TemporaryDirectory() as out:
        outputs = {"locations": "locations.parquet", "jobs": "jobs.json", "sampling": "sampling.json"}
        job = SimpleNamespace(
            input=SimpleNamespace(**inputs),
            output=SimpleNamespace(**{name: f"{out}/{file}" for name, file in outputs.items()}),
            params=SimpleNamespace(settings=settings, size_m=2560, seed=20250424),
            wildcards=SimpleNamespace(dataset="benchmark"),
        )
        start = time.perf_counter()
        sample_locations.main(job)
        seconds = time.perf_counter() - start
        n_locations = len(gpd.read_parquet(job.output.locations, columns=["location_id", "geometry"]))
    print(n_locations, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB)


def measured(folder, spacing_m):
    """Run the stage in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--stage", str(spacing_m)]
    last = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    n_locations, seconds, peak_gb = map(float, last.split())
    print(
        f"stage at {spacing_m / 1000:g} km: {n_locations:.0f} locations, {seconds:.1f} s, peak {peak_gb:.2f} GB"
    )
    return peak_gb


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("SSL4ECO_REAL_DATA"))
    parser.add_argument("--stage", type=int, help="only run the stage at this spacing, m")
    options = parser.parse_args()
    if options.stage:
        run_stage(Path(options.folder), options.stage)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(options.folder or made)
        if options.folder is None:
            made_polygons(folder)
        print("real polygons" if options.folder else "generated polygons")
        ratio, same = compare(folder)
        measured(folder, 23_000)
        peak_gb = measured(folder, 10_000)
    for name, value in ratio.items():
        print(f"CLAIM sampling_sjoin_ratio_{name} {value:.2f} >= 3")
    print(f"CLAIM sampling_same_assignment_share {same:.6f} >= 1")
    print(f"CLAIM sampling_memory_headroom_10km {3 / peak_gb:.2f} >= 1")


if __name__ == "__main__":
    main()
