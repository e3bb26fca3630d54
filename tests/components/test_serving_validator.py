"""Candidates that serve well, answer otherwise than they were evaluated, do not load, or are too slow."""

import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from tfx.components.evaluator import constants as evaluator_constants
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from components.pusher.executor import Executor as PusherExecutor
from components.serving_validator import validation
from components.serving_validator.executor import CHECKS_FILE, SERVER_LOG_FILE, Executor
from models import features
from serving.answers import ServingError
from serving.grpc_client import GrpcClient

NUM_IMAGES = 20


class Candidate(tf.Module):
    """A model with AlexNet's signatures: the probabilities depend on the length of the image file."""

    def __init__(self, offset=0.0, busy_steps=0):
        super().__init__()
        self.weights = tf.Variable(tf.linspace(0.0, 0.1, features.NUM_CLASSES))
        self.offset = offset
        self.busy_steps = busy_steps

    def probabilities(self, images):
        lengths = tf.cast(tf.strings.length(images), tf.float32)
        return tf.nn.softmax(lengths[:, None] * self.weights[None, :])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes):
        noise = tf.zeros([300, 300])
        for _ in tf.range(self.busy_steps):
            noise = tf.tanh(noise @ noise)
        probabilities = self.probabilities(image_bytes) + self.offset + tf.reduce_sum(noise)
        return {"probabilities": probabilities, "score": tf.reduce_max(probabilities, axis=-1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        spec = {features.IMAGE_KEY: tf.io.FixedLenFeature([], tf.string)}
        return {"scores": self.probabilities(tf.io.parse_example(inputs, spec)[features.IMAGE_KEY])}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """An Examples artifact whose test split holds files of different lengths."""
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path_factory.mktemp("examples"))
    artifact.split_names = artifact_utils.encode_split_names(["test"])
    os.mkdir(os.path.join(artifact.uri, "Split-test"))
    path = os.path.join(artifact.uri, "Split-test", "data_tfrecord-00000-of-00001.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for index in range(NUM_IMAGES):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"\xff" * (index + 1)]))
            features_ = tf.train.Features(feature={features.IMAGE_KEY: image})
            writer.write(tf.train.Example(features=features_).SerializeToString())
    return artifact


@pytest.fixture
def validate(examples, tmp_path):
    """Runs the executor on a candidate and then the Pusher; returns (blessed, checks by name, versions pushed)."""

    def run(candidate, latency_budget_s=30.0, spoil=lambda model_dir: None):
        model = standard_artifacts.Model()
        model.uri = str(tmp_path / "model")
        model_dir = tmp_path / "model" / "Format-Serving"
        signatures = {"serving_default": candidate.serving_default, "classify": candidate.classify}
        tf.saved_model.save(candidate, str(model_dir), signatures=signatures)
        spoil(model_dir)
        infra_blessing = standard_artifacts.InfraBlessing()
        infra_blessing.uri = str(tmp_path / "infra_blessing")
        Executor().Do(
            {"model": [model], "examples": [examples]},
            {"blessing": [infra_blessing]},
            {"split": "test", "latency_budget_s": latency_budget_s},
        )
        checks = json.loads((tmp_path / "infra_blessing" / CHECKS_FILE).read_text())

        blessing = standard_artifacts.ModelBlessing()
        blessing.uri = str(tmp_path / "blessing")
        os.mkdir(blessing.uri)
        (tmp_path / "blessing" / evaluator_constants.BLESSED_FILE_NAME).write_text("")
        blessing.set_int_custom_property(evaluator_constants.ARTIFACT_PROPERTY_BLESSED_KEY, 1)
        pushed_model = standard_artifacts.PushedModel()
        pushed_model.uri = str(tmp_path / "pushed")
        base_dir = tmp_path / "serving"
        destination = pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base_dir))
        )
        PusherExecutor().Do(
            {"model": [model], "model_blessing": [blessing], "infra_blessing": [infra_blessing]},
            {"pushed_model": [pushed_model]},
            {"push_destination": proto_utils.proto_to_json(destination)},
        )
        versions = os.listdir(base_dir) if base_dir.exists() else []
        blessed = bool(infra_blessing.get_int_custom_property("blessed"))
        return blessed, {check["name"]: check for check in checks}, versions

    return run


def test_a_sound_candidate_is_blessed_and_pushed(validate, tmp_path):
    blessed, checks, versions = validate(Candidate())
    assert blessed, checks
    assert list(checks) == ["serving", "answers over gRPC", "answers over REST", "latency"]
    assert len(versions) == 1
    assert (tmp_path / "infra_blessing" / SERVER_LOG_FILE).read_text()


@pytest.mark.parametrize("offset", [2e-3, np.nan])
def test_a_candidate_that_answers_otherwise_than_evaluated_is_not_pushed(validate, offset):
    blessed, checks, versions = validate(Candidate(offset=offset))
    assert not blessed
    assert not checks["answers over gRPC"]["reached"]
    assert not checks["answers over REST"]["reached"]
    assert "where the evaluated signature answers" in checks["answers over gRPC"]["finding"]
    assert versions == []


def test_a_candidate_that_does_not_load_is_not_pushed(validate):
    def cut(model_dir):
        graph = model_dir / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:100])

    blessed, checks, versions = validate(Candidate(), spoil=cut)
    assert not blessed
    assert "does not load" in checks["serving"]["finding"]
    assert versions == []


def test_a_candidate_that_loads_here_but_not_in_a_server_is_not_pushed(validate):
    def add_bad_warmup(model_dir):
        # tf.saved_model.load does not look at warm-up requests; a model server refuses a version that fails on one.
        (model_dir / "assets.extra").mkdir()
        with tf.io.TFRecordWriter(str(model_dir / "assets.extra" / "tf_serving_warmup_requests")) as writer:
            writer.write(b"no PredictionLog")

    blessed, checks, versions = validate(Candidate(), spoil=add_bad_warmup)
    assert not blessed
    assert "does not load" in checks["serving"]["finding"]
    assert versions == []


def test_a_candidate_that_is_too_slow_is_not_pushed(validate):
    blessed, checks, versions = validate(Candidate(busy_steps=30), latency_budget_s=0.001)
    assert not blessed
    assert [name for name, check in checks.items() if not check["reached"]] == ["latency"]
    assert "latency_budget_s" in checks["latency"]["finding"]
    assert versions == []


def test_a_candidate_that_fails_under_the_stopwatch_is_not_pushed(validate, monkeypatch):
    class FailsAtTheThird(GrpcClient):
        """Answers the batches; of the requests for one image, the third is refused."""

        asked = 0

        def predict(self, images):
            self.asked += len(images) == 1
            if self.asked == 3:
                raise ServingError("RESOURCE_EXHAUSTED", "the queue is full")
            return super().predict(images)

    monkeypatch.setattr(validation, "GrpcClient", FailsAtTheThird)
    blessed, checks, versions = validate(Candidate())
    assert not blessed
    assert [name for name, check in checks.items() if not check["reached"]] == ["latency"]
    assert re.search(r"request 3 of \d+: .*the queue is full", checks["latency"]["finding"])
    assert versions == []
