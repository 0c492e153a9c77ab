"""How files are reached: buckets, signatures that end, servers that want to be left alone."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from made_scenes import EPSG, LEFT, TOP, write_files

from workflow_scripts.core import item_files, network
from workflow_scripts.core.block_reader import BlockReader
from workflow_scripts.core.ranges import Ranges
from workflow_scripts.core.rasterio_reader import RasterioReader
from workflow_scripts.core.windows import Failure, Place, Window

WINDOW = Window(Place(EPSG, LEFT + 200, TOP - 200, 640), 10, "uint16")


class Handler(BaseHTTPRequestHandler):
    """Serves ranges of files, a bucket's list, and tokens; keeps what was asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *parts):
        """Say nothing."""

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        server = self.server
        server.asked.append((time.monotonic(), self.path, dict(self.headers)))
        path, _, query = self.path.partition("?")
        if "list-type=2" in query:
            keys = "".join(
                f"<Contents><Key>items/{n}.parquet</Key><LastModified>2021-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>x</ETag><Size>1</Size></Contents>"
                for n in "ba"
            )
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
            return self.answer(200, body.encode(), Content_Type="application/xml")
        if path.startswith("/token"):
            ends = datetime.now(UTC) + timedelta(seconds=server.token_lives_s)
            server.n_tokens += 1
            token = {"msft:expiry": f"{ends:%Y-%m-%dT%H:%M:%SZ}", "token": f"sig=SECRET{server.n_tokens}"}
            return self.answer(200, json.dumps(token).encode())
        if "comp=list" in query:
            body = server.blobs.pop(0)
            return self.answer(200, body.encode(), Content_Type="application/xml")
        if server.ended and server.ended in query:
            return self.answer(403, b"")
        if server.refusals:
            status, headers = server.refusals.pop(0)
            return self.answer(status, b"", **headers)
        body = (server.folder / path.lstrip("/").removeprefix("bucket/")).read_bytes()
        size = len(body)
        if "Range" not in self.headers:
            return self.answer(
                200, body, ETag='"x"', Last_Modified="Fri, 01 Jan 2021 00:00:00 GMT", Accept_Ranges="bytes"
            )
        first, last = (int(n or size) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = body[first : last + 1]
        return self.answer(
            206,
            part,
            Content_Range=f"bytes {first}-{first + len(part) - 1}/{size}",
            ETag='"x"',
            Last_Modified="Fri, 01 Jan 2021 00:00:00 GMT",
        )

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("access")
    write_files(path, "A")
    return path


@pytest.fixture
def server(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.asked, server.refusals = folder, [], []
    server.n_tokens, server.token_lives_s, server.ended, server.blobs = 0, 3600, "", []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("make", [BlockReader, RasterioReader])
@pytest.mark.parametrize("way", ["anonymous", "requester_pays"])
def test_buckets_are_read_by_either_reader(server, folder, monkeypatch, make, way):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    access = network.Access(s3={way: True, "region": "us-west-2", "endpoint": server.url})
    with make(access=access) as reader, make() as local:
        (got,) = dict(reader.read({"s3://bucket/A/B02.tif": [WINDOW]}))["s3://bucket/A/B02.tif"]
        path = str(folder / "A" / "B02.tif")
        (expected,) = dict(local.read({path: [WINDOW]}))[path]
    np.testing.assert_array_equal(got.values, expected.values)
    headers = [{k.lower(): v for k, v in sent.items()} for _, _, sent in server.asked]
    assert headers
    if way == "anonymous":
        assert not any("authorization" in sent for sent in headers)
    else:
        assert all("authorization" in sent for sent in headers)
        assert all(sent.get("x-amz-request-payer") == "requester" for sent in headers)


def test_a_buckets_folder_is_listed_in_order(server):
    access = network.Access(s3={"anonymous": True, "region": "us-west-2", "endpoint": server.url})
    assert Ranges(access=access).list_folder("s3://bucket/items") == [
        "s3://bucket/items/a.parquet",
        "s3://bucket/items/b.parquet",
    ]


def blobs(*names, marker=""):
    listed = "".join(
        f"<Blob><Name>{name}</Name><Properties><Last-Modified>Fri, 01 Jan 2021 00:00:00 GMT</Last-Modified>"
        "<Content-Length>1</Content-Length><Content-Type>x</Content-Type><Etag>x</Etag></Properties></Blob>"
        for name in names
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
        f"<Blobs>{listed}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    )


def test_a_folder_of_an_azure_container_is_listed_page_by_page_with_a_token(server, tokens):
    """Planetary Computer's items: a folder that is called a file, of weekly parts."""
    parts = [f"sentinel-2-l2a.parquet/part-{i}.parquet" for i in range(3)]
    server.blobs = [blobs(*parts[:2], marker="more"), blobs(parts[2], "sentinel-2-l2a.parquet/_metadata")]
    catalog = {"type": "geoparquet", "path": f"{server.url}/items/sentinel-2-l2a.parquet/"}
    found = item_files.parquet_files(catalog, Ranges(access=tokens))
    assert found == [f"{server.url}/items/{part}" for part in parts]
    asked = [path for _, path, _ in server.asked if "comp=list" in path]
    assert len(asked) == 2 and "marker=more" in asked[1]
    assert all("sig=SECRET1" in path and "prefix=sentinel-2-l2a.parquet" in path for path in asked)
    server.blobs = [blobs(parts[0])]
    assert len(item_files.parquet_files(catalog, Ranges())) == 1
    assert "sig=" not in server.asked[-1][1]


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_names_a_pause_is_left_alone_by_all_threads(server, monkeypatch, status):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.001)
    server.refusals = [(status, {"Retry_After": "1"})]
    hrefs = [f"{server.url}/A/{band}.tif" for band in ("B02", "B03", "B04")]
    with BlockReader() as reader:
        results = dict(reader.read({href: [WINDOW] for href in hrefs}))
    assert not any(isinstance(got, Failure) for found in results.values() for got in found)
    times = sorted(when for when, _, _ in server.asked)
    # three headers are asked for at once; whatever follows the refusal waits for its second
    later = [when for when in times if when > times[0] + 0.5]
    assert later and min(later) - times[0] > 0.95
    assert len(times) - len(later) <= 3


@pytest.fixture
def tokens(server, monkeypatch):
    """The signing library with our server as its service and as its storage."""
    planetary_computer = pytest.importorskip("planetary_computer")
    from planetary_computer import sas

    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    monkeypatch.setattr(sas, "BLOB_STORAGE_DOMAIN", server.url.removeprefix("http://"))
    monkeypatch.setattr(planetary_computer.settings.Settings.get(), "sas_url", f"{server.url}/token")
    monkeypatch.setattr(network, "_forgotten", {})
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.001)
    return network.Access("planetary-computer")


@pytest.mark.parametrize("make", [BlockReader, RasterioReader])
def test_a_token_refused_before_its_end_is_replaced_once(server, tokens, make):
    href = f"{server.url}/A/B02.tif"
    server.ended = "SECRET1"
    with make(access=tokens) as reader:
        (got,) = dict(reader.read({href: [WINDOW]}))[href]
    assert not isinstance(got, Failure) and server.n_tokens == 2
    server.ended = "SECRET"  # no token helps: the service is not asked again and again
    with make(access=tokens) as reader:
        (got,) = dict(reader.read({href: [WINDOW]}))[href]
    assert isinstance(got, Failure) and "SECRET" not in got.message and server.n_tokens == 2


def test_a_long_rest_is_obeyed_and_an_endless_one_not_waited_for():
    pauses, waits = [], [500.0, 7200.0]

    def refuse():
        raise network.TransientError("HTTP 429", retry_after_s=waits.pop(0))

    with pytest.raises(network.UnavailableError, match=r"no request for 2\.0 h"):
        network.retry(refuse, "search", sleep=pauses.append)
    assert pauses == [500.0]


def test_signatures_are_renewed_before_they_end_and_told_to_nobody(server, folder, monkeypatch, caplog):
    """By planetary-computer itself, from a token server that is ours."""
    planetary_computer = pytest.importorskip("planetary_computer")
    from planetary_computer import sas

    caplog.set_level("DEBUG")
    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    monkeypatch.setattr(planetary_computer.settings.Settings.get(), "sas_url", f"{server.url}/token")
    access = network.Access("planetary-computer")
    href = "https://account.blob.core.windows.net/container/A/B02.tif"
    server.token_lives_s = 3600
    assert network.sign(href, access).endswith("SECRET1") and network.sign(href, access).endswith("SECRET1")
    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    server.token_lives_s = 30  # less than the minute the library keeps in reserve
    assert network.sign(href, access).endswith("SECRET2") and network.sign(href, access).endswith("SECRET3")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("workflow_scripts")]
    assert not any("SECRET" in message for message in ours)
