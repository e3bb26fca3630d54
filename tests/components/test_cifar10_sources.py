import os

import numpy as np
import pytest
from cifar10_builders import BATCHES, SAMPLE, batch_files, image_files, write_folder, write_tar, write_zip

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import sources
from models import features

LAYOUTS = {"binary": batch_files("binary"), "python": batch_files("python"), "images": image_files()}
CONTAINERS = {"tar.gz": write_tar, "tar": write_tar, "zip": write_zip, "folder": write_folder}


def read(path):
    return [record for part in sources.plan(str(path)) for record in sources.read(part)]


def content(records):
    """What has to be the same for the same data, in whatever it is packed."""
    return sorted(
        (r.split, r.label, r.image if isinstance(r.image, bytes) else np.ascontiguousarray(r.image).tobytes())
        for r in records
    )


@pytest.fixture(params=CONTAINERS)
def write(request, tmp_path):
    return lambda files: CONTAINERS[request.param](tmp_path / f"data.{request.param}", files)


@pytest.mark.parametrize("prefix", ["", "cifar/"], ids=["at the root", "in a folder"])
@pytest.mark.parametrize("layout", ["binary", "python"])
def test_batches_in_every_container(write, layout, prefix):
    records = read(write({prefix + name: data for name, data in LAYOUTS[layout].items()}))
    assert [r.split for r in records].count("train") == 5 * 30
    assert [r.split for r in records].count("test") == 10
    assert {r.source.removeprefix(prefix) for r in records} == set(LAYOUTS[layout])


def test_the_same_images_from_both_official_layouts_and_every_container(tmp_path):
    contents = [
        content(read(write(tmp_path / f"{layout}.{suffix}", LAYOUTS[layout])))
        for layout in ("binary", "python")
        for suffix, write in CONTAINERS.items()
    ]
    assert all(other == contents[0] for other in contents[1:])


def test_images_in_every_container(write):
    records = read(write(LAYOUTS["images"]))
    assert {r.source: (r.split, features.CLASS_NAMES[r.label], r.image) for r in records} == {
        name: (*name.split("/")[:2], data) for name, data in LAYOUTS["images"].items()
    }


def test_images_in_a_folder_of_their_own(write):
    files = {f"my images/{name}": data for name, data in LAYOUTS["images"].items()}
    extras = {"my images/notes.txt": b"", "my images/train/labels.csv": b""}
    assert len(read(write(files | extras))) == len(files)


def test_names_that_are_not_utf8_or_hold_line_breaks(tmp_path):
    names = [os.fsdecode(name) for name in (b"train/cat/caf\xe9.png", b"train/cat/a\nb.png", b"train/cat/sl\\ash.png")]
    files = LAYOUTS["images"] | dict.fromkeys(names, b"image")
    found = [read(write(tmp_path / f"x.{kind}", files)) for kind, write in CONTAINERS.items() if kind != "zip"]
    for records in found:
        assert len(records) == len(files)
        shown = {record.source for record in records if record.image == b"image"}
        assert shown == {r"train/cat/caf\xe9.png", r"train/cat/a\nb.png", r"train/cat/sl\ash.png"}


@pytest.mark.parametrize(
    "name", [b"train/caf\xe9/1.png", b"tr\xe9/cat/1.png", b"train/cat/\xe9.gif", b"a/b/c/d/\xe9.png"]
)
def test_a_refusal_shows_a_name_that_is_not_utf8(tmp_path, name):
    for kind in ("folder", "tar"):
        path = CONTAINERS[kind](tmp_path / f"x.{kind}", {os.fsdecode(name): b"image"})
        with pytest.raises(DataError) as refusal:
            read(path)
        assert r"\xe9" in str(refusal.value)
        assert str(refusal.value).encode()
        assert r"\\xe9" not in str(refusal.value)


def test_links_in_a_folder_are_followed(tmp_path):
    folder = write_folder(tmp_path / "x", LAYOUTS["images"])
    (folder / "train" / "cat").rename(tmp_path / "cats")
    (folder / "train" / "cat").symlink_to(tmp_path / "cats")
    (folder / "train" / "dog" / "link.png").symlink_to(tmp_path / "cats" / "0000.png")
    assert len(read(folder)) == len(LAYOUTS["images"]) + 1


def test_what_is_no_file_in_a_folder(tmp_path):
    folder = write_folder(tmp_path / "x", LAYOUTS["images"])
    (folder / "train" / "cat" / "z.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"train/cat/z\.png: cannot be read \(No such file or directory\)"):
        read(folder)
    (folder / "train" / "cat" / "z.png").unlink()
    os.mkfifo(folder / "train" / "cat" / "z.png")
    with pytest.raises(DataError, match=r"train/cat/z\.png: is a device or a pipe"):
        read(folder)


def test_a_link_to_a_folder_above(tmp_path):
    folder = write_folder(tmp_path / "x", LAYOUTS["images"])
    (folder / "train" / "loop").symlink_to("..")
    with pytest.raises(DataError, match="nested too deep"):
        read(folder)


def test_image_suffixes_in_capitals(write):
    assert {r.label for r in read(write({"train/dog/1.JPG": b"1", "test/cat/2.Png": b"2"}))} == {3, 5}


def test_files_beside_the_data_are_passed_over(write):
    extras = {".DS_Store": b"", "train/.DS_Store": b"", "train/cat/Thumbs.db": b"", "__MACOSX/train/cat/._1.jpg": b""}
    extras |= {"train/cat/Icon\r": b"", "train/cat/@eaDir/1.png/THUMB.jpg": b"", "lost+found/1/2/3/4": b""}
    extras |= {"readme.html": b"", "README.md": b"", ".git/objects/a/b/c": b"", "LICENSE": b""}
    assert len(read(write(LAYOUTS["images"] | extras))) == len(LAYOUTS["images"])


def test_the_official_extras_are_passed_over(write):
    extras = {"x/batches.meta.txt": b"airplane", "x/readme.html": b"", "x/batches.meta": b""}
    files = {f"x/{name}": data for name, data in LAYOUTS["binary"].items()} | extras
    assert len(read(write(files))) == 160


def test_the_bundled_sample():
    records = read(SAMPLE)
    labels = np.array([r.label for r in records])
    is_test = np.array([r.split == "test" for r in records])
    assert is_test.sum() == 1000
    assert (~is_test).sum() == 5000
    # the first labels of data_batch_1 and of test_batch in the official archives
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert labels[is_test][:5].tolist() == [3, 8, 8, 0, 6]
    assert np.bincount(labels[is_test]).tolist() == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
    assert np.bincount(labels).sum() == 6000


def test_a_folder_of_images_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_IMAGES_A_PART", 7)
    folder = write_folder(tmp_path / "x", LAYOUTS["images"])
    parts = sources.plan(str(folder))
    assert [len(part.files) for part in parts] == [7] * 8 + [4]
    assert len({name for part in parts for name in part.files}) == 60


def without(layout, *names):
    return {name: data for name, data in LAYOUTS[layout].items() if name not in names}


BINARY = LAYOUTS["binary"]
IMAGES = LAYOUTS["images"]
REFUSALS = {
    "no test batch": (without("binary", "test_batch.bin"), r"test_batch\.bin missing"),
    "missing batches": (without("python", "data_batch_2", "data_batch_5"), "data_batch_2, data_batch_5 missing"),
    "batch number": (BINARY | {"data_batch_6.bin": b""}, r"data_batch_6\.bin: unknown batch"),
    "second batch": (
        BINARY | {"z/test_batch.bin": BINARY["test_batch.bin"]},
        r"z/test_batch\.bin: a second test_batch beside test_batch\.bin, expected one",
    ),
    "two data sets": (
        {f"{version}/{name}": data for version in ("v1", "v2") for name, data in IMAGES.items()},
        "holds two data sets, in v1/(train|test) and in v2/(train|test), expected one",
    ),
    "a data set beside another's folder": (
        {"copy/train/cat/1.png": b"x"} | IMAGES,
        "holds two data sets, in (copy/)?train and in (copy/)?(train|test), expected one",
    ),
    "two layouts": (IMAGES | {"z": b""} | BINARY, "mixes .* batches.* image|mixes image.* batches"),
    "binary and Python": (
        {"a/data_batch_1.bin": BINARY["data_batch_1.bin"], "b/data_batch_2": LAYOUTS["python"]["data_batch_2"]},
        "mixes CIFAR-10 binary batches and CIFAR-10 Python batches",
    ),
    "unknown class": (
        IMAGES | {"train/zebra/1.png": b"x"},
        r"train/zebra/1\.png: unknown class folder 'zebra', expected one of airplane, automobile, .*, truck",
    ),
    "unknown split": (IMAGES | {"valid/cat/1.png": b"x"}, "unknown split folder 'valid', expected train or test"),
    "no image": (IMAGES | {"train/cat/1.gif": b"x"}, r"train/cat/1\.gif: not a \.png, \.jpg, \.jpeg file"),
    "image at the root": (IMAGES | {"1.png": b"x"}, r"1\.png: expected an image as train/<class>/<file>"),
    "too deep": (IMAGES | {"train/cat/a/b/1.png": b"x"}, r"train/cat/a/b/1\.png: (nested too deep|expected an image)"),
    "no layout": (
        {"a.txt": b"", "b.csv": b""},
        r"no known layout\. Found a\.txt, b\.csv; expected the CIFAR-10 binary batches",
    ),
    "many unknown names": ({f"{n}.txt": b"" for n in range(8)}, r"Found 0\.txt, .*, 4\.txt and 3 more"),
    "only hidden files": ({".hidden": b""}, "Found no file"),
    "truncated batch": (
        BINARY | {"data_batch_3.bin": BINARY["data_batch_3.bin"][:-1]},
        r"data_batch_3\.bin, record 29",
    ),
}


@pytest.mark.parametrize(("files", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(write, files, message):
    path = write(files)
    with pytest.raises(DataError, match=message) as refusal:
        read(path)
    assert isinstance(refusal.value, ValueError)


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.zip: does not exist"):
        sources.plan(str(tmp_path / "nowhere.zip"))


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(BINARY["data_batch_1.bin"])
    with pytest.raises(
        DataError, match=r"not an archive by its name, expected a folder or a name that ends in \.tar\.gz"
    ):
        sources.plan(str(tmp_path / "data_batch_1.bin"))


def test_a_folder_with_the_name_of_an_archive(tmp_path):
    with pytest.raises(DataError, match=r"x\.zip: is a folder with the name of an archive"):
        sources.plan(str(write_folder(tmp_path / "x.zip", IMAGES)))


def test_an_image_in_a_folder_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.archives, "MAX_MEMBER_BYTES", 3)
    folder = write_folder(tmp_path / "x", {"train/cat/1.png": b"1234"})
    with pytest.raises(DataError, match=r"train/cat/1\.png: has 4 bytes, expected at most 3"):
        read(folder)


def test_six_batches_make_an_archive():
    assert set(LAYOUTS["python"]) == set(BATCHES)
