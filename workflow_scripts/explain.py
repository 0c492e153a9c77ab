"""Tell the whole story of one location: its windows, the scenes tried, and what was stored.

    python -m workflow_scripts.explain 412U_87R --dataset demo

Reads : locations.parquet, seasons.parquet, scenes/{shard}.parquet, retrieved/{shard}.parquet of a
        dataset, as far as they are there.
Writes: text to the terminal.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import tables


def datasets_with(results: Path, location_id: str, dataset: str | None) -> list[Path]:
    """Find the folders of the datasets that hold a location.

    Raises
    ------
    FileNotFoundError
        If there is no such dataset, or none holds the location.
    """
    root = results / "datasets"
    folders = [root / dataset] if dataset else sorted(path for path in root.glob("*") if path.is_dir())
    sampled = [folder for folder in folders if (folder / "locations.parquet").exists()]
    if not sampled:
        raise FileNotFoundError(f"no locations.parquet in {', '.join(map(str, folders)) or root}")
    having = [
        folder
        for folder in sampled
        if location_id
        in set(tables.read_table(folder / "locations.parquet", "locations", ["location_id"])["location_id"])
    ]
    if not having:
        names = ", ".join(folder.name for folder in sampled)
        raise FileNotFoundError(f"location {location_id!r} is in none of the datasets {names}")
    return having


def story(folder: Path, location_id: str) -> Iterator[str]:
    """Tell line by line what happened to a location of one dataset."""
    locations = tables.read_table(folder / "locations.parquet", "locations")
    row = locations[locations["location_id"] == location_id].iloc[0]
    yield f"{location_id} in dataset {folder.name}: lon {row['lon']:.5f}, lat {row['lat']:.5f}"
    yield f"  {row['eco_name'] or 'no ecoregion'}, {row['biome_name'] or 'no biome'}; shard {row['shard']}"
    windows = _rows(folder / "seasons.parquet", "seasons", location_id)
    scenes = _rows(folder / "scenes" / f"{row['shard']}.parquet", "scenes", location_id)
    retrieved = _rows(folder / "retrieved" / f"{row['shard']}.parquet", "retrieved", location_id)
    if windows is None:
        yield "  seasons.parquet is not there yet"
        return
    for window in windows.to_dict("records"):
        season = window["season"]
        yield f"  {season}: {window_text(window)}"
        yield from scene_lines(scenes, retrieved, season)
        yield from patch_lines(retrieved, season)
    if retrieved is not None:
        yield summary_line(retrieved)


def _rows(path: Path, name: str, location_id: str) -> pd.DataFrame | None:
    if not path.exists():
        return None
    table = tables.read_table(path, name)
    return table[table["location_id"] == location_id]


def window_text(window: dict[str, Any]) -> str:
    """Say in words which days a row of the seasons table gives."""
    source = window["source"]
    if window["donor_id"]:
        source += f" from {window['donor_id']}, {window['donor_distance_km']:.0f} km away"
    if window["sunlit_days"] == 0:
        source += ", no day with the sun high enough"
    if not np.isnan(window["start_doy"]):
        days = f"days {window['start_doy']:.0f} to {window['end_doy']:.0f} of the year"
        return f"{days}, target {window['target_doy']:.0f} ({source})"
    if not pd.isna(window["start_date"]):
        dates = f"{window['start_date']:%Y-%m-%d} to {window['end_date']:%Y-%m-%d}"
        return f"{dates}, target {window['target_date']:%Y-%m-%d} ({source})"
    return f"no window ({source})"


def scene_lines(scenes: pd.DataFrame | None, retrieved: pd.DataFrame | None, season: str) -> Iterator[str]:
    """List a season's candidates and how many scenes were left out, by reason."""
    if scenes is None:
        yield "    scenes are not selected yet"
        return
    learned = {}
    if retrieved is not None:
        for text in retrieved.loc[retrieved["season"] == season, "screened"]:
            learned = {(e["catalog"], e["item_id"]): e for e in json.loads(text or "[]")}
    here = scenes[scenes["season"] == season]
    for scene in here[here["rank"] >= 0].sort_values("rank").to_dict("records"):
        flag = {"second_pass": ", second pass", "failover": f", the same from {scene['catalog']}"}.get(
            scene["reason"], ""
        )
        yield (
            f"    {scene['rank'] + 1}. {scene['item_id']} {scene['datetime']:%Y-%m-%d} "
            f"({scene['days_from_target']:+d} days, cloud {scene['cloud_cover']:.1f} %, "
            f"EPSG:{scene['epsg']}, offset {scene['dn_offset']}{flag}){_screening(learned, scene)}"
        )
    others = [
        f"{row['reason']} {row['n']}{' ' + row['item_id'] if row['item_id'] else ''}"
        for row in here[here["rank"] < 0].to_dict("records")
    ]
    if others:
        yield f"    left out: {', '.join(others)}"


def _screening(learned: dict[tuple[str, str], dict[str, Any]], scene: dict[str, Any]) -> str:
    entry = learned.get((scene["catalog"], scene["item_id"]))
    if entry is None:
        return ""
    if entry["outcome"] == "read_error":
        return f": could not be read ({entry.get('error', '')})"
    cloud = "unknown" if entry["cloud_fraction"] is None else f"{100 * entry['cloud_fraction']:.0f} %"
    valid = "unknown" if entry["valid_fraction"] is None else f"{100 * entry['valid_fraction']:.0f} %"
    verdict = {"ok": "taken", "cloudy": "too cloudy", "nodata": "has holes"}[entry["outcome"]]
    return f": {verdict}, patch {cloud} cloud, {valid} valid"


def patch_lines(retrieved: pd.DataFrame | None, season: str) -> Iterator[str]:
    """Say what is stored of a season, or why nothing is."""
    if retrieved is None:
        yield "    patches are not retrieved yet"
        return
    for patch in retrieved[retrieved["season"] == season].to_dict("records"):
        if patch["status"] == "ok":
            yield (
                f"    stored: {patch['item_id']}, EPSG:{patch['epsg']} at ({patch['origin_x']:.0f}, "
                f"{patch['origin_y']:.0f}), baseline {patch['baseline'] or 'unknown'}, offset "
                f"{patch['dn_offset']} by {patch['offset_source']}"
                + (f", since {patch['failover_from']} could not be read" if patch["failover_from"] else "")
            )
        else:
            yield f"    nothing stored: {patch['reason']}"


def summary_line(retrieved: pd.DataFrame) -> str:
    """Say how many seasons a location has, whether on one grid, and how far apart in time."""
    there = retrieved[retrieved["status"] == "ok"]
    text = f"  {len(there)} of {len(retrieved)} seasons have a patch"
    if there.empty:
        return text
    is_aligned = len(there[["epsg", "origin_x", "origin_y"]].drop_duplicates()) == 1
    days = (there["datetime"].max() - there["datetime"].min()).days
    return f"{text}; {'one grid' if is_aligned else 'several grids'}, {days} days from first to last scene"


def command(arguments: list[str]) -> int:
    """Tell a location's story from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.explain", description="Tell the story of one location."
    )
    parser.add_argument("location_id")
    parser.add_argument("--dataset", help="name of the dataset; default: all that hold the location")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the results")
    options = parser.parse_args(arguments)
    try:
        for folder in datasets_with(options.results, options.location_id, options.dataset):
            sys.stdout.write("\n".join(story(folder, options.location_id)) + "\n")
    except (FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
