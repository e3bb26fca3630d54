"""What ML Metadata knows of a profile's runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_metadata
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from pipeline.settings import Settings


@dataclass(frozen=True)
class ComponentRun:
    """One component's part in a run.

    Attributes:
      name: The component's id in the pipeline.
      cached: Whether its outputs are those of an earlier run.
      failed: Whether it ended with an error. TFX lets a run go on after a Resolver that did.
      seconds: From start to end, in seconds.
      outputs: Output artifact by output key (each of our components' outputs is one artifact).
    """

    name: str
    cached: bool
    failed: bool
    seconds: float
    outputs: dict[str, mlmd.Artifact] = field(repr=False)


def last_run(settings: Settings) -> dict[str, ComponentRun]:
    """Return the components of the profile's latest run, by name, in the order in which they ran."""
    store = ml_metadata.MetadataStore(metadata.sqlite_metadata_connection_config(str(settings.metadata_path)))
    runs = store.get_contexts_by_type("pipeline_run")
    latest = max(runs, key=lambda run: run.id)
    executions = sorted(store.get_executions_by_context(latest.id), key=lambda execution: execution.id)
    return {run.name: run for run in (_component_run(store, execution) for execution in executions)}


def _component_run(store: ml_metadata.MetadataStore, execution: mlmd.Execution) -> ComponentRun:
    contexts = store.get_contexts_by_execution(execution.id)
    pipeline, node = (next(c.name for c in contexts if c.type == kind) for kind in ("pipeline", "node"))
    keys = {
        event.artifact_id: event.path.steps[0].key
        for event in store.get_events_by_execution_ids([execution.id])
        if event.type in (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
    }
    return ComponentRun(
        name=node.removeprefix(f"{pipeline}."),
        cached=execution.last_known_state == mlmd.Execution.CACHED,
        failed=execution.last_known_state == mlmd.Execution.FAILED,
        seconds=(execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
        outputs={keys[artifact.id]: artifact for artifact in store.get_artifacts_by_id(list(keys))},
    )
