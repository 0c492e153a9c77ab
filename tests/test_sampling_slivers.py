"""Islands and strata that hold no cell center."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from workflow_scripts.core import grid
from workflow_scripts.core.land import Ground, box_polygon, land_cells
from workflow_scripts.sampling.frame import Strata, add_ecoregions
from workflow_scripts.sampling.slivers import island_places, missed_strata, stratum_places

SPACING_M = 50_000
MAINLAND = shapely.box(10, 44, 16, 48)
ISLANDS = [
    shapely.box(20.01, 44.01, 20.03, 44.02),
    shapely.box(20.05, 44.01, 20.06, 44.012),
    shapely.box(179.97, -16.30, 180.05, -16.28),
    shapely.box(8.0, 45.05, 8.02, 45.064),
]


def polygons(geometries, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=4326)


@pytest.mark.parametrize("crs", [4326, 3857])
def test_an_island_without_a_center_gets_a_place_of_its_own(crs):
    ground = Ground(polygons([MAINLAND, *ISLANDS[:2], ISLANDS[3]]).to_crs(crs))
    cells = land_cells(SPACING_M, ground=ground)
    assert cells["lon"].between(10, 16).all()
    places = island_places(cells, ground, spacing_m=SPACING_M, size_m=2560, land_fraction=None)
    assert len(places) == 2, "two islands share a cell: the larger one counts"
    for place, shape in zip(places.itertuples(), [ISLANDS[3], ISLANDS[0]], strict=True):
        assert shapely.intersects_xy(shape, place.lon, place.lat)
        assert place.area_km2 == pytest.approx(
            shape.area * 111.2**2 * np.cos(np.radians(place.lat)), rel=0.01
        )
    assert (grid.cell_at(places["lon"], places["lat"], SPACING_M) == places["cell_id"]).all()
    few = island_places(cells, ground, spacing_m=SPACING_M, size_m=2560, land_fraction=0.3)
    assert few["cell_id"].tolist() == places["cell_id"].tolist()[:1]


def test_islands_across_the_antimeridian_outside_the_region_or_excluded():
    across, home = polygons(ISLANDS[2:3]), polygons(ISLANDS[:1])
    ground = Ground(polygons([ISLANDS[0], ISLANDS[2]]))
    cells = land_cells(SPACING_M, ground=ground)
    options = {"spacing_m": SPACING_M, "size_m": 2560, "land_fraction": None}
    both = island_places(cells, ground, **options)
    assert len(cells) == 0 and len(both) == 2 and both["lon"].abs().max() > 179.9
    region = Ground(ground.land, region=box_polygon([179, -20, -179, -10], key="region"))
    assert len(island_places(cells, region, **options)) == 1
    assert island_places(cells, Ground(ground.land, exclude=(across,)), **options)["lon"].max() < 21
    assert island_places(cells, Ground(ground.land, exclude=(across, home)), **options).empty


@pytest.fixture
def strata():
    """Two wide strata, a sliver between them, one off the land polygons, one far away."""
    shapes = [
        shapely.box(10, 44, 13, 48),
        shapely.box(13.004, 44, 16, 48),
        shapely.box(13, 45.1, 13.004, 45.9),
        shapely.box(16.2, 46.0, 16.22, 46.02),
        shapely.box(60, 10, 60.01, 10.01),
    ]
    return Strata("NAME", polygons(shapes, NAME=["west", "east", "sliver", "off", "far"]))


def test_strata_without_a_location_are_listed_with_their_area_and_hit(strata):
    ground = Ground(polygons([MAINLAND]), region=box_polygon([0, 40, 20, 50], key="region"))
    cells = land_cells(SPACING_M, ground=ground)
    cells = add_ecoregions(cells, None, strata, max_gap_km=0, is_land=None)
    missed = missed_strata(cells, strata, ground)
    assert missed["stratum"].tolist() == ["off", "sliver"], "what lies outside the region is no loss"
    np.testing.assert_allclose(missed["area_km2"], [3.4, 27.8], rtol=0.05)
    free = stratum_places(missed, set(), spacing_m=SPACING_M).set_index("stratum")
    assert free.loc["sliver", "cell_id"] in set(cells["cell_id"])
    places = stratum_places(missed, set(cells["cell_id"]), spacing_m=SPACING_M).set_index("stratum")
    assert set(places.index) == {"off", "sliver"}
    assert places.loc["sliver", "cell_id"] == free.loc["sliver", "cell_id"] + "_2"
    shapes = strata.polygons.set_index("NAME").geometry
    for name, place in places.iterrows():
        assert shapely.intersects_xy(shapes[name], place["lon"], place["lat"])
    excluded = Ground(ground.land, ground.region, (polygons([shapely.box(12.9, 45, 13.1, 46)]),))
    assert missed_strata(cells, strata, excluded)["stratum"].tolist() == ["off"]
