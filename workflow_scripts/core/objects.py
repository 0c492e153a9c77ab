"""Folders of objects: on disk, or in an object store, by address.

An address is a path, `s3://bucket/folder`, or `http(s)://host/folder` of a server that serves byte
ranges. Keys, region and endpoint of a bucket are taken from the environment (`AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`; `AWS_SKIP_SIGNATURE=true` for a public one).
"""

import fnmatch
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import obstore
import zarr
from obstore.exceptions import BaseError
from obstore.store import from_url

from workflow_scripts.core.stage import atomic_path

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

    def write(self, name: str, path: Path) -> None:
        """Write an object from a file."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object."""
        ...

    def list(self, pattern: str) -> list[str]:
        """List the objects right in this folder whose names match a pattern of the shell."""
        ...

    def zarr_store(self, *, read_only: bool = True) -> Any:
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

    def write(self, name: str, path: Path) -> None:
        """Write an object from a file."""
        with atomic_path(self.path / name) as temporary:
            shutil.copyfile(path, temporary)

    def delete(self, name: str) -> None:
        """Delete an object."""
        (self.path / name).unlink(missing_ok=True)

    def list(self, pattern: str) -> list[str]:
        """List the objects right in this folder whose names match."""
        return sorted(path.name for path in self.path.glob(pattern))

    def zarr_store(self, *, read_only: bool = True) -> Path:
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

    def write(self, name: str, path: Path) -> None:
        """Write an object from a file."""
        with _clear_errors(f"{self.address}/{name}", "written"):
            obstore.put(self._store, name, path)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with _clear_errors(f"{self.address}/{name}", "deleted"):
            obstore.delete(self._store, name)

    def list(self, pattern: str) -> list[str]:
        """List the objects right in this folder whose names match."""
        with _clear_errors(self.address):
            found = obstore.list_with_delimiter(self._store)["objects"]
        return sorted(name for name in (o["path"] for o in found) if fnmatch.fnmatchcase(name, pattern))

    def zarr_store(self, *, read_only: bool = True) -> zarr.storage.ObjectStore:
        """Give what `zarr` and `xarray` open."""
        return zarr.storage.ObjectStore(self._store, read_only=read_only)


@contextmanager
def _clear_errors(address: str, done: str = "read") -> Iterator[None]:
    """Name the object in errors; the library's own text goes on for pages."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{address} is missing") from None
    except (BaseError, PermissionError) as error:
        status = re.search(r"status code: (\d{3})", str(error))
        reason = f"HTTP {status[1]}" if status else str(error).split("\n")[0][:200]
        raise OSError(f"{address} cannot be {done}: {reason}") from None


def is_remote(address: str | os.PathLike) -> bool:
    """Tell whether an address is not a path."""
    return "://" in os.fspath(address)


def parent(address: str | os.PathLike) -> str:
    """Give the folder of a file, of either kind."""
    return os.path.dirname(os.fspath(address))


def has_object(folder: Folder, name: str) -> bool:
    """Tell whether an object is there, whatever it holds."""
    try:
        folder.read_end(name, 1)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def new_group(address: str | os.PathLike) -> Iterator[zarr.Group]:
    """Give an empty Zarr group, to be filled; its metadata are consolidated at the end.

    On disk it takes the place of an older one when it is complete. In a bucket, where nothing can be
    moved, it is written in place: until the end it has no consolidated metadata.
    """
    if is_remote(address):
        store = open_folder(address).zarr_store(read_only=False)
        yield from _filled(store)
        return
    path = Path(address)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield from _filled(partial)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _filled(store: Any) -> Iterator[zarr.Group]:
    root = zarr.open_group(store, mode="w", zarr_format=3)
    yield root
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(root.store)


def open_folder(address: str | os.PathLike) -> Folder:
    """Open a folder; nothing is asked of a server yet."""
    return RemoteFolder(os.fspath(address)) if is_remote(address) else LocalFolder(address)
