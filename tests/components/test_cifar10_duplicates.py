"""Images that are there more than once, counted as a plain loop over all pairs would."""

import io
import itertools

import numpy as np
import pytest
from cifar10_builders import encoded, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from components.cifar10_example_gen import duplicates, images

SPLITS = ["train", "validation", "test"]
PIXELS = random_images(1, 7)[0]
NOTHING = {
    **{f"{split}_examples": 100 for split in SPLITS},
    **{f"{split}_distinct_images": 100 for split in SPLITS},
    "validation_images_in_train": 0,
    "test_images_in_train": 0,
    "test_images_in_validation": 0,
    "test_overlap": 0,
    "conflicting_labels": 0,
}


def digest(file: bytes) -> bytes:
    problems, (found,) = images.check_images([("x", file)])
    assert not problems
    return found


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_with_text() -> bytes:
    text = PngInfo()
    text.add_text("Comment", "saved again")
    return saved(Image.fromarray(PIXELS), "PNG", pnginfo=text)


JPEG = encoded(PIXELS, "JPEG")
WITH_COMMENT = JPEG[:2] + b"\xff\xfe\x00\x06text" + JPEG[2:]  # a segment after the start of the image


@pytest.mark.parametrize(
    ("file", "again"),
    [
        (encoded(PIXELS, "PNG"), png_with_text()),
        (encoded(PIXELS, "PNG"), saved(Image.fromarray(PIXELS), "PNG", compress_level=1)),
        (encoded(PIXELS, "PNG"), saved(Image.fromarray(PIXELS).convert("RGBA"), "PNG")),
        (JPEG, WITH_COMMENT),
        (
            saved(Image.fromarray(PIXELS).convert("P"), "PNG"),
            saved(Image.fromarray(PIXELS).convert("P").convert("RGB"), "PNG"),
        ),
    ],
    ids=["text", "compression", "alpha", "comment", "palette"],
)
def test_a_picture_that_was_saved_again_is_the_same_image(file, again):
    assert file != again
    assert digest(file) == digest(again)


def test_other_pixels_are_another_image():
    sixteen_bits = [saved(Image.fromarray(np.full((4, 4), value, np.uint16)), "PNG") for value in (1_000, 60_000)]
    shapes = [encoded(np.zeros(shape, np.uint8), "PNG") for shape in ((2, 8, 3), (4, 4, 3), (8, 2, 3))]
    qualities = [saved(Image.fromarray(PIXELS), "JPEG", quality=quality) for quality in (75, 95)]
    files = [encoded(PIXELS, "PNG"), *sixteen_bits, *shapes, *qualities]
    assert len(set(map(digest, files))) == len(files)


@given(
    st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 12), st.integers(0, 1)), max_size=30),
    st.integers(1, 2),
)
@settings(deadline=None)
def test_counts_are_those_of_a_plain_loop(records, step):
    splits = SPLITS[::step]  # all, or without validation
    records = [record for record in records if record[0] in splits]
    counts, shown = duplicates.count(sorted(map(entry, records)), splits)
    images_of = {split: {image for s, image, _ in records if s == split} for split in splits}
    number_in = {
        (split, other): sum(s == split and image in images_of[other] for s, image, _ in records)
        for other, split in itertools.combinations(splits, 2)
    }
    learned = set().union(*(images_of[split] for split in splits[:-1]))
    overlap = sum(split == "test" and image in learned for split, image, _ in records)
    assert counts == {
        **{f"{split}_distinct_images": len(found) for split, found in images_of.items()},
        **{f"{split}_images_in_{other}": number for (split, other), number in number_in.items()},
        "test_overlap": overlap,
        "conflicting_labels": len(
            {a[1] for a, b in itertools.product(records, repeat=2) if a[1] == b[1] and a[2] != b[2]}
        ),
    }
    assert len(shown) == min(3, len(images_of["test"] & learned))
    for pair in shown:
        test, other = pair.split(" is also ")
        assert test.startswith("test/")
        assert other.split("/")[0] in splits[:-1]
        assert test.split("-")[1] == other.split("-")[1]


def entry(record):
    split, image, label = record
    return duplicates.entry_of(bytes([image]), label, split, f"{split}/{label}-{image}")


def test_a_name_that_is_not_unicode_is_shown_all_the_same():
    entries = [duplicates.entry_of(b"1", 0, split, f"{split}/\udce9.png") for split in ("test", "train")]
    _, shown = duplicates.count(entries, ["train", "test"])
    assert shown == [r"test/\udce9.png is also train/\udce9.png"]


def test_nothing_is_said_where_every_image_is_there_once_or_nobody_counted():
    assert duplicates.notes(NOTHING) == []
    assert duplicates.notes({"train_examples": 100, "test_examples": 10}) == []
    assert duplicates.overlap_note({"test_examples": 10}) == ""


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"test_overlap": 12}, "12 of 100 test images are also in train or validation"),
        ({"validation_images_in_train": 3}, "3 of 100 validation images are also in train"),
        ({"train_distinct_images": 84}, "16 of 100 train images are copies of others in train"),
        ({"test_distinct_images": 99}, "1 of 100 test images are copies of others in test"),
        ({"conflicting_labels": 1}, "1 different image has more than one label"),
        ({"conflicting_labels": 2}, "2 different images have more than one label"),
    ],
)
def test_what_was_found_is_said(changes, note):
    assert duplicates.notes(NOTHING | changes) == [note]


def test_without_a_validation_split_it_is_not_named():
    properties = {"train_examples": 100, "test_examples": 10, "test_overlap": 1}
    assert duplicates.overlap_note(properties) == "1 of 10 test images are also in train"
