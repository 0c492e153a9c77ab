"""Connections to an HTTP server that are kept for the next request, over TLS and proxies too.

Blocks of rasters are asked for by the million, each answer some hundred kilobytes: the standard
library's client takes half the time per request of those that wrap it, and a job with many threads
waits for Python more than for the network (`benchmarks/retrieval.py`).
"""

import base64
import http.client
import os
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import certifi
from requests.utils import get_environ_proxies, requote_uri, select_proxy

CONNECT_TIMEOUT_S = 20
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """Names without regard to case."""
    content: bytes
    """Of the range that was asked for (status 206); empty for any other answer."""


class Server:
    """The server of some addresses: one connection per request in flight, each used again.

    Parameters
    ----------
    url : any address on it; the environment says whether it is reached through a proxy
    timeout_s : how long it may be silent

    Raises
    ------
    ValueError
        If the environment names a proxy of a kind that is not known.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._parts = urlsplit(url)
        self._timeout_s = timeout_s
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._tls = None
        if self._parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        proxy = select_proxy(url, get_environ_proxies(url))
        self._proxy = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
        if self._proxy and self._proxy.scheme != "http":
            raise ValueError(
                f"the environment names a proxy of kind {self._proxy.scheme}:// for {self._parts.hostname}; "
                "only http:// proxies are supported: change https_proxy or http_proxy"
            )

    def get(self, url: str, first: int, last: int) -> Answer:
        """Ask for the bytes from one position up to another, once; follows no redirection.

        Raises
        ------
        OSError, http.client.HTTPException
            If there is no whole answer.
        """
        parts, headers = urlsplit(requote_uri(url)), {"Range": f"bytes={first}-{last - 1}"}
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if self._proxy and self._tls is None:
            target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
            headers |= self._proxy_headers()
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._ask(self._connect(), target, headers)
        try:
            return self._ask(connection, target, headers)
        except _STALE:  # the server had closed it meanwhile
            return self._ask(self._connect(), target, headers)

    def _ask(self, connection: http.client.HTTPConnection, target: str, headers: dict[str, str]) -> Answer:
        try:
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            content = answer.read() if answer.status == http.HTTPStatus.PARTIAL_CONTENT else b""
        except BaseException:
            connection.close()
            raise
        if answer.isclosed() and not answer.will_close:
            self._idle.append(connection)
        else:  # what was not asked for may be a whole file
            connection.close()
        return Answer(answer.status, answer.headers, content)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname, self._parts.port
        through = (self._proxy.hostname, self._proxy.port or 80) if self._proxy else (host, port)
        if self._tls is None:
            connection = http.client.HTTPConnection(*through, timeout=CONNECT_TIMEOUT_S)
        else:
            connection = http.client.HTTPSConnection(*through, timeout=CONNECT_TIMEOUT_S, context=self._tls)
            if self._proxy:
                connection.set_tunnel(host, port, self._proxy_headers())
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        return connection

    def _proxy_headers(self) -> dict[str, str]:
        if not self._proxy.username:
            return {}
        name = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return {"Proxy-Authorization": f"Basic {base64.b64encode(name.encode()).decode()}"}
