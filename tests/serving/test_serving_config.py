from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from models import warmup
from serving import launch
from serving.local_server import model_config

FOLDER = Path(launch.__file__).parent


def compose() -> dict:
    return yaml.safe_load((FOLDER / "docker-compose.yml").read_text())


def test_models_config_is_tensorflow_servings():
    text = (FOLDER / "models.config").read_text()
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (config.name, config.model_platform) == (launch.MODEL_NAME, "tensorflow")
    assert config.model_version_policy.latest.num_versions == 1


def test_the_container_finds_what_the_configuration_names():
    config = model_config.read_model_configs(str(FOLDER / "models.config"))[0]
    for service in compose()["services"].values():
        mounts = {mount["target"]: mount for mount in service["volumes"]}
        assert config.base_path in mounts
        assert all(mount["read_only"] for mount in mounts.values())
        named = [flag.split("=")[1] for flag in service["command"] if "_file=" in flag]
        assert len(named) == 3
        for path in named:
            assert path.startswith("/config/")
            assert (FOLDER / path.removeprefix("/config/")).is_file()


def test_the_two_services_differ_in_image_and_gpus_only():
    services = compose()["services"]
    cpu, gpu = services["cpu"], services["gpu"]
    assert (cpu.pop("profiles"), gpu.pop("profiles")) == (["cpu"], ["gpu"])
    assert gpu.pop("image") == cpu.pop("image") + "-gpu"
    assert gpu.pop("deploy")["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert cpu == gpu


def test_the_batches_are_those_that_are_warmed_up():
    parameters = model_config.read_batching_parameters(str(FOLDER / "batching_parameters.txt"))
    assert parameters.allowed_batch_sizes == warmup.BATCH_SIZES
    assert parameters.max_batch_size == max(warmup.BATCH_SIZES)


def test_metrics_are_on():
    path = model_config.read_monitoring_config(str(FOLDER / "monitoring.config"))
    assert path == "/monitoring/prometheus/metrics"


@pytest.mark.parametrize("name", ["models.config", "batching_parameters.txt", "monitoring.config"])
def test_every_option_is_explained(name: str):
    lines = [line.strip() for line in (FOLDER / name).read_text().splitlines()]
    previous = ""
    for line in lines:
        option = line.split(":")[0].split(" ")[0]
        is_option = line and not line.startswith("#") and line != "}"
        if is_option and not line.startswith(("model_config_list", "config {", "prometheus_config")):
            assert previous.startswith(("#", option)), f"{name}: {line}"
        previous = line


def test_every_flag_of_the_container_is_explained():
    lines = (FOLDER / "docker-compose.yml").read_text().splitlines()
    flags = [line for line in lines if line.strip().startswith("- --")]
    assert len(flags) == 7
    assert all(" # " in flag for flag in flags)
