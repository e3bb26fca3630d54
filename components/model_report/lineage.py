"""What ML Metadata knows of runs: their executions and artifacts, and what a pushed version was made of.

Reads only, and imports neither TFX nor TensorFlow: a command that lists runs answers at once. Any database that ML
Metadata can connect to will do; `sqlite_connection` is for the file that a local run writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import ml_metadata
from ml_metadata.proto import metadata_store_pb2 as mlmd

Value: TypeAlias = Any
"""A property's value: int, float, str, bool, or what its JSON form holds."""

PASSWORD_VARIABLE, PASSWORD_FILE_VARIABLE = "METADATA_PASSWORD", "METADATA_PASSWORD_FILE"
"""Environment variables with the password of a metadata server, or with the path of a file that holds it."""

UNFINISHED, COMPLETE, FAILED, CACHED = "unfinished", "complete", "failed", "cached"
"""States of an execution. One that was killed stays `unfinished`, as one that is under way."""

_STATES = {
    mlmd.Execution.COMPLETE: COMPLETE,
    mlmd.Execution.FAILED: FAILED,
    mlmd.Execution.CANCELED: FAILED,
    mlmd.Execution.CACHED: CACHED,
}
_OUTPUTS = (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
_INPUTS = (mlmd.Event.INPUT, mlmd.Event.INTERNAL_INPUT)


@dataclass(frozen=True)
class Artifact:
    """Something that a component has made.

    Attributes:
        id: in the database.
        type: name of its type, e.g. `Model`.
        uri: where its files are.
        properties: declared and custom ones, by name.
    """

    id: int
    type: str
    uri: str
    properties: dict[str, Value] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Execution:
    """One component's part in a run.

    Attributes:
        id: in the database.
        name: the component's id in the pipeline.
        run_id: `Run.id` of its run.
        state: `complete`, `cached` (its outputs are those of an earlier run), `failed` or `unfinished`.
        started_s: Unix time, in seconds.
        seconds: from start to end; of no meaning where it is unfinished.
        properties: execution parameters, by name, as TFX stores them: messages and lists as JSON texts.
        inputs: artifact by input key (each of our components' inputs is one artifact).
        outputs: artifact by output key.
    """

    id: int
    name: str
    run_id: int
    state: str
    started_s: float
    seconds: float
    properties: dict[str, Value] = field(repr=False, compare=False)
    inputs: dict[str, Artifact] = field(repr=False, compare=False)
    outputs: dict[str, Artifact] = field(repr=False, compare=False)

    @property
    def cached(self) -> bool:
        """Whether its outputs are those of an earlier run."""
        return self.state == CACHED

    @property
    def failed(self) -> bool:
        """Whether it ended with an error. TFX lets a run go on after a Resolver that did."""
        return self.state == FAILED

    def json(self, name: str) -> Any:
        """A parameter that TFX stores as a JSON text; None where there is none."""
        return json.loads(self.properties.get(name) or "null")


@dataclass(frozen=True)
class Run:
    """One run of a pipeline.

    Attributes:
        id: in the database; later runs have higher ones.
        name: TFX's run id: the time of the start as the local runner writes it.
        pipeline: the pipeline's name.
        started_s: Unix time, in seconds.
        executions: by component, in the order in which they started.
    """

    id: int
    name: str
    pipeline: str
    started_s: float
    executions: dict[str, Execution] = field(repr=False, compare=False)

    @property
    def seconds(self) -> float:
        """From the start of the first component to the end of the last."""
        ends = [execution.started_s + execution.seconds for execution in self.executions.values()]
        return max(ends, default=self.started_s) - self.started_s

    @property
    def failed(self) -> list[str]:
        """Names of the components that ended with an error."""
        return [execution.name for execution in self.executions.values() if execution.failed]

    @property
    def unfinished(self) -> list[str]:
        """Names of the components that have not ended: under way, or killed."""
        return [execution.name for execution in self.executions.values() if execution.state == UNFINISHED]


@dataclass(frozen=True)
class Provenance:
    """What a pushed version was made of. Each execution is the one that really ran, in whichever run.

    Attributes:
        version: name of the version's folder.
        pushed_by: the Pusher's execution that made it.
        run: the run that pushed it.
        executions: by component: all whose outputs led to the version, directly or not.
    """

    version: str
    pushed_by: Execution
    run: Run
    executions: dict[str, Execution] = field(repr=False, compare=False)


def sqlite_connection(path: Path | str) -> mlmd.ConnectionConfig:
    """A connection to a local run's metadata file, for reading.

    Raises:
        FileNotFoundError: there is no such file: the profile has not been run.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such metadata file. The pipeline has not been run there yet.")
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
    return config


def with_password(
    connection: mlmd.ConnectionConfig, environment: Mapping[str, str] = os.environ
) -> mlmd.ConnectionConfig:
    """Add the password of a MySQL or PostgreSQL server to a connection that has none.

    Args:
        connection: left as it is.
        environment: METADATA_PASSWORD is the password; else METADATA_PASSWORD_FILE is the path of a file that holds it.

    Raises:
        OSError: the file cannot be read.
    """
    password = environment.get(PASSWORD_VARIABLE, "")
    if not password and environment.get(PASSWORD_FILE_VARIABLE):
        password = Path(environment[PASSWORD_FILE_VARIABLE]).read_text(encoding="utf-8").rstrip("\n")
    complete = mlmd.ConnectionConfig()
    complete.CopyFrom(connection)
    for kind in ("mysql", "postgresql"):
        if password and complete.HasField(kind):
            getattr(complete, kind).password = password
    return complete


def open_store(connection: mlmd.ConnectionConfig) -> ml_metadata.MetadataStore:
    """Connect to ML Metadata: SQLite, MySQL or PostgreSQL."""
    return ml_metadata.MetadataStore(connection)


def list_runs(store: ml_metadata.MetadataStore, pipeline: str = "") -> list[Run]:
    """All runs in the database, the oldest first; of one pipeline where its name is given."""
    runs = [read_run(store, context.id) for context in _run_contexts(store)]
    return [run for run in runs if pipeline in ("", run.pipeline)]


def last_run(store: ml_metadata.MetadataStore, pipeline: str = "") -> Run:
    """The latest run; of one pipeline where its name is given.

    Raises:
        LookupError: there has been none.
    """
    for context in reversed(_run_contexts(store)):
        run = read_run(store, context.id)
        if pipeline in ("", run.pipeline):
            return run
    raise LookupError(f"ML Metadata has no run{f' of {pipeline}' if pipeline else ''} yet.")


def run_named(store: ml_metadata.MetadataStore, name: str) -> Run:
    """The run with a `Run.name`.

    Raises:
        LookupError: there is none.
    """
    context = store.get_context_by_type_and_name("pipeline_run", name)
    if context is None:
        raise LookupError(f"ML Metadata has no run named {name!r}.")
    return read_run(store, context.id)


def read_run(store: ml_metadata.MetadataStore, run_id: int) -> Run:
    """Read a run by `Run.id`.

    Raises:
        LookupError: there is no such run.
    """
    context = next((context for context in _run_contexts(store) if context.id == run_id), None)
    if context is None:
        raise LookupError(f"ML Metadata has no run {run_id}.")
    executions = sorted(store.get_executions_by_context(run_id), key=lambda execution: execution.id)
    read = _read_executions(store, executions)
    pipelines = [parent.name for parent in store.get_parent_contexts_by_context(run_id) if parent.type == "pipeline"]
    return Run(
        id=run_id,
        name=context.name,
        pipeline=pipelines[0] if pipelines else "",
        started_s=context.create_time_since_epoch / 1000,
        executions={execution.name: execution for execution in read},
    )


def producer(store: ml_metadata.MetadataStore, artifact: Artifact) -> Execution | None:
    """The execution that made an artifact; None for one that no run made (an imported one)."""
    events = [event for event in store.get_events_by_artifact_ids([artifact.id]) if event.type == mlmd.Event.OUTPUT]
    executions = store.get_executions_by_id(sorted({event.execution_id for event in events}))
    # A cached execution has the same outputs: the earliest is the one that ran.
    made = [execution for execution in executions if execution.last_known_state == mlmd.Execution.COMPLETE]
    first = min(made, key=lambda execution: execution.id, default=None)
    return None if first is None else _read_executions(store, [first])[0]


def pushed_versions(store: ml_metadata.MetadataStore, pipeline: str = "") -> dict[str, Artifact]:
    """The PushedModel artifact of each version that was pushed, by version, the oldest first.

    Args:
        store: the database.
        pipeline: name of the one that pushed; empty for all.
    """
    pushed: dict[str, Artifact] = {}
    for artifact in sorted(store.get_artifacts_by_type("PushedModel"), key=lambda artifact: artifact.id):
        version = _artifact(artifact).properties.get("pushed_version")
        contexts = store.get_contexts_by_artifact(artifact.id) if version and pipeline else []
        if version and (not pipeline or any((c.type, c.name) == ("pipeline", pipeline) for c in contexts)):
            pushed.setdefault(version, _artifact(artifact))  # pushed once more, it is still the first push's
    return pushed


def provenance(store: ml_metadata.MetadataStore, version: str) -> Provenance:
    """Trace a pushed version back to its data.

    Raises:
        LookupError: no run in the database has pushed it; says which versions there are.
    """
    pushed = pushed_versions(store)
    pusher = producer(store, pushed[version]) if version in pushed else None
    if pusher is None:
        known = ", ".join(pushed) or "none"
        raise LookupError(f"No run has pushed version {version}; pushed were: {known}.")
    found: dict[str, Execution] = {}
    waiting = [pusher]
    while waiting:
        execution = waiting.pop()
        if execution.name in found:
            continue
        found[execution.name] = execution
        # The baseline took no part in making the version: it is what the version was compared with.
        made_from = [artifact for key, artifact in execution.inputs.items() if key != "baseline_model"]
        waiting += [made for made in (producer(store, artifact) for artifact in made_from) if made is not None]
    in_order = dict(sorted(found.items(), key=lambda item: item[1].id))
    return Provenance(version, pusher, read_run(store, pusher.run_id), in_order)


def _run_contexts(store: ml_metadata.MetadataStore) -> list[mlmd.Context]:
    return sorted(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)


def _read_executions(store: ml_metadata.MetadataStore, executions: Sequence[mlmd.Execution]) -> list[Execution]:
    """Read executions with their artifacts, in as few queries as there are tables."""
    events = store.get_events_by_execution_ids([execution.id for execution in executions]) if executions else []
    artifact_ids = sorted({event.artifact_id for event in events})
    artifacts = {artifact.id: _artifact(artifact) for artifact in store.get_artifacts_by_id(artifact_ids)}

    def by_key(execution: mlmd.Execution, kinds: Sequence[int]) -> dict[str, Artifact]:
        chosen = [event for event in events if event.execution_id == execution.id and event.type in kinds]
        return {event.path.steps[0].key: artifacts[event.artifact_id] for event in chosen}

    read = []
    for execution in executions:
        contexts = {context.type: context for context in store.get_contexts_by_execution(execution.id)}
        pipeline, node = contexts["pipeline"].name, contexts["node"].name
        read.append(
            Execution(
                id=execution.id,
                name=node.removeprefix(f"{pipeline}."),
                run_id=contexts["pipeline_run"].id,
                state=_STATES.get(execution.last_known_state, UNFINISHED),
                started_s=execution.create_time_since_epoch / 1000,
                seconds=(execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
                properties=_values(execution),
                inputs=by_key(execution, _INPUTS),
                outputs=by_key(execution, _OUTPUTS),
            )
        )
    return read


def _artifact(artifact: mlmd.Artifact) -> Artifact:
    return Artifact(artifact.id, artifact.type, artifact.uri, _values(artifact))


def _values(holder: mlmd.Artifact | mlmd.Execution) -> dict[str, Value]:
    """Declared and custom properties as Python values."""
    values: Mapping[str, mlmd.Value] = {**holder.properties, **holder.custom_properties}
    return {name: _value(value) for name, value in values.items()}


def _value(value: mlmd.Value) -> Value:
    kind = value.WhichOneof("value")
    if kind == "struct_value":
        from google.protobuf import json_format

        struct = json_format.MessageToDict(value.struct_value)
        return struct.get("__value__", struct)  # how TFX wraps what is no mapping
    return None if kind is None else getattr(value, kind)
