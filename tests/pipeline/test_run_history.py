"""Runs of several profiles, as the commands show them: everything from ML Metadata."""

import fcntl
import json
import sys

import pytest
from run_records import Component, RunRecords, add_whole_run, example_gen, trainer

from components.model_report import lineage
from pipeline import run_history, runs, terminal, version_lineage
from pipeline.settings import Settings


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An output folder, and the numbers of its runs by what became of them."""
    output_dir = tmp_path_factory.mktemp("outputs")
    smoke = RunRecords(output_dir / "smoke" / "metadata.db")
    numbers = {}
    run, ids = add_whole_run(smoke, "100", accuracy=0.625)
    numbers["blessed"] = run.id
    numbers["refused"] = add_whole_run(smoke, accuracy=0.1)[0].id
    cached = smoke.start_run()
    cached.add(example_gen("cached", ids["examples"]))
    cached.add(trainer(ids["examples"], state="cached", outputs={"model": ids["model"]}))
    cached.add(Component("LastBlessedModel"))
    for name, key in (("Evaluator", "evaluation"), ("Pusher", "pushed_model")):
        cached.add(Component(name, "cached", outputs={key: ids[key]} | blessing_of(name, smoke)))
    numbers["cached"] = cached.id
    failed = smoke.start_run()
    failed.add(trainer(failed.add(example_gen("cached", ids["examples"]))["examples"], state="failed"))
    numbers["failed"] = failed.id
    killed = smoke.start_run()
    killed.add(Component("Cifar10ExampleGen", "running"))
    numbers["killed"] = killed.id
    add_whole_run(RunRecords(output_dir / "sample" / "metadata.db", "alexnet_sample"), "200")
    return output_dir, numbers


def blessing_of(name, records):
    return {"blessing": ("ModelBlessing", "/blessing", {"blessed": 1})} if name == "Evaluator" else {}


@pytest.fixture
def command(written, monkeypatch, capsys):
    """Runs a command on the output folder; returns its status, its output and its errors."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", "--output-dir", str(written[0]), *arguments])
        status = module.main()
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def test_each_run_says_what_became_of_it(written):
    output_dir, numbers = written
    found = {summary.run: summary for summary in runs.summaries(output_dir, "smoke")}
    by_name = {name: found[number] for name, number in numbers.items()}
    assert {name: summary.verdict for name, summary in by_name.items()} == {
        "blessed": "blessed",
        "refused": "not blessed (Evaluator)",
        "cached": "blessed",
        "failed": "failed in Trainer",
        "killed": "interrupted in Cifar10ExampleGen",
    }
    assert {name: summary.accuracy for name, summary in by_name.items()} == {
        "blessed": 0.625,
        "refused": 0.1,
        "cached": 0.625,
        "failed": None,
        "killed": None,
    }
    assert [by_name[name].version for name in ("blessed", "refused", "cached")] == ["100", "", "100"]
    assert (by_name["blessed"].cached, by_name["blessed"].components) == (0, 5)
    assert (by_name["cached"].cached, by_name["cached"].components) == (4, 4)
    assert (by_name["failed"].cached, by_name["failed"].components) == (1, 2)
    assert by_name["blessed"].data == "cifar-10-sample-binary.tar.gz"
    assert (by_name["blessed"].num_examples, by_name["blessed"].test_overlap) == (6000, 12)
    assert (by_name["killed"].data, by_name["killed"].num_examples, by_name["killed"].test_overlap) == ("", 0, 0)


@pytest.mark.parametrize(
    ("state", "verdicts"),
    [
        ("failed", ["blessed, report failed", "not blessed (Evaluator), report failed"]),
        ("running", ["blessed, report interrupted", "not blessed (Evaluator), report interrupted"]),
        ("complete", ["blessed", "not blessed (Evaluator)"]),
    ],
)
def test_a_report_that_is_missing_hides_no_verdict(tmp_path, state, verdicts):
    records = RunRecords(tmp_path / "smoke" / "metadata.db")
    for version in ("100", ""):
        add_whole_run(records, version)[0].add(Component("ModelReport", state))
    assert [summary.verdict for summary in runs.summaries(tmp_path, "smoke")] == verdicts
    under_way = runs.summarize("smoke", runs.runs_of(tmp_path, "smoke")[-1], under_way=True).verdict
    assert under_way == ("under way: ModelReport" if state == "running" else verdicts[-1])


def test_a_run_that_holds_its_folder_is_under_way(written):
    output_dir, numbers = written
    lock = Settings(profile="smoke", output_dir=str(output_dir)).profile_dir / ".lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        verdicts = {s.run: s.verdict for s in runs.summaries(output_dir, "smoke")}
    assert verdicts[numbers["killed"]] == "under way: Cifar10ExampleGen"
    assert verdicts[numbers["failed"]] == "failed in Trainer"


def test_runs_are_found_by_number_version_and_name(written):
    output_dir, numbers = written

    def find(reference):
        profile, run = runs.find(output_dir, "smoke", reference)
        return profile, run.id

    assert find(str(numbers["refused"])) == ("smoke", numbers["refused"])
    assert find("100") == ("smoke", numbers["blessed"])  # not the cached run, which pushed nothing
    assert find("last") == ("smoke", numbers["killed"])
    assert find("sample/200")[0] == "sample"
    with pytest.raises(LookupError, match=r"smoke has neither run nor version '7'\. Runs: .*; versions: 100\."):
        find("7")
    with pytest.raises(LookupError, match=r"no run of profile cifar10; there are runs of sample, smoke"):
        find("cifar10/last")


def test_the_list_is_plain_text_in_a_pipe(command):
    status, shown, _ = command(run_history)
    lines = [line.split() for line in shown.splitlines()]
    assert status == 0
    assert "\x1b" not in shown
    assert lines[0][:4] == ["started", "profile", "run", "data"]
    assert len(lines) == 2 + 6
    (blessed,) = [line for line in shown.splitlines() if "smoke" in line and "0 of 5" in line and "  blessed" in line]
    assert "0.6250" in blessed
    assert "cifar-10-sample-binary.tar.gz" in blessed
    assert sum("all" in line for line in lines) == 1
    assert max(map(len, shown.splitlines())) > 100  # nothing is cut to 80 columns


def test_the_list_as_json_and_by_profile(command, written):
    _, numbers = written
    status, shown, _ = command(run_history, "--json", "--profile", "smoke", "--last", "2")
    assert status == 0
    assert [run["run"] for run in json.loads(shown)] == [numbers["failed"], numbers["killed"]]
    status, shown, error = command(run_history, "--profile", "cifar10")
    assert (status, shown) == (1, "")
    assert "there are runs of sample, smoke" in error


def test_without_a_run_the_commands_say_what_makes_one(tmp_path, monkeypatch, capsys):
    for module in (run_history, version_lineage):
        monkeypatch.setattr(sys, "argv", ["command", "--output-dir", str(tmp_path)])
        assert module.main() == 1
        assert capsys.readouterr().err == f"error: {tmp_path} holds no run yet: `make run` makes one.\n"


def test_a_versions_lineage(command, written):
    _, numbers = written
    status, shown, _ = command(version_lineage, "100", "--json")
    facts = json.loads(shown)
    assert status == 0
    assert facts["profile"] == "smoke"
    assert facts["pushed"]["by_run"] == f"smoke/{numbers['blessed']}"
    assert facts["pushed"]["to"] == "/serving/100"
    assert facts["data"]["path"] == "/data/cifar-10-sample-binary.tar.gz"
    assert facts["data"]["sha256"] == "77b4"
    assert facts["data"]["test_examples"] == 1000
    assert facts["data"]["test_overlap"] == 12
    assert facts["code"] == {"Cifar10ExampleGen": "aaaa", "Trainer": "bbbb"}
    assert facts["trainer_settings"] == {"epochs": 2, "learning_rate": 0.02, "validation_split": "validation"}
    assert facts["trainer_libraries"]["tensorflow"] == "2.16.2"
    assert facts["trainer_libraries"]["machine"] == "Linux x86_64, 2 CPU cores, no GPU"
    assert facts["gate"] == {
        "accuracy": 0.625,
        "accuracy_floor": 0.5,
        "accuracy_tolerance": 0.02,
        "class_recall_floor": 0.2,
        "compared_with": "none: it was the first",
        "Evaluator": "blessed",
        "ServingValidator": "blessed",
    }
    assert list(facts["made_by"]) == ["Cifar10ExampleGen", "Trainer", "Evaluator", "ServingValidator", "Pusher"]


def test_without_a_version_it_is_the_newest_of_all_profiles(command):
    _, shown, _ = command(version_lineage)
    assert shown.startswith("Version 200 of profile sample\n")
    assert "epochs            2" in shown
    _, shown, _ = command(version_lineage, "--profile", "smoke")
    assert shown.startswith("Version 100 of profile smoke\n")


def test_an_unknown_version_is_told_from_those_that_there_are(command):
    status, shown, error = command(version_lineage, "7")
    assert (status, shown) == (1, "")
    assert "No run has pushed version 7." in error
    assert "sample: 200; smoke: 100" in error


def test_the_runs_are_those_that_the_reader_reads(written):
    output_dir, numbers = written
    last = runs.last_run(Settings(profile="smoke", output_dir=str(output_dir)))
    assert last["Cifar10ExampleGen"].state == lineage.UNFINISHED
    assert [run.id for run in runs.runs_of(output_dir, "smoke")] == list(numbers.values())


def test_a_server_that_is_not_there_hides_only_the_runs_on_it(tmp_path, monkeypatch, capsys):
    add_whole_run(RunRecords(tmp_path / "smoke" / "metadata.db"), "100")
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "metadata_connection").write_text("mysql://tfx@127.0.0.1:1/runs\n")

    def listed(*arguments):
        monkeypatch.setattr(sys, "argv", ["command", "--output-dir", str(tmp_path), "--json", *arguments])
        status = run_history.main()
        shown = capsys.readouterr()
        return status, [run["version"] for run in json.loads(shown.out)], shown.err

    status, versions, error = listed()
    assert (status, versions) == (1, ["100"])
    message = "error: Profile sample: metadata_connection='mysql://tfx@127.0.0.1:1/runs' cannot be used"
    assert message in error.splitlines()[-1]  # ML Metadata may have said something before
    status, versions, error = listed("--profile", "smoke")
    assert (status, versions) == (0, ["100"])
    assert "error:" not in error


def test_a_mistake_in_a_command_is_not_taken_for_something_that_is_not_there(capsys, tmp_path):
    with pytest.raises(KeyError):
        terminal.run_command(lambda: {"100": None}["200"])
    assert terminal.run_command(lambda: (tmp_path / "absent").unlink()) == 1
    assert capsys.readouterr().err == f"error: [Errno 2] No such file or directory: '{tmp_path}/absent'\n"


def test_an_address_is_no_output_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--output-dir", "gs://bucket/runs"])
    with pytest.raises(SystemExit):
        run_history.main()
    assert "--output-dir: invalid folder value: 'gs://bucket/runs'" in capsys.readouterr().err
