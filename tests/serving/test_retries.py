import pytest

from serving.answers import ServingError
from serving.retries import RetryPolicy


class Time:
    """A clock that only sleeping, and whatever the test adds, moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("serving.retries.time", time)
    monkeypatch.setattr("serving.retries.random.uniform", lambda low, high: high)
    return time


def failing(times: int, code: str = "UNAVAILABLE"):
    left: list[float] = []

    def function(left_s: float) -> str:
        left.append(left_s)
        if len(left) <= times:
            raise ServingError(code, f"failure {len(left)}")
        return "answer"

    return function, left


def test_the_wait_doubles_up_to_its_limit_and_the_deadline_shrinks(time: Time):
    function, left = failing(4)
    policy = RetryPolicy(max_attempts=5, initial_backoff_s=1.0, max_backoff_s=3.0)
    assert policy.call(function, 60.0) == "answer"
    assert time.slept_s == [1.0, 2.0, 3.0, 3.0]
    assert left == [60.0, 59.0, 57.0, 54.0, 51.0]


def test_waits_are_spread_between_zero_and_the_limit(time: Time, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 2

    monkeypatch.setattr("serving.retries.random.uniform", uniform)
    RetryPolicy(initial_backoff_s=1.0).call(failing(2)[0], 60.0)
    assert asked == [(0, 1.0), (0, 2.0)]
    assert time.slept_s == [0.5, 1.0]


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"]
)
def test_other_errors_are_not_tried_again(time: Time, code: str):
    function, left = failing(1, code)
    with pytest.raises(ServingError, match="failure 1"):
        RetryPolicy().call(function, 60.0)
    assert len(left) == 1
    assert time.slept_s == []


def test_attempts_end(time: Time):
    function, left = failing(9)
    with pytest.raises(ServingError, match="failure 3"):
        RetryPolicy(max_attempts=3).call(function, 60.0)
    assert len(left) == 3


def test_no_wait_passes_the_deadline(time: Time):
    function, left = failing(9)
    with pytest.raises(ServingError, match="failure 2"):
        RetryPolicy(initial_backoff_s=1.0).call(function, 2.5)
    assert left == [2.5, 1.5]


def test_no_attempt_is_not_allowed():
    with pytest.raises(ValueError, match="max_attempts is 0"):
        RetryPolicy(max_attempts=0)
