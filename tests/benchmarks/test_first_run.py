"""The first run's benchmark, on a repository whose Makefile only prints."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import first_run, rows

OF_ANOTHER_RUN = {
    "ALEXNET_EPOCHS": "1",
    "ALEXNET_PROFILE": "cifar10",
    "DATA": "elsewhere",
    "GPU": "1",
    "PYTHON": "3.13",
    "PYTHONPATH": "elsewhere",
    "RUNTIME": "1",
    "VIRTUAL_ENV": "elsewhere",
}
"""Variables that the calling shell may have."""

MAKEFILE = """\
$(foreach name,{names},$(if $(filter-out undefined,$(origin $(name))),$(error $(name) is $($(name)))))
environment:
\t@echo "$@ $(PROFILE) $(CURDIR)" >> {log}
run:
\t@echo "$@ $(PROFILE) $(CURDIR)" >> {log}
\t@echo run >> runs
\t@echo "Test accuracy 0.7$$(wc -l < runs | tr -d ' ')00   gate: BLESSED"
"""
"""Refuses variables of another run, says the n-th run's accuracy is 0.7n, and writes down what was run where."""


def repository(folder: Path, makefile: str) -> Path:
    folder.mkdir()
    (folder / "Makefile").write_text(makefile)
    for command in (
        "git init -q",
        "git add Makefile",
        "git -c user.name=n -c user.email=e@example.com commit -qm first",
    ):
        subprocess.run(command.split(), cwd=folder, check=True)
    (folder / "Makefile").write_text("run:\n\t@false\n")  # what is not committed does not count
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = repository(tmp_path / "project", MAKEFILE.format(names=" ".join(OF_ANOTHER_RUN), log=tmp_path / "log"))
    measure = first_run.measure
    monkeypatch.setattr(first_run, "measure", lambda profile: measure(profile, folder))
    return folder


def test_the_last_commit_is_run_twice_in_a_clone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, value in OF_ANOTHER_RUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAKEFLAGS", "-- PYTHON=3.13")  # as under `make PYTHON=3.13`
    results = tmp_path / "results"
    assert first_run.main(["--profile", "smoke", "--output-dir", str(results)]) == 0
    (row,) = rows.read(results / first_run.RESULTS_FILE)
    assert (row["profile"], row["test_accuracy"], len(row["seconds"])) == ("smoke", 0.71, 3)  # the first run's
    assert all(0 <= seconds < 60 for seconds in row["seconds"])
    head = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=project, text=True).strip()
    assert row["commit"] == head
    table = capsys.readouterr().out
    assert f"| 0.7100 | `{head}` |" in table
    assert "the installer's cache where it has them" in table
    assert first_run.main(["--table", "--output-dir", str(results)]) == 0
    assert capsys.readouterr().out == table
    ran = [line.split(" ", 2) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(target, profile) for target, profile, _ in ran] == [
        ("environment", "smoke"),
        ("run", "smoke"),
        ("run", "smoke"),
    ]
    (clone,) = {Path(folder) for _, _, folder in ran}
    assert clone != project
    assert not clone.exists()


def test_a_command_that_fails_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], project: Path):
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@e", "commit", "-qam", "second"], cwd=project, check=True
    )
    assert first_run.main(["--output-dir", str(tmp_path / "results")]) == 1
    assert "make environment ended with status 2:" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_run_without_an_accuracy_is_an_error():
    with pytest.raises(first_run.FirstRunError, match="no test accuracy"):
        first_run.printed_accuracy("Trainer failed")


def test_without_rows_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert first_run.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err
