"""Byte ranges of files: local ones by the operating system, those over HTTP through obstore.

A request is made once; `stac.retry` makes it again. Addresses are signed anew for each attempt, by
a library that keeps tokens until they end.
"""

import os
import re
import threading
from collections import OrderedDict
from urllib.parse import unquote, urlsplit

import requests
from obstore.exceptions import BaseError, NotSupportedError
from obstore.store import HTTPStore

from workflow_scripts.core import stac
from workflow_scripts.core.tiff import UnsupportedError

MAX_REQUESTS = 32
"""Requests in flight at most, to one host."""
MAX_CLIENTS = 8
"""Clients kept, one per host and token."""

_CLIENT_OPTIONS = {
    "allow_http": True,
    "timeout": f"{stac.TIMEOUT_S}s",
    "connect_timeout": "20s",
    "pool_max_idle_per_host": str(MAX_REQUESTS),
}
_HTTP = ("http", "https")


class Ranges:
    """Reads bytes of files by address."""

    def __init__(self, *, sign_method: str | None = None) -> None:
        self._sign_method = sign_method
        self._clients: OrderedDict[tuple[str, str], HTTPStore] = OrderedDict()
        self._slots: dict[str, threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()
        self.n_requests = 0
        self.n_bytes = 0

    def read(self, href: str, first: int, last: int) -> bytes | memoryview:
        """Read bytes from one position up to another, fewer where the file ends before.

        Raises
        ------
        TransientError
            If a request failed in a way that may pass.
        RuntimeError
            If there is no such file, or the server refuses.
        UnsupportedError
            If the address is of another kind, or the server does not serve ranges.
        """
        if not stac.is_remote(href) or href.startswith("file://"):
            return _read_local(href, first, last)
        if urlsplit(href).scheme not in _HTTP:
            raise UnsupportedError(f"{urlsplit(href).scheme}:// is left to GDAL")
        try:
            signed = stac.sign(href, self._sign_method)
        except requests.RequestException as error:
            name = stac.file_name(href)
            raise stac.TransientError(f"no token for {name}: {type(error).__name__}") from None
        parts = urlsplit(signed)
        client, slot = self._client(f"{parts.scheme}://{parts.netloc}", parts.query)
        try:
            with slot:
                content = client.get(unquote(parts.path), options={"range": (first, last)}).bytes()
        except NotSupportedError:
            raise UnsupportedError("its server does not serve ranges") from None
        except (BaseError, OSError) as error:
            failure = _failure(href, error)
            if failure is None:
                return b""
            raise failure from None
        with self._lock:
            self.n_requests += 1
            self.n_bytes += len(content)
        return memoryview(content)

    def _client(self, origin: str, query: str) -> tuple[HTTPStore, threading.BoundedSemaphore]:
        with self._lock:
            key = origin, query
            if key not in self._clients:
                url = f"{origin}?{query}" if query else origin
                self._clients[key] = HTTPStore.from_url(
                    url, client_options=_CLIENT_OPTIONS, retry_config={"max_retries": 0}
                )
            self._clients.move_to_end(key)
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
            return self._clients[key], self._slots.setdefault(
                origin, threading.BoundedSemaphore(MAX_REQUESTS)
            )


def _read_local(href: str, first: int, last: int) -> bytes:
    path = href.removeprefix("file://")
    try:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), last - first, first)
    except OSError as error:
        raise RuntimeError(f"{stac.file_name(href)}: {error.strerror}") from None


def _failure(href: str, error: Exception) -> RuntimeError | None:
    """Turn a failure of obstore, whose text holds the signed address, into ours; None past the end."""
    found = re.search(r"status code: (\d{3})", str(error))
    status = 404 if isinstance(error, FileNotFoundError) else int(found.group(1)) if found else None
    if status == 416:
        return None
    what = f"HTTP {status}" if status else stac.redact(str(error).split("\n")[0])
    message = f"{stac.file_name(href)}: {what}"
    if status is None or status in stac.PASSING_STATUS:
        return stac.TransientError(message)
    return RuntimeError(message)
