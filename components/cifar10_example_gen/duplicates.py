"""Images that are there more than once, in a split or in several: found by their pixels, counted, and put in words.

A picture that was saved again with other metadata or another lossless compression has the same pixels and is found.
One that was scaled, cropped, turned or made a JPEG again has others and is not. Files of the same bytes are never in
train and in validation, since their digest decides between the two; copies that were saved again can be.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.cifar10_example_gen.runs import Entry
from models import features

DISTINCT_IMAGES = "{split}_distinct_images"
"""Count: different images of a split."""

IMAGES_IN_OTHER = "{split}_images_in_{other}"
"""Count: examples of a split whose image is in another one as well, which comes before it."""

TEST_OVERLAP = "test_overlap"
"""Count: examples of test whose image is in train or validation as well."""

CONFLICTING_LABELS = "conflicting_labels"
"""Count: different images, of all splits, that have more than one label."""

_SPLITS = (features.TRAIN_SPLIT, features.VALIDATION_SPLIT, features.TEST_SPLIT)
_MAX_SHOWN = 3


def entry_of(digest: bytes, label: int, split: str, name: str) -> Entry:
    """Returns what is needed of an image to compare it with all others.

    Args:
        digest: Of its pixels; the first byte is spread evenly.
        label: Index into `models.features.CLASS_NAMES`.
        split: That it goes to.
        name: For messages.
    """
    return Entry(digest, label, f"{split}\n{name}".encode(errors="backslashreplace"))


def count(entries: Iterable[Entry], splits: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Counts images that are there more than once.

    Args:
        entries: From `entry_of`, ordered by digest.
        splits: That there are, in the order train, validation, test.

    Returns:
        The counts above by their names; and, in words, the first few test images that are in another split as well.
    """
    pairs = list(itertools.combinations(splits, 2))
    counts = dict.fromkeys((DISTINCT_IMAGES.format(split=split) for split in splits), 0)
    counts |= dict.fromkeys((IMAGES_IN_OTHER.format(split=split, other=other) for other, split in pairs), 0)
    counts |= {TEST_OVERLAP: 0, CONFLICTING_LABELS: 0}
    shown: list[str] = []
    for _, same in itertools.groupby(entries, key=operator.itemgetter(0)):  # the digest
        copies = [(entry.payload.decode().split("\n", 1), entry.label) for entry in same]
        names = {split: name for (split, name), _ in reversed(copies)}  # of each split's first
        for split in names:
            counts[DISTINCT_IMAGES.format(split=split)] += 1
        if len(copies) == 1:  # nearly all
            continue
        number = Counter(split for (split, _), _ in copies)
        for other, split in pairs:
            if other in names:
                counts[IMAGES_IN_OTHER.format(split=split, other=other)] += number[split]
        counts[CONFLICTING_LABELS] += len({label for _, label in copies}) > 1
        test = names.pop(features.TEST_SPLIT, "")
        if test and names:
            counts[TEST_OVERLAP] += number[features.TEST_SPLIT]
            if len(shown) < _MAX_SHOWN:
                shown.append(f"{test} is also {min(names.values())}")
    return counts, shown


def overlap_note(properties: Mapping[str, Any]) -> str:
    """Says how many test images are in another split as well; nothing where there is none, or nobody counted.

    Args:
        properties: Custom properties of the examples artifact.
    """
    if not properties.get(TEST_OVERLAP):
        return ""
    others = " or ".join(split for split in _SPLITS[:2] if f"{split}_examples" in properties)
    return f"{properties[TEST_OVERLAP]:,} of {properties['test_examples']:,} test images are also in {others}"


def notes(properties: Mapping[str, Any]) -> list[str]:
    """Says all that was found, a line each; none where every image is there once, or nobody counted.

    Args:
        properties: Custom properties of the examples artifact.
    """
    found = [overlap_note(properties)]
    examples = {split: properties.get(f"{split}_examples", 0) for split in _SPLITS}
    leaked = properties.get(IMAGES_IN_OTHER.format(split=features.VALIDATION_SPLIT, other=features.TRAIN_SPLIT))
    if leaked:
        found.append(f"{leaked:,} of {examples[features.VALIDATION_SPLIT]:,} validation images are also in train")
    for split, number in examples.items():
        copies = number - properties.get(DISTINCT_IMAGES.format(split=split), number)
        if copies:
            found.append(f"{copies:,} of {number:,} {split} images are copies of others in {split}")
    if conflicting := properties.get(CONFLICTING_LABELS):
        found.append(f"{conflicting:,} different image{'s have' if conflicting > 1 else ' has'} more than one label")
    return [note for note in found if note]
