"""The frame: cells on land, their areas, ecoregions, derived spacing."""

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely

from workflow_scripts.core import grid
from workflow_scripts.core.land import Ground, box_polygon, land_cells
from workflow_scripts.sampling.frame import UNASSIGNED, Strata, add_ecoregions, spacing_for, stratum_label


def polygons(geometries, crs=4326, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


def ecoregions(geometries, ids):
    names = [f"eco {i}" for i in ids]
    realm = ["N/A" if i == 0 else "Realm" for i in ids]
    biome = [i % 14 for i in ids]
    return polygons(geometries, ECO_ID=ids, ECO_NAME=names, BIOME_NUM=biome, BIOME_NAME=names, REALM=realm)


ISLANDS = [
    shapely.Point(12, 47).buffer(0.8),
    shapely.Point(12.5, 47.3).buffer(0.5),
    shapely.box(177, -19, 183, -15),
    shapely.box(-10, -86, 60, -70),
]


def test_land_cells_are_those_of_a_slow_search():
    land = polygons(ISLANDS)
    found = land_cells(30_000, ground=Ground(land))
    everything = grid.cells(30_000)
    lon = everything["lon"].to_numpy()
    on_land = np.zeros(len(everything), bool)
    for turn in (-360, 0, 360):
        on_land |= shapely.intersects_xy(shapely.union_all(ISLANDS), lon + turn, everything["lat"])
    assert found["cell_id"].tolist() == everything.loc[on_land, "cell_id"].tolist()
    assert (found["lon"] > 170).any() and (found["lon"] < -170).any()


def test_land_cells_of_tiny_islands_far_apart_need_no_global_grid():
    land = polygons([shapely.Point(x, y).buffer(0.02) for x, y in ((12, 47), (10, -1), (20, -33))])
    cells = land_cells(500, ground=Ground(land))
    assert 50 < len(cells) < 200


def test_too_fine_a_grid_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match=r"spacing_m = 10 m gives about .* cells"):
        land_cells(10, ground=Ground(polygons([shapely.box(-180, -60, 180, 80)])))


@pytest.mark.parametrize("box", [[11, 46, 12, 48], [179, -20, -178, -10], [-180, -90, 180, 90]])
def test_region_as_box_and_as_polygon_agree(box):
    land = polygons(ISLANDS)
    by_box = land_cells(30_000, ground=Ground(land, box_polygon(box, key="r")))
    west, south, east, north = box
    outline = shapely.box(west, south, east + 360 * (east < west), north)
    by_polygon = land_cells(30_000, ground=Ground(land, polygons([outline])))
    assert len(by_box) > 0
    assert by_box["cell_id"].tolist() == by_polygon["cell_id"].tolist()


def test_an_impossible_box_is_named():
    for box in ([0, 10, 5, 5], [0, 0, 200, 5], [3, 0, 3, 5], [0, -95, 3, 5]):
        with pytest.raises(ValueError, match=r"locations\.region = "):
            box_polygon(box, key="locations.region")


def test_cell_areas_are_true_and_add_up_to_the_ellipsoid():
    cells = grid.cells(200_000)
    area = grid.cell_area_km2(cells)
    geodesic = pyproj.Geod(ellps="WGS84")
    for row in cells.iloc[:: len(cells) // 15].itertuples():
        x = np.linspace(row.west, row.west + row.dlon, 200)
        ring_x = np.concatenate([x, x[::-1]])
        ring_y = np.repeat([row.south, row.south + row.dlat], 200)
        expected = abs(geodesic.polygon_area_perimeter(ring_x, ring_y)[0]) / 1e6
        assert area[row.Index] == pytest.approx(expected, rel=1e-4)
    zone = grid.cell_area_km2(cells.iloc[[0]].assign(south=-90.0, dlat=180.0, dlon=360.0))
    assert zone[0] == pytest.approx(510_065_621.7, rel=1e-7)


@pytest.mark.parametrize("n", [5, 200, 3000])
def test_spacing_is_found_for_a_number_of_cells(n):
    land = polygons([shapely.box(0, 40, 20, 55)])
    spacing = spacing_for(n, lambda s: len(land_cells(s, ground=Ground(land))), minimum_m=100)
    count = len(land_cells(spacing, ground=Ground(land)))
    assert abs(count - n) <= max(2, 0.03 * n)


def test_spacing_below_a_patch_is_refused():
    land = polygons([shapely.box(0, 40, 0.1, 40.1)])
    with pytest.raises(ValueError, match=r"n_locations = 900: .* holds only \d+ cells at 2560 m"):
        spacing_for(900, lambda s: len(land_cells(s, ground=Ground(land))), minimum_m=2560)


def test_ecoregions_overlap_gap_and_sea():
    regions = ecoregions(
        [shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1), shapely.box(3.3, 0, 4, 1)], [4, 8, 15]
    )
    points = polygons([]).assign(lon=[], lat=[])
    points = points[["lon", "lat"]].reindex(range(6))
    points["lon"], points["lat"] = [0.5, 1.5, 2.5, 3.1, 3.25, 9], [0.5] * 6
    is_land = np.array([True, True, True, True, False, True])
    found = add_ecoregions(points, regions, Strata("eco_id", regions), max_gap_km=25, is_land=is_land)
    assert found["eco_id"].tolist() == [4, 4, 8, 8, -1, -1]
    assert found["stratum"].tolist() == ["4", "4", "8", "8", UNASSIGNED, UNASSIGNED]
    assert found["eco_name"].tolist()[3:] == ["eco 8", "", ""]
    assert found["biome_num"].tolist() == [4, 4, 8, 8, -1, -1]
    unknown_land = add_ecoregions(points, regions, Strata("BIOME_NAME", regions), max_gap_km=25, is_land=None)
    assert unknown_land["stratum"].tolist() == ["eco 4", "eco 4", "eco 8", UNASSIGNED, UNASSIGNED, UNASSIGNED]
    none = add_ecoregions(points, None, None, max_gap_km=25, is_land=None)
    assert set(none["stratum"]) == {"all"} and set(none["eco_id"]) == {-1}


def test_strata_are_named_by_their_values():
    assert [stratum_label(v) for v in (3, 3.0, 3.5, "N/A", np.int32(7), None, np.nan)] == [
        "3", "3", "3.5", "N/A", "7", UNASSIGNED, UNASSIGNED,
    ]  # fmt: skip
