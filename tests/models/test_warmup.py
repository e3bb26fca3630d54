import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from models import features, signatures, warmup
from models.alexnet import build_alexnet
from models.hyperparameters import Hyperparameters


@pytest.fixture(scope="module")
def export_dir(sample: Sample, transform_graph, tmp_path_factory: pytest.TempPathFactory) -> str:
    export_dir = str(tmp_path_factory.mktemp("export"))
    signatures.export(build_alexnet(seed=1), transform_graph, export_dir, Hyperparameters())
    warmup.write_requests(sample.pngs[:40], export_dir)
    return export_dir


@pytest.fixture(scope="module")
def logs(export_dir: str) -> list[PredictionLog]:
    records = tf.data.TFRecordDataset(f"{export_dir}/assets.extra/tf_serving_warmup_requests").as_numpy_iterator()
    return [PredictionLog.FromString(record) for record in records]


def test_every_signature_is_asked_at_every_batch_size(logs: list[PredictionLog]):
    asked: dict[str, list[int]] = {}
    for log in logs:
        if log.WhichOneof("log_type") == "predict_log":
            request = log.predict_log.request
            tensor = request.inputs["image_bytes"]
            assert [dim.size for dim in tensor.tensor_shape.dim] == [len(tensor.string_val)]
            asked.setdefault(request.model_spec.signature_name, []).append(len(tensor.string_val))
        else:
            request = log.classify_log.request
            asked.setdefault(request.model_spec.signature_name, []).append(len(request.input.example_list.examples))
    sizes = list(warmup.BATCH_SIZES)
    assert asked == {"serving_default": sizes, "embeddings": sizes, "classify": sizes}


def test_the_requests_replay(logs: list[PredictionLog], export_dir: str, sample: Sample):
    model = tf.saved_model.load(export_dir)
    replayed = 0
    for log in logs:
        if log.WhichOneof("log_type") == "predict_log":
            request = log.predict_log.request
            images = tf.make_ndarray(request.inputs["image_bytes"])
            assert images.tolist() == sample.pngs[: len(images)]
            answer = model.signatures[request.model_spec.signature_name](image_bytes=tf.constant(images))
            assert {value.shape[0] for value in answer.values()} == {len(images)}
        else:
            request = log.classify_log.request
            examples = [example.SerializeToString() for example in request.input.example_list.examples]
            answer = model.signatures["classify"](inputs=tf.constant(examples))
            assert answer["scores"].shape == (len(examples), features.NUM_CLASSES)
            np.testing.assert_allclose(tf.reduce_sum(answer["scores"], axis=1), 1, atol=1e-5)
        replayed += 1
    assert replayed == 3 * len(warmup.BATCH_SIZES)


def test_few_images_are_used_again(tmp_path, sample: Sample):
    warmup.write_requests(sample.pngs[:3], str(tmp_path))
    *_, record = tf.data.TFRecordDataset(str(tmp_path / warmup.WARMUP_FILE)).as_numpy_iterator()
    examples = PredictionLog.FromString(record).classify_log.request.input.example_list.examples
    images = [example.features.feature["image"].bytes_list.value[0] for example in examples]
    assert images == (sample.pngs[:3] * 11)[:32]


def test_no_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give one or more"):
        warmup.write_requests([], str(tmp_path))
