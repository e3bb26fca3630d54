"""TensorProtos to NumPy arrays and back, as TensorFlow's `Tensor::FromProto` and `Tensor::AsProtoField` do it.

Strings are arrays of dtype object that hold bytes.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.local_server.status import StatusError, invalid_argument

_FIXED_WIDTH_FIELDS = {types_pb2.DT_FLOAT: (b"\x2a", "<f4"), types_pb2.DT_DOUBLE: (b"\x32", "<f8")}
"""Key of the packed field on the wire (`float_val` is field 5, `double_val` field 6), and the type of what follows."""

_VALUE_FIELDS = {
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_STRING: "string_val",
}

_CPP_TYPE_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


def type_name(dtype: int) -> str:
    """A DataType's name as TensorFlow's C++ messages write it: `float`, `int64`, `string`."""
    try:
        name = tf.dtypes.as_dtype(dtype).name
    except TypeError:
        return f"unknown type {dtype}"
    return _CPP_TYPE_NAMES.get(name, name)


def to_array(proto: tensor_pb2.TensorProto, name: str, max_bytes: int) -> np.ndarray:
    """Reads a tensor.

    Args:
        proto: of any dtype that NumPy has, bfloat16 included.
        name: the input's, for the message.
        max_bytes: the largest array to make. One value and a shape can stand for any number of values.

    Returns:
        The array; it may be a read-only view of the proto's bytes.

    Raises:
        StatusError: INVALID_ARGUMENT: values and shape do not fit together, or the tensor is too large.
    """
    if proto.tensor_shape.unknown_rank:
        raise _parsing_error(name, "its shape is unknown")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise _parsing_error(name, f"its shape is {list(shape)}")
    try:
        dtype = np.dtype(tf.dtypes.as_dtype(proto.dtype).as_numpy_dtype)
    except (KeyError, TypeError):
        raise _parsing_error(name, f"{type_name(proto.dtype)} is not supported") from None
    size = math.prod(shape)
    if size * dtype.itemsize > max_bytes:
        raise _parsing_error(name, f"shape {list(shape)} of {type_name(proto.dtype)} is over {max_bytes:,} bytes")
    try:
        if proto.dtype == types_pb2.DT_STRING:
            return _strings(proto.string_val, size).reshape(shape)
        if proto.tensor_content:
            return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
        return tf.make_ndarray(proto)
    except (TypeError, ValueError):
        raise _parsing_error(name, f"its values do not fill shape {list(shape)} of {type_name(proto.dtype)}") from None


def _strings(values: list[bytes], size: int) -> np.ndarray:
    """So many strings; the last one, or the empty one, stands for those that are missing."""
    array = np.empty(size, dtype=object)
    if len(values) > size:
        raise ValueError
    array[: len(values)] = values
    array[len(values) :] = values[-1] if len(values) else b""
    return array


def to_proto(array: np.ndarray, dtype: int, proto: tensor_pb2.TensorProto, as_content: bool = False) -> None:
    """Writes a tensor.

    Args:
        array: of any shape, strings as objects.
        dtype: its DataType.
        proto: empty; is filled.
        as_content: as packed bytes in `tensor_content`, where the type allows, instead of typed values.
    """
    values = _VALUE_FIELDS.get(dtype)
    if dtype != types_pb2.DT_STRING and (as_content or (values is None and dtype not in _FIXED_WIDTH_FIELDS)):
        proto.tensor_content = array.tobytes()
    elif values is not None:
        getattr(proto, values).extend(array.ravel().tolist())
    elif array.size:
        # What extend() would write, without a Python object a number.
        key, wire_type = _FIXED_WIDTH_FIELDS[dtype]
        content = array.astype(wire_type, copy=False).tobytes()
        proto.MergeFromString(key + _varint(len(content)) + content)
    proto.dtype = dtype
    # An empty shape is a scalar's, and has to be there.
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)


def _varint(value: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, low ones first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _parsing_error(name: str, reason: str) -> StatusError:
    return invalid_argument(f"tensor parsing error: {name}: {reason}")
