import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)

from pipeline.beam import WORKER, Beam
from pipeline.pipeline import create_pipeline
from pipeline.settings import BUNDLED_SAMPLE, PROJECT_ROOT, make_settings

DATAFLOW_ARGS = "--project=p --region=europe-west1 --temp_location=gs://bucket/temp"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beam_runner", "samza"),
        ("beam_job_endpoint", "8099"),
        ("beam_job_endpoint", "http://host:8099"),
        ("beam_parallelism", 0),
        ("beam_pipeline_args", "runner=FlinkRunner"),
        ("beam_pipeline_args", "--name='open"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_the_fields_name(field, value):
    with pytest.raises(ValueError, match=rf"Beam\.{field} is .*; it has to be"):
        make_settings("sample", {field: value})


def test_the_direct_runner_gets_no_flags():
    assert Beam().pipeline_args("/project") == []


def test_flags_of_ones_own_come_last_and_win():
    beam = Beam(beam_runner="flink", beam_pipeline_args="--parallelism=7 --experiments='a b'")
    options = PipelineOptions(beam.pipeline_args("/project")).get_all_options()
    assert options["experiments"] == ["a b"]
    assert [arg for arg in beam.pipeline_args("/project") if arg.startswith("--parallelism")][-1] == "--parallelism=7"
    assert Beam(beam_pipeline_args="--direct_num_workers=2").pipeline_args("/project") == ["--direct_num_workers=2"]


def test_flink_starts_worker_processes_of_this_environment():
    beam = Beam(beam_runner="flink", beam_job_endpoint="flink:8099", beam_parallelism=4)
    options = PipelineOptions(beam.pipeline_args(str(PROJECT_ROOT)))
    portable = options.view_as(PortableOptions)
    assert options.view_as(StandardOptions).runner == "PortableRunner"
    assert (portable.job_endpoint, portable.environment_type) == ("flink:8099", "PROCESS")
    environment = json.loads(portable.environment_config)
    assert environment["env"] == {"BEAM_PYTHON": sys.executable}
    assert "env" not in json.loads(
        PipelineOptions(beam.pipeline_args("/app")).view_as(PortableOptions).environment_config
    )
    command = Path(environment["command"])
    assert command == PROJECT_ROOT / WORKER
    assert os.access(command, os.X_OK)


@pytest.mark.parametrize(
    ("beam", "runner"),
    [
        (Beam(beam_runner="spark", beam_job_endpoint="spark:8099"), "PortableRunner"),
        (Beam(beam_runner="dataflow", beam_pipeline_args=DATAFLOW_ARGS), "DataflowRunner"),
    ],
)
def test_spark_and_dataflow_are_sent_our_code(beam, runner):
    options = PipelineOptions(beam.pipeline_args(str(PROJECT_ROOT)))
    assert options.view_as(StandardOptions).runner == runner
    setup_file = options.view_as(SetupOptions).setup_file
    assert Path(setup_file).is_file()


def test_dataflow_needs_what_has_no_default():
    with pytest.raises(ValueError, match=r"--project, --region, --temp_location where beam_runner is dataflow"):
        Beam(beam_runner="dataflow")
    with pytest.raises(ValueError, match="with --region where"):
        Beam(beam_runner="dataflow", beam_pipeline_args="--project=p --temp_location=gs://b/t")
    options = PipelineOptions(Beam(beam_runner="dataflow", beam_pipeline_args=DATAFLOW_ARGS).pipeline_args("/project"))
    cloud = options.view_as(GoogleCloudOptions)
    assert (cloud.project, cloud.region, cloud.temp_location) == ("p", "europe-west1", "gs://bucket/temp")


def test_the_pipeline_has_the_flags_of_the_settings():
    settings = make_settings("smoke", {"beam_runner": "flink", "beam_pipeline_args": "--sdk_worker_parallelism=2"})
    built = create_pipeline(settings, str(BUNDLED_SAMPLE), project_dir="/app")
    assert built.beam_pipeline_args == settings.beam.pipeline_args("/app")
    assert shlex.quote(f"/app/{WORKER}") in " ".join(built.beam_pipeline_args)
    assert create_pipeline(make_settings("smoke"), str(BUNDLED_SAMPLE)).beam_pipeline_args == []


def test_the_engine_is_in_no_cache_key():
    direct, flink = (
        create_pipeline(make_settings("smoke", {"beam_runner": runner}), str(BUNDLED_SAMPLE))
        for runner in ("direct", "flink")
    )
    for one, other in zip(direct.components, flink.components, strict=True):
        assert one.exec_properties == other.exec_properties


def test_setup_packs_every_module_that_a_worker_may_import(tmp_path):
    pytest.importorskip("setuptools", reason="Beam packs with it; newer environments may not have it")
    packages = ("components", "models", "pipeline", "serving", "surroundings")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    for name in packages:
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", "packed"]  # as Beam does for its workers
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (archive,) = (tmp_path / "packed").iterdir()
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    modules = {str(path.relative_to(tmp_path)) for name in packages for path in (tmp_path / name).rglob("*.py")}
    assert modules <= names
    assert "components/cifar10_example_gen/executor.py" in names
