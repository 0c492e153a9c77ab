"""How files are reached: buckets, signatures that end, servers that want to be left alone."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from made_scenes import EPSG, LEFT, TOP, write_files

from workflow_scripts.core import network
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
    server.n_tokens, server.token_lives_s = 0, 3600
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
    assert Ranges(access=access).list_s3("s3://bucket/items") == [
        "s3://bucket/items/a.parquet",
        "s3://bucket/items/b.parquet",
    ]


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
