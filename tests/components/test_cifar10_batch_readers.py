import codecs
import contextlib
import itertools
import pickle
import pickletools
import sys
import tracemalloc
from collections.abc import Callable

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


def saved(batch, protocol, core):
    """The pickle that Python writes of a batch where numpy's inner modules are in numpy.core or in numpy._core."""
    data = pickle.dumps(batch, protocol)
    frames = [position or 0 for opcode, _, position in pickletools.genops(data) if opcode.name == "FRAME"]
    for position in reversed(frames):  # they are optional, and tell their length
        data = data[:position] + data[position + 9 :]
    for other, module in itertools.product(("core", "_core"), ("multiarray", "numeric")):
        old, new = (f"numpy.{name}.{module}".encode() for name in (other, core))
        if protocol >= 4:  # here a name's length is before it
            old, new = (bytes([len(name)]) + name for name in (old, new))
        data = data.replace(old, new)
    return data


def as_array_of(code):
    return lambda labels: np.array(labels, code)


INTEGERS = ("u1", "i1", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8")
LABELS_AS: dict[str, Callable] = {
    "list": list,
    "tuple": tuple,
    "numbers of numpy": lambda labels: list(np.array(labels)),
    "bytes of numpy": lambda labels: list(np.array(labels, np.uint8)),
    "column": lambda labels: np.array(labels)[:, np.newaxis],
    **{code: as_array_of(code) for code in INTEGERS},
}


def planes_array(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)


DATA_AS: dict[str, Callable] = {
    "planes": planes_array,
    "Fortran order": lambda images: np.asfortranarray(planes_array(images)),
    "every second row": lambda images: np.repeat(planes_array(images), 2, axis=0)[::2],
    "every second column": lambda images: np.repeat(planes_array(images), 2, axis=1)[:, ::2],
    "read-only": lambda images: np.frombuffer(planes_array(images).tobytes(), np.uint8).reshape(-1, 3072),
    "channels first": lambda images: np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
    "channels last": lambda images: images,
    "channels first, in memory last": lambda images: images.transpose(0, 3, 1, 2),
    "list of rows": lambda images: list(planes_array(images)),
    "list of images": list,
}


@pytest.mark.parametrize("core", ["core", "_core"])
@pytest.mark.parametrize("protocol", range(6))
def test_batches_saved_again(protocol, core):
    labels, images = [4, 0, 9], random_images(3, 1)
    for as_labels, as_data in [(LABELS_AS["list"], how) for how in DATA_AS.values()] + [
        (how, DATA_AS["planes"]) for how in LABELS_AS.values()
    ]:
        batch = {"labels": as_labels(labels), "data": as_data(images), "filenames": [b"a.png", b""]}
        data = saved(batch, protocol, core)
        assert_holds(list(python_batches.read_batch("test_batch", data)), "test_batch", "test", labels, images)
        bytes_keys = saved({key.encode(): value for key, value in batch.items()}, protocol, core)
        assert len(list(python_batches.read_batch("test_batch", bytes_keys))) == 3


def test_an_array_that_numpy_saves_in_the_order_of_its_memory():
    images = random_images(2, 1)
    transposed = images.transpose(0, 3, 1, 2)

    class Saved:
        def __reduce_ex__(self, protocol):
            buffer = pickle.PickleBuffer(bytearray(images.tobytes()))
            return np.zeros(1).__reduce_ex__(5)[0], (buffer, transposed.dtype, images.shape, "K", (0, 3, 1, 2))

    data = saved({"labels": [1, 2], "data": Saved()}, 5, "_core")
    assert_holds(list(python_batches.read_batch("test_batch", data)), "test_batch", "test", [1, 2], images)


def test_a_batch_in_the_protocol_that_python_2_takes_by_default():
    images = random_images(2, 1)
    planes = repr(b"".join(map(planes_of, images)))[1:].encode()
    array = b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
    array += b"(I1\n(L2L\nL3072L\ntp7\ncnumpy\ndtype\np8\n(S'u1'\np9\nI0\nI1\ntp10\nRp11\n"
    array += b"(I3\nS'|'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\nS" + planes + b"\np14\ntp15\nb"
    data = b"(dp0\nS'data'\np16\n" + array + b"sS'labels'\np17\n(lp18\nI7\naI1\nas."
    np.testing.assert_array_equal(
        pickle.loads(data, encoding="latin1")["data"].reshape(2, 3, 32, 32)[:, 0], images[..., 0]
    )
    assert_holds(list(python_batches.read_batch("test_batch", data)), "test_batch", "test", [7, 1], images)


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
        ({"data": b"x" * 3072, "labels": [1]}, "'data' holds a bytes, expected an array of uint8"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": "1"}, "'labels' is a str, expected a list or an array"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": ["1"]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [1.0]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [True]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [2**70]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [np.float32(1)]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [np.array([1])]}, "record 0: its label is not an integer"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": np.array([1.0])}, "'labels' is no array of integers"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": np.eye(10, dtype=int)[:1]}, r"'labels' is int64 \[1, 10\]"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, -1]}, "record 1: label -1, expected 0 to 9"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": np.array([2**64 - 1], np.uint64)}, "label -1, expected"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "has 1 labels for 2 images"),
        ({"data": np.zeros((1, 3073), np.uint8), "labels": [1]}, r"'data' holds uint8 \[1, 3073\], expected an array"),
        ({"data": np.zeros((1, 3, 1024), np.uint8), "labels": [1]}, r"'data' holds uint8 \[1, 3, 1024\]"),
        ({"data": np.zeros((32, 32, 3, 1), np.uint8), "labels": [1]}, r"'data' holds uint8 \[32, 32, 3, 1\]"),
        ({"data": np.zeros(3072, np.uint8), "labels": [1]}, r"'data' holds uint8 \[3072\]"),
        ({"data": np.zeros((1, 3072), np.int8), "labels": [1]}, r"'data' holds int8 \[1, 3072\]"),
        ({"data": np.zeros((1, 3072)), "labels": [1]}, "'data' holds no array of integers"),
        ({"data": [np.zeros(3072, np.uint8), np.zeros(9, np.uint8)], "labels": [1, 1]}, r"'data' holds uint8 \[9\]"),
        ({"data": [], "labels": []}, "holds 0 records"),
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
    ("function", "name"),
    [(exec, "exec"), (eval, "eval"), (getattr, "getattr"), (np.frombuffer, "frombuffer"), (codecs.decode, "decode")],
)
def test_a_pickle_that_asks_for_a_function_is_refused_and_nothing_is_run(function, name):
    data = pickle.dumps({"data": _RunsAFunction(function, "import sys; sys.was_run = True"), "labels": [1]}, 4)
    with pytest.raises(DataError, match=rf"test_batch: .*{name}, which no CIFAR-10 batch needs"):
        list(python_batches.read_batch("test_batch", data))
    assert not hasattr(sys, "was_run")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"x.",
        # one tuple of ten thousand, which every call of ten thousand would copy
        b"\x80\x02cnumpy\nndarray\nq\x01(" + b"N" * 10_000 + b"tq\x02" + b"h\x01h\x02R" * 10_000 + b".",
    ],
    ids=["memo index", "bytearray", "bytes", "frame", "arguments"],
)
def test_a_small_pickle_takes_little_memory(data):
    tracemalloc.start()
    with pytest.raises(DataError, match="test_batch: "):
        list(python_batches.read_batch("test_batch", data))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_one_large_array_many_times_is_not_copied_as_often():
    image = np.zeros((3, 2**20), np.uint8)
    data = pickle.dumps({"labels": [0] * 1000, "data": [image] * 1000}, 2)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"'data' holds uint8 \[3, 1048576\]"):
        list(python_batches.read_batch("test_batch", data))
    assert tracemalloc.get_traced_memory()[1] < 10 * image.nbytes
    tracemalloc.stop()


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
