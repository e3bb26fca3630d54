import contextlib
import gzip
import io
import os
import random
import struct
import subprocess
import tarfile
import zipfile

import pytest
from cifar10_builders import write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import archives

FILES = {
    "a/one.bin": b"first",
    "a/two.bin": b"",
    "note.txt": b"not wanted",
    "three.bin": random.Random(0).randbytes(9999),
}
WANTED = {name: data for name, data in FILES.items() if name.endswith(".bin")}


def members(path, **limits):
    with path.open("rb") as file:
        return dict(archives.iter_members(path.name, file, lambda name: name.endswith(".bin"), **limits))


def write(path, files=FILES):
    return write_zip(path, files) if path.suffix == ".zip" else write_tar(path, files)


@pytest.fixture(params=["a.tar", "a.tar.gz", "a.tgz", "a.zip"])
def archive(request, tmp_path):
    return write(tmp_path / request.param)


def test_wanted_members_are_read(archive):
    assert members(archive) == WANTED
    assert archives.is_archive(str(archive))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_folders_in_an_archive_are_passed_over_and_a_leading_dot_is_dropped(tmp_path, kind):
    folder = tarfile.TarInfo("./a")
    folder.type = tarfile.DIRTYPE
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        write_zip(path, {"./a/": b"", "./a/x.bin": b"data"})
    else:
        write_tar(path, {"./a/x.bin": b"data"}, folder)
    assert members(path) == {"a/x.bin": b"data"}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    "name",
    ["../x.bin", "a/../../x.bin", "/etc/x.bin", "a\\..\\x.bin", "..\\x.bin", "\\x.bin", "C:/x.bin", "C:\\x.bin"],
)
def test_a_name_that_leads_out_of_the_archive(tmp_path, kind, name):
    path = write(tmp_path / f"x.{kind}", {"good.bin": b"", name: b"data"})
    with pytest.raises(DataError, match=rf"x\.{kind}, member .*: its path leads out of the archive"):
        members(path)


@pytest.mark.parametrize("system", [0, 3, 10], ids=["MS-DOS", "Unix", "NTFS"])
def test_backslashes_in_a_zip_are_read_as_slashes(tmp_path, system):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for name in ("a\\", "a\\one.bin", "b/two\\two.bin", "ж\\three.bin", ".\\four.bin"):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            zipped.writestr(info, b"" if name == "a\\" else b"data")
    assert members(path) == dict.fromkeys(["a/one.bin", "b/two/two.bin", "ж/three.bin", "four.bin"], b"data")


def test_a_backslash_that_is_half_a_character_is_none(tmp_path):
    name = "train/cat/表.bin".encode("shift_jis")
    assert b"\\" in name
    stand_in = "x" * len(name)
    path = write_zip(tmp_path / "x.zip", {stand_in: b"data"})
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name))
    with path.open("rb") as file:
        (member,) = archives.iter_members("x.zip", file, lambda _: True)
    assert member == (name.decode("cp437"), b"data")
    assert member.name.count("/") == 2


def test_a_backslash_in_a_tar_is_a_character(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a/b\\c.bin": b"data"})
    assert members(path) == {"a/b\\c.bin": b"data"}


def test_names_that_become_the_same_with_slashes(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a/x.bin": b"1", "a\\x.bin": b"2"})
    with pytest.raises(DataError, match=r"member 'a/x\.bin': is there twice"):
        members(path)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_in_a_tar_that_are_not_utf8(tmp_path, tar_format):
    names = [b"caf\xe9.bin".decode("utf-8", "surrogateescape"), "é/" + "n" * 90 + ".bin"]
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tar_format, encoding="utf-8") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert members(path) == dict.fromkeys(names, b"")


def zip_with_raw_name(path, name, *, is_utf8=False):
    """A zip of one member with these bytes as its name."""
    stand_in = ("é" if is_utf8 else "x") + "x" * (len(name) - 1 - is_utf8)  # zipfile marks what is not ASCII as UTF-8
    write_zip(path, {stand_in: b"data"})
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name))
    return path


def test_names_in_a_zip_of_the_nineties(tmp_path):
    path = zip_with_raw_name(tmp_path / "x.zip", "café.bin".encode("cp437"))
    assert members(path) == {"café.bin": b"data"}


def test_a_name_in_a_zip_that_is_not_the_utf8_that_it_says(tmp_path):
    path = zip_with_raw_name(tmp_path / "x.zip", b"caf\xe9.bin", is_utf8=True)
    with pytest.raises(DataError, match=r"x\.zip, member 'caf\\xe9\.bin': its name is marked as UTF-8 and is not"):
        members(path)


def test_messages_show_every_name_on_one_line(tmp_path):
    for kind, name in [("tar", b"../caf\xe9.bin"), ("tar", b"../a\nb.bin"), ("zip", b"../caf\xe9.bin")]:
        if kind == "zip":
            path = zip_with_raw_name(tmp_path / "x.zip", name)
        else:
            path = write_tar(tmp_path / "x.tar", {name.decode("utf-8", "surrogateescape"): b""})
        with pytest.raises(DataError, match="its path leads out") as refusal:
            members(path)
        assert str(refusal.value).encode().splitlines() == [str(refusal.value).encode()]


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symbolic link", "hard link", "character device", "block device", "pipe"],
)
def test_links_and_devices_in_a_tar(tmp_path, kind):
    info = tarfile.TarInfo("sly.bin")
    info.type = kind
    info.linkname = "/etc/passwd"
    path = write_tar(tmp_path / "x.tar.gz", {"good.bin": b""}, info)
    with pytest.raises(DataError, match=r"x\.tar\.gz, member 'sly\.bin': is a link or a device"):
        members(path)


def test_the_advice_on_links_in_a_tar_works(tmp_path):
    (tmp_path / "one.bin").write_bytes(b"data")
    os.link(tmp_path / "one.bin", tmp_path / "two.bin")
    (tmp_path / "three.bin").symlink_to("one.bin")
    pack = ["tar", "cf", "x.tar", "one.bin", "two.bin", "three.bin"]
    subprocess.run(pack, cwd=tmp_path, check=True)
    with pytest.raises(DataError, match=r"link .* --dereference --hard-dereference"):
        members(tmp_path / "x.tar")
    subprocess.run([*pack, "--dereference", "--hard-dereference"], cwd=tmp_path, check=True)
    assert members(tmp_path / "x.tar") == dict.fromkeys(["one.bin", "two.bin", "three.bin"], b"data")


def test_links_in_a_zip(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"good.bin": b""}, link="sly.bin")
    with pytest.raises(DataError, match=r"x\.zip, member 'sly\.bin': is a link or a device"):
        members(path)


def test_an_encrypted_zip(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"good.bin": b"data"})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # general purpose flags in the central directory
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"member 'good\.bin': is encrypted"):
        members(path)


def test_a_member_without_a_name(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"x": b""})
    path.write_bytes(path.read_bytes().replace(b"x", b"\x00"))  # zipfile ends names at a null byte
    with pytest.raises(DataError, match=r"x\.zip: has a member without a name"):
        members(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_is_there_twice(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("x.bin", b"1")
            zipped.writestr("./x.bin", b"2")
    else:
        write_tar(path, {"x.bin": b"1", "./x.bin": b"2"})
    with pytest.raises(DataError, match=r"x\.bin'?: is there twice"):
        members(path)


def test_a_member_larger_than_the_limit(archive):
    with pytest.raises(DataError, match=r"member 'three\.bin': decompresses to 9999 bytes, expected at most 9998"):
        members(archive, max_member_bytes=9998)


def test_an_archive_larger_than_the_limit(archive):
    total = sum(map(len, FILES.values()))
    with pytest.raises(DataError, match="decompresses to more than"):
        members(archive, max_total_bytes=total - 1)


def test_a_decompression_bomb_is_stopped_although_no_wanted_file_is_in_it(tmp_path):
    bomb = tarfile.TarInfo("zeros.txt")
    bomb.size = 2**28
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(bomb.tobuf())
        for _ in range(16):
            file.write(bytes(2**24))
    assert path.stat().st_size < 2**21
    with pytest.raises(DataError, match=r"member 'zeros\.txt': decompresses to 268435456 bytes"):
        members(path)


def test_a_tar_header_that_claims_to_be_huge(tmp_path):
    header = tarfile.TarInfo("x.bin")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 2**40
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    with pytest.raises(DataError, match="has a header of 1099511627776 bytes"):
        members(path)


def test_a_zip_that_lies_about_a_size_is_not_decompressed_beyond_it(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"x.bin": bytes(2**20)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 100)  # uncompressed size in the central directory
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip: damaged"):
        members(path)


@pytest.mark.parametrize("kept_bytes", [100, 5000, 9000])
def test_a_truncated_archive(archive, kept_bytes):
    archive.write_bytes(archive.read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match=archive.name):
        members(archive)


def test_a_tar_that_ends_between_two_members(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"x.bin": bytes(512), "y.bin": b"y"})
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(DataError, match="no end mark at byte 1024"):
        members(path)


def test_a_tar_with_a_damaged_header_in_its_middle(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"x.bin": bytes(512), "y.bin": b"y"})
    data = bytearray(path.read_bytes())
    data[1024 + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="no end mark at byte 1024"):
        members(path)


def test_a_zip_with_a_wrong_checksum(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"x.bin": random.Random(1).randbytes(1000)})
    data = bytearray(path.read_bytes())
    data[500] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip: damaged"):
        members(path)


@pytest.mark.parametrize("content", [b"", b"x", b"<html>not found</html>" * 100])
def test_no_archive_at_all(tmp_path, content):
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"neither a tar, a tar\.gz nor a zip"):
        members(path)


@pytest.mark.parametrize("name", ["cifar-10-batches-bin", "images", "gs://bucket/folder", "data.bin", "zip"])
def test_names_that_are_no_archive(name):
    assert not archives.is_archive(name)


def read_all(data):
    return list(archives.iter_members("x", io.BytesIO(data), lambda _: True, max_member_bytes=2**20))


@settings(max_examples=200)
@given(magic=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08"]), data=st.binary(max_size=1500))
def test_arbitrary_bytes_are_read_or_refused(magic, data):
    with contextlib.suppress(DataError):
        assert all(isinstance(member.data, bytes) for member in read_all(magic + data))


@settings(max_examples=400)
@given(
    kind=st.sampled_from(["x.tar", "x.tar.gz", "x.zip"]),
    position=st.integers(0, 3000),
    replacement=st.binary(min_size=1, max_size=12),
)
def test_damaged_archives_are_read_or_refused(tmp_path_factory, kind, position, replacement):
    path = tmp_path_factory.getbasetemp() / kind
    if not path.exists():
        write(path, {"a/one.bin": b"first" * 20, "long/" + "n" * 200: b"x", "two.bin": b"second"})
    data = path.read_bytes()
    position %= len(data)
    damaged = data[:position] + replacement + data[position + len(replacement) :]
    with contextlib.suppress(DataError):
        assert all(len(member.data) <= 2**20 for member in read_all(damaged))
