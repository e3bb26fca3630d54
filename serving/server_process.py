"""Runs the local model server in a process of its own for a while: for ServingValidator, tests and benchmarks."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
_ADDRESSES = re.compile(r"gRPC at (\S+?)[ ,].*REST at http://([^/\s]+)/")


class ServerProcessError(RuntimeError):
    """The server did not start; the message says what it wrote last."""


@dataclass(frozen=True)
class ServerProcess:
    """A server that listens.

    Attributes:
        pid: of its process.
        grpc_address: `host:port`.
        rest_address: `host:port`.
    """

    pid: int
    grpc_address: str
    rest_address: str


@contextmanager
def server_process(flags: Sequence[str], log_file: Path) -> Iterator[ServerProcess]:
    """Runs the server until the end of the context.

    Args:
        flags: of `python -m serving.server`, but for the ports, which the system chooses.
        log_file: where its messages go.

    Yields:
        The server, once it has loaded what is there and listens.

    Raises:
        ServerProcessError: it ended, or said nothing within START_TIMEOUT_S.
    """
    command = [sys.executable, "-m", "serving.server", "--port=0", "--rest_api_port=0", *flags]
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace"
        )
    try:
        yield _wait_until_listening(process, log_file)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_until_listening(process: subprocess.Popen[str], log_file: Path) -> ServerProcess:
    """Reads where the server listens, which is the one line that it prints at the start."""
    assert process.stdout is not None
    # A server that hangs is ended, which ends the reading below.
    timer = threading.Timer(START_TIMEOUT_S, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    addresses = _ADDRESSES.search(line)
    if addresses is None:
        process.kill()
        last = "\n".join(log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])
        raise ServerProcessError(
            f"The server printed {line.strip()!r} instead of its addresses within {START_TIMEOUT_S:.0f} s. The end of "
            f"{log_file}:\n{last}"
        )
    return ServerProcess(process.pid, addresses[1], addresses[2])
