"""The made world's map: coast, ecoregions, relief, temperature."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from small_world import SMALL, small_world

from workflow_scripts.core import grid
from workflow_scripts.demo import geography
from workflow_scripts.demo.parameters import BIOME_NAMES, World
from workflow_scripts.demo.tile_ground import scene_window

WORLD = World()


@pytest.mark.parametrize("island", WORLD.islands, ids=lambda island: island.name)
def test_polygons_agree_with_the_functions_that_pixels_use(island):
    rng = np.random.default_rng(0)
    place = rng.uniform(-1.1, 1.1, (2, 4000)) * WORLD.radius_km
    points = shapely.points(*geography.to_lonlat(island, *place))
    ratio = geography.shore_ratio(WORLD, island, *place)
    inside = shapely.contains(geography.land_polygon(WORLD, island), points)
    clear = np.abs(ratio - 1) > 0.002
    assert (inside == (ratio < 1))[clear].all()

    frame = geography.ecoregion_frame(WORLD).set_index("ECO_ID").geometry
    index = geography.ecoregion_index(WORLD, island, *place)
    for number, ecoregion in enumerate(island.ecoregions):
        here = shapely.contains(frame[ecoregion.eco_id], points[ratio < 0.99])
        # vertices stand every 50 m, so a few points at a winding border fall on the other side
        assert np.mean(here != (index[ratio < 0.99] == number)) < 0.002


def test_ecoregions_share_the_land_without_overlap():
    land = geography.land_frame(WORLD)
    ecoregions = geography.ecoregion_frame(WORLD)
    assert len(ecoregions) == 12
    assert ecoregions.is_valid.all() and land.is_valid.all()
    equal_area = ecoregions.to_crs(6933)
    assert equal_area.area.sum() == pytest.approx(land.to_crs(6933).area.sum(), rel=1e-4)
    assert equal_area.area.min() > 4e6
    assert set(ecoregions.BIOME_NUM) <= set(BIOME_NAMES)
    assert ecoregions.BIOME_NUM.nunique() >= 8


def test_mountains_stand_on_land():
    mountains = geography.mountain_frame(WORLD)
    assert len(mountains) == 2
    assert (mountains.geom_type == "Polygon").all()
    land = geography.land_frame(WORLD).union_all().buffer(1e-9)
    assert mountains.within(land).all()


def test_climate_map_equals_the_temperature_field_and_falls_with_height():
    island = World().islands[0]
    with rasterio.open(small_world() / "climate.tif") as file:
        assert file.crs.to_epsg() == 4326
        row, column = file.index(island.lon, island.lat)
        lon, lat = file.xy(row, column)
        value = file.read(1, window=rasterio.windows.Window(column, row, 1, 1))[0, 0]
    place = geography.to_local(island, np.array([lon]), np.array([lat]))
    assert value == pytest.approx(geography.ground_at(SMALL, island, *place).temperature_c[0], abs=1e-4)
    rng = np.random.default_rng(1)
    place = rng.uniform(-2, 2, (2, 500))
    ground = geography.ground_at(WORLD, island, *place)
    assert np.corrcoef(ground.elevation_m, ground.temperature_c)[0, 1] < -0.8


@pytest.mark.parametrize("island", WORLD.islands, ids=lambda island: island.name)
def test_every_patch_on_land_lies_within_the_files_of_each_tile(island):
    angles = np.linspace(0, 2 * np.pi, 73)
    radius = geography.coast_radius_km(WORLD, island, angles)
    lon, lat = geography.to_lonlat(island, radius * np.cos(angles), radius * np.sin(angles))
    for tile in island.tiles:
        window = scene_window(WORLD, island, tile)
        x, y = grid.project(lon, lat, tile.epsg)
        for values, low, high in (
            (x, window.origin_x, window.origin_x + window.size_m),
            (y, window.origin_y - window.size_m, window.origin_y),
        ):
            assert values.min() - 330 > low and values.max() + 330 < high


def test_islands_lie_where_the_story_needs_them():
    north, tropical, south = WORLD.islands
    assert [tile.epsg for tile in north.tiles] == [32632, 32633]
    assert north.lon == 12  # the border of UTM zones 32 and 33
    assert tropical.lat < 0 and tropical.tiles[0].epsg == 32733
    for island in WORLD.islands:
        for tile in island.tiles:
            epsg, left, low, right, top = grid.mgrs_tile_bounds(tile.name)
            assert (epsg, left, top) == (tile.epsg, *tile.tile_origin)
            window = scene_window(WORLD, island, tile)
            assert left <= window.origin_x and window.origin_x + window.size_m <= right
            assert low <= window.origin_y - window.size_m and window.origin_y <= top
    tiles = grid.mgrs_tiles([south.lon], [south.lat], 640)[0]
    assert set(tiles) >= {"34HBJ", "34HCJ"}


def test_written_maps_open():
    for name in ("land", "ecoregions", "mountains"):
        frame = gpd.read_parquet(small_world() / f"{name}.parquet")
        assert frame.crs.to_epsg() == 4326
        assert len(frame)
