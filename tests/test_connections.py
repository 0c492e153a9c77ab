"""Connections to HTTP servers: kept ones, those that the server closed, TLS, proxies, redirections."""

import base64
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workflow_scripts.core import network, ranges
from workflow_scripts.core.connections import Server
from workflow_scripts.core.tiff import UnsupportedError

CONTENT = bytes(range(256)) * 8


class Handler(BaseHTTPRequestHandler):
    """Serves ranges of `CONTENT`, redirects, tunnels and passes on as a proxy does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.client_address, self.path, dict(self.headers)))
        if self.path.startswith("/moved"):
            return self.answer(302, Location="/file?moved=1")
        if self.path.startswith("/loop"):
            return self.answer(302, Location="/loop")
        if self.path.startswith("/whole"):
            return self.answer(200, b"x" * 100_000)
        first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        self.answer(206, CONTENT[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(CONTENT)}")
        if server.closes:  # without having said so, as servers do with idle connections
            self.close_connection = True

    def do_CONNECT(self):
        self.server.asked.append((self.client_address, self.path, dict(self.headers)))
        host, port = self.path.split(":")
        to = socket.create_connection((host, int(port)))
        self.send_response(200)
        self.end_headers()

        def copy(source, target):
            while data := source.recv(4096):
                target.sendall(data)

        threading.Thread(target=copy, args=(to, self.connection), daemon=True).start()
        copy(self.connection, to)

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def start(monkeypatch):
    """Gives a function that starts a server and gives it, its address in `url`."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    started = []

    def make(*, tls=None):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked, server.closes = [], False
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield make
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that signs itself, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    try:
        done = subprocess.run(
            [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"],
            capture_output=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    path.write_bytes(done.stdout)
    return path


def n_connections(server):
    return len({address for address, *_ in server.asked})


def test_a_connection_is_kept_and_opened_anew_when_the_server_has_closed_it(start):
    server = start()
    reader = ranges.Ranges()
    for first in (0, 7, 900):
        assert reader.read(server.url + "/file?sig=a b", first, first + 50) == CONTENT[first : first + 50]
    assert n_connections(server) == 1 and server.asked[0][1] == "/file?sig=a%20b"
    server.closes = True
    for first in (1, 2, 3):
        assert reader.read(server.url + "/file", first, first + 1) == CONTENT[first : first + 1]
    assert n_connections(server) == 3 and len(server.asked) == 6


def test_redirections_are_followed_a_few_times(start):
    server = start()
    assert ranges.Ranges().read(server.url + "/moved", 5, 9) == CONTENT[5:9]
    assert [path for _, path, _ in server.asked] == ["/moved", "/file?moved=1"]
    with pytest.raises(RuntimeError, match="loop: HTTP 302"):
        ranges.Ranges().read(server.url + "/loop", 5, 9)


def test_a_whole_file_in_place_of_a_range_is_not_read(start):
    server = start()
    assert Server(server.url, timeout_s=5).get(server.url + "/whole", 0, 10).content == b""
    with pytest.raises(UnsupportedError, match="does not serve ranges"):
        ranges.Ranges().read(server.url + "/whole", 0, 10)


def test_tls_is_verified_against_the_certificates_of_the_environment(start, certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = start(tls=context)
    with pytest.raises(network.TransientError, match="SSLCertVerificationError"):
        ranges.Ranges().read(server.url + "/file", 5, 9)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ranges.Ranges().read(server.url + "/file", 5, 9) == CONTENT[5:9]
    # and through a proxy, to which a tunnel is opened
    proxy = start()
    monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://me:pass%40word@"))
    assert ranges.Ranges().read(server.url + "/file", 5, 9) == CONTENT[5:9]
    (_, path, headers) = proxy.asked[0]
    assert path == server.url.removeprefix("https://")
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:pass@word").decode()


def test_plain_requests_go_through_the_proxy_of_the_environment(start, monkeypatch):
    proxy = start()
    monkeypatch.setenv("http_proxy", proxy.url)
    assert ranges.Ranges().read("http://somewhere.invalid:81/a/file?x=1", 5, 9) == CONTENT[5:9]
    assert proxy.asked[0][1] == "http://somewhere.invalid:81/a/file?x=1"
    monkeypatch.setenv("http_proxy", "socks5://localhost:1")
    with pytest.raises(RuntimeError, match=r"kind socks5://.*only http:// proxies"):
        ranges.Ranges().read("http://somewhere.invalid/file", 5, 9)


def test_failures_may_pass_and_name_no_address(start):
    server = start()
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(network.TransientError, match=r"^a/file: ConnectionRefusedError$"):
        ranges.Ranges().read(url + "/a/file?sig=SECRET", 5, 9)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            Server(url, timeout_s=0.1).get(url + "/file", 0, 1)
