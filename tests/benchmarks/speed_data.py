"""A data set of a few real images as the pipeline's components would leave it, made without them in a second."""

from pathlib import Path

from benchmarks import repeated_images
from benchmarks.experiments import Examples
from components.cifar10_example_gen.examples import example_of
from components.cifar10_example_gen.records import Record
from models import features

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 128, 16, 64


def make_examples(folder: Path) -> Examples:
    """Examples of the first images of the bundled sample, and the preprocessing as a graph."""
    import tensorflow as tf

    from models import preprocessing

    images = list(repeated_images.sample())
    starts = {
        features.TRAIN_SPLIT: (0, NUM_TRAIN),
        features.VALIDATION_SPLIT: (1000, NUM_VALIDATION),
        features.TEST_SPLIT: (2000, NUM_TEST),
    }
    for split, (start, count) in starts.items():
        path = folder / "examples" / f"Split-{split}"
        path.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path / "data.gz"), options="GZIP") as writer:
            for index, (_, label, pixels) in enumerate(images[start : start + count]):
                writer.write(example_of(Record(split, "sample", index, label, pixels)).SerializeToString())
    module = tf.Module()
    module.transform_fn = tf.function(
        preprocessing.preprocessing_fn,
        input_signature=[
            {
                features.IMAGE_KEY: tf.TensorSpec([None, 1], tf.string),
                features.LABEL_KEY: tf.TensorSpec([None, 1], tf.int64),
            }
        ],
    )
    tf.saved_model.save(module, str(folder / "transform" / "transform_fn"))
    return Examples("a few", str(folder / "examples"), str(folder / "transform"), features.VALIDATION_SPLIT)
