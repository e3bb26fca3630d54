"""The bar, with a clock that the test turns."""

import pytest

from models import progress
from models.checkpoint import Epoch

STEPS = 10


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Screen:
    """All that was drawn so far."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys
        self._drawn = ""

    def getvalue(self) -> str:
        self._drawn += self._capsys.readouterr().out
        return self._drawn


@pytest.fixture
def screen(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_REFRESH_S", 0)  # each step is drawn
    monkeypatch.setenv("COLUMNS", "120")
    return Screen(capsys)


def epoch(seconds):
    return Epoch(epoch=1, loss=1, accuracy=0, val_loss=1, val_accuracy=0, learning_rate=0, seconds=seconds)


def run_epoch(bar, clock, index, step_s):
    bar.on_epoch_begin(index)
    for step in range(STEPS):
        clock.now_s += 60 if step == 0 else step_s  # the first one compiles
        bar.on_train_batch_end(step, {"loss": 1.25, "accuracy": 0.5})
    bar.on_test_begin()


def last_drawn(screen, text):
    return next(part for part in reversed(screen.getvalue().split("\r")) if text in part)


def test_the_bar_says_epoch_step_metrics_and_the_time_that_is_left(screen):
    clock = Clock()
    bar = progress.ProgressBar(3, STEPS, [], clock)
    run_epoch(bar, clock, 0, step_s=2)
    drawn = last_drawn(screen, " 6/10")
    assert "Epoch 1/3  60%" in drawn
    assert "loss 1.2500  accuracy 0.5000" in drawn
    assert "0:08 left, 0:48 of the run" in drawn  # 4 steps, and two epochs of 10, of 2 s each
    assert "validating" in last_drawn(screen, "10/10")


def test_with_an_epoch_behind_it_the_run_knows_what_validation_costs(screen):
    clock = Clock()
    history: list[Epoch] = []
    bar = progress.ProgressBar(3, STEPS, history, clock)
    run_epoch(bar, clock, 0, step_s=2)
    history.append(epoch(seconds=500))
    bar.on_epoch_end(0)
    run_epoch(bar, clock, 1, step_s=2)
    assert "0:08 left, 8:28 of the run" in last_drawn(screen, " 6/10")


def test_epochs_of_an_earlier_attempt_do_not_count_as_this_ones_speed(screen):
    clock, history = Clock(), [epoch(seconds=5000)]
    bar = progress.ProgressBar(2, STEPS, history, clock)
    run_epoch(bar, clock, 1, step_s=2)
    assert "Epoch 2/2" in screen.getvalue()
    assert "0:08 left, 0:08 of the run" in last_drawn(screen, " 6/10")


def test_nothing_is_left_of_the_bar(screen):
    clock = Clock()
    bar = progress.ProgressBar(1, STEPS, [], clock)
    run_epoch(bar, clock, 0, step_s=2)
    bar.on_epoch_end(0)
    bar.on_train_end()
    *_, blank, rest = screen.getvalue().split("\r")
    assert not blank.strip()
    assert rest == ""


def test_several_steps_in_one_execution_move_the_bar_by_as_many(screen):
    clock = Clock()
    bar = progress.ProgressBar(1, STEPS, [], clock)
    bar.on_epoch_begin(0)
    for last in (4, 9):
        clock.now_s += 10
        bar.on_train_batch_end(last, {})
    assert " 5/10" in screen.getvalue()
    assert "10/10" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (725, "12:05"), (3600, "1:00:00"), (11229, "3:07:09"), (65, "1:05")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
