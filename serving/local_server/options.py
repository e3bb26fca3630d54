"""The server's options: `tensorflow_model_server`'s flags, as far as the local server has what they set.

Imports nothing heavy, so that `--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.local_server.model_config import (
    BatchingParameters,
    ConfigError,
    ModelConfig,
    read_batching_parameters,
    read_model_configs,
    read_monitoring_config,
)

LOCAL_USE_NOTE = "for laptops, notebooks, tests and validation, not for production"

IGNORED_FLAGS = {
    "enable_profiler": "there is no profiler service",
    "enforce_session_run_timeout": "deadlines are kept by the server, not by TensorFlow's session",
    "flush_filesystem_caches": "files are read through the operating system",
    "grpc_max_threads": "one event loop serves all requests",
    "num_load_threads": "one thread loads all models",
    "num_unload_threads": "one thread unloads all models",
    "remove_unused_fields_from_bundle_metagraph": "only the signatures are kept",
    "rest_api_num_threads": "one event loop serves all requests",
    "xla_cpu_compilation_enabled": "models run as they were exported",
}
"""Flags of tensorflow_model_server that are accepted, do nothing here, and why."""


@dataclass(frozen=True)
class ServerOptions:
    """What to serve, where and within which limits. Every field is a flag of the same name.

    Raises:
        ValueError: a field is out of its range, or neither or both ways to name models are used.
    """

    port: int = 8500
    """gRPC port on `host`. 0 lets the system choose (tensorflow_model_server: no gRPC)."""

    rest_api_port: int | None = None
    """REST port on `host`. 0 lets the system choose. None: no REST, as without the flag."""

    host: str = "127.0.0.1"
    """Address to listen on (not a flag of tensorflow_model_server, which listens on all): 0.0.0.0 for all."""

    grpc_socket_path: str = ""
    """Unix socket to serve gRPC on as well."""

    model_name: str = "default"
    """Name of the one model. Ignored with `model_config_file`."""

    model_base_path: str = ""
    """Folder that holds a folder a version, named by its number. Ignored with `model_config_file`."""

    model_config_file: str = ""
    """Text file of a ModelServerConfig: several models, version policies, version labels."""

    model_config_file_poll_wait_seconds: float = 0
    """Seconds between two looks at `model_config_file`. 0: read once."""

    file_system_poll_wait_seconds: float = 1
    """Seconds between two looks at the base paths. 0 or less: only at the start."""

    max_num_load_retries: int = 5
    """How often a version that failed to load is tried again, beside once whenever its files change."""

    load_retry_interval_micros: int = 60_000_000
    """Microseconds between two such tries."""

    allow_version_labels_for_unavailable_models: bool = False
    """Lets the configuration label versions that are not loaded."""

    saved_model_tags: str = "serve"
    """Tags of the graph to load from each SavedModel, with commas between."""

    enable_model_warmup: bool = True
    """Replays assets.extra/tf_serving_warmup_requests before a version becomes available."""

    num_request_iterations_for_warmup: int = 1
    """How often each warm-up request is replayed."""

    enable_batching: bool = False
    """Runs requests for the same signature together."""

    batching_parameters_file: str = ""
    """Text file of BatchingParameters. Needs `enable_batching`."""

    monitoring_config_file: str = ""
    """Text file of a MonitoringConfig: the path of the Prometheus metrics, or that there are none."""

    rest_api_timeout_in_ms: int = 30_000
    """Milliseconds that a REST request may take."""

    rest_api_enable_cors_support: bool = False
    """Lets web pages of any origin use the REST API."""

    grpc_channel_arguments: str = ""
    """gRPC channel arguments, `key=value` with commas between."""

    tensorflow_session_parallelism: int = 0
    """Threads for both of the next two. 0: as many as TensorFlow likes."""

    tensorflow_intra_op_parallelism: int = 0
    """Threads within an operation. 0: as many as TensorFlow likes."""

    tensorflow_inter_op_parallelism: int = 0
    """Operations run at once. 0: as many as TensorFlow likes."""

    per_process_gpu_memory_fraction: float = 0
    """Part of the GPU's memory to take, in [0, 1]. 0: as needed."""

    enable_signature_method_name_check: bool = False
    """Refuses Classify and Regress on signatures whose method name says otherwise (those of TF 2 always do)."""

    enable_serialization_as_tensor_content: bool = False
    """Answers Predict with packed bytes in `tensor_content` instead of typed values."""

    max_message_bytes: int = 32 << 20
    """Largest request, and largest tensor in one, in bytes (not a flag of tensorflow_model_server)."""

    max_concurrent_requests: int = 256
    """Requests a protocol may have under way (not a flag of tensorflow_model_server)."""

    shutdown_grace_seconds: float = 10
    """Seconds that requests under way get when the server stops (not a flag of tensorflow_model_server)."""

    def __post_init__(self) -> None:
        for name, allowed, expected in (
            ("port", 0 <= self.port < 1 << 16, "a port, or 0"),
            ("rest_api_port", self.rest_api_port is None or 0 <= self.rest_api_port < 1 << 16, "a port, or 0"),
            ("model_name", bool(self.model_name), "not empty"),
            ("max_num_load_retries", self.max_num_load_retries >= 0, "0 or more"),
            ("load_retry_interval_micros", self.load_retry_interval_micros >= 0, "0 or more"),
            ("num_request_iterations_for_warmup", self.num_request_iterations_for_warmup >= 0, "0 or more"),
            ("rest_api_timeout_in_ms", self.rest_api_timeout_in_ms > 0, "1 or more"),
            ("per_process_gpu_memory_fraction", 0 <= self.per_process_gpu_memory_fraction <= 1, "in [0, 1]"),
            ("max_message_bytes", self.max_message_bytes > 0, "1 or more"),
            ("max_concurrent_requests", self.max_concurrent_requests > 0, "1 or more"),
            ("shutdown_grace_seconds", self.shutdown_grace_seconds >= 0, "0 or more"),
            (
                "batching_parameters_file",
                self.enable_batching or not self.batching_parameters_file,
                "used together with enable_batching",
            ),
            (
                "model_base_path",
                bool(self.model_base_path or self.model_config_file),
                "given, unless model_config_file is",
            ),
        ):
            if not allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it has to be {expected}.")

    def check_files(self) -> None:
        """Reads every configuration file, which takes no TensorFlow.

        Raises:
            ConfigError: one cannot be read, or says something that cannot be served.
        """
        self.model_configs()
        self.batching_parameters()
        self.metrics_path()
        self.channel_arguments()

    def model_configs(self) -> list[ModelConfig]:
        """The models to serve.

        Raises:
            ConfigError: `model_config_file` cannot be read, or says something that cannot be served.
        """
        if self.model_config_file:
            return read_model_configs(self.model_config_file)
        return [ModelConfig(name=self.model_name, base_path=os.path.abspath(self.model_base_path))]

    def batching_parameters(self) -> BatchingParameters | None:
        """How to batch; None when batching is off.

        Raises:
            ConfigError: `batching_parameters_file` cannot be read, or has a value out of its range.
        """
        if not self.enable_batching:
            return None
        return (
            read_batching_parameters(self.batching_parameters_file)
            if self.batching_parameters_file
            else (BatchingParameters())
        )

    def metrics_path(self) -> str | None:
        """Where REST answers with Prometheus metrics; None for nowhere.

        Raises:
            ConfigError: `monitoring_config_file` cannot be read.
        """
        return read_monitoring_config(self.monitoring_config_file)

    def channel_arguments(self) -> list[tuple[str, str | int]]:
        """`grpc_channel_arguments` as gRPC takes them; whole numbers become ints, as in tensorflow_model_server.

        Raises:
            ConfigError: an argument is not of the form key=value.
        """
        arguments: list[tuple[str, str | int]] = []
        for argument in filter(None, self.grpc_channel_arguments.split(",")):
            key, equals, value = argument.partition("=")
            if not (key and equals):
                raise ConfigError(f"grpc_channel_arguments has {argument!r}; each argument has to be key=value.")
            arguments.append((key, int(value) if value.lstrip("-").isdecimal() else value))
        return arguments


def parse_flags(argv: Sequence[str] | None = None) -> ServerOptions:
    """Reads the command line; ends the process with a message when it is wrong.

    Args:
        argv: the arguments; those of the process when None.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description=f"Serves SavedModels by TensorFlow Serving's gRPC and REST protocols: {LOCAL_USE_NOTE}. "
        "Flags and files are tensorflow_model_server's.",
        epilog="Accepted and without effect: " + ", ".join(f"--{flag}" for flag in IGNORED_FLAGS) + ".",
        allow_abbrev=False,
    )
    help_texts = _field_docstrings()
    types = typing.get_type_hints(ServerOptions)
    for field in dataclasses.fields(ServerOptions):
        help_text = help_texts[field.name].replace("%", "%%")
        if types[field.name] is bool:
            parser.add_argument(
                f"--{field.name}", nargs="?", const=True, default=field.default, type=_boolean, help=help_text
            )
        else:
            converter = int if types[field.name] == (int | None) else types[field.name]
            shown = "" if field.default in ("", None) else f" Default: {field.default}."
            parser.add_argument(
                f"--{field.name}", type=converter, default=field.default, metavar="VALUE", help=help_text + shown
            )
    for flag in IGNORED_FLAGS:
        parser.add_argument(f"--{flag}", nargs="?", const="true", help=argparse.SUPPRESS)
    values = vars(parser.parse_args(argv))
    for flag, reason in IGNORED_FLAGS.items():
        if values.pop(flag) is not None:
            print(f"--{flag} has no effect in the local server: {reason}.", file=sys.stderr)
    try:
        return ServerOptions(**values)
    except ValueError as error:
        parser.error(str(error))


def _boolean(text: str) -> bool:
    """Reads a flag's value as TensorFlow's flags do."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


def _field_docstrings() -> dict[str, str]:
    """The line under each field of ServerOptions, which is its help."""
    (definition,) = ast.parse(inspect.getsource(ServerOptions)).body
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            texts[statement.target.id] = _text(following)
    return texts


def _text(statement: Any) -> str:
    """The string that a statement consists of."""
    return str(statement.value.value)
