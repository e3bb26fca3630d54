"""The life of versions, with a loader that knows no TensorFlow."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from serving.local_server import model_manager
from serving.local_server.model_config import ConfigError, ModelConfig, VersionPolicy
from serving.local_server.model_manager import ManagerOptions, ModelManager, State, versions_on_disk
from serving.local_server.status import Code, StatusError

POLL_S = 0.01


class FakeModel:
    """Records when it is closed."""

    def __init__(self, path: str) -> None:
        self.content = (Path(path) / "model").read_text()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def fake_load(name: str, version: int, path: str) -> FakeModel:
    """Loads what is not marked as broken."""
    model = FakeModel(path)
    if "broken" in model.content:
        raise StatusError(Code.DATA_LOSS, f"{path} is broken")
    return model


def push(base_path: Path, version: int | str, content: str = "good") -> None:
    """Puts a version on disk in one step."""
    staged = base_path.parent / f"staged-{version}"
    staged.mkdir(parents=True)
    (staged / "model").write_text(content)
    base_path.mkdir(exist_ok=True)
    os.rename(staged, base_path / str(version))


def remove(base_path: Path, version: int) -> None:
    """Takes a version off the disk."""
    (base_path / str(version) / "model").unlink()
    (base_path / str(version)).rmdir()


def is_available(manager: ModelManager[FakeModel], version: int) -> bool:
    """Whether a version of the model is there."""
    return version in manager.available()["m"]


class Managers:
    """Makes managers, and stops them."""

    def __init__(self) -> None:
        self.started: list[ModelManager[FakeModel]] = []

    def __call__(self, *configs: ModelConfig, load=fake_load, **options) -> ModelManager[FakeModel]:
        manager = ModelManager(configs, load, ManagerOptions(**{"poll_wait_s": POLL_S, **options}))
        manager.start()
        self.started.append(manager)
        return manager


@pytest.fixture
def managers() -> Iterator[Managers]:
    made = Managers()
    yield made
    for manager in made.started:
        manager.stop(timeout_s=1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "model"


def states(manager: ModelManager[FakeModel], name: str = "m") -> dict[int, State]:
    return {status.version: status.state for status in manager.statuses(name, None, None)}


def served(manager: ModelManager[FakeModel], **choice) -> int:
    with manager.use("m", **choice) as servable:
        return servable.version


def test_only_folders_named_by_a_number_are_versions(base):
    push(base, "00000123")
    for name in ("latest", "-5", "1.5", "٣", "9999999999999999999999"):
        (base / name).mkdir()
    (base / "7").write_text("a file")
    assert versions_on_disk(str(base)) == {123: str(base / "00000123")}


def test_the_latest_version_is_loaded_and_the_new_one_replaces_it(base, managers):
    push(base, 1)
    push(base, 2)
    manager = managers(ModelConfig("m", str(base)))
    assert states(manager) == {2: State.AVAILABLE}
    push(base, 3)
    wait_until(lambda: states(manager) == {3: State.AVAILABLE, 2: State.END})
    assert served(manager) == 3
    with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 2\)") as missing:
        served(manager, version=2)
    assert missing.value.code == Code.NOT_FOUND


def test_the_new_version_is_available_before_the_old_is_unloaded(base, managers):
    order: list[str] = []

    class Watched(FakeModel):
        def close(self) -> None:
            order.append(f"close {self.content}")

    def load(name: str, version: int, path: str) -> FakeModel:
        order.append(f"load {version}")
        return Watched(path)

    push(base, 1, "1")
    manager = managers(ModelConfig("m", str(base)), load=load)
    push(base, 2, "2")
    wait_until(lambda: states(manager).get(1) == State.END)
    assert order == ["load 1", "load 2", "close 1"]


def test_a_request_keeps_its_version_until_it_has_ended(base, managers):
    push(base, 1)
    manager = managers(ModelConfig("m", str(base)))
    with manager.use("m") as servable:
        push(base, 2)
        wait_until(lambda: states(manager) == {2: State.AVAILABLE, 1: State.UNLOADING})
        assert served(manager) == 2
        assert not servable.model.closed.is_set()
    assert servable.model.closed.wait(5)
    wait_until(lambda: states(manager)[1] == State.END)


def test_a_broken_version_leaves_the_old_one_serving_and_says_why(base, managers):
    push(base, 1)
    manager = managers(ModelConfig("m", str(base)), load_retry_interval_s=0.01, max_num_load_retries=2)
    push(base, 2, "broken")
    wait_until(lambda: states(manager).get(2) == State.END)
    broken, good = manager.statuses("m", None, None)
    assert (broken.code, broken.message) == (Code.DATA_LOSS, f"{base / '2'} is broken")
    assert (good.version, good.state, good.code) == (1, State.AVAILABLE, Code.OK)
    assert served(manager) == 1


def test_a_broken_version_is_tried_again_so_many_times(base, managers):
    attempts: list[int] = []

    def load(name: str, version: int, path: str) -> FakeModel:
        attempts.append(version)
        return fake_load(name, version, path)

    push(base, 1, "broken")
    manager = managers(ModelConfig("m", str(base)), load=load, load_retry_interval_s=0, max_num_load_retries=3)
    wait_until(lambda: len(attempts) == 4)
    time.sleep(10 * POLL_S)
    assert len(attempts) == 4
    assert manager.unavailable() == {"m": f"version 1: DATA_LOSS: {base / '1'} is broken"}


def test_a_broken_version_is_tried_again_at_once_when_its_files_change(base, managers):
    push(base, 1, "broken")
    manager = managers(ModelConfig("m", str(base)), load_retry_interval_s=3600)
    assert states(manager) == {1: State.END}
    (base / "1" / "model").write_text("good now")
    wait_until(lambda: states(manager) == {1: State.AVAILABLE})
    assert manager.statuses("m", 1, None)[0].code == Code.OK


def test_an_unexpected_error_is_a_status_and_does_not_end_the_watch(base, managers):
    def load(name: str, version: int, path: str) -> FakeModel:
        if version == 2:
            raise MemoryError("no room")
        return fake_load(name, version, path)

    push(base, 2)
    manager = managers(ModelConfig("m", str(base)), load=load)
    assert manager.unavailable() == {"m": "version 2: INTERNAL: MemoryError: no room"}
    push(base, 3)
    wait_until(lambda: states(manager).get(3) == State.AVAILABLE)


def test_rollback_by_removing_the_newest_version(base, managers):
    push(base, 1)
    push(base, 2)
    manager = managers(ModelConfig("m", str(base)))
    assert served(manager) == 2
    remove(base, 2)
    wait_until(lambda: states(manager) == {1: State.AVAILABLE, 2: State.END})
    assert served(manager) == 1


def test_rollback_and_return_by_configuration(base, managers):
    push(base, 1)
    push(base, 2)
    manager = managers(ModelConfig("m", str(base)))
    manager.reload([ModelConfig("m", str(base), VersionPolicy(specific=(1,)))])
    assert served(manager) == 1
    wait_until(lambda: states(manager).get(2) == State.END)
    manager.reload([ModelConfig("m", str(base))])
    assert served(manager) == 2


def test_a_base_path_that_disappears_unloads_nothing(base, managers):
    push(base, 1)
    manager = managers(ModelConfig("m", str(base)))
    base.rename(base.with_name("elsewhere"))
    time.sleep(10 * POLL_S)
    assert served(manager) == 1


def test_a_model_may_appear_later(base, managers):
    manager = managers(ModelConfig("m", str(base)))
    assert manager.unavailable() == {"m": f"no version found under base path {base}"}
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)"):
        served(manager)
    with pytest.raises(StatusError, match="Could not find any versions of model m"):
        states(manager)
    push(base, 1)
    wait_until(lambda: manager.available() == {"m": [1]})


def test_labels_choose_versions(base, managers):
    for version in (1, 2, 3):
        push(base, version)
    policy = VersionPolicy(latest=2)
    manager = managers(ModelConfig("m", str(base), policy, {"stable": 2, "canary": 3}))
    assert (served(manager, label="stable"), served(manager, label="canary"), served(manager)) == (2, 3, 3)
    # The canary has proved itself.
    manager.reload([ModelConfig("m", str(base), policy, {"stable": 3})])
    assert served(manager, label="stable") == 3
    with pytest.raises(StatusError, match="Unrecognized servable version label: canary") as unknown:
        served(manager, label="canary")
    assert unknown.value.code == Code.INVALID_ARGUMENT


def test_labels_of_versions_that_are_not_available(base, managers):
    push(base, 1)
    labelled = ModelConfig("m", str(base), labels={"canary": 2})
    message = "Request to assign label to version 2 of model m, which is not currently available for inference"
    with pytest.raises(ConfigError, match=message):
        managers(labelled)
    strict = managers(ModelConfig("m", str(base)))
    with pytest.raises(StatusError, match=message) as refused:
        strict.reload([labelled])
    assert refused.value.code == Code.FAILED_PRECONDITION
    assert served(strict) == 1

    lenient = managers(labelled, allow_version_labels_for_unavailable_models=True)
    with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 2\)"):
        served(lenient, label="canary")
    with pytest.raises(StatusError, match="Request to assign label to version 3"):
        lenient.reload([ModelConfig("m", str(base), labels={"canary": 3})])  # it would take the label from 2


def test_reload_adds_and_removes_models(base, managers, tmp_path):
    other = tmp_path / "other"
    push(base, 1)
    push(other, 5)
    manager = managers(ModelConfig("m", str(base)))
    with manager.use("m") as servable:
        removed = servable.model
    manager.reload([ModelConfig("other", str(other))])
    assert manager.available() == {"other": [5]}
    assert removed.closed.wait(5)
    with pytest.raises(StatusError, match=r"did not become available: \{third: no version found"):
        manager.reload([ModelConfig("other", str(other)), ModelConfig("third", str(tmp_path / "third"))])
    assert manager.available() == {"other": [5], "third": []}


def test_without_polling_nothing_is_noticed(base, managers):
    push(base, 1)
    manager = managers(ModelConfig("m", str(base)), poll_wait_s=0)
    push(base, 2)
    time.sleep(0.1)
    assert states(manager) == {1: State.AVAILABLE}


def test_stop_waits_for_requests_no_longer_than_it_was_told(base):
    push(base, 1)
    manager = ModelManager([ModelConfig("m", str(base))], fake_load, ManagerOptions(poll_wait_s=POLL_S))
    manager.start()
    with manager.use("m") as servable:
        started = time.monotonic()
        manager.stop(timeout_s=0.1)
        assert 0.05 < time.monotonic() - started < 2
        assert not servable.model.closed.is_set()
    assert servable.model.closed.wait(5)


def test_versions_change_under_requests_without_an_error(base, managers):
    push(base, 1)
    manager = managers(ModelConfig("m", str(base)))
    stop, errors, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            try:
                with manager.use("m") as servable:
                    seen.add(servable.version)
                    if servable.model.closed.is_set():
                        errors.append(f"version {servable.version} was closed while in use")
            except StatusError as error:
                errors.append(error.message)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 8):
        push(base, version)
        wait_until(functools.partial(is_available, manager, version))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert 7 in seen


def test_an_error_while_looking_does_not_end_the_watch(base, managers, monkeypatch, caplog):
    push(base, 1)
    manager = managers(ModelConfig("m", str(base)))
    failed = threading.Event()

    def fail(base_path: str) -> dict[int, str]:
        if failed.is_set():
            return versions_on_disk(base_path)
        failed.set()
        raise MemoryError("no room")

    monkeypatch.setattr(model_manager, "versions_on_disk", fail)
    assert failed.wait(5)
    push(base, 2)
    wait_until(lambda: states(manager).get(2) == State.AVAILABLE)
    assert "Looking at the base paths failed" in caplog.text
    assert "no room" in caplog.text


def test_files_that_are_removed_while_they_are_looked_at(base, managers, monkeypatch):
    push(base, 1, "broken")
    (base / "1" / "more").write_text("")
    manager = managers(ModelConfig("m", str(base)), load_retry_interval_s=3600)
    look = os.stat

    def look_and_remove(path, *arguments, **named):
        found = look(path, *arguments, **named)
        if Path(path).parent == base / "1":
            for name in ("model", "more"):
                (base / "1" / name).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "stat", look_and_remove)
    wait_until(lambda: not any((base / "1").iterdir()))
    monkeypatch.undo()
    (base / "1" / "model").write_text("good now")
    wait_until(lambda: states(manager) == {1: State.AVAILABLE})
