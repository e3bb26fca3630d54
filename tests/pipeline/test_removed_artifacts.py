"""Runs of a small pipeline with TFX's runner and its cache: a model that is there, and the Pusher."""

import dataclasses
import os
import shutil

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from run_records import RunRecords, add_whole_run
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2
from tfx.types.standard_artifacts import Model

from components.pusher.component import Pusher
from pipeline import local_run, metadata_store, removed_artifacts, runs
from pipeline.settings import make_settings


@pytest.fixture
def settings(tmp_path):
    return make_settings("smoke", {"output_dir": str(tmp_path / "outputs"), "verbose": True})


@pytest.fixture
def run(settings, tmp_path, monkeypatch):
    """Makes a run; returns the versions that are there after it, and whether its Pusher was cached."""
    (tmp_path / "model" / "Format-Serving").mkdir(parents=True)
    (tmp_path / "model" / "Format-Serving" / "saved_model.pb").write_bytes(b"graph")

    def pipeline(chosen, data, metadata_connection):
        model = Importer(source_uri=str(tmp_path / "model"), artifact_type=Model).with_id("Model")
        filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(chosen.serving_dir))
        return Pipeline(
            pipeline_name=chosen.pipeline_name,
            pipeline_root=str(chosen.pipeline_root),
            components=[
                model,
                Pusher(
                    model=model.outputs["result"], push_destination=pusher_pb2.PushDestination(filesystem=filesystem)
                ),
            ],
            enable_cache=True,
            metadata_connection_config=metadata_connection,
        )

    monkeypatch.setattr("pipeline.pipeline.create_pipeline", pipeline)
    monkeypatch.setattr("pipeline.report.last_lines", lambda *_: "")

    def make():
        assert local_run.run(settings) == 0
        return sorted(os.listdir(settings.serving_dir)), runs.last_run(settings)["Pusher"].cached

    return make


def test_a_version_that_was_removed_is_pushed_again(settings, run):
    (first,), _ = run()
    assert run() == ([first], True)
    shutil.rmtree(settings.serving_dir)
    (again,), cached = run()
    assert not cached
    assert (settings.serving_dir / again / "saved_model.pb").read_bytes() == b"graph"
    assert run() == ([again], True)


def test_only_versions_that_this_folder_has_lost_are_forgotten(settings):
    records = RunRecords(settings.metadata_path)
    kept, lost, elsewhere = str(settings.serving_dir / "1"), str(settings.serving_dir / "2"), "/elsewhere/alexnet/3"
    os.makedirs(kept)
    for destination in (kept, lost, elsewhere):
        version = os.path.basename(destination)
        _, ids = add_whole_run(records, version)
        (artifact,) = records.store.get_artifacts_by_id([ids["pushed_model"]])
        artifact.custom_properties["pushed_destination"].string_value = destination
        records.store.put_artifacts([artifact])
    add_whole_run(records)  # not blessed: it has pushed nothing
    removed_artifacts.forget(settings, metadata_store.connection(settings))
    pushed = records.store.get_artifacts_by_type("PushedModel")
    assert [artifact.state == mlmd.Artifact.LIVE for artifact in pushed] == [True, False, True, True]


@pytest.mark.parametrize("tolerance", [0.02, 1.0])
def test_lost_models_are_forgotten_where_nothing_is_compared(settings, tolerance):
    records = RunRecords(settings.metadata_path)
    kept, emptied, lost = (settings.pipeline_root / "Trainer" / "model" / name for name in "123")
    for folder in (kept, emptied):
        (folder / "Format-Serving").mkdir(parents=True)
    (kept / "Format-Serving" / "saved_model.pb").write_bytes(b"graph")
    for uri in (kept, emptied, lost, "/elsewhere/Trainer/model/4"):
        records.artifact_of_no_run("Model", str(uri))
    changed = dataclasses.replace(settings, accuracy_tolerance=tolerance)
    removed_artifacts.forget(changed, metadata_store.connection(settings))
    states = [artifact.state == mlmd.Artifact.LIVE for artifact in records.store.get_artifacts_by_type("Model")]
    assert states == ([True, False, False, True] if tolerance == 1 else [True] * 4)


def test_before_the_first_run_there_is_nothing_to_forget(settings):
    removed_artifacts.forget(settings, metadata_store.connection(settings))
    assert not settings.metadata_path.exists()


@pytest.mark.parametrize(("name", "is_kept"), [("alexnet_smoke", False), ("new", True)])
def test_on_a_server_only_the_own_pipelines_versions_are_forgotten(settings, monkeypatch, name, is_kept):
    records = RunRecords(settings.metadata_path)
    _, ids = add_whole_run(records, "1")
    (artifact,) = records.store.get_artifacts_by_id([ids["pushed_model"]])
    artifact.custom_properties["pushed_destination"].string_value = str(settings.serving_dir / "1")
    records.store.put_artifacts([artifact])
    monkeypatch.setattr(metadata_store, "own_pipeline", lambda _: name)
    removed_artifacts.forget(settings, metadata_store.connection(settings))
    (artifact,) = records.store.get_artifacts_by_type("PushedModel")
    assert (artifact.state == mlmd.Artifact.LIVE) == is_kept
