"""Real images of the bundled sample, as tf.Examples and behind a Transform graph made by TensorFlow Transform."""

import dataclasses
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import features

SAMPLE_ARCHIVE = Path(__file__).parents[2] / "data" / "cifar-10-sample-binary.tar.gz"
RECORD_BYTES = 1 + 3 * 32 * 32


def encode(pixels: np.ndarray, file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def write_examples(path: Path, images: Iterable[bytes], labels: Iterable[int]) -> Path:
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write(example(image, label))
    return path


def example(image: bytes, label: int | None = None) -> bytes:
    import tensorflow as tf

    feature = {features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
    if label is not None:
        feature[features.LABEL_KEY] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@dataclasses.dataclass(frozen=True)
class Sample:
    """pixels: uint8 [n, 32, 32, 3]; labels: int64 [n]; pngs: the same images, encoded."""

    pixels: np.ndarray
    labels: np.ndarray
    pngs: list[bytes]


@pytest.fixture(scope="session")
def sample() -> Sample:
    """The first 600 images of the bundled sample's first batch, decoded by hand."""
    with tarfile.open(SAMPLE_ARCHIVE) as archive:
        name = next(name for name in archive.getnames() if name.endswith("data_batch_1.bin"))
        file = archive.extractfile(name)
        assert file is not None
        records = np.frombuffer(file.read(600 * RECORD_BYTES), np.uint8).reshape(-1, RECORD_BYTES)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Sample(pixels, records[:, 0].astype(np.int64), [encode(image) for image in pixels])


@pytest.fixture(scope="session")
def transform_output_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What TFX's Transform component writes for `preprocessing_fn`."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from models.preprocessing import preprocessing_fn

    root = tmp_path_factory.mktemp("transform")
    schema = schema_utils.schema_from_feature_spec(
        {
            features.IMAGE_KEY: tf.io.FixedLenFeature([1], tf.string),
            features.LABEL_KEY: tf.io.FixedLenFeature([1], tf.int64),
        }
    )
    row = {features.IMAGE_KEY: [encode(np.zeros((32, 32, 3), np.uint8))], features.LABEL_KEY: [0]}
    with tft_beam.Context(str(root / "temp")), beam.Pipeline() as pipeline:
        data = pipeline | beam.Create([row])
        graph = (data, dataset_metadata.DatasetMetadata(schema)) | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = graph | tft_beam.WriteTransformFn(str(root / "output"))
    return str(root / "output")


@pytest.fixture(scope="session")
def transform_graph(transform_output_dir: str):
    import tensorflow_transform as tft

    from models import input_pipeline

    return input_pipeline.load_transform_graph(tft.TFTransformOutput(transform_output_dir).transform_savedmodel_dir)
