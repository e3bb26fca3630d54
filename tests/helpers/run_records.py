"""Writes runs into ML Metadata the way TFX's runner does, without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2 as mlmd

STATES = {
    "complete": mlmd.Execution.COMPLETE,
    "cached": mlmd.Execution.CACHED,
    "failed": mlmd.Execution.FAILED,
    "running": mlmd.Execution.RUNNING,
}
DATA = "/data/cifar-10-sample-binary.tar.gz"
RECIPE = {"epochs": 2, "learning_rate": 0.02}
EVAL_CONFIG = {
    "metrics_specs": [
        {
            "metrics": [
                {
                    "per_slice_thresholds": [
                        {
                            "slicing_specs": [{}],
                            "threshold": {
                                "value_threshold": {"lower_bound": 0.5},
                                "change_threshold": {"absolute": -0.02},
                            },
                        },
                        {
                            "slicing_specs": [{"feature_keys": ["label"]}],
                            "threshold": {"value_threshold": {"lower_bound": 0.2}},
                        },
                    ]
                }
            ]
        }
    ]
}


@dataclass(frozen=True)
class Component:
    """One component's part in a run; an output is the id of an artifact that there is, or type, URI and properties."""

    name: str
    state: str = "complete"
    properties: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, int | tuple[str, str, Mapping[str, Any]]] = field(default_factory=dict)


class RunRecords:
    """A profile's database."""

    def __init__(self, path: Path, pipeline: str = "alexnet_smoke") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = ml_metadata.MetadataStore(config)
        self.pipeline = pipeline

    def start_run(self, name: str = "") -> Run:
        """Begin a run; components are added to it one by one."""
        pipeline_id = self.context("pipeline", self.pipeline)
        run_id = self.context("pipeline_run", name or f"2026-01-01T00:00:0{len(self._runs())}", new=True)
        self.store.put_parent_contexts([mlmd.ParentContext(child_id=run_id, parent_id=pipeline_id)])
        return Run(self, run_id, pipeline_id)

    def artifact_of_no_run(self, kind: str, uri: str) -> int:
        (artifact_id,) = self.store.put_artifacts([self._artifact(kind, uri, {})])
        return artifact_id

    def _runs(self) -> list[mlmd.Context]:
        types = {kind.name for kind in self.store.get_context_types()}
        return self.store.get_contexts_by_type("pipeline_run") if "pipeline_run" in types else []

    def context(self, kind: str, name: str, new: bool = False) -> int:
        type_id = self.store.put_context_type(mlmd.ContextType(name=kind))
        found = None if new else self.store.get_context_by_type_and_name(kind, name)
        return found.id if found else self.store.put_contexts([mlmd.Context(type_id=type_id, name=name)])[0]

    def execution(self, component: Component, context_ids: list[int]) -> dict[str, int]:
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=f"test.{component.name}"))
        execution = mlmd.Execution(type_id=type_id, last_known_state=STATES[component.state])
        set_properties(execution.custom_properties, component.properties)
        pairs, keys = [], []
        for key, artifact_id in component.inputs.items():
            (artifact,) = self.store.get_artifacts_by_id([artifact_id])
            pairs.append((artifact, event(mlmd.Event.INPUT, key)))
        for key, output in component.outputs.items():
            artifact = (
                self.store.get_artifacts_by_id([output])[0] if isinstance(output, int) else self._artifact(*output)
            )
            pairs.append((artifact, event(mlmd.Event.OUTPUT, key)))
            keys.append(key)
        contexts = self.store.get_contexts_by_id(context_ids)
        _, artifact_ids, _ = self.store.put_execution(execution, pairs, contexts)
        return dict(zip(keys, artifact_ids[len(component.inputs) :], strict=True))

    def _artifact(self, kind: str, uri: str, properties: Mapping[str, Any]) -> mlmd.Artifact:
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name=kind))
        artifact = mlmd.Artifact(type_id=type_id, uri=uri, state=mlmd.Artifact.LIVE)
        set_properties(artifact.custom_properties, properties)
        return artifact


@dataclass(frozen=True)
class Run:
    """A run that is being written."""

    records: RunRecords
    id: int
    pipeline_id: int

    def add(self, component: Component) -> dict[str, int]:
        """Add what a component did; return the ids of its output artifacts by key."""
        node_id = self.records.context("node", f"{self.records.pipeline}.{component.name}")
        return self.records.execution(component, [self.pipeline_id, self.id, node_id])


def event(kind: int, key: str) -> mlmd.Event:
    return mlmd.Event(type=kind, path={"steps": [{"key": key}, {"index": 0}]})


def set_properties(target: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            target[name].struct_value.update(value)
        else:
            kind = {int: "int_value", float: "double_value", str: "string_value"}[type(value)]
            setattr(target[name], kind, value)


def example_gen(state: str = "complete", examples: int | None = None) -> Component:
    settings = {"custom_config": {"value": {"data": DATA, "validation_fraction": 0.1}}}
    counts = {"train_examples": 4532, "validation_examples": 468, "test_examples": 1000, "data_sha256": "77b4"}
    counts |= {"train_distinct_images": 4530, "test_overlap": 12}
    return Component(
        "Cifar10ExampleGen",
        state,
        {"custom_config": json.dumps(settings), "source_digest": "aaaa"},
        outputs={"examples": examples or ("Examples", "/artifacts/examples", counts)},
    )


def trainer(
    examples: int, uri: str = "/artifacts", state: str = "complete", outputs: Mapping[str, int] | None = None
) -> Component:
    versions = {"library_versions": '{"tensorflow": "2.16.2"}', "machine": "Linux x86_64, 2 CPU cores, no GPU"}
    new = {"model": ("Model", f"{uri}/model", versions), "model_run": ("ModelRun", f"{uri}/model_run", {})}
    config = {"hyperparameters": RECIPE, "validation_split": "validation"}
    properties = {"custom_config": json.dumps(config), "source_digest": "bbbb"}
    return Component("Trainer", state, properties, {"examples": examples}, {} if state == "failed" else outputs or new)


def add_whole_run(
    records: RunRecords,
    version: str = "",
    evaluation_uri: str = "/artifacts/evaluation",
    *,
    accuracy: float = 0.625,
    uri: str = "/artifacts",
    baseline: int | None = None,
    examples: int | None = None,
) -> tuple[Run, dict[str, int]]:
    """Add a run of all the components that the commands look at; return it, and its artifacts' ids by output key.

    Args:
        records: where to.
        version: what it pushed; "" for a model that was not blessed.
        evaluation_uri: of the Evaluator's artifact.
        accuracy: that the Evaluator recorded.
        uri: folder of the Trainer's artifacts.
        baseline: model that the Evaluator compared with.
        examples: artifact of an earlier run, where ExampleGen was cached.
    """
    run = records.start_run()
    ids = run.add(example_gen("cached" if examples else "complete", examples))
    ids |= run.add(trainer(ids["examples"], uri))
    run.add(Component("LastBlessedModel"))
    blessed = int(bool(version))
    ids |= run.add(
        Component(
            "Evaluator",
            properties={"eval_config": json.dumps(EVAL_CONFIG)},
            inputs={"model": ids["model"]} | ({"baseline_model": baseline} if baseline else {}),
            outputs={
                "evaluation": ("ModelEvaluation", evaluation_uri, {"accuracy": accuracy}),
                "blessing": ("ModelBlessing", "/blessing", {"blessed": blessed}),
            },
        )
    )
    model_blessing = ids.pop("blessing")
    infra_blessing = run.add(
        Component("ServingValidator", outputs={"blessing": ("InfraBlessing", "/infra", {"blessed": 1})})
    )["blessing"]
    ids |= run.add(
        Component(
            "Pusher",
            inputs={"model": ids["model"], "model_blessing": model_blessing, "infra_blessing": infra_blessing},
            outputs={"pushed_model": pushed_model(version)},
        )
    )
    return run, ids


def pushed_model(version: str) -> tuple[str, str, dict[str, Any]]:
    properties = {"pushed": 1, "pushed_version": version, "pushed_destination": f"/serving/{version}", "new": 1}
    return "PushedModel", "/pushed", properties if version else {"pushed": 0}
