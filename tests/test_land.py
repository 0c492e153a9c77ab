"""Where locations may lie: land fractions, exclusions, offsets; at ±180 degrees and around the poles."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely

from workflow_scripts.core import grid
from workflow_scripts.core.land import LATTICE, Coasts, Ground, box_polygon, land_cells
from workflow_scripts.core.polygons import areas_km2


def polygons(*geometries, crs=4326):
    return gpd.GeoDataFrame(geometry=list(geometries), crs=crs)


def turned(shape):
    """Cut a shape that reaches beyond 180 degrees, and turn the rest to -180."""
    east = shapely.intersection(shape, shapely.box(-180, -90, 180, 90))
    west = shapely.transform(shapely.difference(shape, east), lambda xy: xy - [360, 0])
    return shapely.union(east, west)


ROUND = shapely.Point(12.37, 47.21).buffer(0.11)
ACROSS = shapely.Point(179.97, -16.53).buffer(0.13)
CAP = shapely.box(-180, -90, 180, -82.1)
ISLET = shapely.box(-180, 71.32, -179.96, 71.35)


@pytest.mark.parametrize(
    ("shape", "crs"),
    [(ROUND, 4326), (ROUND, 32633), (ACROSS, 4326), (turned(ACROSS), 4326), (CAP, 4326), (CAP, 3031)],
)
@pytest.mark.parametrize("side", ["fraction", "excluded"])
def test_land_fraction_is_the_share_of_the_footprints_area(shape, crs, side):
    """Against polygons clipped in the location's UTM zone; one row of lattice points is 3 %."""
    frame = polygons(shapely.segmentize(shape, 0.01)).to_crs(crs)
    world = polygons(shapely.box(-180, -90, 180, 90))
    ground = Ground(frame) if side == "fraction" else Ground(world, exclude=(frame,))
    lon0, lat0 = shapely.get_parts(shape)[0].centroid.x, (shape.centroid.y if shape is not CAP else -82.1)
    rng = np.random.default_rng(3)
    lon = (lon0 + rng.uniform(-0.3, 0.3, 60) + 180) % 360 - 180
    lat = np.clip(lat0 + rng.uniform(-0.2, 0.2, 60), -84.9, 84.9)
    found = Coasts(ground).land_fraction(lon, lat, ground.is_land(lon, lat), size_m=5120)
    found = found if side == "fraction" else 1 - found
    local = shapely.segmentize(
        shape if shape is not CAP else shapely.box(lon0 - 9, -86, lon0 + 9, -82.1), 0.01
    )
    expected = []
    for x, y in zip(lon, lat, strict=True):
        zone = pyproj.Transformer.from_crs(4326, int(grid.utm_epsg(x, y)), always_xy=True)
        near = shapely.transform(local, lambda xy: np.column_stack(zone.transform(*xy.T)))
        px, py = zone.transform(x, y)
        footprint = shapely.box(px - 2560, py - 2560, px + 2560, py + 2560)
        expected.append(footprint.intersection(shapely.make_valid(near)).area / footprint.area)
    np.testing.assert_allclose(found, expected, atol=1.5 / LATTICE)
    assert 0.1 < np.mean(expected) < 0.9


def test_a_land_fraction_keeps_and_drops_cells_at_the_coast():
    land = polygons(shapely.box(0, 40, 5, 44), shapely.box(7.001, 42.001, 7.003, 42.003))
    by_center = set(land_cells(20_000, ground=Ground(land))["cell_id"])
    most, some, half = (
        set(land_cells(20_000, ground=Ground(land), land_fraction=f, size_m=8000)["cell_id"])
        for f in (1.0, 0.01, 0.5)
    )
    assert most < by_center < some
    assert len(half ^ by_center) <= 2


def test_what_is_excluded_is_no_land():
    land = polygons(shapely.box(0, 40, 5, 44))
    lake, south = polygons(shapely.Point(2, 42).buffer(0.5)), box_polygon([-180, -90, 180, 41], key="exclude")
    cells = land_cells(20_000, ground=Ground(land, exclude=(lake.to_crs(3035), south)))
    everything = land_cells(20_000, ground=Ground(land))
    dry = ~shapely.intersects_xy(lake.geometry[0], everything["lon"], everything["lat"])
    assert cells["cell_id"].tolist() == everything.loc[dry & (everything["lat"] > 41), "cell_id"].tolist()


@pytest.mark.parametrize("land", [[CAP], [ISLET, ACROSS], [turned(ACROSS), shapely.box(-180, 83.9, 180, 90)]])
@pytest.mark.parametrize("options", [{}, {"offset": (0.95, 0.02)}, {"land_fraction": 0.3, "size_m": 20_000}])
def test_poles_and_antimeridian_hold_the_cells_of_a_slow_search(land, options):
    """Every cell of the grid is tried, at a place computed one by one."""
    spacing_m = 25_000
    ground = Ground(polygons(*land))
    found = land_cells(spacing_m, ground=ground, **options)
    everything = grid.cells(spacing_m)
    near = np.zeros(len(everything), bool)
    for shape in land:
        west, south, east, north = shape.bounds
        inside = everything["lat"].between(south - 1, north + 1)
        for turn in (-360, 0, 360):
            near |= inside & (everything["lon"] + turn).between(west - 4, east + 4)
    everything = everything[near].reset_index(drop=True)
    if "offset" in options:
        u, v = options["offset"]
        lon = (everything["west"] + u * everything["dlon"] + 180) % 360 - 180
        south, north = (np.sin(np.radians(everything["south"] + k * everything["dlat"])) for k in (0, 1))
        everything = everything.assign(lon=lon, lat=np.degrees(np.arcsin(south + v * (north - south))))
    lon, lat = everything["lon"].to_numpy(), everything["lat"].to_numpy()
    share = np.zeros(len(lon))
    for turn in (-360, 0, 360):
        share += shapely.intersects_xy(shapely.union_all(land), lon + turn, lat)
    share = np.minimum(share, 1)
    if "land_fraction" in options:
        share = Coasts(ground).land_fraction(lon, lat, share > 0, size_m=options["size_m"])
    expected = everything.loc[share >= options.get("land_fraction", 1e-9), "cell_id"]
    assert found["cell_id"].tolist() == expected.tolist()
    assert len(found) > 0
    assert (grid.cell_at(found["lon"], found["lat"], spacing_m) == found["cell_id"]).all()


def test_a_randomized_grid_estimates_a_mean_over_land_without_bias():
    """Cells weighed by their true area, 300 offsets, 4 standard errors; the integral on a fine grid."""
    shape = shapely.Polygon([(-20, -10), (18, -25), (30, 20), (22, 64), (-4, 51), (4, 12)])
    ground = Ground(polygons(shape))

    def value(cells):
        return 3 + np.sin(cells["lon"] / 4) + cells["lat"] / 20

    fine = land_cells(30_000, ground=ground)
    exact = (value(fine) * grid.cell_area_km2(fine)).sum()
    rng = np.random.default_rng(0)
    draws = [land_cells(400_000, ground=ground, offset=tuple(rng.uniform(size=2))) for _ in range(300)]
    draw = np.repeat(np.arange(300), [len(cells) for cells in draws])
    cells = pd.concat(draws, ignore_index=True)
    area = grid.cell_area_km2(cells)
    totals, areas = np.bincount(draw, value(cells) * area), np.bincount(draw, area)
    assert totals.mean() == pytest.approx(exact, abs=4 * totals.std() / np.sqrt(300))
    assert areas.mean() == pytest.approx(areas_km2(ground.land)[0], abs=4 * areas.std() / np.sqrt(300))
    assert totals.std() / exact < 0.1


def test_polygon_areas_are_geodesic_and_know_no_antimeridian():
    geodesic = pyproj.Geod(ellps="WGS84")
    for shape in (ROUND, ACROSS):
        exact = abs(geodesic.geometry_area_perimeter(shapely.segmentize(shape, 0.001))[0]) / 1e6
        assert areas_km2(polygons(shape))[0] == pytest.approx(exact, rel=1e-4)
