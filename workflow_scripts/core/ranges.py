"""Byte ranges of files: local ones by the operating system, those over HTTP, and those in S3 buckets.

A request is made once; `network.retry` makes it again. Addresses are signed anew for each attempt,
by a library that keeps tokens until shortly before they end. A server that says how long it wants to
be left alone (`Retry-After`) is left alone by all threads.
"""

import http.client
import io
import os
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import obstore
import requests
from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from workflow_scripts.core import network
from workflow_scripts.core.connections import CONNECT_TIMEOUT_S, Server
from workflow_scripts.core.tiff import UnsupportedError

MAX_REQUESTS = 64
"""Requests in flight at most, of one reader: with answers after 50 ms, 1,280 a second."""
MAX_REDIRECTIONS = 3
_REDIRECTIONS = (301, 302, 303, 307, 308)
_HTTP = ("http", "https")

T = TypeVar("T")


class Ranges:
    """Reads bytes of files by address."""

    def __init__(self, *, access: network.Access = network.OPEN) -> None:
        self._access = access
        self._hosts: dict[str, _Host] = {}
        self._buckets: dict[str, S3Store] = {}
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
        if not network.is_remote(href) or href.startswith("file://"):
            return _read_local(href, first, last)
        scheme = urlsplit(href).scheme
        if scheme in _HTTP:
            content, _ = self._read_http(href, first, last)
        elif scheme == "s3":
            content = self._read_s3(href, first, last)
        else:
            raise UnsupportedError(f"{scheme}:// is left to GDAL")
        with self._lock:
            self.n_requests += 1
            self.n_bytes += len(content)
        return memoryview(content)

    def size(self, href: str) -> int:
        """Give the bytes of a remote file; errors as `read`."""
        if urlsplit(href).scheme == "s3":
            bucket, key = self._bucket(href)
            try:
                return int(bucket.head(key)["size"])
            except (BaseError, OSError) as error:
                raise _s3_failure(href, error) or RuntimeError(f"{href}: no size") from None
        return self._read_http(href, 0, 1)[1]

    def _read_http(self, href: str, first: int, last: int) -> tuple[bytes, int]:
        """Give a range and the size of the whole file."""
        try:
            url = network.sign(href, self._access)
        except requests.RequestException as error:
            name = network.file_name(href)
            raise network.TransientError(f"no token for {name}: {type(error).__name__}") from None
        try:
            for _ in range(1 + MAX_REDIRECTIONS):
                host = self._host(url)
                host.wait()
                answer = host.server.get(url, first, last)
                if answer.status not in _REDIRECTIONS or "Location" not in answer.headers:
                    break
                url = urljoin(url, answer.headers["Location"])
        except (OSError, http.client.HTTPException) as error:
            # its text may hold the signed address
            raise network.TransientError(f"{network.file_name(href)}: {type(error).__name__}") from None
        except ValueError as error:
            raise RuntimeError(f"{network.file_name(href)}: {error}") from None
        if answer.status == 206:
            return answer.content, int(answer.headers.get("Content-Range", "/0").rpartition("/")[2])
        if answer.status == 416:
            return b"", 0
        message = f"{network.file_name(href)}: HTTP {answer.status}"
        if answer.status == 200:
            raise UnsupportedError("its server does not serve ranges")
        if answer.status not in network.PASSING_STATUS:
            raise RuntimeError(message)
        if answer.status == 403:
            network.forget_token(url, self._access)
        pause = network.retry_after_s(answer.headers.get("Retry-After"))
        if pause:
            host.rest(pause)
        raise network.TransientError(message, retry_after_s=pause)

    def _host(self, url: str) -> "_Host":
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if origin not in self._hosts:
                self._hosts[origin] = _Host(url)
            return self._hosts[origin]

    def _read_s3(self, href: str, first: int, last: int) -> bytes:
        bucket, key = self._bucket(href)
        try:
            return bucket.get(key, options={"range": (first, last)}).bytes()
        except (BaseError, OSError) as error:
            failure = _s3_failure(href, error)
            if failure is None:
                return b""
            raise failure from None

    def _bucket(self, href: str) -> tuple[S3Store, str]:
        """Give the client of an address's bucket, and the key in it."""
        parts = urlsplit(href)
        with self._lock:
            if parts.netloc not in self._buckets:
                self._buckets[parts.netloc] = _s3_store(parts.netloc, self._access)
            return self._buckets[parts.netloc], parts.path.lstrip("/")

    def list_folder(self, href: str) -> list[str]:
        """List the addresses of the files below a folder, sorted: `s3://`, or `https://` of an Azure container.

        Raises
        ------
        TransientError
            If the request failed in a way that may pass.
        RuntimeError
            If the store refuses, or lists nothing there.
        """
        try:
            if urlsplit(href).scheme == "s3":
                bucket, prefix = self._bucket(href)
                root = f"s3://{urlsplit(href).netloc}"
            else:
                bucket, prefix, root = _azure_container(href, self._access)
            names = [entry["path"] for part in obstore.list(bucket, prefix) for entry in part]
        except requests.RequestException as error:
            name = network.file_name(href)
            raise network.TransientError(f"no token for {name}: {type(error).__name__}") from None
        except (BaseError, OSError) as error:
            raise _s3_failure(href, error) or RuntimeError(f"{href}: nothing is listed there") from None
        return sorted(f"{root}/{name}" for name in names)


class _Host:
    """A server, and its wish to rest."""

    def __init__(self, url: str) -> None:
        self.server = Server(url, timeout_s=network.TIMEOUT_S)
        self._rests_until = 0.0

    def rest(self, seconds: float) -> None:
        """Ask nothing for some time."""
        until = time.monotonic() + min(seconds, network.LONGEST_REST_S)
        self._rests_until = max(self._rests_until, until)

    def wait(self) -> None:
        """Wait while the server wants to be left alone."""
        while (left := self._rests_until - time.monotonic()) > 0:
            time.sleep(left)


class RemoteFile(io.RawIOBase):
    """A remote file to be read like a local one, for libraries that ask for one."""

    def __init__(self, ranges: Ranges, href: str) -> None:
        super().__init__()
        self._ranges, self._href, self._position = ranges, href, 0
        self._size = self._patiently(lambda: ranges.size(href))

    def _patiently(self, call: Callable[[], T]) -> T:
        return network.retry(call, f"reading {network.file_name(self._href)}")

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that any position can be reached."""
        return True

    def tell(self) -> int:
        """Give the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read some bytes, or all that are left."""
        last = self._size if size < 0 else min(self._position + size, self._size)
        if last <= self._position:
            return b""
        content = self._patiently(lambda: self._ranges.read(self._href, self._position, last))
        self._position += len(content)
        return bytes(content)


def _read_local(href: str, first: int, last: int) -> bytes:
    path = href.removeprefix("file://")
    try:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), last - first, first)
    except OSError as error:
        raise RuntimeError(f"{network.file_name(href)}: {error.strerror}") from None


def _s3_store(bucket: str, access: network.Access) -> S3Store:
    options = access.s3
    config = {
        "skip_signature": bool(options.get("anonymous")),
        "request_payer": bool(options.get("requester_pays")),
    }
    config |= {name: options[name] for name in ("region", "endpoint") if options.get(name)}
    client = {
        "allow_http": True,
        "timeout": f"{network.TIMEOUT_S}s",
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
    }
    client["pool_max_idle_per_host"] = str(MAX_REQUESTS)
    return S3Store(bucket, **config, client_options=client, retry_config={"max_retries": 0})


def _azure_container(href: str, access: network.Access) -> tuple[AzureStore, str, str]:
    """Give the client of an Azure container, the folder in it, and the container's address."""
    parts = urlsplit(href)
    container, _, prefix = parts.path.strip("/").partition("/")
    endpoint = f"{parts.scheme}://{parts.netloc}"
    token = urlsplit(network.sign(f"{endpoint}/{container}/{prefix}/", access)).query
    store = AzureStore(
        container,
        account_name=parts.netloc.partition(".")[0],
        endpoint=endpoint,
        client_options={"allow_http": True, "timeout": f"{network.TIMEOUT_S}s"},
        retry_config={"max_retries": 0},
        **({"sas_key": token} if token else {"skip_signature": True}),
    )
    return store, prefix, f"{endpoint}/{container}"


def _s3_failure(href: str, error: Exception) -> RuntimeError | None:
    """Turn a failure of obstore, whose text may hold keys, into ours; None past the file's end."""
    found = re.search(r"status code: (\d{3})", str(error))
    status = 404 if isinstance(error, FileNotFoundError) else int(found.group(1)) if found else None
    if status == 416:
        return None
    name = network.file_name(href)
    if isinstance(error, PermissionError) or status in (401, 403):
        return RuntimeError(
            f"{name}: the bucket refuses: check the catalog's options s3 and sign, or the keys in the environment"
        )
    message = f"{name}: {f'HTTP {status}' if status else type(error).__name__}"
    if status is None or status in network.PASSING_STATUS:
        return network.TransientError(message)
    return RuntimeError(message)
