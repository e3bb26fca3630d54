"""TensorProtos to arrays and back, held to TensorFlow's own conversions."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.local_server.status import Code, StatusError
from serving.local_server.tensors import to_array, to_proto, type_name

MAX_BYTES = 1 << 20
NUMPY_TYPES = ["bool", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "c16"]
VALUE_FIELDS = {
    "bool": "bool_val",
    "f4": "float_val",
    "f8": "double_val",
    "i1": "int_val",
    "i2": "int_val",
    "i4": "int_val",
    "i8": "int64_val",
    "u1": "int_val",
    "u2": "int_val",
    "u4": "uint32_val",
    "u8": "uint64_val",
}

shapes = st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
arrays = st.sampled_from(NUMPY_TYPES).flatmap(lambda dtype: st_numpy.arrays(np.dtype(dtype), shapes))


def written(array: np.ndarray, as_content: bool = False) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto()
    to_proto(array, tf.dtypes.as_dtype(array.dtype).as_datatype_enum, proto, as_content)
    return proto


@given(arrays)
def test_reads_what_tensorflow_writes(array):
    np.testing.assert_array_equal(to_array(tf.make_tensor_proto(array), "x", MAX_BYTES), array)


@given(arrays, st.booleans())
def test_tensorflow_reads_what_is_written(array, as_content):
    proto = tensor_pb2.TensorProto.FromString(written(array, as_content).SerializeToString())
    back = tf.make_ndarray(proto)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(shapes.flatmap(lambda shape: st_numpy.arrays(object, shape, elements=st.binary(max_size=5))))
def test_strings_keep_their_bytes(array):
    proto = written_strings(array)
    read = to_array(proto, "x", MAX_BYTES)
    assert read.shape == array.shape
    assert read.ravel().tolist() == array.ravel().tolist() == list(proto.string_val)


def written_strings(array: np.ndarray) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto()
    to_proto(array, types_pb2.DT_STRING, proto)
    return proto


@pytest.mark.parametrize(("dtype", "field"), VALUE_FIELDS.items())
def test_values_are_in_their_typed_fields_as_clients_expect(dtype, field):
    proto = written(np.array([[1, 0, 1]], dtype))
    assert list(getattr(proto, field)) == [1, 0, 1]
    assert proto.tensor_content == b""
    assert [dim.size for dim in proto.tensor_shape.dim] == [1, 3]
    assert written(np.array([[1, 0, 1]], dtype), as_content=True).tensor_content == np.array([1, 0, 1], dtype).tobytes()


def test_bytes_on_the_wire_are_those_of_protobuf():
    # By hand: dtype (field 1) 1, tensor_shape (2) of one dim (2) of size (1) 200, float_val (5), 800 packed bytes.
    values = np.arange(200, dtype=np.float32)
    expected = bytes([0x08, 1, 0x12, 5, 0x12, 3, 0x08, 0xC8, 0x01, 0x2A, 0xA0, 0x06]) + values.tobytes()
    assert written(values).SerializeToString() == expected


def test_bfloat16():
    array = np.array([1.5, -2], tf.bfloat16.as_numpy_dtype)
    assert to_array(tf.make_tensor_proto(array, tf.bfloat16), "x", MAX_BYTES).tolist() == [1.5, -2]
    assert tf.make_ndarray(written(array)).tolist() == [1.5, -2]


def test_one_value_stands_for_all():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32, int_val=[7])
    proto.tensor_shape.dim.add(size=3)
    assert to_array(proto, "x", MAX_BYTES).tolist() == [7, 7, 7]
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"])
    proto.tensor_shape.dim.add(size=2)
    assert to_array(proto, "x", MAX_BYTES).tolist() == [b"a", b"a"]


def tensor(dtype, sizes, **values):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (tensor(types_pb2.DT_FLOAT, [2], tensor_content=b"123"), "its values do not fill shape [2] of float"),
        (tensor(types_pb2.DT_FLOAT, [2], tensor_content=b"1234" * 3), "its values do not fill shape [2] of float"),
        (tensor(types_pb2.DT_FLOAT, [2], float_val=[1, 2, 3]), "its values do not fill shape [2] of float"),
        (tensor(types_pb2.DT_STRING, [1], string_val=[b"a", b"b"]), "its values do not fill shape [1] of string"),
        (tensor(types_pb2.DT_FLOAT, [-1], float_val=[1]), "its shape is [-1]"),
        (tensor(types_pb2.DT_FLOAT, [1 << 40], float_val=[1]), "is over 1,048,576 bytes"),
        (tensor(types_pb2.DT_STRING, [1 << 20], string_val=[b""]), "is over 1,048,576 bytes"),
        (tensor(types_pb2.DT_FLOAT, [1 << 40, 1 << 40], float_val=[1]), "is over 1,048,576 bytes"),
        (tensor(types_pb2.DT_RESOURCE, []), "resource is not supported"),
        (tensor(types_pb2.DT_INVALID, []), "unknown type 0 is not supported"),
        (tensor(4711, []), "unknown type 4711 is not supported"),
    ],
)
def test_malformed_tensors_are_refused(proto, reason):
    with pytest.raises(StatusError) as error:
        to_array(proto, "x", MAX_BYTES)
    assert error.value.code == Code.INVALID_ARGUMENT
    assert error.value.message.startswith("tensor parsing error: x: ")
    assert reason in error.value.message


def test_a_shape_of_unknown_rank_is_refused():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(StatusError, match="x: its shape is unknown"):
        to_array(proto, "x", MAX_BYTES)


def test_types_have_the_names_of_tensorflows_messages():
    names = {dtype: type_name(dtype) for dtype in (types_pb2.DT_FLOAT, types_pb2.DT_INT64, types_pb2.DT_STRING)}
    assert list(names.values()) == ["float", "int64", "string"]
