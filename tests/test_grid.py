"""Cells, tiles and footprints against published values and independent formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from workflow_scripts.core import grid

LON = st.floats(-180, 179.999999)
LAT = st.floats(-82, 82)
SPACING = st.sampled_from([700, 2560, 10_000, 23_000, 100_000, 320_000])


@pytest.mark.parametrize(
    ("spacing_m", "rows", "count"),
    [(100_000, 189, 51_145), (50_000, 379, 204_034), (23_000, 823, 963_919)],
)
def test_size_of_the_complete_grid_is_major_toms(spacing_m, rows, count):
    cells = grid.cells(spacing_m)
    assert cells["row"].nunique() == rows
    assert len(cells) == count
    assert cells["cell_id"].is_unique


@pytest.mark.parametrize(
    ("spacing_m", "n_rows", "kept", "n_cells", "at_equator", "first", "n_first"),
    [
        (100_000, 201, 189, 51_145, 401, "94D_20L", 41),
        (50_000, 401, 379, 204_034, 802, "189D_36L", 73),
        (23_000, 872, 823, 963_919, 1743, "411D_78L", 157),
        (20_000, 1002, 947, 1_273_910, 2004, "473D_88L", 176),
        (10_000, 2004, 1893, 5_094_350, 4008, "946D_176L", 352),
        (5_000, 4008, 3785, 20_374_696, 8016, "1892D_351L", 703),
        (2_560, 7828, 7393, 77_719_259, 15_655, "3696D_684L", 1368),
    ],
)
def test_rows_and_columns_are_major_toms(spacing_m, n_rows, kept, n_cells, at_equator, first, n_first):
    low, high = grid.row_range(spacing_m)
    counts = grid.n_columns(np.arange(low, high + 1), spacing_m)
    assert (grid.n_rows(spacing_m), counts.size, counts.sum()) == (n_rows, kept, n_cells)
    assert (grid.n_columns(0, spacing_m), counts[0]) == (at_equator, n_first)
    assert grid.cell_ids([low], grid.first_column(counts[:1]))[0].as_py() == first


@pytest.mark.parametrize(
    ("lat", "lon", "cell", "center", "epsg"),
    [
        (47.36, 8.45, "229U_27R", (47.373853, 8.368555), 32632),
        (0.05, 0.05, "0U_0R", (0.103211, 0.103270), 32631),
        (71.3, -156.7, "345U_245L", (71.318807, -156.619217), 32604),
    ],
)
def test_known_places_at_23_km(lat, lon, cell, center, epsg):
    assert grid.cell_at(lon, lat, 23_000)[0] == cell
    assert grid.cell_center(cell, 23_000) == pytest.approx(center[::-1], abs=1e-6)
    assert grid.utm_epsg(lon, lat) == epsg


def test_point_on_an_edge_belongs_above_and_right_unless_major_tom_is_asked_for():
    assert grid.cell_at(0, 0, 100_000)[0] == "0U_0R"
    assert grid.cell_at(0, 0, 100_000, majortom_edges=True)[0] == "1D_1L"
    assert grid.cell_at(-60, -3.1, 23_000)[0] == "16D_290L"
    assert grid.cell_at(-60, -3.1, 23_000, majortom_edges=True)[0] == "16D_291L"
    assert grid.cell_center("16D_291L", 23_000) == pytest.approx((-60.103448, -3.199541), abs=1e-6)


def test_zurich_at_100_km_and_the_last_cell_at_23_km():
    assert grid.cell_at(8.45, 47.36, 100_000)[0] == "52U_6R"
    last = grid.cells(23_000, bounds=(178, 84, 180, 85)).iloc[-1]
    assert last["cell_id"] == "411U_78R"
    assert (last["south"], last["west"]) == pytest.approx((84.839450, 178.853504), abs=1e-6)


@given(LON, LAT, SPACING)
def test_every_point_lies_in_the_cell_it_is_given(lon, lat, spacing_m):
    cell = grid.cell_at(lon, lat, spacing_m)[0]
    center_lon, center_lat = grid.cell_center(cell, spacing_m)
    row, _ = grid.parse_cell(cell)
    half_height = 90 / grid.n_rows(spacing_m)
    half_width = 180 / grid.n_columns(row, spacing_m)
    assert abs(lat - center_lat) <= half_height * (1 + 1e-9)
    assert abs((lon - center_lon + 180) % 360 - 180) <= half_width * (1 + 1e-9)
    assert grid.cell_at(center_lon, center_lat, spacing_m)[0] == cell


@pytest.mark.parametrize("spacing_m", [100_000, 1_900_000])
@pytest.mark.parametrize(
    "bounds",
    [
        (5, 44, 12, 48), (170, -20, -170, 5), (-180, 60, -150, 85), (-179.5, 60, -100, 85), (150, -85, 180, -60),
        (-180, -90, 180, 90), (-0.5, -1, 0.5, 1), (7, 7, 7, 7), (-100, -80, 179, 80),
    ],
)  # fmt: skip
def test_cells_in_a_box_are_those_of_the_whole_grid(bounds, spacing_m):
    every = grid.cells(spacing_m)
    west, south, east, north = bounds
    inside = every["lat"].between(south, north)
    across = west > east
    inside &= (every["lon"] >= west) | (every["lon"] <= east) if across else every["lon"].between(west, east)
    part = grid.cells(spacing_m, bounds=bounds)
    assert part["cell_id"].tolist() == every["cell_id"][inside].tolist()


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (5, 60, 32),
        (2.9, 60, 31),
        (5, 64, 31),
        (8, 75, 31),
        (9, 75, 33),
        (21, 75, 35),
        (33, 78, 37),
        (180, 0, 1),
        (-180, 0, 1),
        (179.999, 0, 60),
    ],
)
def test_utm_zones_of_norway_svalbard_and_the_antimeridian(lon, lat, zone):
    assert grid.utm_zone(lon, lat) == zone


@pytest.mark.parametrize(
    ("tile", "bounds"),
    # proj:transform of real items
    [
        ("33TWL", (32633, 499980, 4990200, 609780, 5100000)),
        ("24MUA", (32724, 300000, 9490240, 409800, 9600040)),
        ("01KAB", (32701, 99960, 8090200, 209760, 8200000)),
    ],
)
def test_tile_bounds_equal_those_of_real_scenes(tile, bounds):
    epsg, xmin, ymin, xmax, ymax = grid.mgrs_tile_bounds(tile)
    assert (epsg, xmin, ymax) == (bounds[0], bounds[1], bounds[4])
    assert (xmax - xmin, ymax - ymin) == (109_800, 109_800)


@given(LON, st.floats(-79, 83))
def test_tiles_listed_for_a_place_hold_its_patch(lon, lat):
    tiles = grid.mgrs_tiles(lon, lat, 2560)[0]
    assert tiles
    for tile in tiles:
        epsg, xmin, ymin, xmax, ymax = grid.mgrs_tile_bounds(tile)
        x, y = grid.project(lon, lat, epsg)
        assert xmin + 1280 <= x <= xmax - 1280
        assert ymin + 1280 <= y <= ymax - 1280


@given(st.floats(200_000, 800_000), st.floats(1000, 9_990_000), st.sampled_from([640, 1200, 2560]))
def test_patch_center_is_within_10_m_and_60_m_window_covers_it(x, y, size_m):
    origin_x, origin_y = grid.patch_origin(x, y, size_m)
    assert origin_x % 20 == 0 and origin_y % 20 == 0
    assert abs(origin_x + size_m / 2 - x) <= 10
    assert abs(origin_y - size_m / 2 - y) <= 10
    for phase in (0, 20, 40):  # tiles of the north and of the south differ in it
        left, upper, n = grid.window60(origin_x, origin_y, size_m, (phase, 10_000_000 + phase))
        assert left <= origin_x and left + 60 * n >= origin_x + size_m
        assert upper >= origin_y and upper - 60 * n <= origin_y - size_m
        assert (left - phase) % 60 == 0


def test_modis_pixel_of_a_known_place():
    # center of pixel row 1200, column 1200 of h18v04, back through the projection's formulas
    x0, y0 = grid.modis_tile_origin("h18v04")
    size = grid.MODIS_TILE_M / 2400
    x, y = x0 + 1200.5 * size, y0 - 1200.5 * size
    lat = np.degrees(y / grid.MODIS_RADIUS_M)
    lon = np.degrees(x / grid.MODIS_RADIUS_M / np.cos(np.radians(lat)))
    tile, row, column = grid.modis_pixel(lon, lat)
    assert (tile[0], row[0], column[0]) == ("h18v04", 1200, 1200)


def test_distance_agrees_with_the_ellipsoid():
    geod = Geod(ellps="WGS84")
    for a, b in [((8, 47), (8.3, 47)), ((179.9, 0), (-179.9, 1)), ((0, -33), (20, 60))]:
        metres = geod.inv(*a, *b)[2]
        assert grid.great_circle_km(*a, *b) == pytest.approx(metres / 1000, rel=0.006)


def test_compact_order_visits_neighbors_one_after_the_other():
    # a complete 32 × 32 lattice of the equal-area cylinder: each step goes to an adjacent point
    n = 32
    column, row = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n)))
    lon = (column + 0.5) / n * 360 - 180
    lat = np.degrees(np.arcsin((row + 0.5) / n * 2 - 1))
    order = np.argsort(grid.hilbert_index(lon, lat, bits=5))
    steps = np.abs(np.diff(column[order])) + np.abs(np.diff(row[order]))
    assert (steps == 1).all()


def test_points_off_the_earth_are_named():
    with pytest.raises(ValueError, match=r"plot7: lon 8, lat 147"):
        grid.check_coordinates([8, 8], [47, 147], ["plot6", "plot7"])
