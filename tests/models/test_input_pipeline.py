import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample, example, write_examples
from hypothesis import given
from hypothesis import strategies as st

from models import input_pipeline


@pytest.fixture(scope="module")
def examples(sample: Sample) -> input_pipeline.LabeledImages:
    return input_pipeline.LabeledImages(tf.constant(sample.pngs[:50]), tf.constant(sample.labels[:50]))


def order(epoch: int, n: int, seed: int, batch_size: int = 1) -> list[int]:
    steps = n // batch_size
    batches = [
        input_pipeline.shuffled_indices(tf.constant(epoch * steps + step, tf.int64), batch_size, steps, n, seed)
        for step in range(steps)
    ]
    return np.concatenate(batches).tolist()


def labels_of(dataset: tf.data.Dataset) -> list[list[int]]:
    return [labels.numpy().tolist() for _, labels in dataset]


def test_reads_all_files_in_the_order_of_their_names(tmp_path: Path, sample: Sample):
    write_examples(tmp_path / "data-2.gz", sample.pngs[3:5], sample.labels[3:5])
    write_examples(tmp_path / "data-1.gz", sample.pngs[:3], sample.labels[:3])
    examples = input_pipeline.read_examples([str(tmp_path / "*")])
    assert len(examples) == 5
    assert examples.images.numpy().tolist() == sample.pngs[:5]
    assert examples.labels.numpy().tolist() == sample.labels[:5].tolist()


def test_digest_is_of_content_and_order(tmp_path: Path, sample: Sample):
    def digest(name: str, chosen: list[int]) -> str:
        path = write_examples(tmp_path / name, [sample.pngs[i] for i in chosen], [sample.labels[i] for i in chosen])
        return input_pipeline.read_examples([str(path)]).digest()

    assert digest("a", [0, 1, 2]) == digest("b", [0, 1, 2])
    assert digest("a", [0, 1, 2]) != digest("c", [1, 0, 2])
    assert digest("a", [0, 1, 2]) != digest("d", [0, 1])


def test_no_file_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no file matches .*nothing-\*"):
        input_pipeline.read_examples([str(tmp_path / "nothing-*")])


def test_no_record_is_an_error(tmp_path: Path):
    path = write_examples(tmp_path / "data.gz", [], [])
    with pytest.raises(ValueError, match=r"data\.gz hold no record"):
        input_pipeline.read_examples([str(path)])


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range_is_an_error(tmp_path: Path, sample: Sample, label: int):
    path = write_examples(tmp_path / "data.gz", sample.pngs[:3], [0, label, 1])
    with pytest.raises(ValueError, match=rf"data\.gz: record 1 has label {label}; .* 0\.\.9"):
        input_pipeline.read_examples([str(path)])


def test_a_missing_label_is_an_error(tmp_path: Path, sample: Sample):
    path = tmp_path / "data.gz"
    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        writer.write(example(sample.pngs[0]))
    with pytest.raises(ValueError, match=r"data\.gz: not every record"):
        input_pipeline.read_examples([str(path)])


def test_a_truncated_file_is_an_error(tmp_path: Path, sample: Sample):
    path = write_examples(tmp_path / "data.gz", sample.pngs[:20], sample.labels[:20])
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"data\.gz: damaged after record \d+"):
        input_pipeline.read_examples([str(path)])


@pytest.mark.parametrize("n", [1, 2, 17, 64, 500])
def test_an_epoch_is_a_permutation(n: int):
    assert sorted(order(epoch=3, n=n, seed=5)) == list(range(n))


def test_orders_differ_by_epoch_and_seed():
    orders = [order(epoch, 100, seed) for epoch in range(3) for seed in range(3)]
    assert len({tuple(indices) for indices in orders}) == len(orders)
    assert list(range(100)) not in orders


def test_the_order_mixes_the_split():
    n, positions = 500, np.arange(500)
    for epoch in range(4):
        indices = np.array(order(epoch, n, seed=0))
        # Of uniformly random permutations, the correlation has a standard deviation of 1 / sqrt(n - 1) = 0.045.
        assert abs(np.corrcoef(positions, indices)[0, 1]) < 0.2
        assert np.mean(np.abs(np.diff(indices)) == 1) < 0.03


def test_training_batches_follow_the_order(examples: input_pipeline.LabeledImages, transform_graph):
    dataset = input_pipeline.training_dataset(
        examples, transform_graph, batch_size=16, steps_per_epoch=3, epochs=2, seed=1
    )
    expected = np.concatenate([order(epoch, 50, 1, batch_size=16) for epoch in range(2)]).reshape(6, 16)
    images, _ = input_pipeline.transform(transform_graph, examples.images, examples.labels)
    batches = list(dataset)
    assert len(batches) == 6
    for (batch_images, batch_labels), indices in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch_labels, tf.gather(examples.labels, indices))
        np.testing.assert_allclose(batch_images, tf.gather(images, indices), atol=1e-6)
        assert len(set(indices.tolist())) == 16


def test_a_resumed_run_sees_what_it_would_have_seen(examples: input_pipeline.LabeledImages, transform_graph):
    def labels(initial_epoch: int) -> list[list[int]]:
        return labels_of(
            input_pipeline.training_dataset(
                examples,
                transform_graph,
                batch_size=16,
                steps_per_epoch=3,
                epochs=4,
                initial_epoch=initial_epoch,
                seed=9,
            )
        )

    assert labels(2) == labels(0)[6:]


def test_more_steps_than_examples_are_an_error(examples: input_pipeline.LabeledImages, transform_graph):
    with pytest.raises(ValueError, match=r"4 steps of 16 images .* 50 training examples"):
        input_pipeline.training_dataset(examples, transform_graph, batch_size=16, steps_per_epoch=4, epochs=1)


def test_evaluation_takes_every_example_once_in_order(examples: input_pipeline.LabeledImages, transform_graph):
    dataset = input_pipeline.evaluation_dataset(examples, transform_graph, batch_size=16)
    batches = labels_of(dataset)
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert [label for batch in batches for label in batch] == examples.labels.numpy().tolist()
    assert labels_of(dataset) == batches


@given(st.integers(1, 200), st.integers(1, 10_000), st.integers(1, 16))
def test_no_device_gets_an_empty_part_of_a_batch(batch_size: int, n: int, replicas: int):
    def parts(size: int) -> list[int]:
        part = math.ceil(size / replicas)
        return [max(0, min(part, size - part * replica)) for replica in range(replicas)]

    chosen = input_pipeline.without_empty_parts(batch_size, n, replicas)
    good = [size for size in range(1, batch_size + 1) if all(parts(size)) and (not n % size or all(parts(n % size)))]
    assert chosen == max(good, default=batch_size)
    if replicas == 1:
        assert chosen == batch_size


def test_no_autotuner_holds_the_end_of_an_epoch_up(examples: input_pipeline.LabeledImages, transform_graph):
    for dataset in (
        input_pipeline.training_dataset(examples, transform_graph, batch_size=5, steps_per_epoch=2, epochs=1),
        input_pipeline.evaluation_dataset(examples, transform_graph, batch_size=5),
    ):
        assert dataset.options().autotune.enabled is False
