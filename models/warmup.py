"""Requests that a model server sends to a model before it answers others, so that the first user does not wait.

TensorFlow Serving replays them when it loads a version; a version that fails on one of them does not become
available. Format: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import tensorflow as tf
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import ClassifyLog, PredictionLog, PredictLog

from models import features

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Batches that the server makes: `allowed_batch_sizes` of serving/batching_parameters.txt."""

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Below the SavedModel: a TFRecord file of PredictionLogs."""


def write_requests(images: Sequence[bytes], export_dir: str) -> None:
    """Adds the warm-up requests to a SavedModel of `signatures.export`.

    Args:
        images: encoded image files, real ones; the first 32 are used, again where there are fewer.
        export_dir: of the SavedModel.

    Raises:
        ValueError: no image was given.
    """
    if not len(images):
        raise ValueError(f"No image was given for the warm-up requests of {export_dir}; give one or more.")
    path = f"{export_dir}/{WARMUP_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.TFRecordWriter(path) as writer:
        for batch_size in BATCH_SIZES:
            for request in _requests(list(islice(cycle(images), batch_size))):
                writer.write(request.SerializeToString())


def _requests(images: list[bytes]) -> Iterator[PredictionLog]:
    """A batch, for each signature."""
    for signature_name in ("serving_default", "embeddings"):
        predict = PredictRequest()
        predict.model_spec.signature_name = signature_name
        predict.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string))
        yield PredictionLog(predict_log=PredictLog(request=predict))
    classify = ClassificationRequest()
    classify.model_spec.signature_name = "classify"
    for image in images:
        example = classify.input.example_list.examples.add()
        example.features.feature[features.IMAGE_KEY].bytes_list.value.append(image)
    yield PredictionLog(classify_log=ClassifyLog(request=classify))
