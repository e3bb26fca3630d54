"""Configuration files: TensorFlow Serving's text protos."""

from pathlib import Path

import pytest

from serving.local_server.model_config import (
    BatchingParameters,
    ConfigError,
    ModelConfig,
    VersionPolicy,
    read_batching_parameters,
    read_model_configs,
    read_monitoring_config,
)


def write(folder: Path, text: str) -> str:
    path = folder / "config.txt"
    path.write_text(text)
    return str(path)


def test_several_models_with_policies_and_labels(tmp_path):
    path = write(
        tmp_path,
        """
        # Two models.
        model_config_list: {
          config: { name: "a", base_path: "/models/a", model_platform: "tensorflow" },
          config: {
            name: "b" base_path: "/models/b"
            model_version_policy { specific { versions: 3 versions: 7 } }
            version_labels { key: "stable" value: 3 }
            version_labels { key: "canary" value: 7 }
          }
          config: { name: "c" base_path: "/models/c" model_version_policy { all {} } }
          config: { name: "d" base_path: "/models/d" model_version_policy { latest { num_versions: 2 } } }
        }
        """,
    )
    assert read_model_configs(path) == [
        ModelConfig("a", "/models/a"),
        ModelConfig("b", "/models/b", VersionPolicy(specific=(3, 7)), {"stable": 3, "canary": 7}),
        ModelConfig("c", "/models/c", VersionPolicy(all_versions=True)),
        ModelConfig("d", "/models/d", VersionPolicy(latest=2)),
    ]


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), {9}),
        (VersionPolicy(latest=2), {4, 9}),
        (VersionPolicy(latest=5), {1, 4, 9}),
        (VersionPolicy(all_versions=True), {1, 4, 9}),
        (VersionPolicy(specific=(4, 5)), {4}),
    ],
)
def test_policies(policy, chosen):
    assert policy.choose({1, 4, 9}) == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("improperly formatted file", "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:1"),
        ("improperly formatted file", "Invalid protobuf file: '"),
        ('model_config_list { config { base_path: "/a" } }', "has no name"),
        ('model_config_list { config { name: "a" base_path: "a" } }', "to have an absolute path or URI; got .*=a"),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { name: "a" base_path: "/b" } }',
            "Illegal to list model a multiple times in config list",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "caffe" } }',
            "Model a requests unsupported platform caffe",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_version_policy { specific {} } } }',
            "specific version policy without versions",
        ),
        ("custom_model_config {}", "does not support custom_model_config"),
    ],
)
def test_what_cannot_be_served_is_refused_by_file(text, message, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as refused:
        read_model_configs(path)
    assert path in str(refused.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"/nowhere/models\.config cannot be read: No such file"):
        read_model_configs("/nowhere/models.config")


def test_batching_parameters(tmp_path):
    path = write(
        tmp_path,
        """
        max_batch_size { value: 128 }
        batch_timeout_micros { value: 0 }
        max_enqueued_batches { value: 1000000 }
        num_batch_threads { value: 8 }
        thread_pool_name { value: "pool" }
        allowed_batch_sizes: 8
        allowed_batch_sizes: 128
        """,
    )
    assert read_batching_parameters(path) == BatchingParameters(128, 0, 1_000_000, 8, (8, 128))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size is 0; it has to be 1 or more"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1; it has to be 0 or more"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "the last one has to be max_batch_size, 8"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 8 allowed_batch_sizes: 4", "have to grow"),
        ("pad_variable_length_inputs: true", "does not pad inputs"),
        ("max_batch: 3", 'has no field named "max_batch"'),
    ],
)
def test_wrong_batching_parameters_are_refused_by_file(text, message, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as refused:
        read_batching_parameters(path)
    assert path in str(refused.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('prometheus_config: { enable: true, path: "/metrics" }', "/metrics"),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config { enable: false path: "/metrics" }', None),
        ("", None),
    ],
)
def test_monitoring_config(text, path, tmp_path):
    assert read_monitoring_config(write(tmp_path, text)) == path


def test_the_metrics_path_starts_with_a_slash(tmp_path):
    with pytest.raises(ConfigError, match="'metrics'; it has to start with a slash"):
        read_monitoring_config(write(tmp_path, 'prometheus_config { enable: true path: "metrics" }'))
