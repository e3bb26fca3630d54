"""Runs one step of a compiled pipeline in its container: `python -m pipeline.kubeflow_step`.

Between Kubeflow Pipelines' backend and TFX's own entry point (tfx.orchestration.kubeflow.v2.container) two things are
missing. The backend's ExecutorInput states no types for input artifacts, and TFX does not run without them: they are
taken from the component's specification. And artifacts are named by addresses such as minio://bucket/key, which TFX's
executors cannot read: the backend's launcher has copied them into local folders before it starts the step, and copies
the output folders back afterwards, so executors are given these folders. They need neither credentials nor drivers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfp.pipeline_spec.pipeline_spec_pb2 import ComponentInputsSpec, ExecutorInput, RuntimeArtifact

FOLDERS_BY_SCHEME = {"gs://": "gcs", "minio://": "minio", "s3://": "s3"}
"""Where the launcher keeps its copies, by the scheme of the address (backend/src/v2/component/launcher_v2.go)."""

CUSTOM_ARTIFACT_TYPES = {"alexnet.ModelReport": "components.model_report.component.Report"}
"""Classes of our own artifact types, by type name. TFX takes the name of a type that it does not know for its class."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an executor on what the backend states, and leave the metadata of its outputs where the backend reads it.

    Raises:
      ValueError: An artifact has an address that the launcher does not copy.
    """
    args, beam_arguments = _parse(arguments)

    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2
    from tfx.orchestration.kubeflow.v2 import compiler_utils
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    compiler_utils.TITLE_TO_CLASS_PATH.update(CUSTOM_ARTIFACT_TYPES)
    executor_input = json_format.Parse(
        args.json_serialized_invocation_args, pipeline_spec_pb2.ExecutorInput(), ignore_unknown_fields=True
    )
    inputs_spec = json_format.Parse(
        args.json_serialized_inputs_spec_args, pipeline_spec_pb2.ComponentInputsSpec(), ignore_unknown_fields=True
    )
    output_addresses = {name: artifact.uri for name, artifact in _artifacts(executor_input.outputs)}
    state_types(executor_input, inputs_spec)
    use_local_folders(executor_input, Path(args.local_root))

    args.json_serialized_invocation_args = json_format.MessageToJson(executor_input)
    kubeflow_v2_run_executor.main((args, beam_arguments))

    output_file = Path(executor_input.outputs.output_file)
    output = json_format.Parse(output_file.read_text(encoding="utf-8"), pipeline_spec_pb2.ExecutorOutput())
    for name, artifacts in output.artifacts.items():
        (artifact,) = artifacts.artifacts
        artifact.uri = output_addresses[name]
    output_file.write_text(json_format.MessageToJson(output), encoding="utf-8")


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """What the compiled specification states, and the arguments for Beam."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.kubeflow_step", allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True, help="Dotted name of the executor's class.")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="An ExecutorInput, as JSON.")
    parser.add_argument("--json_serialized_inputs_spec_args", default="{}", help="A ComponentInputsSpec, as JSON.")
    parser.add_argument(
        "--local_root", default="/", help="Folder of the artifacts' local copies; / is where the launcher keeps them."
    )
    return parser.parse_known_args(arguments)


def state_types(executor_input: ExecutorInput, inputs_spec: ComponentInputsSpec) -> None:
    """Give input artifacts without a type the one that the component declares."""
    for name, artifact in _artifacts(executor_input.inputs):
        if not artifact.type.WhichOneof("kind") and name in inputs_spec.artifacts:
            artifact.type.CopyFrom(inputs_spec.artifacts[name].artifact_type)


def use_local_folders(executor_input: ExecutorInput, local_root: Path) -> None:
    """Replace the addresses of all artifacts by their local folders, and make those of the outputs.

    Raises:
      ValueError: An address is not one that the launcher copies.
    """
    for _, artifact in _artifacts(executor_input.inputs):
        artifact.uri = str(local_folder(artifact.uri, local_root))
    for _, artifact in _artifacts(executor_input.outputs):
        folder = local_folder(artifact.uri, local_root)
        folder.mkdir(parents=True, exist_ok=True)
        artifact.uri = str(folder)


def local_folder(address: str, local_root: Path) -> Path:
    """Where an artifact lies on this machine.

    Args:
      address: Of the artifact, or a path, which is returned as it is.
      local_root: Folder of the local copies.

    Raises:
      ValueError: The address has another scheme than those of FOLDERS_BY_SCHEME.
    """
    if address.startswith("/"):
        return Path(address)
    for scheme, folder in FOLDERS_BY_SCHEME.items():
        if address.startswith(scheme):
            return local_root / folder / address.removeprefix(scheme)
    raise ValueError(
        f"The artifact at {address!r} is out of reach: Kubeflow copies {', '.join(FOLDERS_BY_SCHEME)} only. Set"
        " artifact_root to such an address."
    )


def _artifacts(side: Any) -> Iterator[tuple[str, RuntimeArtifact]]:
    """Names and artifacts of an ExecutorInput's inputs or outputs."""
    for name, artifacts in side.artifacts.items():
        for artifact in artifacts.artifacts:
            yield name, artifact


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    main()
