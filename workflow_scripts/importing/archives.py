"""Unpack compressed tar archives: member by member, nothing outside the folder, resumable.

A compressed tar can only be read from its beginning; zip and plain tar files are read where they are (`members`).

Only regular files are taken. A member whose name leads out of the folder, a link or a device ends the
unpacking before it is written. What is there with its full size is not written again, so a broken run
goes on where it stopped; nothing of an archive is ever executed or unpickled.
"""

import bz2
import gzip
import logging
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
DAMAGE = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    OSError,
)


def damaged(archive: Path, where: str, error: Exception, *, more: str = "") -> Exception:
    """Give the error of an archive that cannot be read on; one of the system, such as a full disk, as it is."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return ValueError(
        f"archive {str(archive)!r} is truncated or damaged {where} ({error}). Download it again{more}."
    )


def unpack(archive: Path, folder: Path) -> int:
    """Unpack an archive.

    Parameters
    ----------
    archive : tar file compressed by gzip, bzip2, xz or Zstandard
    folder : where its files go

    Returns
    -------
    number of its files

    Raises
    ------
    ValueError
        If a member's name leads out of the folder, if a member is a link or a device, or if the
        archive is truncated or damaged. What was unpacked before stays.
    """
    n_files, n_kept, last = 0, 0, "its beginning"
    try:
        for name, size, source in _members(archive):
            target = _inside(folder, name, archive)
            n_files += 1
            if target.is_file() and target.stat().st_size == size:
                n_kept += 1
                continue
            with source() as content:
                _write(content, target, size)
            last = repr(name)
    except DAMAGE as error:
        kept = f"; the {n_files} files before are kept in {str(folder)!r}"
        raise damaged(archive, f"after {last}", error, more=kept) from None
    logger.info("%s: %d files, of which %d were there before", archive, n_files, n_kept)
    return n_files


def check_name(archive: Path, name: str) -> str:
    """Give a member's name without empty parts; refuse one that leads out of the folder."""
    parts = PurePosixPath(name).parts
    is_unsafe = (
        name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or ":" in (parts or ("",))[0]
    )
    if is_unsafe or not parts:
        raise _leads_out(archive, name)
    return "/".join(parts)


def check_kind(archive: Path, name: str, *, is_file: bool) -> None:
    """Refuse a member that is neither a file nor a folder."""
    if not is_file:
        raise ValueError(
            f"archive {str(archive)!r}: member {name!r} is a link or a device. This is not the published archive."
        )


def _leads_out(archive: Path, name: str) -> ValueError:
    return ValueError(
        f"archive {str(archive)!r}: member {name!r} leads out of the folder, so it is not read. This is not the "
        "published archive."
    )


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """Give the place of a member; refuse a name that leads elsewhere."""
    target = folder / check_name(archive, name)
    if not target.resolve().is_relative_to(folder.resolve()):
        raise _leads_out(archive, name)
    return target


def _write(content: IO[bytes], target: Path, size: int) -> None:
    """Write a member beside its place and move it there when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with open(part, "wb") as file:
            shutil.copyfileobj(content, file, _BLOCK_BYTES)
            n_bytes = file.tell()
        if n_bytes != size:
            raise EOFError(f"{target.name} has {n_bytes} of {size} bytes")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _members(archive: Path) -> Iterator[tuple]:
    with _decompressed(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as opened:
        for member in opened:
            if member.isdir():
                continue
            check_kind(archive, member.name, is_file=member.isreg())
            yield member.name, member.size, lambda member=member: opened.extractfile(member)
        while stream.read(_BLOCK_BYTES):
            pass
        # tarfile takes a file that ends between two members for a whole one
        if stream.n_trailing_zeros < 2 * tarfile.BLOCKSIZE:
            raise EOFError("the end mark of the tar file is missing")


class _Stream:
    """A file read forward only, that knows how many zeros ended what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.n_trailing_zeros = 0

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        zeros = len(block) - len(block.rstrip(b"\0"))
        self.n_trailing_zeros = zeros + (self.n_trailing_zeros if zeros == len(block) else 0)
        return block


@contextmanager
def _decompressed(archive: Path) -> Iterator[_Stream]:
    """Open a tar file as a stream of its bytes."""
    name = str(archive).lower()
    openers = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if name.endswith(".zst"):
        with pa.CompressedInputStream(str(archive), "zstd") as file:
            yield _Stream(file)
        return
    with openers[Path(name).suffix](archive, "rb") as file:
        yield _Stream(file)
