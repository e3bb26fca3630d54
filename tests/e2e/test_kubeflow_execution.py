"""The specification that is compiled for Kubeflow, executed: each task by its own container command."""

import json
import os
import shutil

import numpy as np
import pytest

pytest.importorskip("kfp", reason="kfp, the client of Kubeflow Pipelines, is not installed")

import tensorflow as tf
from kubeflow_backend import Backend

from components.serving_validator import validation
from models import features
from pipeline import kubeflow
from pipeline.settings import PROJECT_ROOT, make_settings
from serving.answers import ServedModel
from serving.grpc_client import GrpcClient

# A dozen processes that import TensorFlow, one or two at a time: three minutes of two quiet cores.
pytestmark = pytest.mark.timeout(1800)

PIPELINE_ROOT = "minio://mlpipeline/v2/artifacts"
JUDGES = ["ServedModel", "Evaluator", "Pusher"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, small_data):
    """A backend that has executed the whole specification once, and the settings that it was compiled with."""
    folder = tmp_path_factory.mktemp("cluster")
    volume = folder / "volume"
    volume.mkdir()
    settings = make_settings(
        "smoke",
        {
            "data": shutil.copy(small_data, volume),
            "image": "alexnet:test",
            "image_project_dir": str(PROJECT_ROOT),
            "volume_claim": "volume",
            "volume_dir": str(volume),
            "output_dir": str(folder / "outputs"),
            "accuracy_floor": 0.0,
            "latency_budget_s": 30.0,
        },
    )
    specification = folder / "kubeflow.yaml"
    kubeflow.compile_pipeline(settings, specification)
    backend = Backend(specification, folder, PIPELINE_ROOT, PROJECT_ROOT)
    backend.run()
    return backend, volume / "smoke" / "serving_model" / "alexnet", settings


@pytest.fixture(scope="module")
def judged_again(cluster):
    """What came of the first run, and of evaluating and pushing the same candidate once more."""
    backend, serving_dir, _ = cluster
    first = {name: dict(backend.outputs[name]) for name in JUDGES}
    backend.run(JUDGES)
    return first, {name: backend.outputs[name] for name in JUDGES}, serving_dir


def read_json(folder, name):
    return json.loads((folder / name).read_text())


def test_every_task_leaves_its_outputs_in_the_object_store(cluster):
    backend, _, settings = cluster
    assert set(backend.outputs) == set(backend.tasks)
    for name, outputs in backend.outputs.items():
        assert set(outputs) == set(backend.spec.components[name].output_definitions.artifacts)
        for key, artifact in outputs.items():
            assert artifact.uri.startswith(f"{PIPELINE_ROOT}/alexnet-smoke/")
            if name != "ServedModel":  # nothing was served before
                assert any(path.is_file() for path in backend.stored(artifact.uri).rglob("*")), (name, key)
    assert not os.path.exists(settings.output_dir)  # nothing is written to where local runs write


def test_examples_hold_every_record_once(cluster):
    metadata = cluster[0].outputs["Cifar10ExampleGen"]["examples"].metadata
    assert metadata["train_examples"] + metadata["validation_examples"] == 600
    assert metadata["test_examples"] == 200
    assert metadata["input_fingerprint"].startswith("split:depth-1,num_files:1,")  # from TFX's driver, where it runs


def test_both_gates_bless_the_model(cluster):
    backend, _, _ = cluster
    assert backend.outputs["Evaluator"]["blessing"].metadata["blessed"] == 1
    served = backend.outputs["ServingValidator"]["blessing"]
    assert served.metadata["blessed"] == 1
    checks = read_json(backend.stored(served.uri), "checks.json")
    assert [check["reached"] for check in checks] == [True] * 4


def test_without_a_served_model_there_is_no_baseline(cluster):
    backend, _, _ = cluster
    assert "version" not in backend.outputs["ServedModel"]["model"].metadata
    assert "baseline_model_id" not in backend.outputs["Evaluator"]["blessing"].metadata


def test_the_blessing_names_the_artifact_that_was_evaluated(cluster):
    backend, _, _ = cluster
    model = backend.outputs["Trainer"]["model"]
    assert backend.outputs["Evaluator"]["blessing"].metadata["current_model_id"] == model.name


def test_the_pushed_model_serves_what_was_evaluated(cluster, tmp_path):
    backend, serving_dir, _ = cluster
    (version,) = os.listdir(serving_dir)
    pushed = backend.outputs["Pusher"]["pushed_model"].metadata
    assert (pushed["pushed"], pushed["pushed_version"]) == (1, version)

    split = backend.stored(backend.outputs["Cifar10ExampleGen"]["examples"].uri) / "Split-test"
    files = sorted(str(path) for path in split.iterdir())
    records = list(tf.data.TFRecordDataset(files, compression_type="GZIP").take(8).as_numpy_iterator())
    images = [tf.train.Example.FromString(r).features.feature[features.IMAGE_KEY].bytes_list.value[0] for r in records]
    candidate = backend.stored(backend.outputs["Trainer"]["model"].uri) / "Format-Serving"
    expected = tf.saved_model.load(str(candidate)).signatures["classify"](inputs=tf.constant(records))["scores"].numpy()
    with (
        validation.model_server(serving_dir / version, tmp_path / "server.log") as server,
        GrpcClient(server.grpc_address, ServedModel(validation.MODEL_NAME), timeout_s=60) as client,
    ):
        answers = np.array([answer.probabilities for answer in client.predict(images)])
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_the_report_is_written_without_a_connection_to_ml_metadata(cluster):
    backend, _, _ = cluster
    page = backend.stored(backend.outputs["ModelReport"]["report"].uri) / "report.html"
    assert "</html>" in page.read_text()


def test_finished_training_leaves_no_checkpoint_on_the_volume(cluster):
    _, serving_dir, _ = cluster
    checkpoints = serving_dir.parents[1] / "checkpoints"
    assert not any(checkpoints.iterdir())


def test_the_next_run_is_compared_with_the_model_that_is_served(judged_again):
    first, second, serving_dir = judged_again
    (version,) = os.listdir(serving_dir)
    assert second["ServedModel"]["model"].metadata["version"] == version
    blessing = second["Evaluator"]["blessing"].metadata
    assert blessing["baseline_model_id"] == second["ServedModel"]["model"].name
    # The candidate is the served model itself: no change, so within any tolerance.
    assert blessing["blessed"] == 1
    assert (
        second["Evaluator"]["evaluation"].metadata["accuracy"] == first["Evaluator"]["evaluation"].metadata["accuracy"]
    )


def test_an_unchanged_model_is_not_pushed_again(judged_again):
    first, second, serving_dir = judged_again
    assert len(os.listdir(serving_dir)) == 1
    assert first["Pusher"]["pushed_model"].metadata["new"] == 1
    assert second["Pusher"]["pushed_model"].metadata["new"] == 0
