"""Archives unpacked, or read where they are: whole, again, truncated, and what tries to leave the folder."""

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from workflow_scripts.importing.archives import unpack
from workflow_scripts.importing.members import open_archives

FILES = {"set/a.bin": 200_000, "set/deep/b.bin": 70_000, "set/empty.txt": 0}


@pytest.fixture
def files():
    rng = np.random.default_rng(0)
    return {name: rng.integers(1, 255, size).astype(np.uint8).tobytes() for name, size in FILES.items()}


def pack(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content = plain.getvalue()
    if path.suffix == ".zst":
        content = pa.compress(content, "zstd", asbytes=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


KINDS = ["x.tar.gz", "x.tar.zst"]
IN_PLACE = ["x.zip", "x.tar"]


@pytest.mark.parametrize("name", KINDS)
def test_unpacks_and_keeps_what_is_there(tmp_path, files, name):
    archive = pack(tmp_path / name, files)
    assert unpack(archive, tmp_path / "out") == 3
    assert tree(tmp_path / "out") == files
    kept = tmp_path / "out/set/a.bin"
    kept.write_bytes(b"x" * FILES["set/a.bin"])  # of the right size: not written again
    (tmp_path / "out/set/deep/b.bin").write_bytes(b"half")
    unpack(archive, tmp_path / "out")
    assert kept.read_bytes()[:1] == b"x"
    assert tree(tmp_path / "out")["set/deep/b.bin"] == files["set/deep/b.bin"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.4, 0.75])
def test_a_truncated_archive_is_named_and_leaves_no_half_file(tmp_path, files, name, share):
    archive = pack(tmp_path / name, files)
    os.truncate(archive, int(archive.stat().st_size * share))
    with pytest.raises(ValueError, match=r"is truncated or damaged after .* Download it again"):
        unpack(archive, tmp_path / "out")
    for path, content in tree(tmp_path / "out").items():
        assert content == files[path]


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_archive_read_where_it_is_looks_like_a_folder(tmp_path, files, name):
    """All that the formats ask of a folder, against the same files on disk."""
    top = open_archives([pack(tmp_path / name, files)])
    disk = tmp_path / "disk"
    for key, content in files.items():
        (disk / key).parent.mkdir(parents=True, exist_ok=True)
        (disk / key).write_bytes(content)
    for key, content in files.items():
        assert (top / key).exists() and (top / key).open().read() == content
        assert (top / key).name == (disk / key).name and (top / key).stem == (disk / key).stem
        assert [str(p.relative_to(top)) for p in (top / key).parents] == [
            str(p.relative_to(disk)) for p in (disk / key).parents if p.is_relative_to(disk)
        ]
    for pattern in ("set", "*", "set/*", "*/deep", "*/*/b.bin", "set/*.bin", "*/a*", "none/*", "set/a.bin/*"):
        expected = sorted(str(p.relative_to(disk)) for p in disk.glob(pattern))
        assert [p.relative_to(top) for p in top.glob(pattern)] == expected, pattern
    assert [p.name for p in (top / "set").iterdir()] == ["a.bin", "deep", "empty.txt"]
    assert (top / "set").is_dir() and not (top / "set/a.bin").is_dir() and not (top / "other").exists()
    assert str(top / "set/a.bin").endswith(f"{name}/set/a.bin")
    with pytest.raises(FileNotFoundError, match=r"no file .*set/none"):
        (top / "set/none").open()


def test_several_archives_are_one_folder(tmp_path, files):
    """What was packed in parts comes together; of a file in two archives the first counts."""
    parts = [
        pack(tmp_path / "a.zip", {"set/a": b"1", "x": b"1"}),
        pack(tmp_path / "b.tar", {"set/b": b"2", "x": b"2"}),
    ]
    top = open_archives(parts)
    assert [p.name for p in (top / "set").iterdir()] == ["a", "b"]
    assert [(top / name).open().read() for name in ("set/a", "set/b", "x")] == [b"1", b"2", b"1"]
    assert str(top / "set/b").endswith("b.tar/set/b")


@pytest.mark.parametrize("name", IN_PLACE)
def test_the_list_of_members_is_small(tmp_path, name):
    """What the docs say of memory: about 1 kB each."""
    names = [f"SatelliteImages/rgb/{i % 10:02d}/{i // 10 % 100:02d}/{i:07d}.jpeg" for i in range(3000)]
    archive = pack(tmp_path / name, dict.fromkeys(names, b""))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    top = open_archives([archive])
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert top.exists() and used < 1300 * len(names)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("share", [0.4, 0.75, 0.999])
def test_a_truncated_archive_is_refused_before_anything_is_read(tmp_path, files, name, share):
    archive = pack(tmp_path / name, files)
    os.truncate(archive, int(archive.stat().st_size * share) - (name == "x.tar") * 10_000)
    with pytest.raises(ValueError, match=r"is truncated or damaged .* Download it again"):
        open_archives([archive])


def test_a_tar_that_ends_between_two_members_is_truncated(tmp_path, files):
    archive = pack(tmp_path / "x.tar", files)
    os.truncate(archive, 512 + -(-FILES["set/a.bin"] // 512) * 512)
    with pytest.raises(ValueError, match="end mark of the tar file is missing"):
        open_archives([archive])
    content = gzip.compress(archive.read_bytes())
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match="end mark of the tar file is missing"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")


def test_damaged_bytes_of_a_zip_are_noticed(tmp_path, files):
    archive = pack(tmp_path / "x.zip", files)
    content = bytearray(archive.read_bytes())
    content[100_000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"truncated or damaged at 'set/a\.bin'"):
        (open_archives([archive]) / "set/a.bin").open()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_no_member_leaves_the_folder(tmp_path, kind, name):
    archive = pack(tmp_path / f"x.{kind}", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpack(archive, tmp_path / "in" / "out") if kind == "tar.gz" else open_archives([archive])
    assert set(tree(tmp_path)) == {f"x.{kind}"} | ({"in/out/good"} if kind == "tar.gz" else set())


def test_links_are_refused_and_none_that_is_there_is_followed(tmp_path):
    for name in ("x.tar", "x.tar.gz"):
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc")
    for name in ("x.tar", "x.zip"):
        with pytest.raises(ValueError, match="is a link or a device"):
            open_archives([tmp_path / name])
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/set").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpack(pack(tmp_path / "y.tar.gz", {"set/a": b"1"}), tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()
