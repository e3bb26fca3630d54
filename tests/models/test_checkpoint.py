import os
from pathlib import Path

import numpy as np
import pytest

from models import checkpoint


def state(value: float = 1.0) -> checkpoint.TrainingState:
    return checkpoint.TrainingState(
        history=[checkpoint.Epoch(1, 2.5, 0.1, 2.25, 0.2, 0.05, 1.5)],
        variables=[np.full((2, 3), value, np.float32), *(np.array(i) for i in range(10))],
        best_weights=[np.full(4, value, np.float32)],
    )


def assert_same(one: checkpoint.TrainingState | None, other: checkpoint.TrainingState) -> None:
    assert one is not None
    assert one.history == other.history
    for mine, its in ((one.variables, other.variables), (one.best_weights, other.best_weights)):
        assert len(mine) == len(its)
        for a, b in zip(mine, its, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_load_gives_what_save_wrote(tmp_path: Path):
    path = tmp_path / "new" / checkpoint.STATE_FILE
    checkpoint.save(path, state())
    assert_same(checkpoint.load(path), state())
    assert [file.name for file in path.parent.iterdir()] == [checkpoint.STATE_FILE]


def test_nothing_saved_is_none(tmp_path: Path):
    assert checkpoint.load(tmp_path / checkpoint.STATE_FILE) is None


def test_a_kill_before_the_rename_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / checkpoint.STATE_FILE
    checkpoint.save(path, state(1.0))

    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, state(2.0))
    monkeypatch.undo()
    assert_same(checkpoint.load(path), state(1.0))
    checkpoint.save(path, state(3.0))
    assert_same(checkpoint.load(path), state(3.0))


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes | None):
    path = tmp_path / checkpoint.STATE_FILE
    checkpoint.save(path, state())
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(ValueError, match=r"state\.npz is damaged .*delete it"):
        checkpoint.load(path)


def test_run_key_depends_on_values_and_not_on_their_order():
    assert checkpoint.run_key({"a": 1, "b": {"c": 2}}) == checkpoint.run_key({"b": {"c": 2}, "a": 1})
    assert checkpoint.run_key({"a": 1}) != checkpoint.run_key({"a": 2})


def test_history_csv():
    assert checkpoint.history_csv(state().history) == (
        "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n1,2.5,0.1,2.25,0.2,0.05,1.5\n"
    )
