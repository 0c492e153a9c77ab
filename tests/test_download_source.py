"""Downloads against a local server that breaks off, changes the file, refuses and lies."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from workflow_scripts import download_source
from workflow_scripts.core import network

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves one file with ranges; `server.plan` says how many bytes each answer holds."""

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        limit = server.plan.pop(0) if server.plan else len(body)
        self.wfile.write(body[:limit])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.etag, server.status, server.plan, server.requests = CONTENT, '"v1"', 200, [], []
    server.url = f"http://127.0.0.1:{server.server_port}/land.zip"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def run(target, url, sha256=DIGEST):
    download_source.main(
        SimpleNamespace(
            params=SimpleNamespace(url=url, sha256=sha256), output=SimpleNamespace(file=str(target))
        )
    )


def test_a_broken_download_continues_where_it_stopped(server, tmp_path):
    server.plan = [300_000, 200_000]
    target = tmp_path / "resources" / "land.zip"
    run(target, server.url)
    assert target.read_bytes() == CONTENT
    assert [r.get("Range") for r in server.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert [p.name for p in target.parent.iterdir()] == ["land.zip"]


def test_a_killed_download_continues_in_the_next_run(server, tmp_path):
    target = tmp_path / "land.zip"
    server.plan = [1000] * 10
    with pytest.raises(RuntimeError, match=r"download of http.* failed \d+ times, last with: .*came"):
        run(target, server.url)
    assert not target.exists() and (tmp_path / "land.zip.part").stat().st_size > 0
    server.plan = []
    run(target, server.url)
    assert target.read_bytes() == CONTENT and server.requests[-1].get("Range")


@pytest.mark.parametrize("etag", ['"v2"', ""])
def test_what_may_have_changed_begins_anew(server, tmp_path, etag):
    target = tmp_path / "land.zip"
    (tmp_path / "land.zip.part").write_bytes(b"old bytes")
    (tmp_path / "land.zip.part.json").write_text(f'{{"url": "{server.url}", "validator": "\\"v1\\""}}')
    server.etag = etag
    run(target, server.url)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_is_said_and_the_file_removed(server, tmp_path):
    target = tmp_path / "land.zip"
    with pytest.raises(ValueError, match=rf"has SHA-256 {DIGEST}, but `sources` says {'0' * 64}"):
        run(target, server.url, "0" * 64)
    assert not target.exists() and not (tmp_path / "land.zip.part").exists()


def test_without_checksum_the_digest_is_logged(server, tmp_path, caplog):
    run(tmp_path / "land.zip", server.url, None)
    assert f"not checked. The file has {DIGEST}" in caplog.text


def test_a_refusal_is_not_tried_again(server, tmp_path):
    server.status = 404
    with pytest.raises(RuntimeError, match=r"HTTP status 404 .*Correct the url"):
        run(tmp_path / "land.zip", server.url)
    assert len(server.requests) == 1


def test_a_local_file_is_copied_and_checked(tmp_path):
    (tmp_path / "mine.zip").write_bytes(CONTENT)
    run(tmp_path / "resources" / "land.zip", str(tmp_path / "mine.zip"))
    assert (tmp_path / "resources" / "land.zip").read_bytes() == CONTENT
    with pytest.raises(ValueError, match="but `sources` says"):
        run(tmp_path / "again.zip", str(tmp_path / "mine.zip"), "1" * 64)
    assert (tmp_path / "mine.zip").exists() and not (tmp_path / "again.zip").exists()
    with pytest.raises(FileNotFoundError, match="sources: no file"):
        run(tmp_path / "again.zip", str(tmp_path / "none.zip"))
