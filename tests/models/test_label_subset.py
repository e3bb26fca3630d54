import collections

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models import label_subset
from models.input_pipeline import LabeledImages

labels = st.lists(st.integers(0, 9), min_size=1, max_size=60)
fractions = st.floats(0.01, 1.0)


def make(labels: list[int]) -> LabeledImages:
    """Each image a file of its own."""
    return LabeledImages(tf.constant([b"image %d" % i for i in range(len(labels))]), tf.constant(labels, tf.int64))


def names(examples: LabeledImages) -> list[bytes]:
    return examples.images.numpy().tolist()


@given(labels, fractions, st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_each_class_keeps_its_part_in_order_and_with_its_labels(labels: list[int], fraction: float, seed: int):
    examples = make(labels)
    chosen = label_subset.choose(examples, fraction, seed)
    counts = collections.Counter(labels)
    assert collections.Counter(chosen.labels.numpy().tolist()) == {
        label: max(1, round(fraction * count)) for label, count in counts.items()
    }
    pairs = list(zip(names(chosen), chosen.labels.numpy().tolist(), strict=True))
    assert pairs == [pair for pair in zip(names(examples), labels, strict=True) if pair in pairs]


@given(labels, fractions, fractions, st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_fewer_labels_are_some_of_the_more(labels: list[int], one: float, other: float, seed: int):
    examples = make(labels)
    less, more = (set(names(label_subset.choose(examples, fraction, seed))) for fraction in sorted((one, other)))
    assert less <= more


def test_the_choice_depends_on_the_images_and_the_seed_only():
    examples = make([0, 1] * 50)
    order = np.random.default_rng(0).permutation(100)
    shuffled = LabeledImages(tf.gather(examples.images, order), tf.gather(examples.labels, order))
    chosen = set(names(label_subset.choose(examples, 0.2, seed=3)))
    assert set(names(label_subset.choose(shuffled, 0.2, seed=3))) == chosen
    assert set(names(label_subset.choose(examples, 0.2, seed=4))) != chosen


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float):
    with pytest.raises(ValueError, match=r"label_fraction is .*; it has to be in \(0, 1\]"):
        label_subset.choose(make([0]), fraction, seed=0)


def test_repeating_shows_each_equally_often():
    repeated = label_subset.repeat(make([3, 1, 4]), 10)
    assert repeated.labels.numpy().tolist() == [3, 1, 4, 3, 1, 4, 3, 1, 4, 3]
    assert collections.Counter(names(repeated)) == {b"image 0": 4, b"image 1": 3, b"image 2": 3}
