"""Unpacking: whole, again, truncated, and what tries to leave the folder."""

import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from workflow_scripts.importing.archives import is_archive, unpack

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


KINDS = ["x.zip", "x.tar", "x.tar.gz", "x.tar.zst"]


@pytest.mark.parametrize("name", KINDS)
def test_unpacks_and_keeps_what_is_there(tmp_path, files, name):
    archive = pack(tmp_path / name, files)
    assert is_archive(archive)
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


def test_a_tar_that_ends_between_two_members_is_truncated(tmp_path, files):
    archive = pack(tmp_path / "x.tar", files)
    os.truncate(archive, 512 + -(-FILES["set/a.bin"] // 512) * 512)
    with pytest.raises(ValueError, match="end mark of the tar file is missing"):
        unpack(archive, tmp_path / "out")


def test_damaged_bytes_of_a_zip_are_noticed(tmp_path, files):
    archive = pack(tmp_path / "x.zip", files)
    content = bytearray(archive.read_bytes())
    content[100_000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_no_member_leaves_the_folder(tmp_path, kind, name):
    archive = pack(tmp_path / f"x.{kind}", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpack(archive, tmp_path / "in" / "out")
    assert set(tree(tmp_path)) == {f"x.{kind}", "in/out/good"}


def test_links_are_refused_and_none_that_is_there_is_followed(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(tmp_path / "x.tar", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc")
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/set").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpack(pack(tmp_path / "y.zip", {"set/a": b"1"}), tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()
