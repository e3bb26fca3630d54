import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Sample, encode, example

from models import features, input_pipeline, signatures
from models.alexnet import EMBEDDING_LAYER, build_alexnet
from models.hyperparameters import Hyperparameters


@pytest.fixture(scope="module")
def network() -> keras.Model:
    network = build_alexnet(seed=4)
    rng = np.random.default_rng(0)
    # Fresh batch statistics are 0 and 1: with others, an export that lost them would show.
    network.set_weights([np.abs(w + rng.normal(0, 0.01, w.shape)) if w.ndim == 1 else w for w in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def export_dir(network: keras.Model, transform_graph, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("export"))
    signatures.export(network, transform_graph, folder, Hyperparameters())
    return folder


@pytest.fixture(scope="module")
def served(export_dir: str) -> Any:
    return tf.saved_model.load(export_dir).signatures


@pytest.fixture(scope="module")
def expected(network: keras.Model, transform_graph, sample: Sample) -> np.ndarray:
    """The Keras model's own answer, float32 [20, 10]."""
    labels = tf.constant(sample.labels[:20])
    images, _ = input_pipeline.transform(transform_graph, tf.constant(sample.pngs[:20]), labels)
    return network(images, training=False).numpy()


def test_serving_default_is_the_model(served, expected: np.ndarray, sample: Sample):
    answer = served["serving_default"](image_bytes=tf.constant(sample.pngs[:20]))
    assert {name: (value.dtype, value.shape) for name, value in answer.items()} == {
        "probabilities": (tf.float32, (20, 10)),
        "classes": (tf.string, (20, 10)),
        "class_id": (tf.int64, (20,)),
        "label": (tf.string, (20,)),
        "score": (tf.float32, (20,)),
    }
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert [name.decode() for name in answer["classes"].numpy()[-1]] == list(features.CLASS_NAMES)
    np.testing.assert_array_equal(answer["class_id"], expected.argmax(axis=-1))
    np.testing.assert_allclose(answer["score"], expected.max(axis=-1), atol=1e-5)
    assert [label.decode() for label in answer["label"].numpy()] == [
        features.CLASS_NAMES[i] for i in expected.argmax(axis=-1)
    ]


def test_a_session_restores_every_variable(export_dir: str, expected: np.ndarray, sample: Sample):
    # TensorFlow Serving loads like this, and not like tf.saved_model.load, which finds variables that this does not.
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], export_dir)
        signature = loaded.signature_def["serving_default"]
        answer = session.run(
            signature.outputs["probabilities"].name, {signature.inputs["image_bytes"].name: sample.pngs[:20]}
        )
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_every_weight_is_saved_once(export_dir: str, network: keras.Model):
    variables = tf.train.list_variables(f"{export_dir}/variables/variables")
    shapes = [tuple(shape) for name, shape in variables if name.endswith("VARIABLE_VALUE")]
    assert sorted(shapes) == sorted(tuple(weight.shape) for weight in network.weights)


@pytest.mark.parametrize("labels", [True, False])
def test_classify_is_the_model_with_and_without_label(served, expected: np.ndarray, sample: Sample, labels: bool):
    serialized = [example(sample.pngs[i], int(sample.labels[i]) if labels else None) for i in range(20)]
    answer = served["classify"](inputs=tf.constant(serialized))
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)
    assert answer["classes"].numpy().tolist() == [[name.encode() for name in features.CLASS_NAMES]] * 20


def test_embeddings_are_the_last_hidden_layer(served, network: keras.Model, expected: np.ndarray, sample: Sample):
    embeddings = served["embeddings"](image_bytes=tf.constant(sample.pngs[:20]))["embeddings"]
    assert embeddings.shape == (20, 1024)
    assert embeddings.dtype == tf.float32
    assert (embeddings.numpy() >= 0).all()
    np.testing.assert_allclose(network.get_layer("dense8")(embeddings), expected, atol=1e-5)


def test_answers_do_not_depend_on_the_batch(served, expected: np.ndarray, sample: Sample):
    alone = served["serving_default"](image_bytes=tf.constant(sample.pngs[7:8]))
    np.testing.assert_allclose(alone["probabilities"], expected[7:8], atol=1e-5)


def test_other_kinds_of_images_are_served(served, sample: Sample):
    large = encode(np.repeat(np.repeat(sample.pixels[0], 5, axis=0), 3, axis=1))
    files = [large, encode(sample.pixels[1], "JPEG"), encode(sample.pixels[2, :, :, 0])]
    answer = served["serving_default"](image_bytes=tf.constant(files))
    np.testing.assert_allclose(tf.reduce_sum(answer["probabilities"], axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("signature", ["serving_default", "classify", "embeddings"])
def test_an_undecodable_image_is_refused_and_named(served, sample: Sample, signature: str):
    files = [sample.pngs[0], sample.pngs[1], b"no image"]
    name, values = "image_bytes", files
    if signature == "classify":
        name, values = "inputs", [example(file) for file in files]
    message = re.escape(f"{name}[2] is not a PNG, JPEG, BMP or GIF image (8 bytes)")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served[signature](**{name: tf.constant(values)})


@pytest.mark.parametrize("signature", ["serving_default", "classify", "embeddings"])
def test_an_empty_batch_has_an_empty_answer(served, signature: str):
    name = "inputs" if signature == "classify" else "image_bytes"
    full = served[signature].structured_outputs
    answer = served[signature](**{name: tf.constant([], tf.string)})
    assert {key: value.shape.as_list() for key, value in answer.items()} == {
        key: [0, *spec.shape[1:]] for key, spec in full.items()
    }


def test_with_test_time_flip_every_answer_is_the_mean_of_the_image_and_its_mirror_image(
    network: keras.Model, transform_graph, sample: Sample, served, tmp_path
):
    folder = str(tmp_path / "flipped")
    signatures.export(network, transform_graph, folder, Hyperparameters(test_time_flip=True))
    flipping = tf.saved_model.load(folder).signatures
    files = sample.pngs[:20]
    mirrored = [encode(pixels[:, ::-1]) for pixels in sample.pixels[:20]]
    for name in ("serving_default", "embeddings"):
        key = "probabilities" if name == "serving_default" else "embeddings"
        one, other = (served[name](image_bytes=tf.constant(images))[key].numpy() for images in (files, mirrored))
        assert not np.allclose(one, other, atol=1e-4)
        found = flipping[name](image_bytes=tf.constant(files))[key].numpy()
        np.testing.assert_allclose(found, (one + other) / 2, atol=1e-5)
        np.testing.assert_allclose(flipping[name](image_bytes=tf.constant(mirrored))[key], found, atol=1e-5)
    answer = flipping["serving_default"](image_bytes=tf.constant(files))
    scores = flipping["classify"](inputs=tf.constant([example(file) for file in files]))["scores"]
    np.testing.assert_array_equal(scores, answer["probabilities"])
    np.testing.assert_array_equal(answer["class_id"], scores.numpy().argmax(axis=-1))
    assert flipping["serving_default"](image_bytes=tf.constant([], tf.string))["probabilities"].shape == (0, 10)


@pytest.mark.parametrize("flip", [False, True])
def test_with_test_time_shift_every_answer_is_the_mean_of_the_image_and_the_moved_ones(
    flip: bool, network: keras.Model, transform_graph, sample: Sample, tmp_path
):
    folder = str(tmp_path / "shifted")
    signatures.export(network, transform_graph, folder, Hyperparameters(test_time_shift=3, test_time_flip=flip))
    shifting = tf.saved_model.load(folder).signatures
    files = tf.constant(sample.pngs[:20])
    images = input_pipeline.transform(transform_graph, files, tf.zeros([20], tf.int64))[0].numpy()
    around = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    views = [images, around[:, :64, :64], around[:, 6:, 6:]]
    np.testing.assert_array_equal(views[1][:, 3:, 3:], images[:, :61, :61])
    if flip:
        views += [view[:, :, ::-1] for view in views]
    answers = [keras.ops.convert_to_numpy(network(view)) for view in views]
    assert not np.allclose(answers[0], answers[1], atol=1e-4)
    found = shifting["serving_default"](image_bytes=files)["probabilities"]
    np.testing.assert_allclose(found, np.mean(answers, axis=0), atol=1e-5)
    hidden = keras.Model(network.inputs, network.get_layer(EMBEDDING_LAYER).output)
    embeddings = [keras.ops.convert_to_numpy(hidden(view)) for view in views]
    found = shifting["embeddings"](image_bytes=files)["embeddings"]
    np.testing.assert_allclose(found, np.mean(embeddings, axis=0), atol=1e-4)


def test_an_example_without_image_is_refused(served):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
        served["classify"](inputs=tf.constant([tf.train.Example().SerializeToString()]))
