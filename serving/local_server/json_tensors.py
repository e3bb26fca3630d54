"""The REST API's JSON bodies, as TensorFlow Serving's json_tensor.cc reads and writes them.

Documented at https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.local_server.saved_model import Signature
from serving.local_server.status import Code, StatusError, invalid_argument
from serving.local_server.tensors import type_name

_BYTES_SUFFIX = "_bytes"
"""Outputs of this name's end are written as base64."""

_MAX_SHOWN_CHARS = 200
"""How much of a wrong value an error message shows."""

_JSON_TYPES = {
    type(None): "Null",
    bool: "Boolean",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def parse(body: bytes) -> dict[str, Any]:
    """Reads a request's body.

    Args:
        body: JSON; NaN, Infinity and -Infinity are numbers.

    Raises:
        StatusError: INVALID_ARGUMENT: it is not JSON, or not an object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(document, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no character
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeError:
        raise invalid_argument("JSON Parse error: Invalid encoding in string.") from None
    except (RecursionError, ValueError) as error:  # too deep, or an integer of too many digits
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request names; empty for the default.

    Raises:
        StatusError: INVALID_ARGUMENT: the name is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def is_row_format(document: Mapping[str, Any]) -> bool:
    """Whether a Predict request has its inputs by row, under `instances`, or by column, under `inputs`.

    Raises:
        StatusError: INVALID_ARGUMENT: it has both or neither.
    """
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "instances" not in document and "inputs" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    return "instances" in document


def predict_inputs(document: Mapping[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    """A Predict request's inputs.

    Args:
        document: from `parse`.
        signature: what they are for.

    Returns:
        Array by input.

    Raises:
        StatusError: INVALID_ARGUMENT: they do not fit the signature. UNIMPLEMENTED: JSON has no such dtype.
    """
    types = signature.input_types
    if not types:
        raise invalid_argument(f"Failed to get input map for signature: {signature.name}")
    if not is_row_format(document):
        return _column_inputs(document["inputs"], types)
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {_shown(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument(f"JSON Value: {_shown(document)} No values in 'instances' array")
    return _row_inputs(instances, types)


def predict_response(outputs: Mapping[str, np.ndarray], types: Mapping[str, int], row_format: bool) -> bytes:
    """A Predict response's body.

    Args:
        outputs: array by output.
        types: DataType by output.
        row_format: by row, as the request was, or by column.

    Raises:
        StatusError: INVALID_ARGUMENT: JSON has no such dtype, or the outputs have no rows, or not as many each.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    if row_format:
        rows = None
        for name, array in outputs.items():
            if array.ndim == 0:
                raise invalid_argument(f"Tensor name: {name} has no shape information ")
            if rows is not None and array.shape[0] != rows:
                raise invalid_argument(
                    f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {rows}"
                )
            rows = array.shape[0]
    values = {name: _json_values(name, array, types[name]) for name, array in outputs.items()}
    if len(values) == 1:
        (only,) = values.values()
        return dump({"predictions" if row_format else "outputs": only})
    if not row_format:
        return dump({"outputs": values})
    return dump({"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]})


def examples_input(document: Mapping[str, Any]) -> input_pb2.Input:
    """A Classify or Regress request's examples.

    Args:
        document: from `parse`; `examples`, and perhaps a `context` that is a part of each.

    Raises:
        StatusError: INVALID_ARGUMENT: there are none, or one is not an object of features.
    """
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {_shown(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid_argument(f"JSON Value: {_shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid_argument(f"JSON Value: {_shown(document)} 'examples' value is an empty array")
    request_input = input_pb2.Input()
    if "context" in document:
        request_input.example_list_with_context.context.CopyFrom(_example(document["context"]))
        request_input.example_list_with_context.examples.extend(_example(example) for example in examples)
    else:
        request_input.example_list.examples.extend(_example(example) for example in examples)
    return request_input


def classify_response(result: classification_pb2.ClassificationResult) -> bytes:
    """A Classify response's body: for each example a list of [label, score]."""
    return dump(
        {
            "results": [
                [[entry.label, _shortest(np.float32(entry.score))] for entry in classifications.classes]
                for classifications in result.classifications
            ]
        }
    )


def regress_response(result: regression_pb2.RegressionResult) -> bytes:
    """A Regress response's body: a value for each example."""
    return dump({"results": [_shortest(np.float32(regression.value)) for regression in result.regressions]})


def message_json(message: Message) -> dict[str, Any]:
    """A message with all its fields, those of default value included."""
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True, including_default_value_fields=True)
    except TypeError:  # protobuf 5 renamed the argument
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )


def dump(document: Mapping[str, Any]) -> bytes:
    """Writes a body. Output strings that are no UTF-8 keep their bytes, as in TensorFlow Serving."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", errors="surrogateescape")


def _row_inputs(instances: list[Any], types: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs of a list of rows: values of the only input, or objects of a value for each."""
    if not isinstance(instances[0], dict) and len(types) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    by_name = _is_object(instances[0])
    columns: dict[str, list[Any]] = {name: [] for name in types}
    for index, instance in enumerate(instances):
        if not by_name:
            if _is_object(instance):
                raise invalid_argument(f"Expecting value/list but got object at item {index} of input list")
            next(iter(columns.values())).append(instance)
            continue
        if not _is_object(instance):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if instance.keys() != types.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_shown(instance)} keys must "
                f"be equal to: {','.join(types)}"
            )
        for name, value in instance.items():
            columns[name].append(value)
    arrays: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        try:
            arrays[name] = _to_array(values, types[name])
        except StatusError:
            # Once more, row by row, to say which it is.
            _check_rows(values, types[name], f" key: {name}" if by_name else "")
            raise
    return arrays


def _check_rows(values: list[Any], dtype: int, key: str) -> None:
    """Names the first row that is not like a tensor, or not like the first one."""
    first: np.ndarray | None = None
    for index, value in enumerate(values):
        try:
            array = _to_array(value, dtype)
            if first is not None and array.size != first.size:
                raise invalid_argument(f"Expecting tensor size: {first.size} but got: {array.size}")
            if first is not None and array.shape != first.shape:
                raise invalid_argument(f"Expecting shape {list(first.shape)} but got: {list(array.shape)}")
        except StatusError as error:
            raise StatusError(
                error.code, f"Failed to process element: {index}{key} of 'instances' list. Error: {error.message}"
            ) from None
        first = array if first is None else first


def _column_inputs(inputs: Any, types: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs of an object of tensors, or of the only input's tensor."""
    if not _is_object(inputs):
        if len(types) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        ((name, dtype),) = types.items()
        return {name: _to_array(inputs, dtype)}
    for name in types:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: _to_array(inputs[name], dtype) for name, dtype in types.items()}


def _to_array(value: Any, dtype: int) -> np.ndarray:
    """A tensor from nested lists; the first element at each level says how long the others have to be."""
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    leaves = list(_leaves(value, shape, 0))
    return _convert(leaves, dtype).reshape(shape)


def _leaves(value: Any, shape: list[int], level: int) -> Iterator[Any]:
    """The values of nested lists, which have to be as long and as deep as the shape says."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                f"level: {len(shape)}"
            )
        yield value
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    if level + 1 == len(shape) and not any(isinstance(element, list) for element in value):
        yield from value
        return
    for element in value:
        yield from _leaves(element, shape, level + 1)


def _convert(leaves: list[Any], dtype: int) -> np.ndarray:
    """Values of one type, none of which may change its value."""
    tf_type = tf.dtypes.as_dtype(dtype)
    numpy_type = np.dtype(tf_type.as_numpy_dtype)
    if tf_type == tf.string:
        strings = np.empty(len(leaves), dtype=object)
        strings[:] = [_bytes(leaf, dtype) for leaf in leaves]
        return strings
    if tf_type.is_bool:
        allowed: set[type] = {bool}
    elif tf_type.is_integer and not tf_type.is_quantized:
        allowed = {int}
    elif tf_type.is_floating:
        allowed = {int, float}
    else:
        raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON values to type: {type_name(dtype)}")
    if not set(map(type, leaves)) <= allowed:
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in allowed), dtype)
    if tf_type.is_integer and leaves:
        for leaf in (min(leaves), max(leaves)):
            if not tf_type.min <= leaf <= tf_type.max:
                raise _type_error(leaf, dtype)
    if tf_type.is_floating:
        _check_lossless(leaves, tf_type)
    return np.array(leaves, dtype=numpy_type)


def _check_lossless(leaves: list[Any], dtype: tf.DType) -> None:
    """Refuses integers and magnitudes that a floating-point type does not have."""
    significand_bits = 8 if dtype == tf.bfloat16 else np.finfo(dtype.as_numpy_dtype).nmant + 1
    largest_integer = (1 << significand_bits) - 1
    largest = float(dtype.max)
    lossy: list[Any] = [leaf for leaf in leaves if type(leaf) is int and abs(leaf) > largest_integer]
    lossy += [leaf for leaf in leaves if type(leaf) is float and largest < abs(leaf) < math.inf]
    if lossy:
        raise invalid_argument(
            f"Cannot convert JSON value: {_shown(lossy[0])} to {type_name(dtype.as_datatype_enum)} without loss of "
            "precision."
        )


def _bytes(value: Any, dtype: int) -> bytes:
    """A string, or an object that holds base64."""
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict):
        if not _is_base64(value):
            raise invalid_argument(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
        return _decode_base64(value["b64"])
    raise _type_error(value, dtype)


def _decode_base64(text: str) -> bytes:
    """Decodes base64 with or without padding and white space, as absl::Base64Unescape does."""
    compact = "".join(text.split()).rstrip("=.")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def _is_base64(value: Any) -> bool:
    """Whether a value is binary: an object of nothing but `b64`, which is a string."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_object(value: Any) -> bool:
    """Whether a value is an object of named values."""
    return isinstance(value, dict) and not _is_base64(value)


def _type_error(value: Any, dtype: int) -> StatusError:
    return invalid_argument(
        f"JSON Value: {_shown(value)} Type: {_JSON_TYPES[type(value)]} is not of expected type: {type_name(dtype)}"
    )


def _shown(value: Any) -> str:
    """A value in an error message, shortened."""
    chunks = json.JSONEncoder().iterencode(value)  # a large value is not written whole
    text = "".join(itertools.islice(chunks, _MAX_SHOWN_CHARS + 1))
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def _json_values(name: str, array: np.ndarray, dtype: int) -> Any:
    """A tensor as nested lists."""
    tf_type = tf.dtypes.as_dtype(dtype)
    flat: list[Any]
    if tf_type == tf.string:
        if name.endswith(_BYTES_SUFFIX):
            flat = [{"b64": base64.b64encode(value).decode("ascii")} for value in array.flat]
        else:
            flat = [value.decode("utf-8", errors="surrogateescape") for value in array.flat]
    elif tf_type == tf.float64 or tf_type.is_bool or (tf_type.is_integer and not tf_type.is_quantized):
        return array.tolist()
    elif tf_type.is_floating:
        flat = [_shortest(value) for value in array.astype(np.float32).flat]
    else:
        raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(dtype)}")
    values = np.empty(array.size, dtype=object)
    values[:] = flat
    return values.reshape(array.shape).tolist()


def _shortest(value: np.float32) -> float:
    """The number that prints with no more digits than a float32 needs: 0.2, where float(value) is 0.20000000298."""
    return float(str(value))


def _example(features: Any) -> example_pb2.Example:
    """A tf.Example from an object of values or lists of values."""
    if not isinstance(features, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_JSON_TYPES[type(features)]}")
    example = example_pb2.Example()
    for name, content in features.items():
        _fill_feature(example.features.feature[name], name, content if isinstance(content, list) else [content])
    return example


def _fill_feature(feature: feature_pb2.Feature, name: str, values: list[Any]) -> None:
    """Fills a feature; the first value says which list it is."""
    kind: str
    element: bytes | float | int
    for value in values:
        if isinstance(value, (str, dict)) and (isinstance(value, str) or _is_base64(value)):
            kind, element = "bytes_list", _bytes(value, tf.string.as_datatype_enum)
        elif isinstance(value, float):
            _check_lossless([value], tf.float32)
            kind, element = "float_list", value
        elif isinstance(value, int):
            if not tf.int64.min <= value <= tf.int64.max:
                raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
            kind, element = "int64_list", int(value)
        else:
            raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {_JSON_TYPES[type(value)]}")
        if feature.WhichOneof("kind") not in (None, kind):
            expected = feature.WhichOneof("kind").removesuffix("_list")
            raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {expected}")
        getattr(feature, kind).value.append(element)
