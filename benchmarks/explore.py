"""How quickly the explore page shows, moves and recolors a map of 250,000 made locations.

    python benchmarks/explore.py [--locations 250000]

Needs Chromium on the path; WebGL is done by software there, so that frames are few on a machine without a graphics
card: what is measured is the time of the page's own script. Prints lines ``CLAIM <name> <measured> < <target>``.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from tests import explore_page, fabricate  # noqa: E402
from workflow_scripts import write_explore  # noqa: E402
from workflow_scripts.core import tables  # noqa: E402
from workflow_scripts.core.seasons import SEASONS  # noqa: E402

MB = 1e6
PAN_STEPS = 60


def make_tables(folder, n, seed=1):
    """Write locations, seasons and patches of made places all over the globe; gives kind -> path."""
    rng = np.random.default_rng(seed)
    places = fabricate.locations(1)
    places = places.loc[places.index.repeat(n)].reset_index(drop=True)
    lat = np.degrees(np.arcsin(rng.uniform(-0.85, 0.99, n)))
    names = [f"biome {i}" for i in range(14)]
    places = places.assign(
        location_id=[f"{i % 900}U_{i // 900}R" for i in range(n)],
        lon=rng.uniform(-180, 180, n),
        lat=lat,
        biome_name=np.take(names, (np.abs(lat) / 6.5).astype(int) % 14),
        shard=np.arange(n) // 64,
    )
    index = pd.MultiIndex.from_product([places["location_id"], SEASONS], names=["location_id", "season"])
    rows = index.to_frame(index=False)
    source = rng.choice(["observed", "filled", "none"], len(rows), p=[0.8, 0.19, 0.01])
    seasons = rows.assign(source=source)
    is_missing = rng.random(len(rows)) < 0.05
    patches = rows.assign(
        status=np.where(is_missing, "missing", "ok"),
        reason=np.where(is_missing, rng.choice(["no_scene", "cloudy"], len(rows)), ""),
        datetime=np.datetime64("2017-01-01") + rng.integers(0, 2900, len(rows)).astype("timedelta64[D]"),
        cloud_fraction=rng.uniform(0, 0.2, len(rows)),
    )
    for name, table in {"locations": places, "seasons": seasons, "patches": patches}.items():
        full = table.reindex(columns=list(tables.COLUMNS[name]))
        full.drop(columns="geometry", errors="ignore").to_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in ("locations", "seasons", "patches")}


def write_page(folder, n):
    """Write the page without details of its locations."""
    options = fabricate.settings()
    options["locations"]["per_shard"] = 64
    files = make_tables(folder, n)
    static = sorted(path.name for path in write_explore.STATIC.iterdir())
    job = fabricate.job(
        inputs={f"made/{kind}": path for kind, path in files.items()},
        outputs={"page": folder / "explore" / "index.html"},
        params={"datasets": {"made": options}, "static": static},
    )
    write_explore.main(job)
    return folder / "explore"


def script_seconds(devtools):
    """Time that scripts of the page have taken so far, s."""
    metrics = {m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]}
    return metrics["ScriptDuration"]


def measure(address):
    """Open the page, drag the map, color it anew; gives what was measured."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=explore_page.chromium(), args=explore_page.CHROMIUM_FLAGS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable")
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_function("performance.getEntriesByName('paint').length > 0")
        first = page.evaluate("performance.getEntriesByName('paint')[0]")
        entries = "performance.getEntriesByType('resource').map((e) => e.transferSize)"
        weight = sum(page.evaluate(entries)) + len(page.content())
        frames = page.evaluate("performance.getEntriesByName('paint').length")
        before = script_seconds(devtools)
        box = page.locator("#canvas").bounding_box()
        page.mouse.move(box["x"] + 500, box["y"] + 200)
        page.mouse.down()
        for step in range(PAN_STEPS):
            page.mouse.move(box["x"] + 500 - 4 * step, box["y"] + 200 + step % 30)
            page.evaluate("() => new Promise(requestAnimationFrame)")
        page.mouse.up()
        frames = page.evaluate("performance.getEntriesByName('paint').length") - frames
        panning = script_seconds(devtools) - before
        page.select_option("#coloring", "cloud")
        page.wait_for_function("document.querySelector('#legend p').textContent.startsWith('Cloud')")
        whole = sum(page.evaluate(entries)) + len(page.content())
        browser.close()
    return {
        "first_picture_s": (first["startTime"] + first["duration"]) / 1000,
        "weight_mb": weight / MB,
        "weight_with_seasons_mb": whole / MB,
        "script_per_frame_ms": 1000 * panning / frames,
        "frames": frames,
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--locations", type=int, default=250_000)
    n = parser.parse_args().locations
    if explore_page.chromium() is None:
        sys.stdout.write("benchmarks/explore.py: no Chromium on the path, nothing measured\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = write_page(Path(folder), n)
        with explore_page.served(page) as address:
            found = measure(address)
    lines = [
        f"{n:,} locations, {found['frames']} frames painted in {PAN_STEPS} steps of panning",
        f"CLAIM first_picture_s {found['first_picture_s']:.2f} < 2",
        f"CLAIM script_per_frame_ms {found['script_per_frame_ms']:.2f} < 16",
        f"page weight {found['weight_mb']:.1f} MB at the first picture, {found['weight_with_seasons_mb']:.1f} MB "
        "with the columns of all seasons",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
