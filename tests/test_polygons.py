"""Points in polygons: against geopandas, against ray casting, over the antimeridian and the pole."""

from unittest import mock

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.core import grid, scanlines
from workflow_scripts.core.boundaries import nearest
from workflow_scripts.core.polygons import boxes, locate, read_polygons, split_box


def star(lon, lat, radius, n=9, turn=0.0):
    """A star-shaped polygon with `n` spikes."""
    angle = np.linspace(0, 2 * np.pi, 2 * n, endpoint=False) + turn
    reach = np.where(np.arange(2 * n) % 2, radius, radius * 0.4)
    return shapely.Polygon(np.column_stack([lon + reach * np.cos(angle), lat + reach * np.sin(angle)]))


def frame(geometries, crs=4326, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


def is_inside_by_rays(ring, x, y):
    """Count the edges a ray to the east crosses."""
    x1, y1 = ring[:-1].T
    x2, y2 = ring[1:].T
    crosses = (y1 > y[:, None]) != (y2 > y[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (x2 - x1) * (y[:, None] - y1) / (y2 - y1) + x1
    return (crosses & (x[:, None] < at)).sum(axis=1) % 2 == 1


def test_locate_agrees_with_ray_casting_and_with_sjoin():
    rng = np.random.default_rng(3)
    shapes = [star(*rng.uniform(-20, 20, 2), rng.uniform(3, 9), turn=k) for k in range(12)]
    x, y = rng.uniform(-30, 30, (2, 4000))
    row = locate(x, y, frame(shapes))
    inside = np.array([is_inside_by_rays(np.array(s.exterior.coords), x, y) for s in shapes])
    expected = np.where(inside.any(axis=0), inside.argmax(axis=0), -1)
    np.testing.assert_array_equal(row, expected)
    points = frame(gpd.points_from_xy(x, y))
    joined = gpd.sjoin(points, frame(shapes), predicate="within")["index_right"]
    once = joined[~joined.index.duplicated(keep=False)]
    np.testing.assert_array_equal(row[once.index], once)


def first_row_around(x, y, shapes):
    """Test every polygon at every point."""
    row = np.full(x.shape, -1)
    for i, shape in reversed(list(enumerate(shapes))):
        row[shapely.intersects_xy(shape, x, y)] = i
    return row


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.5, 0.25, 1 / 3]), st.sampled_from([30, 2_000_000]))
def test_points_on_parallels_are_located_as_one_by_one(seed, step, portion):
    """Overlapping polygons with holes; vertices and edges on the parallels, too, and columns through them."""
    rng = np.random.default_rng(seed)
    shapes = [star(*rng.integers(-4, 5, 2), rng.uniform(0.5, 4), n=int(rng.integers(2, 8))) for _ in range(5)]
    shapes += [shapely.box(x, y, x + w, y + h) for x, y, w, h in rng.integers(1, 4, (4, 4)) - [3, 3, 0, 0]]
    shapes = [shapely.set_precision(shape, step) if i % 2 else shape for i, shape in enumerate(shapes)]
    shapes += [shapely.difference(shapes[0], shapes[5]), shapely.MultiPolygon([shapely.box(4, 4, 5, 5)])]
    shapes = [
        shape for shape in rng.permuted(shapes) if shape.geom_type.endswith("Polygon") and shape.area > 0
    ]
    x, y = (values.ravel() for values in np.meshgrid(np.arange(-6, 6.1, step), np.arange(-6, 6.1, step)))
    shuffled = rng.permutation(x.size)
    x, y = x[shuffled], y[shuffled]
    with mock.patch.object(scanlines, "VERTICES_AT_ONCE", portion):
        _, is_sure = scanlines.scan(x, y, shapely.get_parts(shapes))
        np.testing.assert_array_equal(locate(x, y, frame(shapes)), first_row_around(x, y, shapes))
    assert is_sure.any(), "the crossings tell nothing here, so this test would not test them"


def test_scattered_points_are_left_to_the_exact_test():
    x, y = np.random.default_rng(0).uniform(-9, 9, (2, 500))
    _, is_sure = scanlines.scan(x, y, np.array([shapely.Point(0, 0).buffer(8, quad_segs=60)] * 9))
    assert not is_sure.any()


def test_locate_prefers_the_first_row_and_counts_edges_and_holes():
    outer = shapely.box(0, 0, 10, 10)
    ring = shapely.Polygon(outer.exterior.coords, [shapely.box(4, 4, 6, 6).exterior.coords])
    polygons = frame([ring, shapely.box(5, 0, 15, 10)])
    row = locate([7, 12, 5, 10, 4.5, 0, 15, 16], [1, 1, 5, 10, 5, 0, 10, 5], polygons)
    np.testing.assert_array_equal(row, [0, 1, 1, 0, -1, 0, 1, -1])


def test_locate_over_the_antimeridian_in_degrees_beyond_180():
    polygons = frame([shapely.box(175, -5, 185, 5)])
    np.testing.assert_array_equal(locate([179, -179, -180, 180, 170, -170], [0] * 6, polygons) >= 0,
                                  [True, True, True, True, False, False])  # fmt: skip


def test_locate_in_a_polar_projection_around_the_pole():
    circle = shapely.Point(0, 0).buffer(1_000_000, quad_segs=90)
    polygons = frame([circle], crs=3031)
    lon = np.linspace(-180, 180, 37)
    assert (locate(lon, np.full(37, -82.0), polygons) == 0).all()
    assert (locate(lon, np.full(37, -79.0), polygons) == -1).all()
    assert boxes(polygons)[:, 1].min() <= -89.9
    assert boxes(polygons)[:, 2].max() >= 179.9


@settings(max_examples=30, deadline=None)
@given(st.floats(-179.9, 179.9), st.floats(-75, 75), st.floats(0, 360))
def test_nearest_measures_the_distance_to_a_small_square(lon, lat, bearing):
    """A square of about 20 m at a known distance, wherever on Earth; 0.3 % is the local plane's error."""
    distance = 20.0 / 111.195
    there_lat = lat + distance * np.cos(np.radians(bearing))
    there_lon = lon + distance * np.sin(np.radians(bearing)) / np.cos(np.radians(lat))
    there_lon = (there_lon + 180) % 360 - 180
    polygons = frame([shapely.box(there_lon, there_lat, there_lon + 2e-4, there_lat + 2e-4)])
    row, km = nearest([lon], [lat], polygons, max_km=25)
    expected = grid.great_circle_km(lon, lat, there_lon, there_lat)
    assert row[0] == 0
    assert km[0] == pytest.approx(expected, rel=3e-3, abs=0.04)


def test_nearest_agrees_with_a_slow_search_and_respects_the_limit():
    rng = np.random.default_rng(5)
    shapes = [star(*rng.uniform(-3, 3, 2), rng.uniform(0.2, 0.6), turn=k) for k in range(8)]
    x, y = rng.uniform(-4, 4, (2, 500))
    outside = locate(x, y, frame(shapes)) < 0
    x, y = x[outside], y[outside]
    row, km = nearest(x, y, frame(shapes), max_km=60)
    for i in range(len(x)):
        scaled = shapely.transform(shapes, lambda c, i=i: (c - [x[i], y[i]]) * [np.cos(np.radians(y[i])), 1])
        distances = shapely.distance(scaled, shapely.Point(0, 0)) * 111.195
        if distances.min() > 60:
            assert row[i] == -1 and np.isnan(km[i])
        else:
            assert row[i] == distances.argmin()
            assert km[i] == pytest.approx(distances.min(), rel=1e-6)


def test_nearest_breaks_ties_by_row_and_reaches_across_the_antimeridian():
    polygons = frame([shapely.box(-179.9, -1, -179, 1), shapely.box(179, -1, 179.7, 1)])
    row, km = nearest([179.9, 179.8], [0, 0], polygons, max_km=25)
    np.testing.assert_array_equal(row, [0, 1])
    np.testing.assert_allclose(km, [22.24, 11.12], rtol=1e-3)
    twins = frame([shapely.box(1, 0, 2, 1), shapely.box(-2, 0, -1, 1)])
    assert nearest([0], [0.5], twins, max_km=200)[0][0] == 0
    assert nearest([0], [0.5], twins.iloc[[1]].reset_index(), max_km=10)[0][0] == -1


def test_split_box_cuts_at_the_antimeridian():
    np.testing.assert_array_equal(
        split_box([170, -10, -170, 10]), [[170, -10, 180, 10], [-180, -10, -170, 10]]
    )
    np.testing.assert_array_equal(split_box([1, 2, 3, 4]), [[1, 2, 3, 4]])


@pytest.mark.parametrize("suffix", ["parquet", "geojson", "gpkg", "shp"])
def test_read_polygons_from_every_format_gives_the_same_places(tmp_path, suffix):
    path = tmp_path / f"areas.{suffix}"
    source = frame([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)], ECO_ID=[7, 9])
    if suffix == "parquet":
        source.to_crs(3857).to_parquet(path)
    else:
        source.to_file(path)
    polygons = read_polygons(path, ["eco_id"], key="locations.land")
    assert polygons["eco_id"].tolist() == [7, 9]
    np.testing.assert_array_equal(locate([0.5, 2.5, 1.5], [0.5, 0.5, 0.5], polygons), [0, 1, -1])


def test_read_polygons_repairs_rings_and_tells_what_has_no_area(tmp_path, caplog):
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    spike = shapely.Polygon([(0, 0), (1, 0), (0, 0)])
    frame([bow_tie, spike, shapely.box(5, 5, 6, 6)], ECO_ID=[4, 7, 9]).to_parquet(tmp_path / "a.parquet")
    polygons = read_polygons(tmp_path / "a.parquet", ["ECO_ID"], key="locations.ecoregions")
    assert polygons.is_valid.all() and polygons["ECO_ID"].tolist() == [4, 9]
    np.testing.assert_array_equal(locate([0.5, 1.5, 1.0, 5.5], [1, 1, 0.2, 5.5], polygons), [0, 0, -1, 1])
    assert "locations.ecoregions: 1 of 3 features of" in caplog.text and "[{'ECO_ID': 7}]" in caplog.text


def test_read_polygons_says_what_is_wrong(tmp_path):
    square = [shapely.box(0, 0, 1, 1)]
    with pytest.raises(FileNotFoundError, match=r"locations\.land: no file"):
        read_polygons(tmp_path / "none.parquet", key="locations.land")
    frame(square, crs=None).to_parquet(tmp_path / "crs.parquet")
    with pytest.raises(ValueError, match="no coordinate reference system"):
        read_polygons(tmp_path / "crs.parquet", key="locations.land")
    frame(square, NAME=["x"]).to_parquet(tmp_path / "column.parquet")
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['ECO_ID'\]; it has \['NAME'\]"):
        read_polygons(tmp_path / "column.parquet", ["ECO_ID", "NAME"], key="locations.ecoregions")
    frame([shapely.Point(0, 0)]).to_parquet(tmp_path / "points.parquet")
    with pytest.raises(ValueError, match="holds no polygons"):
        read_polygons(tmp_path / "points.parquet", key="locations.land")
    frame([]).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="no features"):
        read_polygons(tmp_path / "empty.parquet", key="locations.land")
    frame([shapely.box(4e5, 5e6, 5e5, 6e6)]).to_parquet(tmp_path / "meters.parquet")
    with pytest.raises(ValueError, match="Correct the file's CRS"):
        read_polygons(tmp_path / "meters.parquet", key="locations.land")
    (tmp_path / "bad.geojson").write_text("not json")
    with pytest.raises(ValueError, match="cannot read"):
        read_polygons(tmp_path / "bad.geojson", key="locations.land")
