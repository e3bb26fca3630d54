"""Calls within a deadline, again after a while where the server is not there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from serving.answers import ServingError

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again.

    Only UNAVAILABLE is tried again: the server was not reached or shuts down, so the call was not answered. Any other
    error would be the same again, or would make an overloaded server's queue longer. The wait before attempt n + 1 is
    uniform in [0, min(max_backoff_s, initial_backoff_s * 2**(n - 1))], so that clients do not come back all at once
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, "full jitter").

    Attributes:
        max_attempts: calls in all; 1 never tries again.
        initial_backoff_s: longest wait after the first attempt.
        max_backoff_s: longest wait.
    """

    max_attempts: int = 5
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 5.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; it has to be 1 or more.")

    def call(self, function: Callable[[float], T], timeout_s: float) -> T:
        """Call until there is an answer, an error other than UNAVAILABLE, no attempt or no time left.

        Args:
            function: takes the seconds that are left.
            timeout_s: seconds for all attempts together.

        Raises:
            ServingError: of the last attempt.
        """
        deadline = time.monotonic() + timeout_s
        longest_s = self.initial_backoff_s
        for attempt in range(1, self.max_attempts + 1):
            try:
                return function(deadline - time.monotonic())
            except ServingError as error:
                wait_s = random.uniform(0, min(longest_s, self.max_backoff_s))
                no_time_left = time.monotonic() + wait_s >= deadline
                if error.code != "UNAVAILABLE" or attempt == self.max_attempts or no_time_left:
                    raise
            time.sleep(wait_s)
            longest_s *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")
