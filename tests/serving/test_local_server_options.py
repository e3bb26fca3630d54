"""Flags: tensorflow_model_server's, read without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving.local_server.model_config import BatchingParameters, ConfigError
from serving.local_server.options import IGNORED_FLAGS, ServerOptions, parse_flags

PROJECT_ROOT = Path(__file__).parents[2]


def test_flags_as_the_test_suite_of_tensorflow_serving_gives_them():
    options = parse_flags(
        [
            "--port=1234",
            "--rest_api_port=1235",
            "--rest_api_timeout_in_ms=5000",
            "--grpc_socket_path=/tmp/tf-serving.sock",
            "--model_name=default",
            "--model_base_path=/models/default",
            "--enable_batching",
            "--batching_parameters_file=batching_config.txt",
            "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
        ]
    )
    assert (options.port, options.rest_api_port, options.rest_api_timeout_in_ms) == (1234, 1235, 5000)
    assert options.enable_batching is True
    assert options.channel_arguments() == [("grpc.max_connection_age_ms", 2000), ("grpc.lb_policy_name", "grpclb")]


@pytest.mark.parametrize(
    ("text", "value"), [("", True), ("=true", True), ("=True", True), ("=1", True), ("=false", False), ("=0", False)]
)
def test_boolean_flags(text, value):
    options = parse_flags(["--model_base_path=/m", f"--enable_model_warmup{text}"])
    assert options.enable_model_warmup is value


def test_defaults_are_tensorflow_servings():
    options = parse_flags(["--model_base_path=/m"])
    assert (options.port, options.rest_api_port, options.model_name) == (8500, None, "default")
    assert (options.max_num_load_retries, options.load_retry_interval_micros) == (5, 60_000_000)
    assert options.file_system_poll_wait_seconds == 1
    assert options.batching_parameters() is None
    assert options.metrics_path() == "/monitoring/prometheus/metrics"


def test_ignored_flags_are_accepted_and_named(capsys):
    parse_flags(["--model_base_path=/m", *(f"--{flag}=1" for flag in IGNORED_FLAGS)])
    said = capsys.readouterr().err
    assert all(f"--{flag} has no effect" in said for flag in IGNORED_FLAGS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_base_path=/m", "--ssl_config_file=x"], "unrecognized arguments: --ssl_config_file=x"),
        (["--model_base_path=/m", "--use_tflite_model=true"], "unrecognized arguments"),
        (["--model_base_path=/m", "--enable_batch"], "unrecognized arguments"),
        (["--model_base_path=/m", "--enable_batching=yes"], "'yes' is neither true nor false"),
        (["--model_base_path=/m", "--port=http"], "invalid int value: 'http'"),
        (["--model_base_path=/m", "--port=70000"], "port is 70000; it has to be a port, or 0"),
        (["--model_base_path=/m", "--batching_parameters_file=x"], "together with enable_batching"),
        ([], "model_base_path is ''; it has to be given, unless model_config_file is"),
    ],
)
def test_wrong_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_flags(flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_single_model_may_be_given_by_a_relative_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (config,) = ServerOptions(model_base_path="models/alexnet").model_configs()
    assert config.base_path == str(tmp_path / "models" / "alexnet")


def test_batching_without_a_file_has_tensorflow_servings_defaults():
    parameters = ServerOptions(model_base_path="/m", enable_batching=True).batching_parameters()
    assert parameters == BatchingParameters()
    assert parameters.max_batch_size == 1000


def test_channel_arguments_have_to_be_pairs():
    with pytest.raises(ConfigError, match=r"'grpc\.x'; each argument has to be key=value"):
        ServerOptions(model_base_path="/m", grpc_channel_arguments="grpc.x").channel_arguments()


def test_help_answers_without_tensorflow_and_grpc():
    script = "import sys; from serving import server\ntry: server.main(['--help'])\nexcept SystemExit: pass\n"
    script += "print('tensorflow' in sys.modules, 'grpc' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "not for production" in " ".join(output.split())
    assert "--model_config_file VALUE" in output
    assert output.splitlines()[-1] == "False False"
