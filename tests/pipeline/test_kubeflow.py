"""What is compiled for Kubeflow, and what is refused before it is."""

import copy
import json

import pytest
import yaml

pytest.importorskip("kfp", reason="kfp, the client of Kubeflow Pipelines, is not installed")

from kubeflow_api import check_package

from pipeline import kubeflow
from pipeline.kubeflow import KubeflowError
from pipeline.settings import PROJECT_ROOT, make_settings

IN_CLUSTER = {"image": "registry.example/alexnet:1", "volume_claim": "models"}
STEPS = {
    "Cifar10ExampleGen",
    "ImportSchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "ServedModel",
    "Evaluator",
    "ServingValidator",
    "Pusher",
    "ModelReport",
}


def compiled(folder, profile="smoke", **changes):
    """The two documents of a compiled pipeline, held to what the API server accepts."""
    path = folder / "kubeflow.yaml"
    kubeflow.compile_pipeline(make_settings(profile, IN_CLUSTER | changes), path)
    return check_package(path.read_text())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def equipped(tmp_path_factory):
    return compiled(
        tmp_path_factory.mktemp("equipped"),
        profile="cifar10",
        artifact_root="s3://bucket/alexnet",
        step_cpus="2,Trainer=8",
        step_memory_gb="Trainer=24.5",
        gpu_type="nvidia.com/gpu",
        gpu_count="2",
        step_retries="3",
    )


def containers(documents):
    executors = documents[0]["deploymentSpec"]["executors"]
    return {label.removesuffix("_executor"): executor["container"] for label, executor in executors.items()}


def tasks(documents):
    return documents[0]["root"]["dag"]["tasks"]


def parameters(documents, step):
    given = tasks(documents)[step]["inputs"]["parameters"]
    return {name: value["runtimeValue"]["constant"] for name, value in given.items()}


def test_every_step_is_a_container_of_the_image_that_starts_our_entry_point(plain):
    assert set(tasks(plain)) == set(containers(plain)) == STEPS
    for container in containers(plain).values():
        assert container["image"] == IN_CLUSTER["image"]
        assert container["command"] == ["python", "-m", "pipeline.kubeflow_step"]
        assert "{{$}}" in container["args"]


def test_kfps_own_client_reads_what_is_compiled(plain, tmp_path):
    from kfp.client.client import _extract_pipeline_yaml

    path = tmp_path / "kubeflow.yaml"
    path.write_text(yaml.safe_dump_all(plain))
    document = _extract_pipeline_yaml(str(path))
    assert document.pipeline_spec.pipeline_info.name == "alexnet-smoke"
    assert document.platform_spec.platforms["kubernetes"].deployment_spec.executors


def test_nothing_is_limited_retried_or_placed_unless_a_setting_says_so(plain):
    assert all("resources" not in container for container in containers(plain).values())
    assert "defaultPipelineRoot" not in plain[0]
    assert all("env" not in container for container in containers(plain).values())


def test_no_cloud_and_no_secret_is_compiled(monkeypatch, tmp_path):
    secrets = {
        "KUBEFLOW_TOKEN": "tok-3n",
        "AWS_SECRET_ACCESS_KEY": "aws-k3y",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/goog-k3y.json",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    text = yaml.safe_dump_all(compiled(tmp_path, kubeflow_host="http://user:p4ss@kubeflow.example"))
    for hidden in (
        *secrets.values(),
        "p4ss",
        "gcr.io",
        "amazonaws",
        "googleapis.com/auth",
        str(PROJECT_ROOT),
        "/home/",
    ):
        assert hidden not in text


def test_limits_gpus_and_retries_are_those_of_the_settings(equipped):
    resources = {name: container.get("resources") for name, container in containers(equipped).items()}
    assert resources.pop("Trainer") == {
        "cpuLimit": 8.0,
        "memoryLimit": 24.5,
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert set(map(str, resources.values())) == {"{'cpuLimit': 2.0}"}
    assert all(task["retryPolicy"] == {"maxRetryCount": 3} for task in tasks(equipped).values())
    assert equipped[0]["defaultPipelineRoot"] == "s3://bucket/alexnet"


def test_every_step_mounts_the_volume(equipped):
    mounts = equipped[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(mounts) == set(equipped[0]["deploymentSpec"]["executors"])
    for mount in mounts.values():
        assert mount == {"pvcMount": [{"constant": "models", "mountPath": "/mnt/alexnet"}]}


def test_paths_are_those_of_the_image_and_of_the_volume(plain, equipped):
    assert (
        json.loads(parameters(plain, "Trainer")["custom_config"])["checkpoint_dir"] == "/mnt/alexnet/smoke/checkpoints"
    )
    assert parameters(plain, "ImportSchemaGen")["schema_file"] == "/app/data/schema.pbtxt"
    served = "/mnt/alexnet/smoke/serving_model/alexnet"
    assert parameters(plain, "ServedModel")["base_directory"] == served
    destination = json.loads(parameters(plain, "Pusher")["push_destination"])
    assert destination["filesystem"]["base_directory"] == served
    assert parameters(plain, "Cifar10ExampleGen")["input_base"] == "/app/data"
    # The official archive is fetched by the step that reads it, to where a retry and the next run find it.
    assert parameters(equipped, "Cifar10ExampleGen")["input_base"] == "/mnt/alexnet/data"
    assert json.loads(parameters(equipped, "Cifar10ExampleGen")["custom_config"])["custom_config"]["value"]["download"]


def test_all_but_the_served_model_is_cached_unless_a_setting_says_so(plain, tmp_path):
    cached = {name for name, task in tasks(plain).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == STEPS - {"ServedModel"}
    uncached = compiled(tmp_path, enable_cache="false")
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks(uncached).values())


def test_the_served_model_is_looked_up_when_the_candidate_is_there(plain):
    assert "Trainer" in tasks(plain)["ServedModel"]["dependentTasks"]
    baseline = tasks(plain)["Evaluator"]["inputs"]["artifacts"]["baseline_model"]["taskOutputArtifact"]
    assert baseline == {"producerTask": "ServedModel", "outputArtifactKey": "model"}


def test_artifacts_can_be_kept_on_the_volume(tmp_path):
    documents = compiled(tmp_path, artifact_root="/mnt/alexnet/artifacts")
    assert all(c["args"][-2:] == ["--local_root", "/mnt/alexnet/artifacts"] for c in containers(documents).values())
    assert "defaultPipelineRoot" not in documents[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": ""}, "image is not set: give ALEXNET_IMAGE"),
        ({"volume_claim": ""}, "volume_claim is not set.*ALEXNET_VOLUME_CLAIM"),
        ({"serving_validation": "docker"}, "InfraValidator"),
        ({"data": "/home/me/cifar.tar.gz"}, "a path of this machine, which the steps do not see"),
        ({"data": "s3://bucket/cifar.tar.gz"}, "Copy it onto the volume"),
    ],
)
def test_what_cannot_work_on_a_cluster_is_refused(changes, message):
    with pytest.raises(KubeflowError, match=message):
        kubeflow.build_pipeline(make_settings("smoke", IN_CLUSTER | changes))


def test_a_limit_for_a_step_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(KubeflowError, match="step_cpus names Trainr, which this pipeline does not have; its steps are"):
        compiled(tmp_path, step_cpus="Trainr=8")


def test_a_node_that_is_no_container_is_refused(plain):
    resolved = copy.deepcopy(plain[0])
    resolved["deploymentSpec"]["executors"]["ServedModel_executor"] = {"resolver": {}}
    with pytest.raises(KubeflowError, match=r"ServedModel is a resolver: .* runs those that are containers"):
        kubeflow.fit_to_cluster(resolved, make_settings("smoke", IN_CLUSTER).cluster)


@pytest.mark.parametrize("data", ["/mnt/alexnet/mine.zip", "/app/data/mine", "gs://bucket/cifar-10-binary.tar.gz"])
def test_data_that_the_steps_can_reach_is_taken_as_it_is(data):
    assert kubeflow.data_in_steps(make_settings("smoke", IN_CLUSTER | {"data": data})) == data


def test_a_specification_has_to_be_named_yaml(tmp_path):
    with pytest.raises(KubeflowError, match=r"pipeline\.json: .* ends in \.yaml"):
        kubeflow.compile_pipeline(make_settings("smoke", IN_CLUSTER), tmp_path / "pipeline.json")


def test_what_only_this_machine_can_reach_is_refused():
    def check(**changes):
        kubeflow.check(make_settings("smoke", IN_CLUSTER | changes))

    with pytest.raises(KubeflowError, match=r"metadata_connection is 'mysql://tfx@db/runs'"):
        check(metadata_connection="mysql://tfx@db/runs")
    for runner in ("flink", "spark"):
        with pytest.raises(KubeflowError, match=r"beam_job_endpoint is on 127\.0\.0\.1.*ALEXNET_BEAM_JOB_ENDPOINT"):
            check(beam_runner=runner)
        with pytest.raises(KubeflowError, match="beam_job_endpoint is on localhost"):
            check(beam_runner=runner, beam_job_endpoint="localhost:8099")
        check(beam_runner=runner, beam_job_endpoint="flink.beam:8099")
        check(beam_runner=runner, beam_pipeline_args="--job_endpoint=flink.beam:8099")
    check()
