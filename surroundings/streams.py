"""Standard output and standard error that no process can fail at, whatever is behind them.

What a terminal cannot show is written as an escape. Where nothing can be written any more, because the reader is gone
(`| head -1`), the disk full or the stream closed (`>&-`), the process goes on, and what it writes is lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys


class Output(io.TextIOWrapper):
    """A standard stream whose writing never raises an OSError or a UnicodeError."""

    def __init__(self, descriptor: int, encoding: str, only_prints: bool) -> None:
        """Writes a line at once.

        Args:
            descriptor: 1 or 2; it stays open.
            encoding: of the terminal or file.
            only_prints: whether nothing is left to do once nothing can be written: SystemExit is raised then.
        """
        binary = open(descriptor, "wb", closefd=False)  # noqa: SIM115  # for as long as the process
        super().__init__(binary, encoding=encoding, errors="backslashreplace", line_buffering=True)
        self._only_prints = only_prints

    def write(self, text: str) -> int:
        """Writes, or loses, a text; returns its length."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Writes, or loses, what waits."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        # Also what waits in buffers, and what libraries and child processes write themselves.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        reader_is_gone = isinstance(error, BrokenPipeError)
        if not reader_is_gone:
            which = "output" if self.fileno() == 1 else "error"
            print(f"Standard {which} cannot be written: {error.strerror}. The rest of it is lost.", file=sys.stderr)
        if self._only_prints:
            raise SystemExit(0 if reader_is_gone else os.EX_IOERR)


def prepare(*, only_prints: bool = False) -> None:
    """Makes this process's standard streams ones that it cannot fail at; a command's first step.

    Args:
        only_prints: for a command that is there for its output alone. It ends when standard output cannot be written:
            with status 0 where the reader is gone, else with EX_IOERR.
    """
    for descriptor in range(3):
        try:
            os.set_blocking(descriptor, True)  # what shares the terminal may have left it otherwise
        except OSError:
            # Closed: it would become the number of the next file that is opened, which stray output then ends up in.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # not where this was done before, or something stands in for it
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.flush()
            encoding = "utf-8" if stream is None else stream.encoding
            setattr(sys, name, Output(descriptor, encoding, only_prints and descriptor == 1))
