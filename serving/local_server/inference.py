"""What Predict, Classify and Regress read from a request and write into a response, given a signature.

Functions of messages and arrays, without a server: requests and warm-up records take the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.local_server.saved_model import DEFAULT_SIGNATURE, SavedModel, Signature
from serving.local_server.status import Code, StatusError, invalid_argument
from serving.local_server.tensors import to_array, type_name

PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

_EXAMPLES_INPUT = "inputs"
_CLASSES_OUTPUT = "classes"
_SCORES_OUTPUT = "scores"
_REGRESSION_OUTPUT = "outputs"


def predict_signature(model: SavedModel, name: str) -> Signature:
    """The signature of a Predict request.

    Args:
        model: what is asked.
        name: of the signature; empty for `serving_default`.

    Raises:
        StatusError: FAILED_PRECONDITION: there is none of this name.
    """
    signature = model.signature(name)
    if signature is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
    return signature


def predict_inputs(
    signature: Signature, tensors: Mapping[str, tensor_pb2.TensorProto], max_bytes: int
) -> dict[str, np.ndarray]:
    """A Predict request's inputs.

    Args:
        signature: what they are for.
        tensors: TensorProto by input.
        max_bytes: the largest array to make of one.

    Returns:
        Array by input, in the signature's order.

    Raises:
        StatusError: INVALID_ARGUMENT: an input is missing, unknown, of another dtype, or malformed.
    """
    types = signature.input_types
    if len(tensors) != len(types):
        extra, missing = sorted(set(tensors) - set(types)), sorted(set(types) - set(tensors))
        raise invalid_argument(
            f"input size does not match signature: {len(tensors)}!={len(types)} len({{{','.join(sorted(tensors))}}}) "
            f"!= len({{{','.join(types)}}}). Sent extra: {{{','.join(extra)}}}. "
            f"Missing but required: {{{','.join(missing)}}}."
        )
    for name in tensors:
        if name not in types:
            raise invalid_argument(
                f"input tensor alias not found in signature: {name}. Inputs expected to be in the set "
                f"{{{','.join(types)}}}."
            )
    for index, (name, dtype) in enumerate(types.items()):
        if tensors[name].dtype != dtype:
            raise invalid_argument(
                f"Expects arg[{index}] to be {type_name(dtype)} but {type_name(tensors[name].dtype)} is provided "
                f"(input {name})"
            )
    return {name: to_array(tensors[name], name, max_bytes) for name in types}


def check_output_filter(signature: Signature, output_filter: Collection[str]) -> list[str]:
    """The outputs that a Predict request asks for.

    Args:
        signature: what is asked.
        output_filter: names; empty for all.

    Raises:
        StatusError: INVALID_ARGUMENT: a name is unknown, or there twice.
    """
    types = signature.output_types
    names: list[str] = []
    for name in output_filter:
        if name not in types:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{','.join(types)}}}."
            )
        if name in names:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
        names.append(name)
    return names or list(types)


def classify_signature(model: SavedModel, name: str, check_method: bool) -> Signature:
    """The signature of a Classify request.

    Args:
        model: what is asked.
        name: of the signature; empty for `serving_default`.
        check_method: whether the signature has to say that it is a classification.

    Raises:
        StatusError: INVALID_ARGUMENT or FAILED_PRECONDITION: there is none, or it is not one.
    """
    signature = _examples_signature(model, name, "classification", CLASSIFY_METHOD, check_method)
    outputs = signature.output_types
    if len(outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(outputs)}")
    if _CLASSES_OUTPUT not in outputs and _SCORES_OUTPUT not in outputs:
        raise StatusError(
            Code.FAILED_PRECONDITION,
            f'Expected classification signature outputs to contain at least one of "{_CLASSES_OUTPUT}" or '
            f'"{_SCORES_OUTPUT}". Signature was: {signature.definition}',
        )
    return signature


def regress_signature(model: SavedModel, name: str, check_method: bool) -> Signature:
    """The signature of a Regress request.

    Args:
        model: what is asked.
        name: of the signature; empty for `serving_default`.
        check_method: whether the signature has to say that it is a regression.

    Raises:
        StatusError: INVALID_ARGUMENT or FAILED_PRECONDITION: there is none, or it is not one.
    """
    signature = _examples_signature(model, name, "regression", REGRESS_METHOD, check_method)
    if len(signature.output_types) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if _REGRESSION_OUTPUT not in signature.output_types:
        raise StatusError(
            Code.FAILED_PRECONDITION, f"No regression outputs found in SignatureDef: {signature.definition}"
        )
    return signature


def examples_inputs(signature: Signature, request_input: input_pb2.Input) -> dict[str, np.ndarray]:
    """A Classify or Regress request's input.

    Args:
        signature: from `classify_signature` or `regress_signature`.
        request_input: tf.Examples, with or without a context that is a part of each.

    Returns:
        The serialized tf.Examples, bytes [N].

    Raises:
        StatusError: INVALID_ARGUMENT: there are none, or the signature does not take any.
    """
    context = b""
    examples = request_input.example_list.examples
    if request_input.WhichOneof("kind") == "example_list_with_context":
        # Messages that follow each other on the wire are merged by whoever parses them.
        context = request_input.example_list_with_context.context.SerializeToString()
        examples = request_input.example_list_with_context.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    dtype = signature.input_types[_EXAMPLES_INPUT]
    if dtype != types_pb2.DT_STRING:
        raise invalid_argument(f"Expects arg[0] to be {type_name(dtype)} but string is provided")
    array = np.empty(len(examples), dtype=object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return {_EXAMPLES_INPUT: array}


def classification_result(outputs: Mapping[str, np.ndarray], rows: int) -> classification_pb2.ClassificationResult:
    """A Classify response's result.

    Args:
        outputs: `classes`, bytes [rows, C], or `scores`, float32 [rows, C], or both.
        rows: examples in the request.

    Raises:
        StatusError: INVALID_ARGUMENT: the outputs are not of these shapes and types.
    """
    for name, dtype, expected in ((_CLASSES_OUTPUT, object, "DT_STRING"), (_SCORES_OUTPUT, np.float32, "DT_FLOAT")):
        array = outputs.get(name)
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
        if array.dtype != dtype:
            raise invalid_argument(f"Expected {name} Tensor of {expected}. Got: {array.dtype}")
        if array.shape[0] != rows:
            raise invalid_argument(f"Expected {name} output batch size of {rows}. Got: {array.shape[0]}")
    classes, scores = outputs.get(_CLASSES_OUTPUT), outputs.get(_SCORES_OUTPUT)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for row in range(rows):
        add = result.classifications.add().classes.add
        if classes is None:
            for score in outputs[_SCORES_OUTPUT][row].tolist():
                add(score=score)
        elif scores is None:
            for label in classes[row]:
                add(label=_text(label))
        else:
            for label, score in zip(classes[row], scores[row].tolist(), strict=True):
                add(label=_text(label), score=score)
    return result


def regression_result(outputs: Mapping[str, np.ndarray], rows: int) -> regression_pb2.RegressionResult:
    """A Regress response's result.

    Args:
        outputs: `outputs`, float32 [rows] or [rows, 1].
        rows: examples in the request.

    Raises:
        StatusError: INVALID_ARGUMENT: the output is not of this shape and type.
    """
    values = outputs[_REGRESSION_OUTPUT]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    if values.shape[0] != rows:
        raise invalid_argument(f"Input batch size did not match output batch size: {rows} vs. {values.shape[0]}")
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _examples_signature(model: SavedModel, name: str, kind: str, method: str, check_method: bool) -> Signature:
    """A signature that takes tf.Examples."""
    signature = model.signature(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")
    if check_method and signature.definition.method_name != method:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.definition.method_name}"
        )
    if len(signature.input_types) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if _EXAMPLES_INPUT not in signature.input_types:
        raise StatusError(Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef: {signature.definition}")
    return signature


def _text(label: bytes) -> str:
    """A class's label; a protobuf string has to be UTF-8."""
    return label.decode("utf-8", errors="replace")
