"""A database server for ML Metadata, on a free port, with a password, gone when the test is over."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = 'se"cret 7'
"""With a character that a protocol buffer's text form escapes."""

START_S = 60.0


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """Run a MariaDB server with an empty database; yields its URL as `metadata_connection` takes it."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    server, install = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if not server or not install:
        pytest.skip("there is no MariaDB server here: apt-get install mariadb-server-core")
    # Not pytest's folder: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="metadata-") as name:
        folder = Path(name)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        data = [f"--datadir={folder / 'data'}", f"--user={pwd.getpwuid(os.geteuid()).pw_name}"]
        _run([install, "--no-defaults", *data, "--skip-test-db"])
        user = f"CREATE USER 'tfx'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON runs.* TO 'tfx'@'%';\n"
        (folder / "init.sql").write_text(f"CREATE DATABASE runs;\n{user}")
        address = [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--socket={folder / 'socket'}"]
        command = [server, "--no-defaults", *data, *address, f"--init-file={folder / 'init.sql'}"]
        with open(folder / "server.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(process, port, folder / "server.log")
            yield f"mysql://tfx@127.0.0.1:{port}/runs"
        finally:
            process.terminate()
            process.wait(60)


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _wait_for(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"the server has not started: {log.read_text(encoding='utf-8')}") from None
            time.sleep(0.2)
