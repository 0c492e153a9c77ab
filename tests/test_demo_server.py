"""The local server: paging and filters of the STAC API, ranges of files, each fault."""

import http.client
import json
import socket
import urllib.error
import urllib.request

import pystac_client
import pytest
import rasterio
from small_world import small_world

from workflow_scripts.demo import faults
from workflow_scripts.demo.server import DemoServer


@pytest.fixture(scope="module")
def running():
    with DemoServer(small_world()) as server:
        yield server


@pytest.fixture
def server(running):
    """The server of this module, without faults."""
    running.faults.clear()
    running.requests.clear()
    return running


@pytest.fixture
def client(server):
    return pystac_client.Client.open(server.api_url)


@pytest.fixture(scope="module")
def items():
    return json.loads((small_world() / "items.json").read_text())["features"]


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read(), answer.headers


def found(client, method, **search):
    return {item.id for item in client.search(method=method, **search).items()}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paging_gives_every_item_once(client, server, items, method):
    search = client.search(method=method, collections=["sentinel-2-l2a"], limit=7)
    listed = [item.id for item in search.items()]
    assert listed == [item["id"] for item in items]
    assert search.matched() == len(items)
    n_pages = -(-len(items) // 7)
    assert sum("/search" in path for _, path, _ in server.requests) >= n_pages


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_filters_agree_with_a_loop_over_the_items(client, items, method):
    def expected(rule):
        return {item["id"] for item in items if rule(item["properties"])}

    s2 = {"collections": ["sentinel-2-l2a"]}
    clear = found(client, method, **s2, query=["eo:cloud_cover<20"])
    assert clear == expected(lambda p: p["eo:cloud_cover"] < 20)
    assert 0 < len(clear) < len(items)
    tile = found(client, method, **s2, query={"grid:code": {"eq": "MGRS-33TTN"}})
    assert tile == expected(lambda p: p["grid:code"] == "MGRS-33TTN") and tile
    applied = found(client, method, **s2, query={"earthsearch:boa_offset_applied": {"eq": "false"}})
    assert applied == expected(lambda p: not p["earthsearch:boa_offset_applied"])
    january = found(client, method, **s2, datetime="2021-01-01/2021-01-20")
    assert january == expected(lambda p: p["datetime"] < "2021-01-21")
    later = found(client, method, **s2, datetime="2021-01-20/..")
    assert later == expected(lambda p: p["datetime"] > "2021-01-20")
    south = found(client, method, **s2, bbox=[18, -34, 20, -32])
    assert south == expected(lambda p: p["proj:epsg"] == 32734)
    point = {"type": "Point", "coordinates": [14.5, -0.8]}
    assert found(client, method, **s2, intersects=point) <= expected(lambda p: p["proj:epsg"] == 32733)
    assert found(client, method, ids=[items[0]["id"], items[3]["id"]]) == {items[0]["id"], items[3]["id"]}
    tiles = {"modis:horizontal-tile": {"eq": "18"}, "platform": {"eq": "terra"}}
    modis = found(client, method, collections=["modis-13A1-061"], query=tiles, limit=100)
    assert len(modis) == 24


def test_sorting_collections_and_single_items(client, server, items):
    search = client.search(collections=["sentinel-2-l2a"], sortby="-properties.eo:cloud_cover", limit=50)
    covers = [item.properties["eo:cloud_cover"] for item in search.items()]
    assert covers == sorted(covers, reverse=True)
    assert {c.id for c in client.get_collections()} == {"sentinel-2-l2a", "modis-13A1-061"}
    _, body, _ = get(f"{server.api_url}/collections/sentinel-2-l2a/items/{items[0]['id']}")
    assert json.loads(body)["id"] == items[0]["id"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{server.api_url}/collections/sentinel-2-l2a/items/none")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        get(f"{server.api_url}/search?query=%7B%22eo:cloud_cover%22:%7B%22like%22:3%7D%7D")


def test_files_are_served_whole_and_in_ranges(server, items):
    href = items[0]["assets"]["red"]["href"]
    content = (small_world() / href).read_bytes()
    url = server.files_url + href
    assert get(url)[:2] == (200, content)
    status, body, headers = get(url, Range="bytes=100-199")
    assert (status, body) == (206, content[100:200])
    assert headers["Content-Range"] == f"bytes 100-199/{len(content)}"
    assert get(url, Range="bytes=-50")[1] == content[-50:]
    assert get(url, Range=f"bytes={len(content) - 5}-")[1] == content[-5:]
    assert get(url, Range=f"bytes=0-{10 * len(content)}")[1] == content
    with pytest.raises(urllib.error.HTTPError, match="416"):
        get(url, Range=f"bytes={len(content)}-")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server.files_url + "../secret")


def test_gdal_reads_through_the_server(client, server, items):
    (item,) = client.search(ids=[items[0]["id"]]).items()
    with rasterio.open(small_world() / items[0]["assets"]["scl"]["href"]) as file:
        local = file.read(1)
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(f"/vsicurl/{item.assets['scl'].href}") as file,
    ):
        assert (file.read(1) == local).all()


def test_status_faults_hit_as_often_as_asked(server, items):
    url = server.files_url + items[0]["assets"]["red"]["href"]
    server.faults.append(faults.unavailable("B04", times=2))
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(url)
    assert get(url)[0] == 200
    assert [status for _, _, status in server.requests] == [503, 503, 200]
    server.faults[:] = [faults.too_many_requests("/search", retry_after_s=2, times=1)]
    with pytest.raises(urllib.error.HTTPError, match="429") as error:
        get(f"{server.api_url}/search?limit=1")
    assert error.value.headers["Retry-After"] == "2"
    assert get(f"{server.api_url}/search?limit=1")[0] == 200
    server.faults[:] = [faults.missing("B0[24]")]
    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(url)


def test_truncated_bodies_break_off_and_corrupted_ones_differ(server, items):
    href = items[0]["assets"]["red"]["href"]
    content = (small_world() / href).read_bytes()
    server.faults.append(faults.truncated("B04", times=1))
    with pytest.raises(http.client.IncompleteRead):
        get(server.files_url + href)
    server.faults[:] = [faults.corrupted("B04", times=1)]
    _, damaged, _ = get(server.files_url + href)
    assert len(damaged) == len(content) and damaged != content
    assert get(server.files_url + href)[1] == content


def test_unknown_kinds_of_fault_are_refused():
    with pytest.raises(ValueError, match="'explode'"):
        faults.Fault("x", "explode")


def test_the_port_is_free_again_afterwards():
    with DemoServer(small_world()) as server:
        port = int(server.url.rsplit(":", 1)[1])
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
