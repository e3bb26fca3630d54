"""Replays a version's warm-up requests, so that its first real request does not pay for what happens only once."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from google.protobuf import message
from tensorflow_serving.apis import prediction_log_pb2

from serving.local_server import inference
from serving.local_server.saved_model import SavedModel, Signature
from serving.local_server.status import Code, StatusError, invalid_argument

REQUESTS_PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")
"""Of the TFRecord file of PredictionLogs, within a SavedModel (https://www.tensorflow.org/tfx/serving/saved_model_warmup)."""

MAX_RECORDS = 1000


def replay(model: SavedModel, iterations: int, max_bytes: int) -> int:
    """Runs a model's warm-up requests, where it has any.

    Args:
        model: not yet available to others.
        iterations: how often each request runs.
        max_bytes: the largest array to make of one tensor.

    Returns:
        The number of records.

    Raises:
        StatusError: the file is damaged or too long, or a request fails: such a version is not served.
    """
    path = os.path.join(model.path, REQUESTS_PATH)
    if not os.path.exists(path):
        return 0
    count = 0
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            count += 1
            if count > MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
            log = prediction_log_pb2.PredictionLog.FromString(record)
            signature, inputs = _request(model, log, max_bytes)
            for _ in range(iterations):
                model.run(signature, inputs)
    except StatusError as error:
        raise StatusError(error.code, f"Warm-up record {count} of {path} failed: {error.message}") from None
    except tf.errors.DataLossError as error:
        raise StatusError(
            Code.DATA_LOSS, f"{path}: {error.message}. Please verify your warmup data is in TFRecord format."
        ) from None
    except message.DecodeError as error:
        raise invalid_argument(f"Failed to parse warmup record {count} of {path}: {error}") from None
    return count


def _request(
    model: SavedModel, log: prediction_log_pb2.PredictionLog, max_bytes: int
) -> tuple[Signature, Mapping[str, np.ndarray]]:
    """What a record asks for."""
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict = log.predict_log.request
        signature = inference.predict_signature(model, predict.model_spec.signature_name)
        return signature, inference.predict_inputs(signature, predict.inputs, max_bytes)
    if kind == "classify_log":
        classify = log.classify_log.request
        signature = inference.classify_signature(model, classify.model_spec.signature_name, check_method=False)
        return signature, inference.examples_inputs(signature, classify.input)
    if kind == "regress_log":
        regress = log.regress_log.request
        signature = inference.regress_signature(model, regress.model_spec.signature_name, check_method=False)
        return signature, inference.examples_inputs(signature, regress.input)
    raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
