"""Where runs' metadata is: a file or a server, whose password stays out of settings, parameters and logs."""

import dataclasses
import logging

import pytest
from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig
from run_records import RunRecords, add_whole_run
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.orchestration.pipeline import Pipeline
from tfx.types import Channel
from tfx.types.standard_artifacts import Schema

from components.model_report import lineage
from pipeline import metadata_store, runs
from pipeline.metadata_server import Server
from pipeline.named_runner import NamedRunner
from pipeline.settings import PROJECT_ROOT, make_settings

URL = "mysql://tfx@metadata.example:3307/runs"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        (URL, Server("tfx", "metadata.example", 3307, "runs")),
        ("mysql://t%40fx@[::1]/runs", Server("t@fx", "::1", 3306, "runs")),
    ],
)
def test_a_url_names_a_server(url, server):
    assert Server.parse(url) == server


@pytest.mark.parametrize(
    "url",
    ["runs", "sqlite:///runs.db", "mysql://db/runs", "mysql://tfx@db", "mysql://tfx@db/a/b", "mysql://tfx@db:x/runs"],
)
def test_another_url_is_refused(url):
    with pytest.raises(ValueError, match=r"metadata_connection is .*mysql://user@host:3306/database"):
        make_settings("smoke", {"metadata_connection": url})


def test_postgresql_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="fails at texts with a backslash"):
        Server.parse("postgresql://tfx@db/runs")


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="holds a password") as refused:
        make_settings("smoke", {"metadata_connection": "mysql://tfx:hush@db/runs"})
    assert "hush" not in str(refused.value)
    assert "METADATA_PASSWORD" in str(refused.value)


def test_the_password_comes_from_the_environment_or_a_file(tmp_path):
    plain = Server.parse("mysql://tfx@db/runs").connection()
    (tmp_path / "password").write_text("from the file\n")
    in_file = {"METADATA_PASSWORD_FILE": str(tmp_path / "password")}
    for environment, password in (
        ({}, ""),
        (in_file, "from the file"),
        (in_file | {"METADATA_PASSWORD": "own"}, "own"),
    ):
        assert lineage.with_password(plain, environment).mysql.password == password
    assert not plain.mysql.password
    assert plain.mysql.user == "tfx"


def test_without_a_server_it_is_a_file_in_the_profiles_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("METADATA_PASSWORD", "own")
    settings = make_settings("smoke", {"output_dir": str(tmp_path)})
    assert metadata_store.connection(settings).sqlite.filename_uri == str(tmp_path / "smoke" / "metadata.db")
    with pytest.raises(FileNotFoundError, match="has not been run"):
        metadata_store.open_store(settings)


def test_a_server_is_noted_for_those_who_look_at_runs(tmp_path, monkeypatch):
    settings = make_settings("smoke", {"output_dir": str(tmp_path), "metadata_connection": URL})
    settings.profile_dir.mkdir()
    monkeypatch.setattr(lineage, "open_store", lambda config: None)
    metadata_store.prepare(settings, metadata_store.connection(settings))
    assert runs.profiles(tmp_path)["smoke"].metadata_connection == URL
    local = dataclasses.replace(settings, metadata_connection="")
    metadata_store.prepare(local, metadata_store.connection(local))
    assert not settings.metadata_connection_path.exists()


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    settings = make_settings(
        "smoke", {"output_dir": str(tmp_path), "metadata_connection": "mysql://tfx@127.0.0.1:1/runs"}
    )
    waited: list[float] = []
    monkeypatch.setattr(metadata_store.time, "sleep", waited.append)
    with pytest.raises(ConnectionError, match=r"'mysql://tfx@127\.0\.0\.1:1/runs' cannot be used"):
        metadata_store.prepare(settings, metadata_store.connection(settings))
    assert len(waited) == 4


def test_a_servers_runs_are_told_apart_by_pipeline(tmp_path):
    path = tmp_path / "metadata.db"
    add_whole_run(RunRecords(path, "alexnet_smoke"), "1")
    add_whole_run(RunRecords(path, "alexnet_sample"), "2")
    store = lineage.open_store(lineage.sqlite_connection(path))
    assert lineage.last_run(store).pipeline == "alexnet_sample"
    run = lineage.last_run(store, "alexnet_smoke")
    assert run.pipeline == "alexnet_smoke"
    assert lineage.run_named(store, run.name).id == run.id
    assert list(lineage.pushed_versions(store, "alexnet_smoke")) == ["1"]
    with pytest.raises(LookupError, match="no run of alexnet_other"):
        lineage.last_run(store, "alexnet_other")


@pytest.mark.parametrize("password", ["hush", 'with "quotes"', "back\\slash", "ä"])
def test_a_password_is_in_no_log_record(password, caplog):
    config = ConnectionConfig()
    config.mysql.user, config.mysql.password = "tfx", password
    caplog.set_level(logging.INFO)
    with metadata_store.password_hidden(config):
        logging.getLogger("runner").info("Using connection config:\n %s", config)
        logging.info("with %s", password)
        logging.info(f"in the text: {password}")
        logging.info("%d%% done", 5)
    assert str(config) not in caplog.text
    assert password not in caplog.text
    assert "tfx" in caplog.text
    assert "5% done" in caplog.text
    logging.info("afterwards %s", password)
    assert password in caplog.text


NO_SERVER = "mysql://tfx@127.0.0.1:1/runs"


def test_who_reads_learns_what_is_wrong_with_a_server(tmp_path):
    settings = make_settings("smoke", {"output_dir": str(tmp_path), "metadata_connection": NO_SERVER})
    with pytest.raises(metadata_store.ServerError, match=r"127\.0\.0\.1:1/runs' cannot be used: .*METADATA_PASSWORD"):
        metadata_store.open_store(settings)


def test_a_passwords_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("METADATA_PASSWORD", raising=False)
    monkeypatch.setenv("METADATA_PASSWORD_FILE", str(tmp_path / "absent"))
    settings = make_settings("smoke", {"output_dir": str(tmp_path), "metadata_connection": NO_SERVER})
    with pytest.raises(metadata_store.ServerError, match=rf"METADATA_PASSWORD_FILE names .*'{tmp_path}/absent'"):
        metadata_store.open_store(settings)


def test_a_profile_has_a_name_of_its_own_in_each_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(lineage, "open_store", lambda config: None)

    def name_in(folder):
        settings = make_settings("smoke", {"output_dir": str(tmp_path / folder), "metadata_connection": URL})
        settings.profile_dir.mkdir(parents=True, exist_ok=True)
        metadata_store.prepare(settings, metadata_store.connection(settings))
        return metadata_store.own_pipeline(settings)

    names = [name_in(folder) for folder in ("one", "other", "one")]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("alexnet_smoke_") for name in names)


def test_pipelines_that_were_given_names_share_neither_cache_nor_artifacts(tmp_path):
    config = ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "metadata.db")
    config.sqlite.connection_mode = 3  # READWRITE_OPENCREATE

    def run(name):
        last_schema = Resolver(strategy_class=LatestArtifactStrategy, schema=Channel(type=Schema)).with_id("LastSchema")
        schema_gen = ImportSchemaGen(schema_file=str(PROJECT_ROOT / "data" / "schema.pbtxt"))
        schema_gen.add_upstream_node(last_schema)
        runner = NamedRunner(name)
        runner.run(
            Pipeline(
                "alexnet_smoke",
                str(tmp_path / "artifacts"),
                components=[last_schema, schema_gen],
                enable_cache=True,
                metadata_connection_config=config,
            )
        )
        found = lineage.run_named(lineage.open_store(config), runner.run_name)
        assert found.pipeline == name
        return "schema" in found.executions["LastSchema"].outputs, found.executions["ImportSchemaGen"].cached

    assert run("alexnet_smoke_1") == (False, False)
    assert run("alexnet_smoke_2") == (False, False)
    assert run("alexnet_smoke_1") == (True, True)
