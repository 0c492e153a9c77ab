"""Windows and judgments of core.patches, against hand-made cases and properties."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from made_scenes import LEFT, TOP, read_by_hand, write_files

from workflow_scripts.core import bands, patches, rasterio_reader
from workflow_scripts.core.patches import PARTS, READERS, Failure, Place, RasterioReader, Wish, fetch


@settings(max_examples=50, deadline=None)
@given(npst.arrays(np.uint16, 24, elements=st.integers(0, 65535)), st.integers(0, 2000))
def test_harmonizing_saturates_and_keeps_no_data(dn, offset):
    result = bands.harmonize(dn, offset)
    assert result.dtype == np.uint16
    assert ((result == 0) == (dn == 0)).all()
    expected = np.where(dn == 0, 0, np.maximum(dn.astype(int) - offset, 1))
    assert (result == (dn if offset == 0 else expected)).all()


@pytest.fixture(scope="module")
def hrefs(tmp_path_factory):
    """A scene's files, and a second scene that shares the SCL."""
    folder = tmp_path_factory.mktemp("scenes")
    write_files(folder, "A")
    return {band: str(folder / "A" / f"{band}.tif") for band in (*bands.ALL_BANDS, "SCL")}


@pytest.mark.parametrize("name", ["windows", "rasterio"])
@settings(max_examples=20, deadline=None)
@given(column=st.integers(0, 118), row=st.integers(0, 118), size=st.sampled_from([60, 100, 640]))
def test_windows_are_exact_anywhere(hrefs, name, column, row, size):
    column, row = min(column, (3000 - size) // 20), min(row, (3000 - size) // 20)
    place = Place(32632, LEFT + 20.0 * column, TOP - 20.0 * row, size)
    with READERS[name]() as reader:
        ((_, got),) = fetch(reader, [Wish(place, hrefs, tuple(PARTS), 0)])
    folder = hrefs["B02"].rsplit("/", 2)[0]
    for part, values in got.arrays.items():
        raw = read_by_hand(folder, "A", part, place.origin_x, place.origin_y, size_m=size)
        np.testing.assert_array_equal(values, raw[0] if part == "scl" else raw)
    whole = patches.valid_fraction(got.arrays, place, got.origin60, has_scl=True)
    assert whole == 1 == patches.scl_valid_fraction(got.arrays["scl"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsg": 32633}, "EPSG:32632, the catalog says EPSG:32633"),
        ({"origin_x": LEFT + 5.0}, "not on the 10 m lattice"),
        ({"origin_x": LEFT - 20.0}, "reaches beyond the file"),
        ({"size_m": 6000}, "reaches beyond the file"),
    ],
)
@pytest.mark.parametrize("name", READERS)
def test_places_that_do_not_fit_are_told(hrefs, change, message, name):
    place = Place(**{"epsg": 32632, "origin_x": LEFT + 20.0, "origin_y": TOP - 20.0, "size_m": 640, **change})
    with READERS[name]() as reader:
        ((_, got),) = fetch(reader, [Wish(place, hrefs, ("dn10",), 0)])
    assert isinstance(got, Failure) and message in got.message and "B02.tif" in got.message


def test_files_are_kept_open_up_to_a_limit(hrefs, monkeypatch):
    wish = Wish(Place(32632, LEFT + 20.0, TOP - 20.0, 640), hrefs, ("dn10",), 0)
    with RasterioReader() as reader:
        list(fetch(reader, [wish, wish]))
        list(fetch(reader, [wish]))
        assert reader.n_opened == 4
    monkeypatch.setattr(rasterio_reader, "MAX_OPEN_FILES", 2)
    with RasterioReader() as reader:
        list(fetch(reader, [wish]))
        list(fetch(reader, [wish]))
        assert reader.n_opened == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_the_same_patches(hrefs, name):
    """Inside, at the edge where the 60 m window reaches beyond the file, and an offset removed."""
    places = [(LEFT + 420.0, TOP - 380.0), (LEFT + 2360.0, TOP - 2360.0)]
    wishes = [Wish(Place(32632, x, y, 640), hrefs, tuple(PARTS), 1000) for x, y in places]
    with READERS[name](cores=2) as reader, RasterioReader() as reference:
        both = dict(fetch(reader, wishes)), dict(fetch(reference, wishes))
        assert set(both[0]) == set(both[1]) == {0, 1}
        for got, expected in ((both[0][i], both[1][i]) for i in range(2)):
            assert got.origin60 == expected.origin60
            for part in PARTS:
                assert got.arrays[part].dtype == expected.arrays[part].dtype
                np.testing.assert_array_equal(got.arrays[part], expected.arrays[part])


@pytest.mark.parametrize("name", READERS)
def test_one_damaged_block_costs_only_its_windows(hrefs, tmp_path, name):
    """A file that opens is read on after a window that cannot be."""
    path = tmp_path / "B02.tif"
    content = bytearray(Path(hrefs["B02"]).read_bytes())
    content[-20_000:] = b"\xff" * 20_000
    path.write_bytes(content)
    good = Wish(Place(32632, LEFT + 20.0, TOP - 20.0, 640), {**hrefs, "B02": str(path)}, ("dn10",), 0)
    bad = Wish(Place(32632, LEFT + 2360.0, TOP - 2360.0, 640), good.hrefs, ("dn10",), 0)
    with READERS[name]() as reader:
        results = dict(fetch(reader, [good, bad, good]))
    first, failed, last = (results[i] for i in range(3))
    assert isinstance(failed, Failure) and not isinstance(first, Failure) and not isinstance(last, Failure)
    np.testing.assert_array_equal(first.arrays["dn10"], last.arrays["dn10"])


def test_cloud_and_valid_fractions():
    scl = np.repeat(np.arange(12, dtype=np.uint8), 10).reshape(10, 12)
    assert patches.cloud_fraction(scl) == pytest.approx(4 / 12)
    assert patches.scl_valid_fraction(scl) == pytest.approx(10 / 12)


def test_60_m_pixels_count_where_they_lie_in_the_patch():
    place = Place(32632, 20.0, -20.0, 100)
    arrays = {"dn10": np.ones((4, 10, 10)), "dn20": np.ones((6, 5, 5)), "dn60": np.ones((2, 3, 3))}
    arrays["dn60"][1, :, 2] = 0  # beyond the patch: columns 120 to 180 m, the patch ends at 120 m
    assert patches.valid_fraction(arrays, place, (0.0, 0.0), has_scl=False) == 1
    arrays["dn60"][0, 1, 0] = 0  # x 0 to 60: two columns; y -60 to -120: three rows
    assert patches.valid_fraction(arrays, place, (0.0, 0.0), has_scl=False) == pytest.approx(1 - 6 / 25)
    arrays["dn10"][2, 0, 9] = 0
    assert patches.valid_fraction(arrays, place, (0.0, 0.0), has_scl=False) == pytest.approx(1 - 7 / 25)
