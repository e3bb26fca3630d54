"""Which logs are shown, under which names; and that TensorBoard shows them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
import tensorflow as tf
from run_records import RunRecords, add_whole_run, trainer

from pipeline import tensorboard
from pipeline.settings import PROJECT_ROOT


def write_log(folder, value):
    with tf.summary.create_file_writer(str(folder)).as_default():
        tf.summary.scalar("epoch_loss", value, step=0)


@pytest.fixture
def output_dir(tmp_path):
    """Two trainings that have ended, one cached run, one training under way."""
    records = RunRecords(tmp_path / "smoke" / "metadata.db")
    for name in ("1", "2"):
        run, ids = add_whole_run(records, uri=str(tmp_path / "smoke" / name))
        write_log(tmp_path / "smoke" / name / "model_run" / "tensorboard" / "train", 1.0)
    cached = records.start_run()
    cached.add(trainer(ids["examples"], state="cached", outputs={"model_run": ids["model_run"]}))
    write_log(tmp_path / "smoke" / "checkpoints" / "0123456789" / "tensorboard" / "train", 2.0)
    return tmp_path, run.id


def test_each_training_is_shown_once_by_run_and_time(output_dir):
    folder, last = output_dir
    logs = tensorboard.find_logs(folder)
    assert len(logs) == 3
    under_way = logs.pop("smoke/under-way_012345")
    assert under_way == folder / "smoke" / "checkpoints" / "0123456789" / "tensorboard"
    assert all(re.fullmatch(r"smoke/run-\d+_\d{4}-\d\d-\d\dT\d\d-\d\d", name) for name in logs)
    (name,) = [name for name in logs if name.startswith(f"smoke/run-{last}_")]
    assert logs[name] == folder / "smoke" / "2" / "model_run" / "tensorboard"


def test_the_links_follow_the_logs(tmp_path):
    log, links = tmp_path / "log", tmp_path / "links"
    (log / "train").mkdir(parents=True)
    (log / "train" / "events.1").write_text("1")
    links.mkdir()
    tensorboard.link({"smoke/under-way_0": log}, links)
    assert (links / "smoke" / "under-way_0" / "train" / "events.1").read_text() == "1"
    (log / "train" / "events.2").write_text("2")
    tensorboard.link({"smoke/run-1": log}, links)
    tensorboard.link({"smoke/run-1": log}, links)
    shown = sorted(str(file.relative_to(links)) for file in links.rglob("events.*"))
    assert shown == ["smoke/run-1/train/events.1", "smoke/run-1/train/events.2"]


def test_tensorboard_shows_all_runs(output_dir):
    folder, _ = output_dir
    command = [sys.executable, "-m", "pipeline.tensorboard", "--output-dir", str(folder), "--port", "0"]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if address := re.search(r"http://[\w.]+:\d+/", line):
                    break
            assert address, said
            shown: list[str] = []
            deadline_s = time.monotonic() + 120
            while len(shown) < 3 and time.monotonic() < deadline_s:
                with urllib.request.urlopen(f"{address[0]}data/runs", timeout=60) as answer:
                    shown = json.load(answer)
                time.sleep(0.5)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # a shell's background jobs ignore SIGINT
    assert set(shown) == {f"{name}/train" for name in tensorboard.find_logs(folder)}


def test_without_a_log_it_says_what_makes_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tensorboard", "--output-dir", str(tmp_path)])
    assert tensorboard.main() == 1
    assert "holds no run yet: `make run` makes one" in capsys.readouterr().err


def test_a_server_that_is_not_there_hides_only_the_runs_on_it(output_dir, capsys):
    folder, _ = output_dir
    (folder / "sample").mkdir()
    (folder / "sample" / "metadata_connection").write_text("mysql://tfx@127.0.0.1:1/runs\n")
    assert len(tensorboard.find_logs(folder)) == 3
    tensorboard.find_logs(folder)
    assert capsys.readouterr().err.count("warning: Profile sample: ") == 1  # and not at each look
