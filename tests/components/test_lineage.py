"""ML Metadata's runs, written as TFX's runner writes them."""

import time
from pathlib import Path

import pytest
from run_records import DATA, RECIPE, Component, RunRecords, add_whole_run, example_gen, pushed_model, trainer

from components.model_report import lineage


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "smoke" / "metadata.db"


@pytest.fixture
def records(path) -> RunRecords:
    return RunRecords(path)


@pytest.fixture
def store(records, path):
    """The database as the readers open it: read-only."""
    return lineage.open_store(lineage.sqlite_connection(path))


def test_a_run_is_read_with_its_executions_in_order(records, store):
    began_s = time.time()
    written, ids = add_whole_run(records, "1795410615")
    run = lineage.last_run(store)
    assert (run.id, run.pipeline, run.name) == (written.id, "alexnet_smoke", "2026-01-01T00:00:00")
    assert run.started_s == pytest.approx(began_s, abs=60)
    assert 0 <= run.seconds < 60
    names = ["Cifar10ExampleGen", "Trainer", "LastBlessedModel", "Evaluator", "ServingValidator", "Pusher"]
    assert list(run.executions) == names
    assert not run.failed
    assert not run.unfinished
    training = run.executions["Trainer"]
    assert (training.state, training.cached, training.failed) == (lineage.COMPLETE, False, False)
    assert training.json("custom_config")["hyperparameters"] == RECIPE
    assert training.json("nothing") is None
    assert training.properties["source_digest"] == "bbbb"
    assert training.inputs["examples"].id == ids["examples"]
    assert set(training.outputs) == {"model", "model_run"}
    examples = training.inputs["examples"]
    assert (examples.type, examples.uri) == ("Examples", "/artifacts/examples")
    assert examples.properties["train_examples"] == 4532
    assert run.executions["Evaluator"].outputs["evaluation"].properties["accuracy"] == 0.625


def test_states_of_executions(records, store):
    run = records.start_run()
    ids = run.add(example_gen("cached", run.add(example_gen())["examples"]))
    run.add(trainer(ids["examples"], state="failed"))
    run.add(Component("Evaluator", "running"))
    read = lineage.read_run(store, run.id)
    assert {name: execution.state for name, execution in read.executions.items()} == {
        "Cifar10ExampleGen": lineage.CACHED,
        "Trainer": lineage.FAILED,
        "Evaluator": lineage.UNFINISHED,
    }
    assert read.failed == ["Trainer"]
    assert read.unfinished == ["Evaluator"]


def test_a_structured_property_becomes_what_it_holds(records, store):
    run = records.start_run()
    outputs = {"statistics": ("Statistics", "/s", {"blessed": {"test": 1.0}, "rates": {"__value__": "[1]"}})}
    run.add(Component("StatisticsGen", outputs=outputs))
    properties = lineage.read_run(store, run.id).executions["StatisticsGen"].outputs["statistics"].properties
    assert properties == {"blessed": {"test": 1.0}, "rates": "[1]"}


def test_runs_are_listed_by_pipeline_the_oldest_first(records, store, path):
    numbers = [add_whole_run(records)[0].id for _ in range(2)]
    other = add_whole_run(RunRecords(path, "alexnet_sample"))[0].id
    assert [run.id for run in lineage.list_runs(store)] == [*numbers, other]
    assert [run.id for run in lineage.list_runs(store, "alexnet_smoke")] == numbers
    assert lineage.last_run(store).id == other
    with pytest.raises(LookupError, match="no run 999"):
        lineage.read_run(store, 999)


def test_the_producer_is_the_execution_that_ran_and_not_a_cached_one(records, store):
    first, ids = add_whole_run(records)
    second = records.start_run()
    second.add(example_gen("cached", ids["examples"]))
    examples = lineage.read_run(store, second.id).executions["Cifar10ExampleGen"].outputs["examples"]
    made = lineage.producer(store, examples)
    assert made is not None
    assert (made.run_id, made.state) == (first.id, lineage.COMPLETE)


def test_an_imported_artifact_has_no_producer(records, store):
    examples = records.artifact_of_no_run("Examples", "/elsewhere")
    run = records.start_run()
    run.add(trainer(examples))
    artifact = lineage.read_run(store, run.id).executions["Trainer"].inputs["examples"]
    assert lineage.producer(store, artifact) is None


def test_a_version_is_traced_through_the_runs_that_made_it(records, store):
    first, ids = add_whole_run(records, "100", uri="/old")
    second, _ = add_whole_run(records, "200", uri="/new", baseline=ids["model"], examples=ids["examples"])
    add_whole_run(records, "300")
    found = lineage.provenance(store, "200")
    assert found.version == "200"
    assert found.run.id == second.id
    assert found.pushed_by.name == "Pusher"
    by_run = {name: execution.run_id for name, execution in found.executions.items()}
    assert by_run == {
        "Cifar10ExampleGen": first.id,  # cached in the second run
        "Trainer": second.id,  # and not the baseline's
        "Evaluator": second.id,
        "ServingValidator": second.id,
        "Pusher": second.id,
    }
    assert found.executions["Trainer"].outputs["model"].uri == "/new/model"
    assert DATA in found.executions["Cifar10ExampleGen"].properties["custom_config"]


def test_a_version_that_was_pushed_again_belongs_to_its_first_push(records, store):
    first, ids = add_whole_run(records, "100")
    again = records.start_run()
    again.add(Component("Pusher", inputs={"model": ids["model"]}, outputs={"pushed_model": pushed_model("100")}))
    assert list(lineage.pushed_versions(store)) == ["100"]
    assert lineage.provenance(store, "100").run.id == first.id


def test_an_unknown_version_is_told_from_those_that_there_are(records, store):
    add_whole_run(records, "100")
    add_whole_run(records)
    with pytest.raises(LookupError, match=r"No run has pushed version 7; pushed were: 100\."):
        lineage.provenance(store, "7")


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.db: there is no such metadata file"):
        lineage.sqlite_connection(tmp_path / "nothing.db")


def test_a_database_without_runs_says_so(store):
    assert lineage.list_runs(store) == []
    with pytest.raises(LookupError, match="no run yet"):
        lineage.last_run(store)
