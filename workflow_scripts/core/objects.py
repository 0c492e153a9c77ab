"""Folders of objects that are only read: on disk, or in an object store, by address.

An address is a path, `s3://bucket/folder`, or `http(s)://host/folder` of a server that serves byte
ranges. Keys, region and endpoint of a bucket are taken from the environment (`AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`; `AWS_SKIP_SIGNATURE=true` for a public one).
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import obstore
import zarr
from obstore.exceptions import BaseError
from obstore.store import from_url

TIMEOUT_S = 60
"""Of one request; it is made again for some minutes where that may help."""


class Folder(Protocol):
    """Objects by their name relative to the folder; safe to use from several threads.

    An object that is not there raises `FileNotFoundError`, one that cannot be read `OSError`.
    """

    address: str

    def read(self, name: str) -> bytes:
        """Read an object."""
        ...

    def read_range(self, name: str, first: int, n_bytes: int) -> Any:
        """Read `n_bytes` from byte `first` on, fewer where the object ends before."""
        ...

    def read_end(self, name: str, n_bytes: int) -> tuple[Any, int]:
        """Read the last `n_bytes`, or all where there are fewer; and tell the object's size."""
        ...

    def copy(self, name: str, path: Path) -> None:
        """Copy an object into a file."""
        ...

    def zarr_store(self) -> Any:
        """Give what `zarr` and `xarray` open."""
        ...


class LocalFolder:
    """A folder on disk."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.address = os.fspath(path)
        self._prefix = os.path.join(os.fspath(path), "")

    def read(self, name: str) -> bytes:
        """Read an object."""
        return (self.path / name).read_bytes()

    def read_range(self, name: str, first: int, n_bytes: int) -> bytes:
        """Read part of an object."""
        descriptor = os.open(self._prefix + name, os.O_RDONLY)
        try:
            return os.pread(descriptor, n_bytes, first)
        finally:
            os.close(descriptor)

    def read_end(self, name: str, n_bytes: int) -> tuple[bytes, int]:
        """Read the end of an object, and tell its size."""
        with open(self.path / name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - n_bytes, 0))
            return file.read(n_bytes), size

    def copy(self, name: str, path: Path) -> None:
        """Copy an object into a file."""
        shutil.copyfile(self.path / name, path)

    def zarr_store(self) -> Path:
        """Give what `zarr` and `xarray` open."""
        return self.path


class RemoteFolder:
    """A folder of an object store."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        options = {"allow_http": True, "timeout": f"{TIMEOUT_S}s"}
        with _clear_errors(self.address):
            self._store = from_url(self.address, client_options=options)

    def read(self, name: str) -> bytes:
        """Read an object."""
        with _clear_errors(f"{self.address}/{name}"):
            return bytes(obstore.get(self._store, name).bytes())

    def read_range(self, name: str, first: int, n_bytes: int) -> memoryview:
        """Read part of an object."""
        with _clear_errors(f"{self.address}/{name}"):
            return memoryview(obstore.get_range(self._store, name, start=first, length=n_bytes))

    def read_end(self, name: str, n_bytes: int) -> tuple[bytes, int]:
        """Read the end of an object, and tell its size."""
        with _clear_errors(f"{self.address}/{name}"):
            found = obstore.get(self._store, name, options={"range": {"suffix": n_bytes}})
            return bytes(found.bytes()), found.meta["size"]

    def copy(self, name: str, path: Path) -> None:
        """Copy an object into a file."""
        with _clear_errors(f"{self.address}/{name}"), open(path, "wb") as file:
            for part in obstore.get(self._store, name).stream():
                file.write(part)

    def zarr_store(self) -> zarr.storage.ObjectStore:
        """Give what `zarr` and `xarray` open."""
        return zarr.storage.ObjectStore(self._store, read_only=True)


@contextmanager
def _clear_errors(address: str) -> Iterator[None]:
    """Name the object in errors; the library's own text goes on for pages."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{address} is missing") from None
    except (BaseError, PermissionError) as error:
        status = re.search(r"status code: (\d{3})", str(error))
        reason = f"HTTP {status[1]}" if status else str(error).split("\n")[0][:200]
        raise OSError(f"{address} cannot be read: {reason}") from None


def is_remote(address: str | os.PathLike) -> bool:
    """Tell whether an address is not a path."""
    return "://" in os.fspath(address)


def open_folder(address: str | os.PathLike) -> Folder:
    """Open a folder for reading; nothing is asked of a server yet."""
    return RemoteFolder(os.fspath(address)) if is_remote(address) else LocalFolder(address)
