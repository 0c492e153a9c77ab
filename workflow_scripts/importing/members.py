"""Files inside zip and plain tar files, read where they are: the archives together look like one folder.

Both can be read from the middle, so that nothing is unpacked and any job reads the members it needs. Only regular
files are taken: a name that leads out of the folder, a link or a device ends it (`archives.check_name`).
"""

import fnmatch
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from workflow_scripts.importing.archives import DAMAGE, check_kind, check_name, damaged

SUFFIXES = (".zip", ".tar")
"""What can be read from the middle; a compressed tar cannot."""


@dataclass(eq=False)
class Part:
    """One opened archive."""

    path: Path
    names: Iterable[str]
    """Of its files, parts separated by ``/``."""
    read: Callable[[str], bytes]


@dataclass(eq=False)
class Archives:
    """Archives that were one folder when they were packed."""

    parts: list[Part] = field(default_factory=list)
    owner: dict[str, Part] = field(default_factory=dict)
    """File → the archive it is in, of several the first."""
    folders: dict[str, dict[str, bool]] = field(default_factory=lambda: {"": {}})
    """Folder → names in it → whether they are folders."""

    def add(self, part: Part) -> None:
        """List the files of an archive."""
        self.parts.append(part)
        for name in part.names:
            above, _, last = name.rpartition("/")
            self._folder(above)[last] = False
            self.owner.setdefault(name, part)

    def _folder(self, name: str) -> dict[str, bool]:
        if name not in self.folders:
            above, _, last = name.rpartition("/")
            self._folder(above)[last] = True
            self.folders[name] = {}
        return self.folders[name]


@dataclass(frozen=True)
class Member:
    """A file or folder inside archives, with the part of `pathlib.Path` that the formats need."""

    archives: Archives
    inner: str
    """Its name in there, parts separated by ``/``; "" is the top."""

    @property
    def name(self) -> str:
        """Last part of the name."""
        return PurePosixPath(self.inner).name

    @property
    def stem(self) -> str:
        """Last part of the name, without its ending."""
        return PurePosixPath(self.inner).stem

    @property
    def parent(self) -> "Member":
        """The folder above."""
        return Member(self.archives, self.inner.rpartition("/")[0])

    @property
    def parents(self) -> Iterator["Member"]:
        """The folders above, the nearest first."""
        here = self
        while here.inner:
            here = here.parent
            yield here

    def __truediv__(self, name: str) -> "Member":
        return Member(self.archives, PurePosixPath(self.inner, name).as_posix())

    def __str__(self) -> str:
        part = self.archives.owner.get(self.inner, self.archives.parts[0])
        return f"{part.path}/{self.inner}".rstrip("/")

    def is_dir(self) -> bool:
        """Tell whether it is a folder."""
        return self.inner in self.archives.folders

    def exists(self) -> bool:
        """Tell whether it is there."""
        return self.is_dir() or self.name in self.archives.folders.get(self.parent.inner, {})

    def iterdir(self) -> Iterator["Member"]:
        """List what is in a folder, sorted."""
        for name in sorted(self.archives.folders[self.inner]):
            yield self / name

    def glob(self, pattern: str) -> Iterator["Member"]:
        """Find what is right below, part by part of the pattern."""
        first, _, rest = pattern.partition("/")
        names = self.archives.folders.get(self.inner, {})
        is_plain = not set("*?[") & set(first)
        found = [first] if is_plain and first in names else [] if is_plain else fnmatch.filter(names, first)
        for name in sorted(found):
            if not rest:
                yield self / name
            elif names[name]:
                yield from (self / name).glob(rest)

    def is_relative_to(self, other: object) -> bool:
        """Tell whether it lies in a folder of the same archives."""
        is_same = isinstance(other, Member) and other.archives is self.archives
        return is_same and PurePosixPath(self.inner).is_relative_to(other.inner)

    def relative_to(self, other: "Member") -> str:
        """Give its name as seen from a folder."""
        return PurePosixPath(self.inner).relative_to(other.inner).as_posix()

    def open(self) -> io.BytesIO:
        """Read a file into memory.

        Raises
        ------
        FileNotFoundError, ValueError
            If it is not there; if it is damaged, or the archive ends within it.
        """
        part = self.archives.owner.get(self.inner)
        if part is None:
            raise FileNotFoundError(f"no file {self}")
        try:
            return io.BytesIO(part.read(self.inner))
        except DAMAGE as error:
            raise damaged(part.path, f"at {self.inner!r}", error) from None

    def read_text(self) -> str:
        """Read a text file."""
        return self.open().read().decode()


def is_readable(path: Path) -> bool:
    """Tell by its name whether an archive can be read where it is."""
    return path.name.lower().endswith(SUFFIXES)


def open_archives(paths: Iterable[Path]) -> Member:
    """Give the top folder of zip and plain tar files, as if they were unpacked into one.

    Raises
    ------
    ValueError
        If one is truncated, damaged or encrypted, or has a member that is no file of a folder.
    """
    archives = Archives()
    for path in paths:
        try:
            archives.add(_open_zip(path) if path.name.lower().endswith(".zip") else _open_tar(path))
        except DAMAGE as error:
            raise damaged(path, "in its list of members", error) from None
    return Member(archives, "")


def _open_zip(path: Path) -> Part:
    opened = zipfile.ZipFile(path)
    members = {}
    for member in opened.infolist():
        kind = member.external_attr >> 28  # Unix file type; 0 where another system made the archive
        check_kind(path, member.filename, is_file=kind in (0, 0o10, 0o4))
        if member.flag_bits & 1:
            raise ValueError(f"archive {str(path)!r} is encrypted; unpack it yourself")
        if not member.is_dir():
            members[check_name(path, member.filename)] = member
    return Part(path, members, lambda name: opened.read(members[name]))


def _open_tar(path: Path) -> Part:
    members: dict[str, tuple[int, int]] = {}
    end = 0
    with tarfile.open(path, "r:") as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # else all of them are kept twice
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if member.isdir():
                end = member.offset_data
                continue
            check_kind(path, member.name, is_file=member.isreg() and not member.issparse())
            members[check_name(path, member.name)] = (member.offset_data, member.size)

    def content_at(first: int, size: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(first)
            return file.read(size)

    # tarfile takes a file that ends between two members for a whole one
    if content_at(end, 2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
        raise EOFError("the end mark of the tar file is missing")

    def read(name: str) -> bytes:
        first, size = members[name]
        content = content_at(first, size)
        if len(content) != size:
            raise EOFError(f"{len(content)} of {size} bytes")
        return content

    return Part(path, members, read)
