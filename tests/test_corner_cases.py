"""A made place at each corner: from the search to the index, one named case each."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import shapely
from made_scenes import SEASONS, SIZE_M, World, make_item, read_by_hand, write_files

from workflow_scripts import index_patches
from workflow_scripts.core import grid, store, tables


@dataclass
class Case:
    """A place, the scenes around it, and what must come of each season."""

    lon: float
    lat: float
    scenes: list[tuple]
    """Id, day, tile, and options of `write_files` and `make_item`."""
    expected: dict[str, tuple[str, str]]
    """Season → item id, empty where there is none, and reason."""
    windows: dict = field(default_factory=lambda: dict(SEASONS))
    is_complete: bool = True
    is_aligned: bool = True
    epsg: int = 32632


def around(lon, lat, tile, *, shift=(0, 0)):
    """Files of 3 km about a place, on the lattice of a tile, or moved by some meters."""
    epsg, left, _, _, top = grid.mgrs_tile_bounds(tile)
    x, y = grid.project(lon, lat, epsg)
    left += (x + shift[0] - 1500 - left) // 60 * 60
    top -= (top - (y + shift[1] + 1500)) // 60 * 60
    return {"epsg": epsg, "left": float(left), "top": float(top)}


def scene(item_id, day, tile, place, *, shift=(0, 0), scl=4, **properties):
    return item_id, day, tile, around(*place, tile, shift=shift), scl, properties


def half_seen(scl):
    """A swath that ends in the middle."""
    scl[:, scl.shape[1] // 2 :] = 0
    return scl


def footprint_west_of(lon):
    """Geometry of a swath that ends at a meridian."""
    return shapely.geometry.mapping(shapely.box(lon - 1, 40, lon, 50))


EDGE = tuple(float(v) for v in grid.unproject(699_960 + 200.0, 5_250_000.0, 32632))
INNER = tuple(float(v) for v in grid.unproject(650_000.0, 5_250_000.0, 32632))
BORDER = tuple(float(v) for v in grid.unproject(735_000.0, 5_250_000.0, 32632))
SOUTH, POLAR, DATELINE = (-74.2, -12.1), (15.6, 78.2), (179.998, 66.5)

CASES = {
    "tile edge": Case(
        *EDGE,
        [
            # the patch would reach 120 m beyond this tile; its neighbor overlaps
            scene("cut", "2021-07-01", "32TQT", EDGE, shift=(1300, 0), **{"eo:cloud_cover": 0.0}),
            scene("whole", "2021-07-02", "32TPT", EDGE),
            scene("winter", "2021-12-20", "32TPT", EDGE),
        ],
        {"summer": ("whole", "candidate"), "winter": ("winter", "candidate")},
    ),
    "swath edge": Case(
        *INNER,
        [
            scene(
                "ends by footprint",
                "2021-07-01",
                "32TPT",
                INNER,
                **{"eo:cloud_cover": 0.0, "geometry": INNER[0]},
            ),
            scene("ends by pixels", "2021-07-02", "32TPT", INNER, scl=half_seen, **{"eo:cloud_cover": 1.0}),
            scene("whole", "2021-07-03", "32TPT", INNER, **{"eo:cloud_cover": 9.0}),
            scene("winter", "2021-12-20", "32TPT", INNER),
        ],
        {"summer": ("whole", "candidate"), "winter": ("winter", "candidate")},
    ),
    "two UTM zones": Case(
        *BORDER,
        [
            scene("clearest, of one season only", "2021-07-01", "32TQT", BORDER, **{"eo:cloud_cover": 0.0}),
            scene("zone of both, summer", "2021-07-03", "33TTN", BORDER),
            scene("zone of both, winter", "2021-12-20", "33TTN", BORDER),
        ],
        {"summer": ("zone of both, summer", "candidate"), "winter": ("zone of both, winter", "candidate")},
        epsg=32633,
    ),
    "UTM south": Case(
        *SOUTH,
        [scene("S", "2021-07-01", "18LWM", SOUTH), scene("W", "2021-12-20", "18LWM", SOUTH)],
        {"summer": ("S", "candidate"), "winter": ("W", "candidate")},
        epsg=32718,
    ),
    "polar night": Case(
        *POLAR,
        [
            scene("S", "2021-07-01", "33XWG", POLAR),
            scene("dark", "2021-12-20", "33XWG", POLAR, **{"view:sun_elevation": -10.0}),
            scene("dusk", "2022-02-20", "33XWG", POLAR, **{"view:sun_elevation": 3.0}),
        ],
        {"summer": ("S", "candidate"), "winter": ("", "no_candidate")},
        is_complete=False,
        epsg=32633,
    ),
    "antimeridian": Case(
        *DATELINE,
        [scene("S", "2021-07-01", "60WXU", DATELINE), scene("W", "2021-12-20", "60WXU", DATELINE)],
        {"summer": ("S", "candidate"), "winter": ("W", "candidate")},
        epsg=32660,
    ),
    "window over New Year": Case(
        *INNER,
        [
            scene("before", "2020-12-05", "32TPT", INNER, **{"eo:cloud_cover": 4.0}),
            scene("after", "2022-02-10", "32TPT", INNER, **{"eo:cloud_cover": 2.0}),
            scene("outside", "2021-03-10", "32TPT", INNER, **{"eo:cloud_cover": 0.0}),
            scene("S", "2021-07-01", "32TPT", INNER),
        ],
        {"summer": ("S", "candidate"), "winter": ("after", "candidate")},
    ),
    "one clear season only": Case(
        *INNER,
        [scene("S", "2021-07-01", "32TPT", INNER), scene("cloudy", "2021-12-20", "32TPT", INNER, scl=9)],
        {"summer": ("S", "candidate"), "winter": ("", "cloudy")},
        is_complete=False,
    ),
    "no scene at all": Case(
        *INNER,
        [],
        {"summer": ("", "no_candidate"), "winter": ("", "no_candidate")},
        is_complete=False,
        is_aligned=False,
    ),
}


def build(case, folder):
    """Write a case's scenes and run the stages up to the index."""
    items = []
    for item_id, day, tile, place, scl, properties in case.scenes:
        write_files("scenes", item_id, scl=scl, **place)
        swath_end = properties.pop("geometry", None)
        item = make_item(item_id, day, tile=tile, **place, **properties)
        if swath_end is not None:
            item["geometry"] = footprint_west_of(swath_end)
        elif np.ptp([lon for lon, _ in item["geometry"]["coordinates"][0]]) > 180:
            item["geometry"] = cut_at_the_antimeridian(item["geometry"]["coordinates"][0])
        items.append(item)
    # of another tile: a catalog without any scene is refused as a mistake
    items.append(make_item("elsewhere", "2021-07-01", tile="31UGQ"))
    world = World(folder, items)
    locations = tables.read_table("locations.parquet", "locations").assign(lon=case.lon, lat=case.lat)
    tables.write_table(locations, "locations.parquet", "locations")
    world.tiles = tuple(grid.mgrs_tiles([case.lon], [case.lat], SIZE_M)[0])
    table = world.run()
    index = index_patches.index(table, locations[["location_id", "lon", "lat"]], size_m=SIZE_M)
    return world, index.set_index("season")


def cut_at_the_antimeridian(ring):
    """A footprint as catalogs publish it there: two polygons."""
    whole = shapely.Polygon([(lon % 360, lat) for lon, lat in ring])
    east = whole.intersection(shapely.box(0, -90, 180, 90))
    west = shapely.transform(whole.intersection(shapely.box(180, -90, 360, 90)), lambda c: c - [360, 0])
    return shapely.geometry.mapping(shapely.MultiPolygon([east, west]))


@pytest.fixture(scope="module", params=CASES)
def corner(request, tmp_path_factory):
    """One case, built."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield CASES[request.param], *build(CASES[request.param], folder), folder


def test_each_season_has_the_right_scene_or_its_reason(corner):
    case, _, index, _ = corner
    assert {s: (row["item_id"], row["reason"]) for s, row in index.iterrows()} == case.expected
    assert index["is_complete"].tolist() == [case.is_complete] * 2


def test_the_pixels_are_those_of_the_files_in_the_right_place(corner):
    case, world, index, folder = corner
    dataset = store.open_store(world.store).load()
    assert bool(dataset["aligned"][0]) == case.is_aligned
    for season, row in index[index["status"] == "ok"].iterrows():
        assert row["epsg"] == case.epsg
        x, y = grid.project(case.lon, case.lat, case.epsg)
        assert abs(row["origin_x"] + SIZE_M / 2 - x) <= 10 and abs(row["origin_y"] - SIZE_M / 2 - y) <= 10
        center = row["geometry"].representative_point()
        assert abs((center.x - case.lon + 180) % 360 - 180) < 0.02 and abs(center.y - case.lat) < 0.01
        patch = dataset.isel(location=0).sel(season=season)
        for part in ("dn10", "dn20", "dn60"):
            expected = read_by_hand(folder / "scenes", row["item_id"], part, row["origin_x"], row["origin_y"])
            np.testing.assert_array_equal(patch[part].values, expected)


LEFT_OUT = {
    "swath edge": ("summer", "footprint"),
    "polar night": ("winter", "sun_zenith"),
    "no scene at all": ("summer", "no_scene"),
}


def test_what_was_left_out_is_counted_by_reason(corner, request):
    season, reason = LEFT_OUT.get(request.node.callspec.params["corner"], ("", ""))
    scenes = corner[1].scenes().query(f"rank < 0 and season == '{season}'")
    assert not reason or reason in set(scenes["reason"])


@pytest.mark.parametrize("corner", ["window over New Year"], indirect=True)
def test_signed_days_run_over_new_year(corner):
    """The window's middle is 15 January; what lies before counts negative."""
    scenes = corner[1].scenes().query("rank >= 0 and season == 'winter'").set_index("item_id")
    assert scenes["days_from_target"].to_dict() == {"after": 26, "before": -40}
