import contextlib
import pickle
import sys

import numpy as np
import pytest
from cifar10_builders import BATCHES, binary_batch, planes_of, python2_batch, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.readers import binary, python_batches

LABELS = st.lists(st.integers(0, 9), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32)


def python3_batch(labels, images, protocol=4, key=str):
    rows = np.array([np.frombuffer(planes_of(image), np.uint8) for image in images]).reshape(-1, 3072)
    return pickle.dumps({key("data"): rows, key("labels"): list(labels), key("filenames"): []}, protocol)


def assert_holds(records, name, split, labels, images):
    assert [(r.split, r.source, r.index, r.label) for r in records] == [
        (split, name, index, label) for index, label in enumerate(labels)
    ]
    assert all(isinstance(r.image, np.ndarray) and r.image.dtype == np.uint8 for r in records)
    np.testing.assert_array_equal([r.image for r in records], images)


@given(labels=LABELS, seed=SEEDS)
def test_binary_round_trip(labels, seed):
    images = random_images(len(labels), seed)
    records = list(binary.read_batch("folder/data_batch_3.bin", binary_batch(labels, images)))
    assert_holds(records, "folder/data_batch_3.bin", "train", labels, images)


@given(labels=LABELS, seed=SEEDS)
def test_python2_round_trip(labels, seed):
    images = random_images(len(labels), seed)
    data = python2_batch(labels, b"".join(map(planes_of, images)))
    assert_holds(list(python_batches.read_batch("test_batch", data)), "test_batch", "test", labels, images)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("key", [str, str.encode], ids=["text keys", "bytes keys"])
def test_batches_pickled_by_python_3_and_the_installed_numpy(protocol, key):
    images = random_images(3, 1)
    data = python3_batch([4, 0, 9], images, protocol, key)
    assert_holds(list(python_batches.read_batch("data_batch_1", data)), "data_batch_1", "train", [4, 0, 9], images)


def test_the_hand_built_python2_batch_is_what_pickle_and_numpy_read():
    images = random_images(2, 1)
    data = python2_batch([7, 1], b"".join(map(planes_of, images)))
    batch = pickle.loads(data, encoding="bytes")
    assert batch[b"labels"] == [7, 1]
    np.testing.assert_array_equal(batch[b"data"].reshape(2, 3, 32, 32).transpose(0, 2, 3, 1), images)


@pytest.mark.parametrize("stem", BATCHES)
@pytest.mark.parametrize("suffix", ["", ".bin"])
def test_the_split_follows_from_the_name(stem, suffix):
    images = random_images(1, 0)
    read, data = (
        (binary.read_batch, binary_batch([0], images))
        if suffix
        else (python_batches.read_batch, python3_batch([0], images))
    )
    (record,) = read(f"cifar/{stem}{suffix}", data)
    assert record.split == ("test" if stem == "test_batch" else "train")


@pytest.mark.parametrize("missing_bytes", [1, 3072])
def test_truncated_binary_batch(missing_bytes):
    data = binary_batch([1, 2, 3], random_images(3, 0))[:-missing_bytes]
    with pytest.raises(DataError, match=rf"data_batch_1\.bin, record 2: has {3073 - missing_bytes} of 3073 bytes"):
        list(binary.read_batch("data_batch_1.bin", data))


def test_empty_binary_batch():
    with pytest.raises(DataError, match=r"test_batch\.bin: holds 0 records, expected 1 to 10000"):
        list(binary.read_batch("test_batch.bin", b""))


def test_oversized_binary_batch():
    with pytest.raises(DataError, match=r"data_batch_2\.bin: holds 10001 records, expected 1 to 10000"):
        list(binary.read_batch("data_batch_2.bin", bytes(3073 * 10_001)))


@pytest.mark.parametrize("label", [10, 255])
def test_binary_label_out_of_range(label):
    data = binary_batch([0, label, 5], random_images(3, 0))
    with pytest.raises(DataError, match=rf"data_batch_4\.bin, record 1: label {label}, expected 0 to 9"):
        list(binary.read_batch("data_batch_4.bin", data))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "holds a list, expected a dictionary"),
        ({"labels": [1]}, "has no 'data'"),
        ({}, "has no 'data' and no 'labels'"),
        ({"data": b"x" * 3072, "labels": [1]}, "'data' is a bytes"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": (1,)}, "'labels' is a tuple"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": ["1"]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [2**70]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, -1]}, "record 1: label -1, expected 0 to 9"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "has 1 labels for 2 images"),
        ({"data": np.zeros((1, 3073), np.uint8), "labels": [1]}, "does not hold whole images"),
        ({"data": np.zeros((1, 3, 1024), np.uint8), "labels": [1]}, "says another shape"),
        ({"data": np.zeros((1, 3072), np.int8), "labels": [1]}, "other elements or another order"),
        ({"data": np.asfortranarray(np.zeros((2, 3072), np.uint8)), "labels": [1, 1]}, "another order"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "holds 0 records"),
    ],
)
def test_python_batches_that_hold_something_else(batch, message):
    with pytest.raises(DataError, match="data_batch_5.*" + message):
        list(python_batches.read_batch("data_batch_5", pickle.dumps(batch, 4)))


class _RunsAFunction:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("function", "name"), [(exec, "exec"), (eval, "eval"), (getattr, "getattr"), (np.frombuffer, "frombuffer")]
)
def test_a_pickle_that_asks_for_a_function_is_refused_and_nothing_is_run(function, name):
    data = pickle.dumps({"data": _RunsAFunction(function, "import sys; sys.was_run = True"), "labels": [1]}, 4)
    with pytest.raises(DataError, match=rf"test_batch: .*{name}, which no CIFAR-10 batch needs"):
        list(python_batches.read_batch("test_batch", data))
    assert not hasattr(sys, "was_run")


def test_a_huge_memo_index_is_refused_before_memory_is_allocated_for_it():
    data = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(DataError, match=r"test_batch: .*memo index 2147483647"):
        list(python_batches.read_batch("test_batch", data))


def test_truncated_pickle():
    data = python3_batch([1], random_images(1, 0))
    with pytest.raises(DataError, match="data_batch_1: not a readable CIFAR-10 Python batch"):
        list(python_batches.read_batch("data_batch_1", data[:-100]))


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    for read in (binary.read_batch, python_batches.read_batch):
        with pytest.raises(DataError, match="data_batch_1"):
            list(read("data_batch_1", data))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(max_examples=300)
@given(start=st.integers(0, 400), replacement=st.binary(min_size=1, max_size=8), from_end=st.booleans())
def test_damaged_pickles_are_read_or_refused(start, replacement, from_end):
    data = python2_batch([3, 8], bytes(2 * 3072))
    position = max(0, len(data) - start) if from_end else start
    damaged = data[:position] + replacement + data[position + len(replacement) :]
    with contextlib.suppress(DataError):
        assert {record.label for record in python_batches.read_batch("data_batch_1", damaged)} <= set(range(10))
