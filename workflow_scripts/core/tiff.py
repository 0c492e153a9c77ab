"""Headers and blocks of tiled GeoTIFFs, as far as Sentinel-2 scenes use the format.

Little-endian TIFF and BigTIFF, one band of uint8 or uint16 in tiles, deflate or uncompressed, with
or without horizontal differencing, north up, with an EPSG code. Anything else raises
`UnsupportedError`: GDAL reads it.

References
----------
TIFF 6.0 and its technical note 3 on deflate; BigTIFF; OGC GeoTIFF 1.1 (19-008r4).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import imagecodecs
import numpy as np

from workflow_scripts.core.windows import Raster

HEAD_BYTES = 32_768
"""Bytes read at once: the first directory of a tile of 10,980 pixels, with its block addresses."""

_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 12: "d", 16: "Q"}
"""TIFF field type → struct code, those that the tags below use."""

_TAGS = {
    254: "subfile_type",
    256: "width",
    257: "height",
    258: "bits",
    259: "compression",
    266: "fill_order",
    277: "samples",
    317: "predictor",
    322: "block_width",
    323: "block_height",
    324: "offsets",
    325: "sizes",
    339: "sample_format",
    33550: "pixel_scale",
    33922: "tie_point",
    34264: "matrix",
    34735: "geo_keys",
    42113: "nodata",
}
_UNCOMPRESSED, _DEFLATE = 1, (8, 32946)
_RASTER_TYPE_KEY, _PROJECTED_CRS_KEY = 1025, 3072
_USER_DEFINED = 32767
_MAX_TAG_BYTES = 1 << 26


class UnsupportedError(ValueError):
    """The file is of a kind that is left to GDAL."""


class DamagedError(ValueError):
    """The bytes of a block are not what they should be."""


@dataclass(frozen=True)
class Tiff:
    """What is known of a file once its header was read."""

    raster: Raster
    block_width: int
    block_height: int
    compression: int
    predictor: int
    fill: int
    """Value of the pixels of blocks that are not there."""
    offsets: np.ndarray = field(repr=False)
    """First byte of each block, by row, then column; 0 for a block that is not there."""
    sizes: np.ndarray = field(repr=False)
    """Bytes of each block."""

    @property
    def n_across(self) -> int:
        """Blocks in a row."""
        return -(-self.raster.width // self.block_width)

    def corner(self, block: int) -> tuple[int, int]:
        """Give row and column of the first pixel of a block."""
        row, column = divmod(block, self.n_across)
        return row * self.block_height, column * self.block_width

    def blocks(self, rows: tuple[int, int], columns: tuple[int, int]) -> list[int]:
        """List the blocks that hold some rows and columns."""
        first, last = rows[0] // self.block_height, (rows[1] - 1) // self.block_height
        left, right = columns[0] // self.block_width, (columns[1] - 1) // self.block_width
        return [
            row * self.n_across + column
            for row in range(first, last + 1)
            for column in range(left, right + 1)
        ]


def read_tiff(fetch: Callable[[int, int], bytes]) -> Tiff:
    """Read the header of a file.

    Parameters
    ----------
    fetch : gives the bytes from one position up to another, fewer at the end of the file

    Raises
    ------
    UnsupportedError
        If the file is of another kind, or no TIFF at all.
    """
    head = fetch(0, HEAD_BYTES)

    def at(position: int, n: int) -> bytes:
        if position + n <= len(head):
            return head[position : position + n]
        content = fetch(position, position + n) if 0 < n <= _MAX_TAG_BYTES else b""
        if len(content) != n:
            raise UnsupportedError("its header is cut off")
        return content

    try:
        return _tiff(_read_tags(at))
    except (struct.error, KeyError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise UnsupportedError(f"its header cannot be read ({error!r})") from None


def _read_tags(at: Callable[[int, int], bytes]) -> dict[str, Sequence]:
    """Read the first directory: tag name → values."""
    start = at(0, 16)
    if start[:4] == b"II*\0":
        position, count_form, entry_form, inline = struct.unpack("<I", start[4:8])[0], "<H", "<HHI4s", 4
    elif start[:8] == b"II+\0\x08\0\0\0":
        position, count_form, entry_form, inline = struct.unpack("<Q", start[8:16])[0], "<Q", "<HHQ8s", 8
    else:
        raise UnsupportedError("it is not a little-endian TIFF")
    (n_entries,) = struct.unpack(count_form, at(position, struct.calcsize(count_form)))
    entry_size = struct.calcsize(entry_form)
    directory = at(position + struct.calcsize(count_form), n_entries * entry_size)
    tags: dict[str, Sequence] = {}
    for tag, kind, count, value in struct.iter_unpack(entry_form, directory):
        if tag not in _TAGS:
            continue
        if kind not in _TYPES:
            raise UnsupportedError(f"its tag {tag} has type {kind}")
        n_bytes = count * struct.calcsize(_TYPES[kind])
        raw = value[:n_bytes] if n_bytes <= inline else at(int.from_bytes(value, "little"), n_bytes)
        tags[_TAGS[tag]] = raw if kind == 2 else np.frombuffer(raw, f"<{_TYPES[kind]}" if kind != 1 else "u1")
    return tags


def _tiff(tags: dict[str, Sequence]) -> Tiff:
    def one(name: str, default: int | None = None) -> int:
        return int(tags[name][0]) if name in tags or default is None else default

    if "block_width" not in tags or "matrix" in tags or "pixel_scale" not in tags:
        raise UnsupportedError("it is not in tiles, or not north up")
    bits, kind, predictor, compression = (
        one("bits", 1),
        one("sample_format", 1),
        one("predictor", 1),
        one("compression", 1),
    )
    common = one("samples", 1) == 1 and one("fill_order", 1) == 1 and one("subfile_type", 0) == 0
    known = compression == _UNCOMPRESSED or compression in _DEFLATE
    if not (common and known and bits in (8, 16) and kind == 1 and predictor in (1, 2)):
        raise UnsupportedError(
            f"its pixels are stored in another way ({bits} bits, compression {compression}, predictor {predictor})"
        )
    epsg = _epsg(tags["geo_keys"])
    scale, tie = tags["pixel_scale"], tags["tie_point"]
    if len(tie) != 6:
        raise UnsupportedError("it has several tie points")
    raster = Raster(
        one("width"),
        one("height"),
        float(tie[3] - tie[0] * scale[0]),
        float(tie[4] + tie[1] * scale[1]),
        float(scale[0]),
        float(scale[1]),
        epsg,
        f"uint{bits}",
    )
    fill = float(tags["nodata"].strip(b"\0 ")) if "nodata" in tags else 0.0
    if not (fill.is_integer() and 0 <= fill < 2**bits):
        fill = 0.0
    tiff = Tiff(
        raster,
        one("block_width"),
        one("block_height"),
        compression,
        predictor,
        int(fill),
        tags["offsets"].astype(np.int64),
        tags["sizes"].astype(np.int64),
    )
    n_blocks = tiff.n_across * -(-raster.height // tiff.block_height)
    if not len(tiff.offsets) == len(tiff.sizes) == n_blocks or (tiff.offsets < 0).any():
        raise UnsupportedError(f"it lists {len(tiff.offsets)} blocks, expected {n_blocks}")
    largest = 2 * tiff.block_width * tiff.block_height * bits // 8 + 1024
    if not ((tiff.sizes >= 0) & (tiff.sizes <= largest)).all():
        raise UnsupportedError("its blocks are larger than their pixels")
    return tiff


def _epsg(keys: Sequence) -> int:
    """Give the EPSG code of a GeoKeyDirectory: rows of key, location, count, value."""
    entries = {
        int(key): int(value) for key, location, _, value in np.reshape(keys, (-1, 4))[1:] if location == 0
    }
    epsg = entries.get(_PROJECTED_CRS_KEY, 0)
    if entries.get(_RASTER_TYPE_KEY, 1) != 1 or epsg in (0, _USER_DEFINED):
        raise UnsupportedError("its CRS has no EPSG code, or its coordinates are those of pixel centers")
    return epsg


def decode_block(
    tiff: Tiff, data: bytes | memoryview, *, rows: tuple[int, int], last_column: int, buffer: np.ndarray
) -> np.ndarray:
    """Decode some rows of a block.

    Parameters
    ----------
    tiff : the file's header
    data : the block's bytes
    rows : first row within the block, and the one after the last
    last_column : columns wanted, from the block's first
    buffer : bytes to decode into, of any number; made larger where a block needs more

    Returns
    -------
    array (rows, columns) of the file's type; valid until the buffer is used again

    Raises
    ------
    DamagedError
        If the bytes do not decode to a whole block; deflate's checksum is verified.
    """
    dtype = np.dtype(tiff.raster.dtype)
    n_bytes = tiff.block_height * tiff.block_width * dtype.itemsize
    if len(buffer) < n_bytes:
        buffer.resize(n_bytes, refcheck=False)
    if tiff.compression == _UNCOMPRESSED:
        decoded = np.frombuffer(data, np.uint8)
    else:
        try:
            decoded = imagecodecs.deflate_decode(data, out=buffer[:n_bytes])
        except imagecodecs.DeflateError as error:
            raise DamagedError(f"a block cannot be decoded ({error})") from None
    if len(decoded) != n_bytes:
        raise DamagedError(f"a block has {len(decoded)} bytes, expected {n_bytes}")
    values = decoded.view(dtype).reshape(tiff.block_height, tiff.block_width)[slice(*rows), :last_column]
    return values if tiff.predictor == 1 else imagecodecs.delta_decode(values, axis=1)
