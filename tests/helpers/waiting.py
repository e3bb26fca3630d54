"""Waits for what other threads and processes do."""

import time
from collections.abc import Callable

WAIT_S = 60.0
"""For a machine that is busy with other tests."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns as soon as a condition holds.

    Raises:
        AssertionError: It did not within WAIT_S.
    """
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"it did not happen within {WAIT_S:g} s"
        time.sleep(0.01)
