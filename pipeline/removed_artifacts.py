"""What runs have made and somebody has removed since: a run must not go by what ML Metadata still says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_metadata.proto.metadata_store_pb2 import Artifact, ConnectionConfig

    from pipeline.settings import Settings


def forget(settings: Settings, connection: ConnectionConfig) -> None:
    """Mark artifacts as deleted in ML Metadata: TFX neither reuses such nor chooses them.

    * Pushed models whose versions are gone. TFX reuses an earlier Pusher's artifact as long as the artifact's own
      folder is there, whatever became of the version's; now a run that comes to that model pushes it again.
    * Models whose files are gone, where `accuracy_tolerance` is 1: any loss is allowed. With less, the last blessed
      model has to stay known, for the Evaluator to refuse to judge a candidate without it.

    Args:
        settings: of the run that is about to begin.
        connection: to ML Metadata, for writing; from `metadata_store.connection`, after `prepare`.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd
    from tfx.dsl.compiler.constants import PIPELINE_CONTEXT_TYPE_NAME

    from components.model_report import lineage
    from pipeline import metadata_store

    if not settings.metadata_connection and not settings.metadata_path.exists():
        return  # connecting would make the file
    store = lineage.open_store(connection)
    removed = [found for found in store.get_artifacts_by_type("PushedModel") if _lost_its_version(found, settings)]
    if settings.accuracy_tolerance == 1:
        removed += [found for found in store.get_artifacts_by_type("Model") if _lost_its_files(found, settings)]
    if name := metadata_store.own_pipeline(settings):  # another machine's may lie in a folder of the same path
        pipeline = store.get_context_by_type_and_name(PIPELINE_CONTEXT_TYPE_NAME, name)
        own = {artifact.id for artifact in store.get_artifacts_by_context(pipeline.id)} if pipeline else set()
        removed = [artifact for artifact in removed if artifact.id in own]
    removed = [artifact for artifact in removed if artifact.state == mlmd.Artifact.LIVE]
    for artifact in removed:
        artifact.state = mlmd.Artifact.DELETED
    if removed:
        store.put_artifacts(removed)


def _lost_its_version(pushed_model: Artifact, settings: Settings) -> bool:
    destination = pushed_model.custom_properties.get("pushed_destination")
    version_dir = Path(destination.string_value if destination else "")
    return version_dir.parent == settings.serving_dir and not version_dir.exists()


def _lost_its_files(model: Artifact, settings: Settings) -> bool:
    folder = Path(model.uri)
    return folder.is_relative_to(settings.pipeline_root) and not any(path.is_file() for path in folder.rglob("*"))
