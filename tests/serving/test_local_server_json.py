"""REST bodies: what the REST API's documentation shows, and what json_tensor.cc says of the rest."""

import base64
import json
import math

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.local_server import json_tensors
from serving.local_server.saved_model import Signature
from serving.local_server.status import Code, StatusError

FLOAT, DOUBLE, STRING = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_STRING
INT8, INT32, INT64, UINT64 = types_pb2.DT_INT8, types_pb2.DT_INT32, types_pb2.DT_INT64, types_pb2.DT_UINT64
BOOL, HALF = types_pb2.DT_BOOL, types_pb2.DT_HALF


def signature(**inputs: int) -> Signature:
    definition = meta_graph_pb2.SignatureDef()
    for name, dtype in inputs.items():
        definition.inputs[name].dtype = dtype
    return Signature("serving_default", definition)


def read(body: str, **inputs: int) -> dict[str, list]:
    arrays = json_tensors.predict_inputs(json_tensors.parse(body.encode()), signature(**inputs))
    return {name: array.tolist() for name, array in arrays.items()}


def test_documented_row_format_of_named_inputs():
    body = """{
      "instances": [
        {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
        {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}
      ]
    }"""
    assert read(body, tag=STRING, signal=INT64, sensor=INT64) == {
        "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
        "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
        "tag": [b"foo", b"bar"],
    }


def test_documented_column_format():
    body = """{"inputs": {"tag": ["foo", "bar"], "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
                          "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]}}"""
    assert read(body, tag=STRING, signal=INT64, sensor=INT64) == {
        "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
        "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
        "tag": [b"foo", b"bar"],
    }


@pytest.mark.parametrize(
    ("body", "dtype", "values"),
    [
        ('{"instances": ["foo", "bar", "baz"]}', STRING, [b"foo", b"bar", b"baz"]),
        ('{"instances": [[1, 2], [3, 4]]}', INT32, [[1, 2], [3, 4]]),
        ('{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', INT32, [[1, 2], [3, 4]]),
        ('{"instances": [{"b64": "aGVsbG8="}, {"b64": "AAD/"}]}', STRING, [b"hello", b"\0\0\xff"]),
        ('{"instances": [{"x": {"b64": "aGVsbG8="}}]}', STRING, [b"hello"]),
        ('{"instances": [[{"b64": "aGVsbG8"}, "x"]]}', STRING, [[b"hello", b"x"]]),
        ('{"inputs": {"b64": "aGVsbG8="}}', STRING, b"hello"),
        ('{"inputs": {"x": ["grüße"]}}', STRING, ["grüße".encode()]),
        ('{"inputs": "foo"}', STRING, b"foo"),
        ('{"inputs": 3}', INT64, 3),
        ('{"inputs": []}', FLOAT, []),
        ('{"instances": [true, false]}', BOOL, [True, False]),
        ('{"instances": [1, 2.5, -3e2]}', FLOAT, [1.0, 2.5, -300.0]),
        ('{"instances": [1, 2.5]}', HALF, [1.0, 2.5]),
        ('{"instances": [9223372036854775807]}', INT64, [9223372036854775807]),
        ('{"instances": [18446744073709551615]}', UINT64, [18446744073709551615]),
        ('{"instances": [Infinity, -Infinity]}', DOUBLE, [math.inf, -math.inf]),
        ('{"instances": ["a\\u00e9\\ud83d\\ude00"]}', STRING, ["aé😀".encode()]),
    ],
)
def test_one_input(body, dtype, values):
    assert read(body, x=dtype) == {"x": values}


def test_nan_is_a_number():
    (value,) = read('{"instances": [NaN]}', x=FLOAT)["x"]
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("body", "dtype", "message"),
    [
        ("", FLOAT, "JSON Parse error: The document is empty"),
        ("not json", FLOAT, "JSON Parse error: Expecting value at offset: 0"),
        ('{"instances": [1, 2', FLOAT, "JSON Parse error"),
        ("[" * 100_000, FLOAT, "JSON Parse error"),
        ('{"instances": ["\\ud800"]}', STRING, "JSON Parse error: Invalid encoding in string."),
        ("[1, 2]", FLOAT, "JSON Value: [1, 2] Is not object"),
        ("{}", FLOAT, "Missing 'inputs' or 'instances' key"),
        ('{"instances": [1], "inputs": [1]}', FLOAT, "expecting only one of 'inputs' or 'instances' keys"),
        ('{"instances": 1}', FLOAT, "Excepting 'instances' to be an list/array"),
        ('{"instances": []}', FLOAT, "No values in 'instances' array"),
        ('{"instances": ["a"]}', FLOAT, 'JSON Value: "a" Type: String is not of expected type: float'),
        ('{"instances": [null]}', FLOAT, "JSON Value: null Type: Null is not of expected type: float"),
        ('{"instances": [true]}', FLOAT, "is not of expected type: float"),
        ('{"instances": [1]}', BOOL, "is not of expected type: bool"),
        ('{"instances": [1]}', STRING, "JSON Value: 1 Type: Number is not of expected type: string"),
        ('{"instances": [1.0]}', INT32, "is not of expected type: int32"),
        ('{"instances": [2147483648]}', INT32, "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ('{"instances": [200]}', INT8, "is not of expected type: int8"),
        ('{"instances": [-1]}', UINT64, "is not of expected type: uint64"),
        ('{"instances": [16777216]}', FLOAT, "Cannot convert JSON value: 16777216 to float without loss of precision"),
        ('{"instances": [1e39]}', FLOAT, "Cannot convert JSON value: 1e+39 to float without loss of precision"),
        ('{"instances": [9007199254740992]}', DOUBLE, "to double without loss of precision"),
        ('{"instances": [[1], [1, 2]]}', FLOAT, "Failed to process element: 1 of 'instances' list. Error: Expecting"),
        ('{"instances": [[[1, 2]], [[1], [2]]]}', FLOAT, "Expecting shape [1, 2] but got: [2, 1]"),
        ('{"instances": [1, [1]]}', FLOAT, "Failed to process element: 1 of 'instances' list."),
        ('{"instances": [[[1], 2]]}', FLOAT, "found at incorrect level"),
        ('{"instances": [[1, [2]]]}', FLOAT, "Encountered list at unexpected level"),
        ('{"inputs": [[1, 2], [3]]}', FLOAT, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ('{"instances": [{"b64": "!"}]}', STRING, "Unable to base64 decode"),
        ('{"instances": [{"b64": "YQ==", "c": 1}]}', STRING, "keys must be equal to: x"),
        ('{"instances": [["a", {"b64": 1}]]}', STRING, "not formatted correctly for base64 data"),
        ('{"instances": [{"y": 1}]}', FLOAT, 'JSON object: {"y": 1} keys must be equal to: x'),
        ('{"instances": [{"x": 1}, 2]}', FLOAT, "Expecting object but got list at item 1 of input list"),
        ('{"instances": [2, {"x": 1}]}', FLOAT, "Expecting value/list but got object at item 1 of input list"),
        ('{"inputs": {"y": 1}}', FLOAT, "Missing named input: x in 'inputs' object."),
    ],
)
def test_malformed_bodies_are_refused(body, dtype, message):
    with pytest.raises(StatusError) as error:
        read(body, x=dtype)
    assert error.value.code == Code.INVALID_ARGUMENT
    assert message in error.value.message
    assert len(error.value.message) < 1000


@pytest.mark.parametrize("body", ['{"instances": [1, 2]}', '{"inputs": [1, 2]}'])
def test_several_inputs_have_to_be_named(body):
    with pytest.raises(StatusError, match="as multiple input tensors required as per tensorinfo_map"):
        read(body, x=FLOAT, y=FLOAT)


def test_a_bad_value_of_a_named_input_is_named():
    with pytest.raises(StatusError, match="Failed to process element: 1 key: y of 'instances' list"):
        read('{"instances": [{"x": 1, "y": 2}, {"x": 1, "y": "z"}]}', x=FLOAT, y=FLOAT)


def test_complex_numbers_are_unimplemented():
    with pytest.raises(StatusError) as error:
        read('{"instances": [1]}', x=types_pb2.DT_COMPLEX64)
    assert error.value.code == Code.UNIMPLEMENTED


@pytest.mark.parametrize("name", ["1", "null", "[]"])
def test_a_signature_name_is_a_string(name):
    with pytest.raises(StatusError, match="'signature_name' key must be a string value"):
        json_tensors.signature_name(json_tensors.parse(f'{{"signature_name": {name}}}'.encode()))


def response(row_format: bool, **outputs: tuple[np.ndarray, int]) -> str:
    arrays = {name: array for name, (array, _) in outputs.items()}
    types = {name: dtype for name, (_, dtype) in outputs.items()}
    return json_tensors.predict_response(arrays, types, row_format).decode("utf-8", errors="surrogateescape")


def test_documented_responses():
    y = (np.array([2.5, 3.0, 4.5], np.float32), FLOAT)
    assert json.loads(response(True, y=y)) == {"predictions": [2.5, 3.0, 4.5]}
    assert json.loads(response(False, y=y)) == {"outputs": [2.5, 3.0, 4.5]}
    tag = (np.array([b"foo", b"bar", b"baz"], object), STRING)
    assert json.loads(response(True, y=y, tag=tag)) == {
        "predictions": [{"y": 2.5, "tag": "foo"}, {"y": 3.0, "tag": "bar"}, {"y": 4.5, "tag": "baz"}]
    }
    assert json.loads(response(False, y=y, tag=tag)) == {
        "outputs": {"y": [2.5, 3.0, 4.5], "tag": ["foo", "bar", "baz"]}
    }


def test_float32_is_written_with_the_digits_it_needs():
    assert response(False, y=(np.array([0.2, 3, 1e-7, 16777216], np.float32), FLOAT)) == (
        '{"outputs": [0.2, 3.0, 1e-07, 16777216.0]}'
    )
    values = np.array([np.nan, np.inf, -np.inf], np.float32)
    assert response(False, y=(values, FLOAT)) == '{"outputs": [NaN, Infinity, -Infinity]}'


@given(st_numpy.arrays(np.float32, st.integers(1, 20)))
def test_float32_survives(array):
    back = np.array(json.loads(response(False, y=(array, FLOAT)))["outputs"], np.float32)
    np.testing.assert_array_equal(back, array)


def test_bytes_are_base64_where_the_name_says_so():
    image = np.array([b"\x89PNG\0"], object)
    assert json.loads(response(True, image_bytes=(image, STRING))) == {
        "predictions": [{"b64": base64.b64encode(b"\x89PNG\0").decode()}]
    }
    assert response(True, image=(image, STRING)).encode("utf-8", errors="surrogateescape") == (
        b'{"predictions": ["\x89PNG\\u0000"]}'
    )


def test_shapes_are_kept():
    array = np.arange(12, dtype=np.int64).reshape(2, 3, 2)
    assert json.loads(response(True, y=(array, INT64)))["predictions"] == array.tolist()
    assert json.loads(response(False, y=(np.array(3, np.int64), INT64))) == {"outputs": 3}
    assert json.loads(response(True, y=(np.zeros((0, 2), np.float32), FLOAT))) == {"predictions": []}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"y": (np.array(1, np.int64), INT64)}, "Tensor name: y has no shape information"),
        (
            {"y": (np.ones(2, np.int64), INT64), "z": (np.ones(3, np.int64), INT64)},
            "Tensor name: z has inconsistent batch size: 3 expecting: 2",
        ),
        ({"y": (np.ones(1, np.complex64), types_pb2.DT_COMPLEX64)}, "Failed to write JSON value for tensor type"),
    ],
)
def test_outputs_that_have_no_rows_are_refused(outputs, message):
    with pytest.raises(StatusError, match=message):
        response(True, **outputs)


def test_documented_examples():
    document = json_tensors.parse(
        b"""{"context": {"country": "ch"},
             "examples": [{"age": 3, "weight": [1.5, 2.0], "alive": true, "photo": {"b64": "AP8="}, "none": []}]}"""
    )
    expected = text_format.Parse(
        r"""
        example_list_with_context {
          context { features { feature { key: "country" value { bytes_list { value: "ch" } } } } }
          examples { features {
            feature { key: "age" value { int64_list { value: 3 } } }
            feature { key: "weight" value { float_list { value: [1.5, 2.0] } } }
            feature { key: "alive" value { int64_list { value: 1 } } }
            feature { key: "photo" value { bytes_list { value: "\000\377" } } }
            feature { key: "none" value {} }
          } }
        }
        """,
        input_pb2.Input(),
    )
    assert json_tensors.examples_input(document) == expected


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ("{}", "key 'examples' is expected and was not found"),
        ('{"examples": 1}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ('{"examples": [{"x": [1, "a"]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": 9223372036854775808}]}', "has uint64 element. Only int64 is supported"),
        ('{"examples": [{"x": 1e39}]}', "without loss of precision"),
    ],
)
def test_malformed_examples_are_refused(examples, message):
    with pytest.raises(StatusError, match=message) as error:
        json_tensors.examples_input(json_tensors.parse(examples.encode()))
    assert error.value.code == Code.INVALID_ARGUMENT


def test_documented_classification_and_regression():
    result = classification_pb2.ClassificationResult()
    for pairs in ([("a", 0.8), ("b", 0.2)], [("c", 1.0)]):
        classes = result.classifications.add().classes
        for label, score in pairs:
            classes.add(label=label, score=score)
    assert json_tensors.classify_response(result) == b'{"results": [[["a", 0.8], ["b", 0.2]], [["c", 1.0]]]}'
    regressions = regression_pb2.RegressionResult(regressions=[{"value": 0.1}, {"value": 3}])
    assert json_tensors.regress_response(regressions) == b'{"results": [0.1, 3.0]}'
