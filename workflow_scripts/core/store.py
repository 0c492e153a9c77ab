"""The patch store: one flat Zarr v3 store, patches at native resolution, one shard per job.

A shard is the patches of `per_shard` consecutive locations. Every array has exactly one object
(file) per shard, so jobs never write the same file. Layout and reasons: docs/architecture.md.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from workflow_scripts.core import bands, grid
from workflow_scripts.core.objects import Folder, has_object, open_folder

MISSING_TIME = -(2**63)
"""`datetime` of a missing patch; xarray decodes it to NaT."""

SECONDS_PER_DAY = 86_400

CODECS = MappingProxyType(
    {
        "blosc-lz4-bitshuffle": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle"},
        "blosc-zstd3-shuffle": {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"},
    }
)


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store."""

    dims: tuple[str, ...]
    """Dimension names; all begin with `location`."""
    dtype: str
    fill_value: Any
    """Value where there is no patch."""
    attributes: Mapping[str, Any]


def _spec(dims: str, dtype: str, fill: Any, long_name: str, **attributes: Any) -> ArraySpec:
    return ArraySpec(tuple(dims.split()), dtype, fill, {"long_name": long_name, **attributes})


_DN = {
    "units": "1",
    "reflectance_scale": bands.REFLECTANCE_SCALE,
    "comment": "surface reflectance = DN * reflectance_scale; radiometric offset removed; 0 = no data",
}

_CLASS_NAMES = " ".join(name.replace(",", "").replace(" ", "_") for name in bands.SCL_CLASSES.values())

ARRAYS: Mapping[str, ArraySpec] = MappingProxyType(
    {
        "dn10": _spec("location season band10 y10 x10", "uint16", 0, "DN of the 10 m bands", **_DN),
        "dn20": _spec("location season band20 y20 x20", "uint16", 0, "DN of the 20 m bands", **_DN),
        "dn60": _spec(
            "location season band60 y60 x60",
            "uint16",
            0,
            "DN of the 60 m bands, window that covers the patch on the tile's own 60 m lattice",
            **_DN,
        ),
        "scl": _spec(
            "location season y20 x20",
            "uint8",
            0,
            "scene classification",
            flag_values=list(bands.SCL_CLASSES),
            flag_meanings=_CLASS_NAMES,
        ),
        "datetime": _spec(
            "location season",
            "int64",
            MISSING_TIME,
            "sensing time of the scene, UTC",
            units="seconds since 1970-01-01",
            calendar="proleptic_gregorian",
            _FillValue=MISSING_TIME,
        ),
        "epsg": _spec("location season", "int32", 0, "EPSG code of the patch's CRS; 0 = no patch"),
        "origin_x": _spec("location season", "float64", np.nan, "west edge of the patch", units="m"),
        "origin_y": _spec("location season", "float64", np.nan, "north edge of the patch", units="m"),
        "origin60_x": _spec("location season", "float64", np.nan, "west edge of dn60", units="m"),
        "origin60_y": _spec("location season", "float64", np.nan, "north edge of dn60", units="m"),
        "cloud_fraction": _spec(
            "location season",
            "float32",
            np.nan,
            "share of the patch under cloud, cirrus or cloud shadow (SCL 3, 8, 9, 10); NaN without SCL",
            units="1",
        ),
        "valid_fraction": _spec(
            "location season", "float32", np.nan, "share of the patch with data", units="1"
        ),
        "dn_offset": _spec(
            "location season", "int16", -1, "offset that was subtracted; -1 = no patch", units="1"
        ),
        "sun_zenith": _spec(
            "location season", "float32", np.nan, "sun zenith angle of the scene", units="degree"
        ),
        "scl_fraction": _spec(
            "location season scl_class",
            "float32",
            np.nan,
            "share of the patch in each class of the scene classification; NaN without SCL",
            units="1",
        ),
        "span_days": _spec(
            "location",
            "float32",
            np.nan,
            "days from the first to the last scene of the location",
            units="1",
        ),
        "aligned": _spec("location", "bool", False, "all patches of the location share CRS and origin"),
    }
)
"""Arrays that hold one object per shard."""

PIXELS = ("dn10", "dn20", "dn60", "scl")
BAND_NAMES = {"band10": bands.BANDS10, "band20": bands.BANDS20, "band60": bands.BANDS60}
"""Bands along each band dimension."""
PER_LOCATION = ("span_days", "aligned")
"""Arrays that are made from the others, over all seasons of a location."""
_RESOLUTION = {"10": 10, "20": 20, "60": 60}


def own_arrays(size_m: int) -> dict[str, dict[str, Any]]:
    """Give the pixel arrays of our own sets: array → `bands` and `side_px`."""
    sides = {name: grid.n_pixels(size_m, _RESOLUTION[name.removeprefix("dn")]) for name in PIXELS[:3]}
    arrays = {
        name: {"bands": list(BAND_NAMES[name.replace("dn", "band")]), "side_px": side}
        for name, side in sides.items()
    }
    return arrays | {"scl": {"bands": [], "side_px": sides["dn20"]}}


def _sizes(n_seasons: int, arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    sizes = {"season": n_seasons, "scl_class": len(bands.SCL_CLASSES)}
    for name, entry in arrays.items():
        suffix = "20" if name == "scl" else name.removeprefix("dn")
        sizes |= {f"y{suffix}": entry["side_px"], f"x{suffix}": entry["side_px"]}
        sizes |= {f"band{suffix}": len(entry["bands"])} if entry["bands"] else {}
    return sizes


def is_own(facts: Mapping[str, Any]) -> bool:
    """Tell whether a store has the arrays of our own sets, or those of an imported archive.

    Parameters
    ----------
    facts : as of `layout`
    """
    return facts["arrays"] == own_arrays(facts["size_m"])


def array_names(arrays: Mapping[str, Any]) -> list[str]:
    """List a store's arrays, of those of pixels the ones it has."""
    return [name for name in ARRAYS if name not in PIXELS or name in arrays]


OBJECT_DIMENSIONS = {
    "dn10": 5,
    "dn20": 5,
    "dn60": 5,
    "scl": 4,
    "datetime": 2,
    "epsg": 2,
    "origin_x": 2,
    "origin_y": 2,
    "origin60_x": 2,
    "origin60_y": 2,
    "cloud_fraction": 2,
    "valid_fraction": 2,
    "dn_offset": 2,
    "sun_zenith": 2,
    "scl_fraction": 3,
    "span_days": 1,
    "aligned": 1,
}
"""Number of dimensions of each array, as a literal: the rules read it to name the objects."""


def shard_objects(shard: int, arrays: Iterable[str] = tuple(OBJECT_DIMENSIONS)) -> list[str]:
    """List the objects of one shard, paths relative to the store."""
    return [f"{name}/c.{shard}{'.0' * (OBJECT_DIMENSIONS[name] - 1)}" for name in arrays]


def create_store(
    path: str | os.PathLike,
    *,
    locations: pd.DataFrame,
    seasons: Sequence[str],
    size_m: int,
    per_shard: int,
    codec: str = "blosc-lz4-bitshuffle",
    attributes: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Create the store's metadata and location coordinates, or let a store grow.

    Never deletes an object. An existing store must have the same layout and begin with the same
    locations; its arrays are then lengthened.

    Parameters
    ----------
    path : the store's folder
    locations : `location_id`, `lon`, `lat`; row number = location index
    seasons : labels, in order
    size_m : side of a patch in meters, a multiple of 20
    per_shard : locations per shard, fixed for the life of the store
    codec : key of `CODECS`
    attributes : further attributes of the store
    arrays : pixel arrays of an imported archive, array → `bands` and `side_px`; `own_arrays` by default

    Raises
    ------
    ValueError
        If an existing store has another layout or other locations.
    """
    folder = open_folder(path)
    if codec not in CODECS:
        raise ValueError(f"patches.codec = {codec!r} is not one of {sorted(CODECS)}")
    layout = {
        "seasons": list(seasons),
        "size_m": int(size_m),
        "per_shard": int(per_shard),
        "codec": codec,
        **({} if arrays is None else {"arrays": {name: dict(entry) for name, entry in arrays.items()}}),
    }
    arrays = own_arrays(size_m) if arrays is None else arrays
    ids = locations["location_id"].astype(str).tolist()
    if has_object(folder, "zarr.json"):
        _check_growth(folder, layout, ids)
    sizes = _sizes(len(seasons), arrays)
    root = zarr.open_group(folder.zarr_store(read_only=False), mode="a", zarr_format=3)
    for name in array_names(arrays):
        spec = ARRAYS[name]
        if name in root:
            array = root[name]
            array.resize((len(ids), *array.shape[1:]))
        else:
            _create_array(root, name, spec, len(ids), sizes, per_shard, codec)
    coordinates = {
        "location_id": (("location",), np.array(ids, object), {"long_name": "location id"}),
        "lon": (("location",), locations["lon"].to_numpy(float), {"units": "degrees_east"}),
        "lat": (("location",), locations["lat"].to_numpy(float), {"units": "degrees_north"}),
        "season": (("season",), np.array(list(seasons), object), {"long_name": "season"}),
    }
    classes = {"long_name": "class of the scene classification", "flag_meanings": _CLASS_NAMES}
    coordinates["scl_class"] = (("scl_class",), np.array(list(bands.SCL_CLASSES), np.int16), classes)
    for array, entry in arrays.items():
        if entry["bands"]:
            name = array.replace("dn", "band")
            wavelengths = [bands.WAVELENGTH_NM[band] for band in entry["bands"]]
            attrs = {"long_name": "Sentinel-2 band", "wavelength_nm": wavelengths}
            coordinates[name] = ((name,), np.array(entry["bands"], object), attrs)
    for name, (dims, values, attrs) in coordinates.items():
        _write_coordinate(root, name, dims, values, attrs)
    root.attrs.update(
        {
            "title": "Sentinel-2 L2A patches at native resolution",
            "Conventions": "CF-1.11",
            "coordinates": "location_id lon lat",
            "layout": layout,
            **(attributes or {}),
        }
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(root.store)


def _check_growth(folder: Folder, layout: dict[str, Any], ids: list[str]) -> None:
    """Refuse a store whose layout or first locations differ from what is asked for."""
    path = folder.address
    old = zarr.open_group(folder.zarr_store(), mode="r")
    advice = f"Keep it under another dataset name, or delete {path} and the folder retrieved/ beside it."
    present = old.attrs.get("layout", {})
    changed = {key: (present.get(key), value) for key, value in layout.items() if present.get(key) != value}
    if present and changed:
        listed = "; ".join(f"{key}: store has {a!r}, asked for {b!r}" for key, (a, b) in changed.items())
        raise ValueError(f"{path} was made with another layout ({listed}). {advice}")
    if "location_id" not in old:
        return
    before = [str(value) for value in old["location_id"][:]]
    if ids[: len(before)] != before:
        first = next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), len(ids))
        raise ValueError(
            f"{path} holds other locations: {len(before)} there, {len(ids)} asked for, different "
            f"from location {first} on. A store only grows at its end: list the {len(before)} in "
            f"locations.rounds to keep their rows. {advice}"
        )


def _create_array(
    root: zarr.Group,
    name: str,
    spec: ArraySpec,
    n_locations: int,
    sizes: Mapping[str, int],
    per_shard: int,
    codec: str,
) -> None:
    inner = tuple(sizes[dim] for dim in spec.dims[1:])
    # without a checksum a changed byte may be read as another value
    compressor = ZstdCodec(level=3, checksum=True)
    options: dict[str, Any] = {"chunks": (per_shard, *inner), "compressors": [compressor]}
    if name in PIXELS:
        compressor = BloscCodec(typesize=np.dtype(spec.dtype).itemsize, **CODECS[codec])
        options = {
            "shards": (per_shard, *inner),
            "chunks": (1, 1, *inner[1:]),
            "compressors": [compressor],
        }
    root.create_array(
        name,
        shape=(n_locations, *inner),
        dtype=spec.dtype,
        fill_value=spec.fill_value,
        dimension_names=spec.dims,
        attributes=dict(spec.attributes),
        chunk_key_encoding={"name": "default", "separator": "."},
        **options,
    )


def _write_coordinate(
    root: zarr.Group, name: str, dims: tuple[str, ...], values: np.ndarray, attrs: dict[str, Any]
) -> None:
    text = values.dtype == object
    if name in root:
        array = root[name]
        if array.shape != values.shape:
            array.resize(values.shape)
        elif np.array_equal(array[:].astype(values.dtype), values):
            return
    else:
        array = root.create_array(
            name,
            shape=values.shape,
            chunks=(65_536,) if dims == ("location",) else values.shape,
            dtype=str if text else values.dtype,
            fill_value="" if text else np.nan if values.dtype.kind == "f" else 0,
            dimension_names=dims,
            attributes=attrs,
            compressors=[ZstdCodec(level=3)],
            chunk_key_encoding={"name": "default", "separator": "."},
        )
    array[:] = values


def open_store(path: str | os.PathLike, *, chunks: Any = None) -> xr.Dataset:
    """Open a patch store lazily.

    Parameters
    ----------
    path : the store's folder, a path or an address (`core.objects`)
    chunks : as in `xarray.open_zarr`; None reads without dask, `{}` gives dask arrays

    Returns
    -------
    Dataset, dims (location, season, band10, y10, x10, …); see `ARRAYS`
    """
    folder = open_folder(path)
    try:
        folder.read("zarr.json")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} holds no store (no zarr.json): run the stage that creates it"
        ) from None
    return xr.open_zarr(folder.zarr_store(), chunks=chunks).set_coords(["location_id", "lon", "lat"])


def layout(path: str | os.PathLike) -> dict[str, Any]:
    """Give the fixed choices of a store: seasons, size_m, per_shard, codec, arrays, and n_locations.

    Parameters
    ----------
    path : the store's folder, a path or an address (`core.objects`)
    """
    folder = open_folder(path)
    metadata = json.loads(folder.read("zarr.json"))["attributes"]["layout"]
    shape = json.loads(folder.read("dn10/zarr.json"))["shape"]
    return {"arrays": own_arrays(metadata["size_m"]), **metadata, "n_locations": shape[0]}


def shard_range(path: str | os.PathLike, shard: int) -> tuple[int, int]:
    """Give the first location of a shard and the one after its last."""
    facts = layout(path)
    first = shard * facts["per_shard"]
    last = min(first + facts["per_shard"], facts["n_locations"])
    if not 0 <= first < last:
        raise ValueError(f"{path}: shard {shard} lies beyond its {facts['n_locations']} locations")
    return first, last


def empty_shard(path: str | os.PathLike, shard: int) -> dict[str, np.ndarray]:
    """Give the arrays of a shard without any patch, ready to be filled."""
    first, last = shard_range(path, shard)
    facts = layout(path)
    sizes = _sizes(len(facts["seasons"]), facts["arrays"]) | {"location": last - first}
    specs = {name: ARRAYS[name] for name in array_names(facts["arrays"])}
    return {name: _filled([sizes[dim] for dim in spec.dims], spec) for name, spec in specs.items()}


def _filled(shape: Sequence[int], spec: ArraySpec) -> np.ndarray:
    """Give an array of fill values; memory for zeros is only taken where something is written."""
    return np.full(shape, spec.fill_value, spec.dtype) if spec.fill_value else np.zeros(shape, spec.dtype)


def read_shard(path: str | os.PathLike, shard: int) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
    """Read a shard as far as its objects can be read.

    Returns
    -------
    arrays : name → array; missing patches where an object is absent or damaged
    readable : name → whether its object was there and could be read
    """
    arrays, readable, folder = empty_shard(path, shard), {}, open_folder(path)
    first, last = shard_range(path, shard)
    for name, object_path in zip(arrays, shard_objects(shard, arrays), strict=True):
        readable[name] = has_object(folder, object_path)
        if not readable[name]:
            continue
        try:
            arrays[name] = zarr.open_array(folder.zarr_store(), path=name, mode="r")[first:last]
        except Exception:  # codecs raise errors of many classes on damaged bytes
            readable[name] = False
    return arrays, readable


@contextmanager
def reading_shard(path: str | os.PathLike, shard: int) -> Iterator[None]:
    """Name the shard, and what helps, where a codec or a checksum gives up; neither says where it was."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path}: shard {shard} cannot be read ({error}). `python -m workflow_scripts.repair {path}` deletes "
            "bad objects; the target `patches` then fetches them again."
        ) from error


def copy_layout(source: str, path: Path) -> None:
    """Copy what `write_shard` needs of a store in a bucket, the metadata of its arrays, into a folder."""
    folder = open_folder(source)
    for name in ("zarr.json", *(f"{name}/zarr.json" for name in array_names(layout(source)["arrays"]))):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        folder.copy(name, path / name)


@contextmanager
def _staging_folder(path: Path, shard: int) -> Iterator[Path]:
    """Give a folder beside a store to encode a shard in, to one process at a time.

    Others wait for a lock on one byte of the store's `zarr.json`, which a kill ends. There are others only
    where a job that was given up still runs beside its successor.
    """
    staging = path.with_name(f"{path.name}.staging") / str(shard)
    with open(path / "zarr.json", "r+b") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX, 1, shard)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # other jobs' staging folders may still be there
                staging.parent.rmdir()


def write_shard(
    path: str | os.PathLike, shard: int, arrays: Mapping[str, np.ndarray], *, threads: int = 1
) -> None:
    """Write all objects of a shard; each appears whole or not at all.

    The objects are encoded in a staging folder beside the store, flushed to disk, and moved into
    place one by one, the pixels first. A kill leaves old and new objects, never a half one.

    Parameters
    ----------
    path : the store's folder
    shard : number of the shard
    arrays : an array for each the store has (`empty_shard`), first axis the shard's locations
    threads : to compress pixels with
    """
    path = Path(path).resolve()  # staging must be on the store's own file system, also behind a link
    first, last = shard_range(path, shard)
    facts = layout(path)
    names = array_names(facts["arrays"])
    objects = dict(zip(names, shard_objects(shard, names), strict=True))
    with _staging_folder(path, shard) as staging:
        for name in names:
            spec, values = ARRAYS[name], np.asarray(arrays[name])
            (staging / name).mkdir(parents=True)
            shutil.copyfile(path / name / "zarr.json", staging / name / "zarr.json")
            with zarr.config.set({"array.write_empty_chunks": True}):
                array = zarr.open_array(staging / name, mode="r+")
            if values.shape != (last - first, *array.shape[1:]) or values.dtype != spec.dtype:
                raise ValueError(
                    f"{path}, shard {shard}, {name}: got {values.dtype} {values.shape}, expected "
                    f"{spec.dtype} {(last - first, *array.shape[1:])}"
                )
            if name in PIXELS:
                n_chunks = math.prod(s // c for s, c in zip(array.shards, array.chunks, strict=True))
                with open(staging / objects[name], "wb") as file:
                    file.writelines(_encoded_shard(values, n_chunks, facts["codec"], threads))
            else:
                array[first:last] = values
        for object_path in objects.values():
            with open(staging / object_path, "rb") as file:
                os.fsync(file.fileno())
        for object_path in objects.values():
            os.replace(staging / object_path, path / object_path)


def _encoded_shard(values: np.ndarray, n_chunks: int, codec: str, threads: int) -> Iterator[bytes]:
    """Encode a shard: each patch a chunk, then the index (offset and length of each) and its checksum.

    Chunks without any pixel are left out, 2^64 − 1 in the index (Zarr v3 sharding codec with its
    default index codecs). zarr-python encodes them one after another and takes three times as long.

    Parameters
    ----------
    values : pixels, (location, season, …)
    n_chunks : of a whole shard; the store's last one may hold fewer locations
    codec : key of `CODECS`
    threads : to compress with
    """
    options = CODECS[codec]
    shuffle = {"shuffle": numcodecs.Blosc.SHUFFLE, "bitshuffle": numcodecs.Blosc.BITSHUFFLE}
    blosc = numcodecs.Blosc(options["cname"], options["clevel"], shuffle[options["shuffle"]])

    def encode(patch: np.ndarray) -> bytes:
        return blosc.encode(np.ascontiguousarray(patch)) if patch.any() else b""

    index = np.full((n_chunks, 2), 2**64 - 1, "<u8")
    end = 0
    with ThreadPoolExecutor(threads) as pool:
        for i, chunk in enumerate(pool.map(encode, values.reshape(-1, *values.shape[2:]))):
            if chunk:
                index[i] = end, len(chunk)
                end += len(chunk)
                yield chunk
    yield index.tobytes()
    yield struct.pack("<I", google_crc32c.value(index.tobytes()))


def span_days(datetime: np.ndarray) -> np.ndarray:
    """Give the days from the first to the last scene of each location; NaN where there is none.

    Parameters
    ----------
    datetime : (location, season), seconds; `MISSING_TIME` where there is no patch
    """
    there = datetime != MISSING_TIME
    first = np.where(there, datetime, np.inf).min(axis=1, initial=np.inf)
    last = np.where(there, datetime, -np.inf).max(axis=1, initial=-np.inf)
    days = np.full(len(datetime), np.nan, np.float32)
    days[there.any(axis=1)] = ((last - first) / SECONDS_PER_DAY)[there.any(axis=1)]
    return days


def aligned(epsg: np.ndarray, origin_x: np.ndarray, origin_y: np.ndarray) -> np.ndarray:
    """Tell per location whether it has patches and all share one CRS and origin."""
    there = epsg > 0
    result = there.any(axis=1)
    for values in (epsg, origin_x, origin_y):
        lowest = np.where(there, values, np.inf).min(axis=1, initial=np.inf)
        highest = np.where(there, values, -np.inf).max(axis=1, initial=-np.inf)
        result &= lowest == highest
    return result


def patch_checksum(*pixels: np.ndarray) -> str:
    """Digest the pixels of one patch (dn10, dn20, dn60, scl), 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for array in pixels:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


# ---- views -----------------------------------------------------------------------------------


def upsample(values: np.ndarray, factor: int, n: int, *, first: float = 0.0) -> np.ndarray:
    """Resample the last two axes to pixels `factor` times finer, bilinear between pixel centers.

    Parameters
    ----------
    values : array (..., y, x), float32, NaN = no data
    factor : how many fine pixels lie along a coarse one
    n : fine pixels wanted along each axis
    first : position of the first fine pixel's edge, in fine pixels from the coarse array's edge;
        a pair (y, x) is taken too

    Returns
    -------
    float32 array (..., n, n); beyond the outermost centers the edge value is held
    """
    for axis, start in zip((-2, -1), np.broadcast_to(first, 2), strict=True):
        position = (start + np.arange(n) + 0.5) / factor - 0.5
        position = np.clip(position, 0, values.shape[axis] - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = (position - low).astype(np.float32)
        weight = weight[:, None] if axis == -2 else weight
        below, above = np.take(values, low, axis), np.take(values, high, axis)
        # where the weight is zero the other pixel must not spread its NaN
        values = np.where(weight == 0, below, below * (1 - weight) + above * weight)
    return values.astype(np.float32)


def cube10(dataset: xr.Dataset, names: Sequence[str] = bands.ALL_BANDS) -> xr.DataArray:
    """View patches as one array at 10 m; 20 m and 60 m bands by bilinear interpolation.

    Lazy for a dataset opened with dask chunks, else computed at once: select first.

    Parameters
    ----------
    dataset : a patch store, or a selection of its locations and seasons
    names : bands, any of the twelve, in the order wanted

    Returns
    -------
    DataArray, dims (location, season, band, y10, x10) less those selected away, float32 DN;
    NaN where there is no data
    """
    n = dataset.sizes["y10"]
    held = {
        suffix: dataset[f"band{suffix}"].values.tolist()
        for suffix in ("10", "20", "60")
        if f"dn{suffix}" in dataset
    }
    missing = sorted(set(names) - {name for some in held.values() for name in some})
    if missing:
        raise ValueError(f"the store has no bands {missing}; it has {held}")
    parts = []
    for suffix, factor in (("10", 1), ("20", 2), ("60", 6)):
        wanted = [name for name in names if name in held.get(suffix, ())]
        if not wanted:
            continue
        positions = [held[suffix].index(name) for name in wanted]
        part = dataset[f"dn{suffix}"].isel({f"band{suffix}": positions})
        zero = xr.zeros_like(dataset["origin_x"])
        below, right = zero, zero
        if suffix == "60":
            below = (dataset["origin60_y"] - dataset["origin_y"]) / 10
            right = (dataset["origin_x"] - dataset["origin60_x"]) / 10
        part = xr.apply_ufunc(
            _upsample_patch,
            part.rename({f"band{suffix}": "band"}),
            below,
            right,
            kwargs={"factor": factor, "n": n},
            input_core_dims=[["band", f"y{suffix}", f"x{suffix}"], [], []],
            output_core_dims=[["band", "y10", "x10"]],
            exclude_dims={f"y{suffix}", f"x{suffix}"},
            vectorize=True,
            dask="parallelized",
            output_dtypes=[np.float32],
            dask_gufunc_kwargs={"output_sizes": {"y10": n, "x10": n}, "allow_rechunk": True},
        )
        parts.append(part.assign_coords(band=wanted))
    cube = xr.concat(parts, "band", coords="minimal", compat="override", join="exact")
    return cube.sel(band=list(names)).assign_attrs(units="1", long_name="DN at 10 m")


def _upsample_patch(values: np.ndarray, below: float, right: float, *, factor: int, n: int) -> np.ndarray:
    dn = np.where(values == 0, np.nan, values).astype(np.float32)
    if np.isnan(below) or np.isnan(right):
        return np.full((dn.shape[0], n, n), np.nan, np.float32)
    return dn if factor == 1 else upsample(dn, factor, n, first=(below, right))


def reflectance(dataset: xr.Dataset, names: Sequence[str] = bands.ALL_BANDS) -> xr.DataArray:
    """View patches as surface reflectance at 10 m (0 to about 1; NaN = no data)."""
    return (cube10(dataset, names) * bands.REFLECTANCE_SCALE).assign_attrs(
        units="1", long_name="surface reflectance at 10 m"
    )


def ndvi10(dataset: xr.Dataset) -> xr.DataArray:
    """Compute NDVI at 10 m from B08 and B04 (-1 to 1; NaN = no data)."""
    held = dataset["band10"].values.tolist()
    near_infrared, red = (dataset["dn10"].isel(band10=held.index(name), drop=True) for name in ("B08", "B04"))
    return xr.apply_ufunc(
        bands.ndvi, near_infrared, red, dask="parallelized", output_dtypes=[np.float32]
    ).rename("ndvi")
