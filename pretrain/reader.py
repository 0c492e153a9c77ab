"""Read single patches from `patches.zarr`, on disk or in an object store, fast and from many threads.

zarr-python decodes a chunk of a shard through several layers; here the shard's index is read once
and kept, and a patch is one positioned read (one range request) and one decompression. Arrays laid
out in another way are read through zarr-python: same interface, same values.

References
----------
Zarr v3 core specification; sharding codec v1.0 (index: offset and length of each chunk as
little-endian uint64, absent chunks 2⁶⁴ − 1, followed by its CRC-32C).
"""

import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import google_crc32c
import numcodecs
import numcodecs.blosc
import numpy as np
import zarr

from workflow_scripts.core.objects import Folder, open_folder

_ABSENT = np.uint64(2**64 - 1)

_DECODERS: Mapping[str, Callable[[dict[str, Any]], Callable[[bytes], Any]]] = {
    "blosc": lambda configuration: numcodecs.blosc.decompress,
    "zstd": lambda configuration: numcodecs.Zstd().decode,
}
"""Compressors read directly, by their name in the metadata."""


class PatchArray(Protocol):
    """One array of the store, read patch by patch."""

    bands: tuple[str, ...]
    """Bands in the order of the first axis of a patch."""
    patch_shape: tuple[int, int, int]
    """(bands, y, x)"""
    n_locations: int

    def read(self, location: int, season: int) -> np.ndarray:
        """Read one patch, (bands, y, x), of the stored type."""
        ...

    def read_into(self, location: int, season: int, positions: np.ndarray, out: np.ndarray) -> None:
        """Read the bands at some positions of one patch into `out`, (bands, y, x), contiguous."""
        ...


class ShardedPatchArray:
    """An array whose shards are read directly; safe to use from several threads."""

    def __init__(self, folder: Folder, name: str, metadata: dict[str, Any], bands: tuple[str, ...]) -> None:
        shard, inner = _chunk_shapes(metadata)
        codecs = metadata["codecs"][0]["configuration"]["codecs"]
        self._folder = folder
        self._name = name
        self.bands = bands
        self.patch_shape = tuple(metadata["shape"][2:])
        self.n_locations = metadata["shape"][0]
        self._separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
        self._dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        self._fill = metadata["fill_value"]
        self._shard_shape = shard[:2]
        self._decoders = [
            _DECODERS[codec["name"]](codec.get("configuration", {})) for codec in reversed(codecs[1:])
        ]
        self._n_chunks = math.prod(full // part for full, part in zip(shard, inner, strict=True))
        self._indexes: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()
        self._of_thread = threading.local()

    @staticmethod
    def can_read(metadata: dict[str, Any]) -> bool:
        """Tell whether an array is laid out as this class expects."""
        try:
            (sharding,) = metadata["codecs"]
            configuration = sharding["configuration"]
            first, *compressors = configuration["codecs"]
            _, inner = _chunk_shapes(metadata)
            return (
                sharding["name"] == "sharding_indexed"
                and configuration.get("index_location", "end") == "end"
                and [codec["name"] for codec in configuration["index_codecs"]] == ["bytes", "crc32c"]
                and first["name"] == "bytes"
                and first.get("configuration", {}).get("endian", "little") == "little"
                and all(codec["name"] in _DECODERS for codec in compressors)
                and metadata["chunk_key_encoding"]["name"] == "default"
                and inner == (1, 1, *metadata["shape"][2:])
            )
        except (KeyError, TypeError, ValueError):
            return False

    def read(self, location: int, season: int) -> np.ndarray:
        """Read one patch, (bands, y, x)."""
        patch = np.empty(self.patch_shape, self._dtype)
        self._decode(location, season, patch)
        return patch

    def read_into(self, location: int, season: int, positions: np.ndarray, out: np.ndarray) -> None:
        """Read some bands of one patch: all in order without a copy, others by way of memory used again."""
        if np.array_equal(positions, np.arange(self.patch_shape[0])):
            self._decode(location, season, out)
            return
        if not hasattr(self._of_thread, "patch"):
            self._of_thread.patch = np.empty(self.patch_shape, self._dtype)
        self._decode(location, season, self._of_thread.patch)
        np.take(self._of_thread.patch, positions, axis=0, out=out, mode="clip")  # "raise" would copy

    def _decode(self, location: int, season: int, out: np.ndarray) -> None:
        """Read and decode one patch into `out`."""
        shard = (location // self._shard_shape[0], season // self._shard_shape[1])
        row, column = location % self._shard_shape[0], season % self._shard_shape[1]
        key = self._separator.join([f"{self._name}/c", str(shard[0]), str(shard[1]), "0", "0", "0"])
        try:
            offset, length = self._index(key)[row * self._shard_shape[1] + column]
            if offset == _ABSENT:
                out[...] = self._fill
                return
            content = self._folder.read_range(key, int(offset), int(length))
            for decode in self._decoders[:-1]:
                content = decode(content)
            if self._decoders and self._decoders[-1] is numcodecs.blosc.decompress:
                _decompress_blosc(content, out)
                return
            for decode in self._decoders[-1:]:
                content = decode(content)
            out[...] = np.frombuffer(content, self._dtype).reshape(self.patch_shape)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"shard object {self._folder.address}/{key} is missing (needed for location {location}, season "
                f"{season}). Run the target `patches` again, which fetches what is missing."
            ) from None
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"shard object {self._folder.address}/{key} cannot be read at location {location}, season "
                f"{season} ({error}). `python -m workflow_scripts.repair {self._folder.address}` deletes bad "
                "objects; the target `patches` then fetches them again."
            ) from None

    def _index(self, key: str) -> np.ndarray:
        with self._lock:
            index = self._indexes.get(key)
        if index is None:
            n_bytes = 16 * self._n_chunks
            end, size = self._folder.read_end(key, n_bytes + 4)
            if size < n_bytes + 4:
                raise ValueError(f"the file has {size} bytes, its index alone needs {n_bytes + 4}")
            if google_crc32c.value(end[:-4]) != int.from_bytes(end[-4:], "little"):
                raise ValueError("the checksum of the shard's index is wrong")
            index = np.frombuffer(end[:-4], "<u8").reshape(-1, 2)
            with self._lock:
                self._indexes[key] = index
        return index


def _decompress_blosc(content: bytes | memoryview, out: np.ndarray) -> None:
    """Decompress into memory that is there; a new buffer would cost as much again.

    The header of a Blosc frame tells the decompressed bytes in its bytes 4 to 7.
    """
    n_bytes = int.from_bytes(content[4:8], "little")
    if n_bytes != out.nbytes:
        raise ValueError(f"a chunk of {n_bytes} bytes, expected {out.nbytes}")
    numcodecs.blosc.decompress(content, out)


class ZarrPatchArray:
    """An array read through zarr-python."""

    def __init__(self, folder: Folder, name: str, metadata: dict[str, Any], bands: tuple[str, ...]) -> None:
        self._address = f"{folder.address}/{name}"
        self.bands = bands
        self.patch_shape = tuple(metadata["shape"][2:])
        self.n_locations = metadata["shape"][0]
        self._array = zarr.open_array(folder.zarr_store(), path=name, mode="r")

    def read_into(self, location: int, season: int, positions: np.ndarray, out: np.ndarray) -> None:
        """Read some bands of one patch."""
        np.take(self.read(location, season), positions, axis=0, out=out)

    def read(self, location: int, season: int) -> np.ndarray:
        """Read one patch, (bands, y, x)."""
        try:
            return np.asarray(self._array[location, season])
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(
                f"{self._address} cannot be read at location {location}, season {season} ({error})"
            ) from None


def _chunk_shapes(metadata: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shard shape and inner chunk shape of a sharded array."""
    shard = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    return shard, tuple(metadata["codecs"][0]["configuration"]["chunk_shape"])


BAND_ARRAYS = {"dn10": "band10", "dn20": "band20", "dn60": "band60"}
"""Arrays of pixels and the coordinate that names their bands."""


def open_arrays(store: str | os.PathLike, *, direct: bool = True) -> dict[str, PatchArray]:
    """Open the pixel arrays of a store.

    Parameters
    ----------
    store : the `patches.zarr` folder, a path or an address (`workflow_scripts.core.objects`)
    direct : read shards directly where their layout allows; false: all through zarr-python

    Returns
    -------
    dict of the arrays the store has, out of `dn10`, `dn20`, `dn60`
    """
    folder = open_folder(store)
    try:
        folder.read("zarr.json")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder.address} is not a Zarr v3 store (no zarr.json); run the target `patches`"
        ) from None
    arrays: dict[str, PatchArray] = {}
    for name, coordinate in BAND_ARRAYS.items():
        try:
            metadata = json.loads(folder.read(f"{name}/zarr.json"))
        except FileNotFoundError:  # an imported archive may lack bands of a resolution
            continue
        names = zarr.open_array(folder.zarr_store(), path=coordinate, mode="r")[:]
        readable = direct and ShardedPatchArray.can_read(metadata)
        kind = ShardedPatchArray if readable else ZarrPatchArray
        arrays[name] = kind(folder, name, metadata, tuple(str(band) for band in names))
    if not arrays:
        raise ValueError(f"{folder.address} has none of the arrays {sorted(BAND_ARRAYS)}")
    return arrays
