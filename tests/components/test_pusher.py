import json
import os
import threading
import time

import pytest
from tfx.components.evaluator import constants as evaluator_constants
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.pusher.executor import ABANDONED_S, Executor, newest_version, push, same_content


@pytest.fixture
def saved_model(tmp_path):
    """A folder shaped like a SavedModel, with a file in each place where one has them."""
    path = tmp_path / "trained" / "Format-Serving"
    files = {
        "saved_model.pb": b"graph",
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": bytes(1000),
        "assets.extra/tf_serving_warmup_requests": b"warm",
    }
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def versions(base_dir):
    return sorted(int(path.name) for path in base_dir.iterdir())


def test_push_makes_a_whole_version_named_by_the_time(saved_model, tmp_path):
    before = int(time.time())
    pushed = push(saved_model, tmp_path / "serving" / "alexnet")
    assert pushed.parent == tmp_path / "serving" / "alexnet"
    assert before <= int(pushed.name) <= time.time()
    assert same_content(saved_model, pushed)
    assert os.listdir(tmp_path / "serving") == ["alexnet"]  # no staging folder is left


def test_the_same_model_is_not_pushed_twice(saved_model, tmp_path):
    first = push(saved_model, tmp_path / "alexnet")
    assert push(saved_model, tmp_path / "alexnet") == first
    assert versions(tmp_path / "alexnet") == [int(first.name)]


@pytest.mark.parametrize("newest", [1, 2**40])
def test_a_changed_model_becomes_the_highest_version(saved_model, tmp_path, newest):
    (tmp_path / "alexnet" / str(newest)).mkdir(parents=True)
    pushed = push(saved_model, tmp_path / "alexnet")
    assert int(pushed.name) > newest
    assert newest_version(tmp_path / "alexnet") == pushed


def test_two_pushes_within_a_second_get_versions_of_their_own(saved_model, tmp_path):
    first = push(saved_model, tmp_path / "alexnet")
    (saved_model / "saved_model.pb").write_bytes(b"another graph")
    second = push(saved_model, tmp_path / "alexnet")
    assert int(second.name) > int(first.name)
    assert (first / "saved_model.pb").read_bytes() == b"graph"


def test_a_failed_copy_leaves_what_was_served_and_no_rubbish(saved_model, tmp_path, monkeypatch):
    first = push(saved_model, tmp_path / "serving" / "alexnet")
    (saved_model / "saved_model.pb").write_bytes(b"another graph")

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", disk_full)
    monkeypatch.setattr("shutil.copytree", disk_full)
    with pytest.raises(OSError, match="No space left"):
        push(saved_model, tmp_path / "serving" / "alexnet")
    assert versions(tmp_path / "serving" / "alexnet") == [int(first.name)]
    assert os.listdir(tmp_path / "serving") == ["alexnet"]


def test_no_watcher_ever_sees_part_of_a_version(saved_model, tmp_path):
    for index in range(200):
        (saved_model / "variables" / f"shard-{index}").write_bytes(bytes(100))
    expected = sum(path.is_file() for path in saved_model.rglob("*"))
    base_dir = tmp_path / "alexnet"
    base_dir.mkdir()
    seen, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            for version in base_dir.iterdir():
                seen.append(sum(path.is_file() for path in version.rglob("*")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for graph in (b"a", b"b", b"c"):
            (saved_model / "saved_model.pb").write_bytes(graph)
            push(saved_model, base_dir)
        time.sleep(0.05)
    finally:
        stop.set()
        watcher.join()
    assert seen
    assert set(seen) == {expected}


@pytest.mark.parametrize("blessed", [True, False])
def test_executor_pushes_blessed_models_only(saved_model, tmp_path, blessed):
    model = standard_artifacts.Model()
    model.uri = str(saved_model.parent)
    blessing = standard_artifacts.ModelBlessing()
    blessing.uri = str(tmp_path / "blessing")
    blessing.set_int_custom_property(evaluator_constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    os.mkdir(blessing.uri)
    name = evaluator_constants.BLESSED_FILE_NAME if blessed else evaluator_constants.NOT_BLESSED_FILE_NAME
    (tmp_path / "blessing" / name).write_text("")
    pushed_model = standard_artifacts.PushedModel()
    pushed_model.uri = str(tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "alexnet"))
    )
    Executor().Do(
        {"model": [model], "model_blessing": [blessing]},
        {"pushed_model": [pushed_model]},
        {"push_destination": proto_utils.proto_to_json(destination), "custom_config": json.dumps(None)},
    )
    assert pushed_model.get_int_custom_property("pushed") == int(blessed)
    if blessed:
        assert pushed_model.get_int_custom_property("new") == 1
        version = pushed_model.get_string_custom_property("pushed_version")
        assert pushed_model.get_string_custom_property("pushed_destination") == str(tmp_path / "alexnet" / version)
        assert same_content(saved_model, tmp_path / "alexnet" / version)
        assert same_content(saved_model, tmp_path / "pushed")
    else:
        assert not (tmp_path / "alexnet").exists()


def push_blessed(saved_model, tmp_path):
    model, pushed_model = standard_artifacts.Model(), standard_artifacts.PushedModel()
    model.uri, pushed_model.uri = str(saved_model.parent), str(tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "serving" / "alexnet"))
    )
    Executor().Do(
        {"model": [model]},
        {"pushed_model": [pushed_model]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )


def test_a_version_that_cannot_be_recorded_is_not_served(saved_model, tmp_path, monkeypatch):
    def disk_full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfx.utils.io_utils.copy_dir", disk_full)
    with pytest.raises(OSError, match="No space left"):
        push_blessed(saved_model, tmp_path)
    assert not any((tmp_path / "serving").glob("alexnet/*"))


def test_a_version_that_is_served_is_recorded_whatever_happens_next(saved_model, tmp_path, monkeypatch):
    def fail(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("shutil.rmtree", fail)
    push_blessed(saved_model, tmp_path)
    assert len(versions(tmp_path / "serving" / "alexnet")) == 1


def test_what_killed_pushes_have_left_is_removed_and_nothing_else(saved_model, tmp_path):
    old, now = time.time() - 2 * ABANDONED_S, time.time()
    expected = {"alexnet"}
    for name, changed_s, stays in (
        (".alexnet-abandone", old, False),
        (".alexnet-underway", now, True),  # another push
        (".alexnet-b-abandone", old, True),  # another base path's
        (".alexnet", old, True),
        ("alexnet-b", old, True),
    ):
        (tmp_path / "serving" / name / "version" / "variables").mkdir(parents=True)
        os.utime(tmp_path / "serving" / name, (changed_s, changed_s))
        expected |= {name} if stays else set()
    push(saved_model, tmp_path / "serving" / "alexnet")
    assert set(os.listdir(tmp_path / "serving")) == expected
