"""The server's configuration files: TensorFlow Serving's text protos, read into plain values.

Imports protobuf only when a file is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf import descriptor_pb2
    from tensorflow_serving.config import model_server_config_pb2

PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
"""Where TensorFlow Serving exposes its metrics, unless the monitoring configuration names another path."""

_PACKAGE = "tensorflow.serving"


class ConfigError(ValueError):
    """A configuration that cannot be served. The message names the file and what is wrong in it."""


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions on disk to serve: `all_versions`, the `specific` ones, else the `latest` so many."""

    latest: int = 1
    all_versions: bool = False
    specific: tuple[int, ...] = ()

    def choose(self, on_disk: set[int]) -> set[int]:
        """The versions to serve, of those on disk."""
        if self.all_versions:
            return set(on_disk)
        if self.specific:
            return on_disk & set(self.specific)
        return set(sorted(on_disk)[-self.latest :])


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve."""

    name: str
    base_path: str
    """Absolute."""
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)
    """Version by label, `stable` or `canary` for example."""


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are batched; the fields of TensorFlow Serving's BatchingParameters, with its defaults.

    Raises:
        ConfigError: a field is out of its range.
    """

    max_batch_size: int = 1000
    """Rows in a batch, and so in a request, at most."""

    batch_timeout_micros: int = 0
    """Microseconds that a batch waits for more requests while a thread is idle."""

    max_enqueued_batches: int = 10
    """Batches that may wait, by signature. Requests beyond are refused as UNAVAILABLE."""

    num_batch_threads: int = os.cpu_count() or 1
    """Batches that run at once."""

    allowed_batch_sizes: tuple[int, ...] = ()
    """Batches are padded to the next of these sizes, the last of which is `max_batch_size`. Empty: any size."""

    def __post_init__(self) -> None:
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 1),
            ("num_batch_threads", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it has to be {least} or more.")
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise ConfigError(
                f"allowed_batch_sizes is {list(sizes)}; they have to grow, and the last one has to be "
                f"max_batch_size, {self.max_batch_size}."
            )


def read_model_configs(path: str) -> list[ModelConfig]:
    """Reads a file of a ModelServerConfig.

    Args:
        path: the text file.

    Raises:
        ConfigError: it cannot be read, or says something that cannot be served.
    """
    from tensorflow_serving.config import model_server_config_pb2

    config = _parse(path, model_server_config_pb2.ModelServerConfig())
    try:
        return model_configs_from_proto(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def model_configs_from_proto(config: model_server_config_pb2.ModelServerConfig) -> list[ModelConfig]:
    """Checks a ModelServerConfig.

    Args:
        config: from a file, or from a ReloadConfigRequest.

    Raises:
        ConfigError: it says something that cannot be served.
    """
    if config.HasField("custom_model_config"):
        raise ConfigError("The server does not support custom_model_config; use model_config_list.")
    configs: list[ModelConfig] = []
    for model in config.model_config_list.config:
        if not model.name:
            raise ConfigError("A model in the config list has no name.")
        if any(model.name == other.name for other in configs):
            raise ConfigError(f"Illegal to list model {model.name} multiple times in config list")
        if model.model_platform not in ("", "tensorflow"):
            raise ConfigError(f"Model {model.name} requests unsupported platform {model.model_platform}")
        if not os.path.isabs(model.base_path):
            raise ConfigError(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        configs.append(ModelConfig(model.name, model.base_path, _version_policy(model), dict(model.version_labels)))
    return configs


def _version_policy(model: model_server_config_pb2.ModelConfig) -> VersionPolicy:
    """A model's version policy: the latest version when the configuration does not say."""
    policy = model.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(all_versions=True)
    if choice == "specific":
        if not policy.specific.versions:
            raise ConfigError(f"Model {model.name} has a specific version policy without versions.")
        return VersionPolicy(specific=tuple(policy.specific.versions))
    return VersionPolicy(latest=policy.latest.num_versions or 1)


def read_batching_parameters(path: str) -> BatchingParameters:
    """Reads a file of BatchingParameters.

    Args:
        path: the text file.

    Raises:
        ConfigError: it cannot be read, or has a value out of its range or a field that has no effect here.
    """
    wrapped = dict.fromkeys(
        ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"), "Int64Value"
    )
    message = _parse(
        path,
        _new_message(
            "BatchingParameters",
            {
                **wrapped,
                "thread_pool_name": "StringValue",
                "allowed_batch_sizes": "repeated int64",
                "pad_variable_length_inputs": "bool",
            },
        ),
    )
    if message.pad_variable_length_inputs:
        raise ConfigError(f"{path}: the local server does not pad inputs (pad_variable_length_inputs).")
    values: dict[str, Any] = {name: getattr(message, name).value for name in wrapped if message.HasField(name)}
    try:
        return BatchingParameters(**values, allowed_batch_sizes=tuple(message.allowed_batch_sizes))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_monitoring_config(path: str) -> str | None:
    """Reads a file of a MonitoringConfig.

    Args:
        path: the text file; the empty path stands for metrics at their usual place.

    Returns:
        The path of the metrics; None when they are off.

    Raises:
        ConfigError: the file cannot be read, or the metrics' path does not start with a slash.
    """
    if not path:
        return PROMETHEUS_PATH
    message = _parse(
        path, _new_message("MonitoringConfig", {"prometheus_config": {"enable": "bool", "path": "string"}})
    )
    prometheus = message.prometheus_config
    if not prometheus.enable:
        return None
    metrics_path = str(prometheus.path) or PROMETHEUS_PATH
    if not metrics_path.startswith("/"):
        raise ConfigError(f"{path}: the metrics' path is {metrics_path!r}; it has to start with a slash.")
    return metrics_path


def _parse(path: str, message: Any) -> Any:
    """Reads a text proto into a message."""
    from google.protobuf import text_format

    try:
        with open(path, encoding="utf-8") as file:
            return text_format.Parse(file.read(), message)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        # TensorFlow Serving's old and new words for it, which its clients look for.
        raise ConfigError(
            f"Invalid protobuf file: '{path}'. Error parsing text-format {message.DESCRIPTOR.full_name}: {error}"
        ) from None


def _new_message(name: str, fields: Mapping[str, Any]) -> Any:
    """A message of a type that `tensorflow-serving-api` does not ship.

    Args:
        name: of the message, within `tensorflow.serving`.
        fields: type by name: a scalar, `repeated` and a scalar, a wrapper, or the fields of a nested message.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    file = descriptor_pb2.FileDescriptorProto(
        name=f"local_server/{name}.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    _add_fields(file.message_type.add(name=name), f".{_PACKAGE}.{name}", fields)
    pool = descriptor_pool.DescriptorPool()
    wrappers_file = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers_file)
    pool.Add(wrappers_file)
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)()
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)()  # protobuf before 4.22


def _add_fields(message: descriptor_pb2.DescriptorProto, full_name: str, fields: Mapping[str, Any]) -> None:
    """Adds fields to a message's description, numbered in their order."""
    for number, (name, kind) in enumerate(fields.items(), start=1):
        field_proto = message.field.add(name=name, number=number)
        field_proto.label = field_proto.LABEL_OPTIONAL
        if isinstance(kind, Mapping):
            nested = "".join(word.capitalize() for word in name.split("_"))
            field_proto.type = field_proto.TYPE_MESSAGE
            field_proto.type_name = f"{full_name}.{nested}"
            _add_fields(message.nested_type.add(name=nested), field_proto.type_name, kind)
        elif kind.endswith("Value"):
            field_proto.type = field_proto.TYPE_MESSAGE
            field_proto.type_name = f".google.protobuf.{kind}"
        else:
            if kind.startswith("repeated "):
                field_proto.label = field_proto.LABEL_REPEATED
            field_proto.type = getattr(field_proto, f"TYPE_{kind.removeprefix('repeated ').upper()}")
