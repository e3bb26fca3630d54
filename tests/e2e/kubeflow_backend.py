"""Runs a compiled specification as Kubeflow Pipelines' open-source backend does, with subprocesses for pods.

What the backend does was read from its source (backend/src/v2: compiler, driver/driver.go, component/launcher_v2.go,
metadata/converter.go). A task gets inputs without types, named by numbers; outputs at addresses of an object store; and
local copies of its inputs in a file system of its own. All that it leaves behind is its output folders and the metadata
in its output file. One thing is done as managed backends do it, where the open-source one does nothing: a container's
hook, here TFX's driver of ExampleGen, is run before it.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

FOLDERS = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}
PLACEHOLDER = "{{$}}"
TIMEOUT_S = 900


@dataclass
class Artifact:
    """What ML Metadata would keep of it: an id, an address and metadata whose numbers are all floating-point."""

    name: str
    uri: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_input(self) -> dict[str, Any]:
        return {"artifacts": [{"name": self.name, "uri": self.uri, "metadata": self.metadata}]}


class Backend:
    """One cluster: its object store, its pods' file systems, and what has come of the tasks so far.

    Args:
        specification: the compiled file.
        folder: for the object store and the pods.
        pipeline_root: where artifacts are kept, an address of an object store.
        project_dir: working directory of the containers.
    """

    def __init__(self, specification: Path, folder: Path, pipeline_root: str, project_dir: Path):
        documents = list(yaml.safe_load_all(specification.read_text(encoding="utf-8")))
        self.spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        self.platform = json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
        deployment = json_format.MessageToDict(self.spec.deployment_spec)
        self.executors = json_format.ParseDict(deployment, pipeline_spec_pb2.PipelineDeploymentConfig()).executors
        self.tasks = self.spec.root.dag.tasks
        self.store = folder / "store"
        self.pods = folder / "pods"
        self.pipeline_root = pipeline_root
        self.project_dir = project_dir
        self.outputs: dict[str, dict[str, Artifact]] = {}
        self._ids = iter(range(1, 1000))

    def run(self, names: list[str] | None = None) -> None:
        """Run tasks, all by default, each when those that it depends on have succeeded, two at a time.

        Raises:
            RuntimeError: a task failed; with the end of its log.
        """
        waiting = list(names or self.tasks)
        with futures.ThreadPoolExecutor(2) as pods:
            running: dict[futures.Future[None], str] = {}
            while waiting or running:
                busy = {*waiting, *running.values()}
                for name in [name for name in waiting if not busy & self.upstream(name)]:
                    waiting.remove(name)
                    running[pods.submit(self.run_task, name)] = name
                done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    future.result()

    def upstream(self, name: str) -> set[str]:
        """Tasks that have to be done before one: those it names, and those whose outputs it takes."""
        task = self.tasks[name]
        return {
            *task.dependent_tasks,
            *(spec.task_output_artifact.producer_task for spec in task.inputs.artifacts.values()),
        }

    def run_task(self, name: str) -> None:
        """What driver and launcher do with a task."""
        task, component = self.tasks[name], self.spec.components[self.tasks[name].component_ref.name]
        container = self.executors[component.executor_label].container
        assert container.image, f"{name} is no container: the backend refuses it"
        pod = self.pods / f"{name}-{uuid.uuid4().hex[:8]}"
        (pod / "home").mkdir(parents=True)
        executor_input = self.executor_input(name, task, component, pod)
        for artifacts in executor_input["inputs"]["artifacts"].values():
            for artifact in artifacts["artifacts"]:
                copy(self.stored(artifact["uri"]), pod / relative(artifact["uri"]))

        output_file = Path(executor_input["outputs"]["outputFile"])
        driver = container.lifecycle.pre_cache_check
        if driver.command:
            self.execute(name, [*driver.command, *filled(driver.args, executor_input)], pod)
            found = json.loads(output_file.read_text(encoding="utf-8"))
            executor_input["inputs"]["parameterValues"] |= found.get("parameterValues", {})
            for key, artifacts in found.get("artifacts", {}).items():
                executor_input["outputs"]["artifacts"][key]["artifacts"][0]["metadata"] |= artifacts["artifacts"][0][
                    "metadata"
                ]
        # The launcher's local copies lie in / of the pod; this pod's / is a folder.
        arguments = [*filled(container.args, executor_input), "--local_root", str(pod)]
        self.execute(name, [*container.command, *arguments], pod)

        output = json_format.Parse(output_file.read_text(encoding="utf-8"), pipeline_spec_pb2.ExecutorOutput())
        self.outputs[name] = {}
        for key, artifacts in executor_input["outputs"]["artifacts"].items():
            (given,) = artifacts["artifacts"]
            (told,) = output.artifacts[key].artifacts
            assert told.uri == given["uri"], f"{name} moved {key} to where nobody looks: {told.uri}"
            copy(pod / relative(told.uri), self.stored(told.uri))
            metadata = {**given.get("metadata", {}), **json_format.MessageToDict(told.metadata)}
            assert None not in metadata.values(), f"{name}, {key}: ML Metadata has no null: {metadata}"
            metadata |= {"display_name": key, "store_session_info": "{}"}
            self.outputs[name][key] = Artifact(str(next(self._ids)), told.uri, metadata)
        shutil.rmtree(pod)

    def executor_input(self, name: str, task: Any, component: Any, pod: Path) -> dict[str, Any]:
        """What the driver makes of a task."""
        inputs = {
            key: self.outputs[spec.task_output_artifact.producer_task][spec.task_output_artifact.output_artifact_key]
            for key, spec in task.inputs.artifacts.items()
        }
        salt = uuid.uuid4()
        run_root = f"{self.pipeline_root}/{self.spec.pipeline_info.name}/run"
        return {
            "inputs": {
                "parameterValues": {
                    key: json_format.MessageToDict(spec.runtime_value.constant)
                    for key, spec in task.inputs.parameters.items()
                },
                "artifacts": {key: artifact.as_input() for key, artifact in inputs.items()},
            },
            "outputs": {
                "artifacts": {
                    key: {
                        "artifacts": [
                            {
                                "uri": f"{run_root}/{name}/{salt}/{key}",
                                "type": json_format.MessageToDict(spec.artifact_type),
                                "metadata": json_format.MessageToDict(spec.metadata),
                            }
                        ]
                    }
                    for key, spec in component.output_definitions.artifacts.items()
                },
                "outputFile": str(pod / "tmp" / "kfp_outputs" / "output_metadata.json"),
            },
        }

    def execute(self, name: str, command: list[str], pod: Path) -> None:
        """Run a container's command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALEXNET_", "PYTEST_"))}
        environment = kept | {"HOME": str(pod / "home"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        ended = subprocess.run(
            command,
            cwd=self.project_dir,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{name} ended with status {ended.returncode}:\n{ended.stdout[-4000:]}")

    def stored(self, uri: str) -> Path:
        """Where the object store keeps an address."""
        return self.store / relative(uri)


def filled(arguments: Iterable[str], executor_input: dict[str, Any]) -> list[str]:
    """A command's arguments with the ExecutorInput in its place."""
    text = json.dumps(executor_input)
    return [argument.replace(PLACEHOLDER, text) for argument in arguments]


def relative(uri: str) -> str:
    """An address as the launcher's local path, without the leading slash."""
    scheme = uri[: uri.index("://") + 3]
    return f"{FOLDERS[scheme]}/{uri.removeprefix(scheme)}"


def copy(source: Path, target: Path) -> None:
    """Copy files; an object store has no empty folders, and nothing at all is no error."""
    for path in source.rglob("*"):
        if path.is_file():
            destination = target / path.relative_to(source)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)
