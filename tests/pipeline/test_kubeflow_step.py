from pathlib import Path

import pytest

pytest.importorskip("kfp", reason="kfp, the client of Kubeflow Pipelines, is not installed")

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.utils import import_utils

from pipeline import kubeflow_step


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("minio://mlpipeline/v2/a/b", "/minio/mlpipeline/v2/a/b"),
        ("s3://bucket/key", "/s3/bucket/key"),
        ("gs://bucket/key", "/gcs/bucket/key"),
        ("/mnt/alexnet/x", "/mnt/alexnet/x"),
    ],
)
def test_artifacts_lie_where_the_launcher_copies_them(address, folder):
    assert kubeflow_step.local_folder(address, Path("/")) == Path(folder)


def test_an_address_that_the_launcher_does_not_copy_is_refused():
    with pytest.raises(ValueError, match=r"'oci://registry/model' is out of reach"):
        kubeflow_step.local_folder("oci://registry/model", Path("/"))


def executor_input():
    artifact = {"name": "7", "uri": "minio://bucket/run/model", "metadata": {"accuracy": 0.5}}
    output = {"uri": "minio://bucket/run/report", "type": {"schemaTitle": "tfx.Examples"}}
    return json_format.ParseDict(
        {
            "inputs": {"artifacts": {"model": {"artifacts": [artifact]}}},
            "outputs": {"artifacts": {"examples": {"artifacts": [output]}}},
        },
        pipeline_spec_pb2.ExecutorInput(),
    )


def test_inputs_get_the_types_that_the_component_declares():
    given = executor_input()
    declared = {"artifacts": {"model": {"artifactType": {"schemaTitle": "tfx.Model"}}}}
    kubeflow_step.state_types(given, json_format.ParseDict(declared, pipeline_spec_pb2.ComponentInputsSpec()))
    (model,) = given.inputs.artifacts["model"].artifacts
    assert model.type.schema_title == "tfx.Model"
    assert dict(model.metadata.items()) == {"accuracy": 0.5}


def test_a_type_that_the_backend_states_is_kept():
    given = executor_input()
    given.inputs.artifacts["model"].artifacts[0].type.schema_title = "tfx.PushedModel"
    declared = {"artifacts": {"model": {"artifactType": {"schemaTitle": "tfx.Model"}}}}
    kubeflow_step.state_types(given, json_format.ParseDict(declared, pipeline_spec_pb2.ComponentInputsSpec()))
    assert given.inputs.artifacts["model"].artifacts[0].type.schema_title == "tfx.PushedModel"


def test_executors_get_local_folders_and_find_those_of_their_outputs_made(tmp_path):
    given = executor_input()
    kubeflow_step.use_local_folders(given, tmp_path)
    assert given.inputs.artifacts["model"].artifacts[0].uri == str(tmp_path / "minio/bucket/run/model")
    assert given.outputs.artifacts["examples"].artifacts[0].uri == str(tmp_path / "minio/bucket/run/report")
    assert (tmp_path / "minio/bucket/run/report").is_dir()
    assert not (tmp_path / "minio/bucket/run/model").exists()


def test_our_own_artifact_types_are_found_by_their_names():
    for name, path in kubeflow_step.CUSTOM_ARTIFACT_TYPES.items():
        assert name == import_utils.import_class_by_path(path).TYPE_NAME
