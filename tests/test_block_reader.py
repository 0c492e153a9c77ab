"""The reader `windows` against the reader `rasterio`, on files of many layouts, local and over HTTP."""

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow_scripts.core import block_reader, network, ranges
from workflow_scripts.core.block_reader import BlockReader
from workflow_scripts.core.rasterio_reader import RasterioReader
from workflow_scripts.core.tiff import Tiff, UnsupportedError, read_tiff
from workflow_scripts.core.windows import Failure, Pixels, Place, Window
from workflow_scripts.demo import faults
from workflow_scripts.demo.server import DemoServer

LEFT, TOP, EPSG = 300_000, 5_000_040, 32633


def write(path, values, *, step=20, left=LEFT, top=TOP, **options):
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", **options}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=values.dtype,
        count=1,
        width=values.shape[1],
        height=values.shape[0],
        crs=f"EPSG:{EPSG}",
        transform=rasterio.Affine(step, 0, left, 0, -step, top),
        **options,
    ) as file:
        # row by row of blocks, so that SPARSE_OK leaves out those without data
        for row in range(0, values.shape[0], options["blockysize"]):
            part = values[row : row + options["blockysize"]]
            for column in range(0, values.shape[1], options["blockxsize"]):
                block = part[:, column : column + options["blockxsize"]]
                if block.any() or "sparse_ok" not in options:
                    window = rasterio.windows.Window(column, row, block.shape[1], block.shape[0])
                    file.write(block, 1, window=window)
    return str(path)


def smooth(rng, shape, dtype):
    """Pixels that predictors act on, with holes of whole blocks."""
    values = np.cumsum(rng.integers(0, 7, shape), axis=1) + rng.integers(1, 60_000)
    values = (values % np.iinfo(dtype).max + 1).astype(dtype)
    values[: shape[0] // 2, shape[1] // 3 :] = 0
    return values


def compare(wanted, **options):
    with BlockReader(**options) as ours, RasterioReader(**options) as reference:
        got, expected = dict(ours.read(wanted)), dict(reference.read(wanted))
        n_by_gdal = ours._gdal.n_opened
    assert set(got) == set(expected)
    for href in wanted:
        for a, b in zip(got[href], expected[href], strict=True):
            if isinstance(b, Failure):
                assert a == b
            else:
                assert (a.x, a.y, a.values.dtype) == (b.x, b.y, b.values.dtype)
                np.testing.assert_array_equal(a.values, b.values)
    return got, n_by_gdal


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equals_gdal_on_any_layout(tmp_path, data):
    dtype = data.draw(st.sampled_from(["uint16", "uint8"]))
    step = data.draw(st.sampled_from([10, 20, 60]))
    block = data.draw(st.sampled_from([16, 32, 64])), data.draw(st.sampled_from([16, 48]))
    shape = data.draw(st.integers(20, 90)), data.draw(st.integers(20, 90))
    compress = data.draw(st.sampled_from(["deflate", "deflate", "none", "lzw", "zstd"]))
    options = {"compress": compress, "blockxsize": block[0], "blockysize": block[1]}
    if compress != "none":
        options["predictor"] = data.draw(st.sampled_from([1, 2]))
    options |= data.draw(st.sampled_from([{}, {"nodata": 0}, {"nodata": 7}]))
    options |= data.draw(st.sampled_from([{}, {"sparse_ok": True}]))
    options |= data.draw(st.sampled_from([{}, {"bigtiff": "yes"}, {"endianness": "big"}, {"tiled": False}]))
    if options.get("tiled") is False:
        options.pop("blockxsize")
        options["blockxsize"] = shape[1]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    path = write(tmp_path / "file.tif", smooth(rng, shape, dtype), step=step, **options)
    windows = []
    for _ in range(data.draw(st.integers(1, 4))):
        column = data.draw(st.integers(-2, shape[1] * step // 20 + 1))
        row = data.draw(st.integers(-2, shape[0] * step // 20 + 1))
        size = data.draw(st.sampled_from([20, 60, 160, 400]))
        windows.append(Window(Place(EPSG, LEFT + 20.0 * column, TOP - 20.0 * row, size), step, dtype))
    _, n_by_gdal = compare({path: windows}, cores=1)
    is_ours = compress in ("deflate", "none") and not {"endianness", "tiled"} & set(options)
    assert n_by_gdal == (not is_ours)


def test_wrong_files_fail_as_with_gdal(tmp_path):
    values = smooth(np.random.default_rng(0), (64, 64), np.uint16)
    good = write(tmp_path / "good.tif", values, predictor=2)
    place = Place(EPSG, LEFT, TOP, 400)
    wanted = {
        good: [
            Window(place, 20, "uint8"),
            Window(place, 10, "uint16"),
            Window(Place(32634, LEFT, TOP, 400), 20, "uint16"),
            Window(place, 20, "uint16"),
        ],
        write(tmp_path / "float.tif", values.astype(np.float32)): [Window(place, 20, "uint16")],
        write(tmp_path / "shifted.tif", values, left=LEFT + 5): [Window(place, 20, "uint16")],
    }
    got, _ = compare(wanted)
    assert [isinstance(entry, Failure) for entry in got[good]] == [True, True, True, False]
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 no TIFF at all")
    with BlockReader() as reader:
        (absent,) = dict(reader.read({str(tmp_path / "absent.tif"): wanted[good][-1:]})).popitem()[1]
        (failed,) = dict(reader.read({str(broken): wanted[good][-1:]})).popitem()[1]
    assert isinstance(absent, Failure) and not absent.is_passing and "absent.tif" in absent.message
    assert isinstance(failed, Failure) and not failed.is_passing and "broken.tif" in failed.message


def test_headers_longer_than_the_first_request_and_cut_off_ones(tmp_path):
    values = smooth(np.random.default_rng(0), (1600, 1600), np.uint16)
    content = (tmp_path / write(tmp_path / "many.tif", values, blockxsize=16, blockysize=16)).read_bytes()
    asked = []

    def fetch(first, last):
        asked.append((first, last))
        return content[first:last]

    tiff = read_tiff(fetch)
    assert isinstance(tiff, Tiff) and len(tiff.offsets) == 10_000 and len(asked) > 1
    with pytest.raises(UnsupportedError, match="cut off"):
        read_tiff(lambda first, last: content[first : min(last, 300)])


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(block_reader, "MAX_GAP_BYTES", 0)
    values = smooth(np.random.default_rng(3), (256, 256), np.uint16)
    write(tmp_path / "a.tif", values, predictor=2)
    with DemoServer(tmp_path, catalogs=[]) as server:
        yield server, server.files_url + "a.tif", values


def windows_at(*corners, size=800):
    return [Window(Place(EPSG, LEFT + 20.0 * c, TOP - 20.0 * r, size), 20, "uint16") for r, c in corners]


def test_each_block_is_fetched_once_and_neighbors_together(served):
    server, href, values = served
    with BlockReader() as reader:
        first = dict(reader.read({href: windows_at((0, 0), (10, 10), (150, 150))}))[href]
        n_first = len(server.requests)
        again = dict(reader.read({href: windows_at((5, 5), (150, 150))}))[href]
        assert len(server.requests) == n_first and reader.n_opened == 1
    for got, (row, column) in zip(
        [*first, *again], [(0, 0), (10, 10), (150, 150), (5, 5), (150, 150)], strict=True
    ):
        np.testing.assert_array_equal(got.values, values[row : row + 40, column : column + 40])
    assert n_first == 1 + 2 + 2, "the header; two rows of blocks at one corner, two at the other"


def test_forgotten_blocks_are_fetched_again(served, monkeypatch):
    server, href, values = served
    monkeypatch.setattr(block_reader, "MAX_KEPT_BYTES", 0)
    with BlockReader() as reader:
        for _ in range(2):
            (got,) = dict(reader.read({href: windows_at((9, 9))}))[href]
            np.testing.assert_array_equal(got.values, values[9:49, 9:49])
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    "make", [faults.unavailable, faults.too_many_requests, faults.truncated, faults.corrupted]
)
def test_passing_faults_end_in_the_same_pixels(served, make):
    server, href, values = served
    server.faults.append(make("a.tif", times=3))
    with BlockReader() as reader:
        got = dict(reader.read({href: windows_at((0, 0), (150, 150))}))[href]
        assert all(isinstance(entry, Pixels) for entry in got)
        np.testing.assert_array_equal(got[1].values, values[150:190, 150:190])


def test_lasting_faults_name_the_file_and_never_the_token(served):
    server, href, _ = served
    for make, is_passing in ((faults.missing, False), (faults.unavailable, True), (faults.truncated, True)):
        server.faults[:] = [make("a.tif")]
        with BlockReader() as reader:
            (got,) = dict(reader.read({href + "?sig=SECRET": windows_at((0, 0))})).popitem()[1]
        assert isinstance(got, Failure) and got.is_passing == is_passing
        assert "a.tif" in got.message and "SECRET" not in got.message


def test_servers_without_ranges_are_left_to_gdal(served, monkeypatch):
    """At the header, or, behind some proxies, only later: a failure, never a crash."""
    _, href, _ = served

    def refuse(self, href, first, last):
        if first == 0 and is_header_served:
            return original(self, href, first, last)
        raise UnsupportedError("its server does not serve ranges")

    original = ranges.Ranges.read
    monkeypatch.setattr(ranges.Ranges, "read", refuse)
    for is_header_served in (False, True):
        with BlockReader() as reader:
            (got,) = dict(reader.read({href: windows_at((0, 0))}))[href]
        assert isinstance(got, Failure if is_header_served else Pixels)


def test_addresses_of_other_kinds_are_left_to_gdal():
    with pytest.raises(UnsupportedError, match="gs://"):
        ranges.Ranges().read("gs://bucket/B02.tif", 0, 10)
