"""An image gets the same probabilities wherever it comes from: training, each signature, gRPC, REST."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models import features
from serving import client
from serving.answers import ServedModel, ServingError
from serving.server_process import ServerProcess, server_process

NUM_IMAGES = 200
TOLERANCE = 1e-5
SAMPLE_ARCHIVE = Path(__file__).parents[2] / "data" / "cifar-10-sample-binary.tar.gz"
RECORD_BYTES = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class Exported:
    """A model as it was trained, and what was exported of it."""

    network: Any
    transform_graph: Any
    base_path: Path

    @property
    def signatures(self) -> Any:
        import tensorflow as tf

        return tf.saved_model.load(str(self.base_path / "1")).signatures


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """AlexNet with weights that tell images apart, behind the Transform graph that TFX would write."""
    import apache_beam as beam
    import keras
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from models import input_pipeline, signatures
    from models.alexnet import EMBEDDING_LAYER, build_alexnet
    from models.hyperparameters import Hyperparameters
    from models.preprocessing import preprocessing_fn

    root = tmp_path_factory.mktemp("no_skew")
    spec = {
        features.IMAGE_KEY: tf.io.FixedLenFeature([1], tf.string),
        features.LABEL_KEY: tf.io.FixedLenFeature([1], tf.int64),
    }
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    row = {features.IMAGE_KEY: [encode(np.zeros((32, 32, 3), np.uint8), "PNG")], features.LABEL_KEY: [0]}
    with tft_beam.Context(str(root / "temp")), beam.Pipeline() as pipeline:
        graph = (pipeline | beam.Create([row]), metadata) | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = graph | tft_beam.WriteTransformFn(str(root / "transform"))
    savedmodel_dir = tft.TFTransformOutput(str(root / "transform")).transform_savedmodel_dir
    transform_graph = input_pipeline.load_transform_graph(savedmodel_dir)

    network = build_alexnet(seed=2)
    rng = np.random.default_rng(0)
    # Fresh batch statistics are 0 and 1: with others, an export that lost them would show.
    weights = [np.abs(w + rng.normal(0, 0.02, w.shape)) if w.ndim == 1 else w for w in network.get_weights()]
    network.set_weights(weights)
    # An untrained network answers much the same to every image; here the logits of a class differ by 2.
    batch = tf.constant([encode(image, "PNG") for image in sample_pixels(64)])
    transformed, _ = input_pipeline.transform(transform_graph, batch, tf.zeros([64], tf.int64))
    hidden = keras.Model(network.inputs, network.get_layer(EMBEDDING_LAYER).output)(transformed).numpy()
    kernel = weights[-2] * 2 / (hidden @ weights[-2]).std(axis=0)
    network.set_weights([*weights[:-2], kernel, -(hidden @ kernel).mean(axis=0)])
    signatures.export(network, transform_graph, str(root / "alexnet" / "1"), Hyperparameters())
    return Exported(network, transform_graph, root / "alexnet")


@pytest.fixture(scope="module", params=["PNG", "JPEG"])
def images(request: pytest.FixtureRequest) -> list[bytes]:
    return [encode(image, request.param) for image in sample_pixels(NUM_IMAGES)]


@pytest.fixture(scope="module")
def trained(exported: Exported, images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What the Keras model answers to the training input pipeline, float32 [200, 10]."""
    import tensorflow as tf

    from models import input_pipeline

    path = tmp_path_factory.mktemp("examples") / "data_tfrecord-00000-of-00001.gz"
    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for image in images:
            writer.write(example(image, label=0))
    examples = input_pipeline.read_examples([str(path)])
    dataset = input_pipeline.evaluation_dataset(examples, exported.transform_graph, batch_size=64)
    answers = exported.network.predict(dataset.map(lambda images, labels: images), verbose=0)
    # The comparisons below would prove nothing on answers that hardly differ.
    assert answers.std(axis=0).max() > 0.1
    assert len(set(answers.argmax(axis=1))) > 2
    return answers


@pytest.fixture(scope="module")
def server(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ["--model_name=alexnet", f"--model_base_path={exported.base_path}"]
    with server_process(flags, tmp_path_factory.mktemp("server") / "server.log") as process:
        yield process


def sample_pixels(count: int) -> np.ndarray:
    """The first images of the bundled sample's test batch, uint8 [count, 32, 32, 3]."""
    with tarfile.open(SAMPLE_ARCHIVE) as archive:
        name = next(name for name in archive.getnames() if name.endswith("test_batch.bin"))
        file = archive.extractfile(name)
        assert file is not None
        records = np.frombuffer(file.read(count * RECORD_BYTES), np.uint8).reshape(count, RECORD_BYTES)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def encode(pixels: np.ndarray, file_format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def damaged(image: bytes) -> bytes:
    """The same file with a byte changed in its middle: a wrong checksum in a PNG, a wrong table in a JPEG."""
    position = image.index(b"IDAT") + 99 if b"IDAT" in image else image.index(b"\xff\xc4") + 2
    return image[:position] + bytes([image[position] ^ 1]) + image[position + 1 :]


def example(image: bytes, label: int) -> bytes:
    import tensorflow as tf

    feature = {
        features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        features.LABEL_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def test_serving_default(exported: Exported, images: list[bytes], trained: np.ndarray):
    answer = exported.signatures["serving_default"](image_bytes=images)
    np.testing.assert_allclose(answer["probabilities"], trained, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(answer["score"], trained.max(axis=1), rtol=0, atol=TOLERANCE)


def test_classify(exported: Exported, images: list[bytes], trained: np.ndarray):
    answer = exported.signatures["classify"](inputs=[example(image, label=0) for image in images])
    np.testing.assert_allclose(answer["scores"], trained, rtol=0, atol=TOLERANCE)


def test_embeddings(exported: Exported, images: list[bytes], trained: np.ndarray):
    embeddings = exported.signatures["embeddings"](image_bytes=images)["embeddings"]
    answer = exported.network.layers[-1](embeddings)
    np.testing.assert_allclose(answer, trained, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("protocol", ["gRPC", "REST"])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_server(
    server: ServerProcess, images: list[bytes], trained: np.ndarray, protocol: str, batch_size: int
) -> None:
    rest = protocol == "REST"
    address = server.rest_address if rest else server.grpc_address
    with client.connect(address, ServedModel("alexnet"), rest=rest, timeout_s=60) as connection:
        answers = [
            prediction.probabilities
            for start in range(0, NUM_IMAGES, batch_size)
            for prediction in connection.predict(images[start : start + batch_size])
        ]
    np.testing.assert_allclose(answers, trained, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("protocol", ["gRPC", "REST"])
@pytest.mark.parametrize(("size", "bad"), [(1, 0), (3, 1), (32, 31)])
def test_an_image_that_is_damaged_in_its_middle_is_named(
    server: ServerProcess, images: list[bytes], protocol: str, size: int, bad: int
) -> None:
    rest = protocol == "REST"
    address = server.rest_address if rest else server.grpc_address
    files = images[:size]
    files[bad] = damaged(files[bad])
    with (
        client.connect(address, ServedModel("alexnet"), rest=rest, timeout_s=60) as connection,
        pytest.raises(ServingError, match=rf"image_bytes\[{bad}\] is refused: .*Invalid (PNG|JPEG) data") as error,
    ):
        connection.predict(files)
    assert error.value.code == "INVALID_ARGUMENT"
    assert client.explain(error.value).startswith("is refused: ")
    assert "node" not in client.explain(error.value)
