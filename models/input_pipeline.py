"""From the tf.Examples of a split to the batches that the model takes, through the Transform graph.

The encoded images are read once and stay in memory (160 MB for CIFAR-10's training split). The Transform graph is
applied to a batch at a time: its output, 48 KB an image, is never stored.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models import features

RAW_FEATURE_SPEC = {
    features.IMAGE_KEY: tf.io.FixedLenFeature([], tf.string),
    features.LABEL_KEY: tf.io.FixedLenFeature([], tf.int64),
}

PARALLEL_BATCHES = min(len(os.sched_getaffinity(0)), 16)
"""Batches that are made at the same time, and that wait ready: one a core. More than 16 would only fill memory."""


@dataclasses.dataclass(frozen=True)
class LabeledImages:
    """A split in memory.

    Attributes:
        images: string [n], encoded image files.
        labels: int64 [n], in 0..9.
    """

    images: tf.Tensor
    labels: tf.Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def digest(self) -> str:
        """SHA-256 of all images and labels in their order, in hexadecimal."""
        sha256 = hashlib.sha256(self.labels.numpy().tobytes())
        for image in self.images.numpy():
            sha256.update(len(image).to_bytes(8, "little"))
            sha256.update(image)
        return sha256.hexdigest()


def read_examples(file_patterns: Sequence[str]) -> LabeledImages:
    """Reads a split that ExampleGen wrote.

    Args:
        file_patterns: of gzipped TFRecord files; read in the order of their names.

    Returns:
        All examples, in the order of the files.

    Raises:
        ValueError: no file or no example is there, a file is damaged, or an example has no image, no label or a
            label outside 0..9; names the file, and the record where it is one.
    """
    files = sorted({file for pattern in file_patterns for file in tf.io.gfile.glob(pattern)})
    if not files:
        raise ValueError(f"No examples: no file matches {', '.join(file_patterns)}. Run ExampleGen again.")
    splits = [_read_file(file) for file in files]
    examples = LabeledImages(
        images=tf.concat([split.images for split in splits], axis=0),
        labels=tf.concat([split.labels for split in splits], axis=0),
    )
    if not len(examples):
        raise ValueError(f"No examples: {', '.join(files)} hold no record. Run ExampleGen again.")
    return examples


def load_transform_graph(savedmodel_dir: str) -> Any:
    """Loads the graph that Transform wrote; keep the value as long as a dataset or signature uses it.

    Args:
        savedmodel_dir: `TFTransformOutput.transform_savedmodel_dir`.

    Returns:
        A trackable object; its `transform_fn` takes `image` string [N, 1] and `label` int64 [N, 1].
    """
    return tf.saved_model.load(savedmodel_dir)


def transform_graph_digest(savedmodel_dir: str) -> str:
    """SHA-256 of the graph, in hexadecimal; the same for the same preprocessing, wherever Transform wrote it."""
    with tf.io.gfile.GFile(f"{savedmodel_dir}/saved_model.pb", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def transform(transform_graph: Any, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies the Transform graph to a batch.

    Args:
        transform_graph: from `load_transform_graph`.
        images: string [N], encoded image files.
        labels: int64 [N].

    Returns:
        float32 [N, 64, 64, 3], and the labels, int64 [N].
    """
    outputs = transform_graph.transform_fn(
        {features.IMAGE_KEY: images[:, tf.newaxis], features.LABEL_KEY: labels[:, tf.newaxis]}
    )
    size = features.MODEL_IMAGE_SIZE
    # The loaded function leaves the static shape open; the model needs it.
    transformed = tf.ensure_shape(outputs[features.IMAGE_KEY], [images.shape[0], size, size, features.NUM_CHANNELS])
    return transformed, tf.ensure_shape(outputs[features.LABEL_KEY], [images.shape[0]])


def training_dataset(
    examples: LabeledImages,
    transform_graph: Any,
    *,
    batch_size: int,
    steps_per_epoch: int,
    epochs: int,
    initial_epoch: int = 0,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches for all epochs, each epoch in an order of its own.

    Which images make up a step is a function of (seed, epoch, step) and of nothing else, so a run that goes on at
    an epoch sees what it would have seen uninterrupted. The order is a permutation of the whole split; the images
    that do not fill the last step of an epoch are left out of that epoch.

    Args:
        examples: the training split, n of them.
        transform_graph: from `load_transform_graph`.
        batch_size: images a step.
        steps_per_epoch: at most n // batch_size.
        epochs: the epoch to end before.
        initial_epoch: the epoch to begin with.
        seed: of the order.

    Returns:
        (epochs - initial_epoch) * steps_per_epoch batches: float32 [batch_size, 64, 64, 3], int64 [batch_size].

    Raises:
        ValueError: an epoch would need more examples than there are.
    """
    n = len(examples)
    if not 1 <= steps_per_epoch * batch_size <= n:
        raise ValueError(
            f"{steps_per_epoch} steps of {batch_size} images in an epoch do not fit {n} training examples."
        )

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        indices = shuffled_indices(step, batch_size, steps_per_epoch, n, seed)
        return transform(transform_graph, tf.gather(examples.images, indices), tf.gather(examples.labels, indices))

    steps = tf.data.Dataset.range(initial_epoch * steps_per_epoch, epochs * steps_per_epoch)
    dataset = steps.map(batch, num_parallel_calls=PARALLEL_BATCHES, deterministic=True)
    return _with_options(dataset.prefetch(PARALLEL_BATCHES))


def evaluation_dataset(
    examples: LabeledImages, transform_graph: Any, *, batch_size: int, replicas: int = 1
) -> tf.data.Dataset:
    """All examples once, in their order; the last batch may be smaller.

    Args:
        examples: the split.
        transform_graph: from `load_transform_graph`.
        batch_size: images a batch, at most.
        replicas: devices that share a batch: there are fewer images a batch where one of them would get none.

    Returns:
        Batches of float32 [N, 64, 64, 3], int64 [N].
    """
    batch_size = without_empty_parts(batch_size, len(examples), replicas)
    dataset = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels)).batch(batch_size)
    dataset = dataset.map(
        lambda images, labels: transform(transform_graph, images, labels),
        num_parallel_calls=PARALLEL_BATCHES,
        deterministic=True,
    )
    return _with_options(dataset.prefetch(PARALLEL_BATCHES))


def without_empty_parts(batch_size: int, n: int, replicas: int) -> int:
    """The largest batch size, up to a given one, with which no replica gets an empty part of any batch.

    TensorFlow's convolutions on a CPU fail on an empty part.

    Args:
        batch_size: the largest.
        n: number of examples.
        replicas: that each batch is shared by: ceil(size / replicas) for each, as long as there are any.

    Returns:
        At most `batch_size`; `batch_size` itself where there is no such size.
    """

    def falls_into_parts(size: int) -> bool:
        return (replicas - 1) * -(-size // replicas) < size

    for size in range(batch_size, 0, -1):
        rest = n % size
        if falls_into_parts(size) and (not rest or falls_into_parts(rest)):
            return size
    return batch_size


def shuffled_indices(step: tf.Tensor, batch_size: int, steps_per_epoch: int, n: int, seed: int) -> tf.Tensor:
    """The examples of a step: a slice of the permutation of 0..n-1 that belongs to the step's epoch.

    Args:
        step: int64 [], counted from the beginning of the first epoch.
        batch_size: images a step.
        steps_per_epoch: steps an epoch.
        n: number of examples.
        seed: of the permutations.

    Returns:
        int64 [batch_size], distinct within an epoch.
    """
    epoch, step_of_epoch = step // steps_per_epoch, step % steps_per_epoch
    positions = step_of_epoch * batch_size + tf.range(batch_size, dtype=tf.int64)
    # A stateless permutation: the value at one position needs no shuffle buffer and no history.
    key = tf.stack([tf.cast(seed, tf.int64), epoch])
    return tf.random.experimental.index_shuffle(positions, seed=key, max_index=n - 1)


def _read_file(file: str) -> LabeledImages:
    """All examples of one gzipped TFRecord file."""
    records: list[bytes] = []
    try:
        for record in tf.data.TFRecordDataset(file, compression_type="GZIP").as_numpy_iterator():
            records.append(record)
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{file}: damaged after record {len(records)} ({error.message}). Run ExampleGen again."
        ) from error
    try:
        parsed = tf.io.parse_example(tf.constant(records, tf.string, [len(records)]), RAW_FEATURE_SPEC)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"{file}: not every record is a tf.Example of one {features.IMAGE_KEY} (bytes) and one "
            f"{features.LABEL_KEY} (int64): {error.message}"
        ) from error
    labels = parsed[features.LABEL_KEY]
    wrong = np.flatnonzero((labels.numpy() < 0) | (labels.numpy() >= features.NUM_CLASSES))
    if wrong.size:
        raise ValueError(
            f"{file}: record {wrong[0]} has label {labels[wrong[0]]}; it has to be in 0..{features.NUM_CLASSES - 1}."
        )
    return LabeledImages(images=parsed[features.IMAGE_KEY], labels=labels)


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Tells a distribution strategy to cut each batch into parts, one a device of each worker, and not to share files.

    A worker of a cluster makes the whole batch and takes its parts of it. And turns tf.data's autotuning off: with it,
    Keras' `fit` often returned seconds after its last step, and without it, it does not. The times (5.1 s after the
    start, whatever was computed) fit the autotuner's thread, whose sleep doubles; that thread was not looked at.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    options.autotune.enabled = False
    return dataset.with_options(options)
