"""What a run writes for TensorBoard, read back from its event files."""

import io
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from models import features, tensorboard_log
from models.alexnet import build_alexnet
from models.tensorboard_log import RunLog, Samples

RECIPE = {"epochs": 2, "learning_rate": 0.05, "nesterov": True, "schedule": "one_cycle"}


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_alexnet()


@pytest.fixture(scope="module")
def samples() -> Samples:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (10, 32, 32, 3), np.uint8)
    return Samples(pixels, random.normal(size=(10, 64, 64, 3)).astype(np.float32), np.arange(10))


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory, network, samples):
    """Two epochs, the second after an interruption."""
    folder = tmp_path_factory.mktemp("log")
    for epoch in range(2):
        log = RunLog(folder, network, samples, RECIPE)
        log.on_train_begin()
        log.on_epoch_end(epoch)
        log.on_train_end()
        time.sleep(1)  # TensorBoard reads files in the order of the seconds in their names
    return folder


@pytest.fixture(scope="module")
def events(log_dir):
    return [event for file in sorted(log_dir.iterdir()) for event in tf.compat.v1.train.summary_iterator(str(file))]


def test_a_picture_after_each_epoch(events, network, samples):
    pictures = [
        (event.step, value.tensor.string_val)
        for event in events
        for value in event.summary.value
        if value.tag == tensorboard_log.PICTURES_TAG
    ]
    assert [step for step, _ in pictures] == [0, 1]
    width, height, png = pictures[-1][1]
    shown = np.asarray(Image.open(io.BytesIO(png)))
    assert shown.shape == (int(height), int(width), 3)
    probabilities = network.predict(samples.inputs, verbose=0)
    np.testing.assert_array_equal(shown, tensorboard_log.contact_sheet(samples.pixels, samples.labels, probabilities))


def test_the_recipe_and_the_graph_are_there_once(log_dir):
    read = EventAccumulator(str(log_dir)).Reload()
    layers = {node.name.split("/")[1] for node in read.Graph().node if "/" in node.name}
    assert {"conv1_1", "norm1_1", "pool1_1", "dense8_1"} <= layers  # the network's second call, after its making
    tags = read.SummaryMetadata
    assert read.PluginTagToContent("hparams")
    content = read.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in started.hparams.items()}
    assert found == RECIPE
    assert tags("_hparams_/experiment").plugin_data.plugin_name == "hparams"


def test_an_interrupted_run_writes_its_recipe_and_graph_once(events):
    starts = [value.tag for event in events for value in event.summary.value if "session_start" in value.tag]
    assert len(starts) == 1
    assert sum(bool(event.graph_def) for event in events) == 1


def test_the_frame_says_whether_the_prediction_is_right(samples):
    labels = np.array([3, 5])
    probabilities = np.eye(10)[[3, 3]]
    sheet = tensorboard_log.contact_sheet(samples.pixels[:2], labels, probabilities)
    right, wrong = sheet[4, 70], sheet[4, 70 + sheet.shape[1] // 5]
    assert right[2] > right[0]  # blue
    assert wrong[0] > wrong[2]  # orange
    np.testing.assert_array_equal(sheet[6:134, 6:134][::4, ::4], samples.pixels[0])


def test_one_image_of_each_class_in_label_order():
    labels = np.array([2, 2, 0, 7, 0])
    assert tensorboard_log.one_of_each_class(labels).tolist() == [2, 0, 3]
    assert len(tensorboard_log.one_of_each_class(np.arange(100) % features.NUM_CLASSES)) == 10
