"""The explore page's files: columns, outlines, details and quicklooks of each location."""

import json
import re

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapely.geometry import Point, box

from tests import explore_page
from workflow_scripts.core import store
from workflow_scripts.core.pictures import true_color
from workflow_scripts.explore import columns, land, quicklooks
from workflow_scripts.write_explore import STATIC

TYPES = {"Float32Array": "<f4", "Uint16Array": "<u2", "Uint8Array": "u1"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return explore_page.write_page(tmp_path_factory.mktemp("explore"), notice="Invented.")


@pytest.fixture(scope="module")
def listing(page):
    return json.loads((page[1] / "datasets.json").read_text())["datasets"][0]


def column(page, listing, part, name, season=None):
    """Read a column as the page does, from the description alone."""
    facts = next(c for c in listing["columns"][part] if c["name"] == name and c.get("season") == season)
    values = np.frombuffer(
        (page[1] / "made" / f"{part}.bin").read_bytes(),
        TYPES[facts["type"]],
        count=listing["n"],
        offset=facts["offset"],
    )
    return values, facts.get("labels")


def test_columns_say_what_the_tables_say(page, listing):
    locations = pd.read_parquet(page[0]["locations"])
    patches = pd.read_parquet(page[0]["patches"])
    lon, _ = column(page, listing, "places", "lon")
    np.testing.assert_allclose(lon, locations["lon"], atol=1e-5)
    biome, labels = column(page, listing, "places", "biome")
    assert [labels[code] for code in biome] == locations["biome_name"].tolist()
    assert (page[1] / "made" / "ids.txt").read_text().split() == locations["location_id"].tolist()
    assert listing["seasons"] == ["spring", "summer", "autumn", "winter"]
    for season in listing["seasons"]:
        known = patches[patches["season"] == season].set_index("location_id").loc[locations["location_id"]]
        outcome, labels = column(page, listing, "seasons", "outcome", season)
        expected = known["reason"].where(known["status"] != "ok", "stored").tolist()
        assert [labels[code] for code in outcome] == expected
        day, _ = column(page, listing, "seasons", "day", season)
        is_stored = (known["status"] == "ok").to_numpy()
        dates = columns.EPOCH + day[is_stored].astype(int)
        assert (dates == known.loc[is_stored, "datetime"].to_numpy().astype("datetime64[D]")).all()
        assert (day[~is_stored] == columns.NO_DAY).all()
    assert any(patches["status"] != "ok")


def test_each_location_of_a_shard_has_its_story_its_curve_and_its_pictures(page, listing):
    locations = pd.read_parquet(page[0]["locations"])
    patches = pd.read_parquet(page[0]["patches"])
    pixels = store.open_store(page[0]["store"].removesuffix("zarr.json"))
    names = pixels["band10"].to_numpy().tolist()
    seen = []
    for shard in range(3):
        entries = json.loads((page[1] / "made" / f"{shard}.json").read_text())
        mosaic = np.asarray(Image.open(page[1] / "made" / f"{shard}.jpg"))
        for i, entry in enumerate(entries):
            row = shard * listing["per_shard"] + i
            seen.append(entry["id"])
            stored = patches[(patches["location_id"] == entry["id"]) & (patches["status"] == "ok")]
            shown = {season["season"]: season for season in entry["seasons"] if "picture" in season}
            assert set(shown) == set(stored["season"])
            for season, facts in shown.items():
                y, x = divmod(facts["picture"], quicklooks.COLUMNS)
                px = quicklooks.QUICKLOOK_PX
                found = mosaic[y * px : (y + 1) * px, x * px : (x + 1) * px].reshape(-1, 3).mean(axis=0)
                dn10 = pixels["dn10"].isel(location=row).sel(season=season).to_numpy()
                expected = true_color(dn10, names, white=0.35).reshape(-1, 3).mean(axis=0)
                np.testing.assert_allclose(found, expected, atol=4)
            assert any("stored" in line for season in shown.values() for line in season["story"])
            series = entry["greenness"]
            assert len(series["day"]) == len(series["value"]) == len(series["quality"])
            assert series["day"] == sorted(series["day"])
            near = np.interp(
                series["day"],
                series["curve"]["start"] + series["curve"]["step"] * np.arange(len(series["curve"]["value"])),
                series["curve"]["value"],
            )
            good = np.array(series["quality"]) == 0
            assert np.median(np.abs(near - series["value"])[good]) < 60  # thousandths of the index
    assert seen == locations["location_id"].tolist()


def test_more_classes_than_a_byte_holds_are_lumped():
    names = pd.Series([f"class {i:03d}" for i in range(400) for _ in range(400 - i)])
    codes, labels = columns.classes(names)
    assert labels[-1] == "other" and len(labels) == columns.MAX_CLASSES + 1
    assert [labels[code] for code in codes[:400]] == ["class 000"] * 400
    assert labels[codes[-1]] == "other"


def test_outlines_keep_small_islands_and_their_area(tmp_path):
    small, large = Point(10, 50).buffer(0.02), box(100, -20, 140, 20)
    path = tmp_path / "land.parquet"
    gpd.GeoSeries([small.union(large)], crs=4326).to_frame("geometry").to_parquet(path)
    polygons = land.land_rings([str(path), str(path)])
    assert len(polygons) == 2
    (ring,) = polygons[1]
    x, y = np.array(ring).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(small.area, rel=0.05)


def test_page_loads_nothing_from_elsewhere():
    for path in STATIC.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            loaded = re.findall(
                r"""(?:src|href|import|from|url\()\s*=?\s*["'(]?(https?:)?//""", path.read_text()
            )
            assert not loaded, path.name
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 300_000
