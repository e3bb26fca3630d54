import errno
import hashlib
import http.server
import inspect
import multiprocessing
import random
import re
import subprocess
import sys
import threading
import time

import pytest
from cifar10_builders import REPOSITORY

from components.cifar10_example_gen import download
from components.cifar10_example_gen.download import DownloadError, fetch_official_archive
from components.cifar10_example_gen.errors import DataError
from components.cifar10_example_gen.published import PublishedArchive

CONTENT = random.Random(0).randbytes(3_000_000)
EXPECTED = PublishedArchive(len(CONTENT), md5=hashlib.md5(CONTENT).hexdigest())
NAME = "archive.tar.gz"


class _Server(http.server.ThreadingHTTPServer):
    content = CONTENT
    ranges = True
    range_shift = 0
    tell_length = True
    pause_s = 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.starts: list[int] = []
        self.statuses: list[int] = []
        self.cuts: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/~kriz/{NAME}"

    def handle_error(self, *_):
        """Says nothing: clients that hang up on a silent server are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`, and misbehaves as `server` says."""

    server: _Server

    def do_GET(self):
        server = self.server
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        server.starts.append(start)
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not server.ranges:
            start = 0
        start += server.range_shift if start else 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.tell_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        time.sleep(server.pause_s)
        self.wfile.write(body[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server, cache, **options):
    return fetch_official_archive(cache, server.url, EXPECTED, **{"backoff_s": 0.0, "timeout_s": 5.0} | options)


def files_in(cache):
    return {path.name for path in cache.iterdir()} - {f"{NAME}.lock"}


def test_downloaded_once(server, tmp_path, capfd):
    cache = tmp_path / "new" / "cache"
    path = fetch(server, cache)
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert fetch(server, cache) == path
    assert server.starts == [0]
    assert files_in(cache) == {NAME}
    assert "Downloading http://127.0.0.1" in capfd.readouterr().err


def test_resumed_after_the_connection_was_cut(server, tmp_path):
    server.cuts = [1_000_000, 500_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts[0] == 0
    assert len(server.starts) == 3
    assert 0 < server.starts[1] <= 1_000_000
    assert server.starts[1] < server.starts[2] <= 1_500_000


def test_resumed_by_the_next_call(server, tmp_path):
    server.cuts = [2_000_000]
    with pytest.raises(
        DownloadError, match=r"gave up after 1 of 1 tries\. Run the command again to go on where it stopped"
    ):
        fetch(server, tmp_path, attempts=1)
    assert files_in(tmp_path) == {f"{NAME}.part"}
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts[1] > 0
    assert files_in(tmp_path) == {NAME}


def test_a_server_that_closes_early_without_a_length(server, tmp_path):
    server.tell_length = False
    server.cuts = [1_000_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.starts) == 2


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts == [1000]


def test_a_server_that_continues_somewhere_else(server, tmp_path):
    server.range_shift = 7
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts == [1000, 0]


def test_a_range_that_cannot_be_satisfied(server, tmp_path):
    server.statuses = [416]
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts == [1000, 0]


def test_a_complete_part_needs_no_request(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts == []


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"x")
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts == [0]


def test_a_corrupt_part_is_removed_and_never_becomes_the_archive(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"has MD5 \w+, expected \w+.* The download was removed; run the command again"):
        fetch(server, tmp_path)
    assert files_in(tmp_path) == set()
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_wrong_content_of_the_right_length(server, tmp_path):
    server.content = bytes(len(CONTENT))
    with pytest.raises(DataError, match=f"{server.url}: not the published archive"):
        fetch(server, tmp_path)
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("start_bytes", [0, 1000])
def test_a_file_of_another_length_on_the_server(server, tmp_path, start_bytes):
    server.content = CONTENT + b"more"
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:start_bytes])
    with pytest.raises(DownloadError, match="the server's file has 3000004 bytes, the published archive has 3000000"):
        fetch(server, tmp_path)
    assert files_in(tmp_path) == set()
    assert len(server.starts) == 1


def test_a_server_that_sends_more_than_it_should(server, tmp_path):
    server.content = CONTENT + bytes(2_000_000)
    server.tell_length = False
    with pytest.raises(DownloadError, match="sends more than the published 3000000 bytes"):
        fetch(server, tmp_path)
    assert NAME not in files_in(tmp_path)


def test_errors_that_pass_are_tried_again(server, tmp_path, capfd):
    server.statuses = [503, 429, 500]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert "the server answers 503 Service Unavailable; trying again in 0 s (1 of 5 tries)" in capfd.readouterr().err


def test_an_error_that_stays_is_not(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(DownloadError, match=rf"{NAME}: the server answers 404 Not Found. Check the URL"):
        fetch(server, tmp_path)
    assert server.starts == [0]


def test_the_waits_grow(server, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.statuses = [503] * 4
    with pytest.raises(DownloadError, match="gave up after 4 of 4 tries"):
        fetch(server, tmp_path, attempts=4, backoff_s=3.0)
    assert [wait for wait in waits if wait] == [3.0, 6.0, 12.0]


def test_a_silent_server(server, tmp_path):
    server.pause_s = 1.0
    with pytest.raises(DownloadError, match="interrupted"):
        fetch(server, tmp_path, attempts=2, timeout_s=0.2)
    assert NAME not in files_in(tmp_path)


def test_no_server(tmp_path):
    message = r"interrupted \(.*Failed to establish .* Connection refused\); gave up .* give the path of your own copy"
    with pytest.raises(DownloadError, match=message):
        fetch_official_archive(tmp_path, "http://127.0.0.1:9/x.tar.gz", EXPECTED, attempts=2, backoff_s=0.0)


def test_no_url(tmp_path):
    with pytest.raises(DownloadError, match="Check the URL"):
        fetch_official_archive(tmp_path, "nowhere/x.tar.gz", EXPECTED)


def test_a_damaged_file_in_the_cache_is_replaced(server, tmp_path, capfd):
    (tmp_path / NAME).write_bytes(CONTENT[:-1] + b"?")
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    output = capfd.readouterr().err
    assert f"{tmp_path / NAME}: not the published archive of this name: has MD5" in output
    assert "The file in the cache is replaced." in output


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(DownloadError, match=r"not enough space .* 3 MB. Make room, or set CIFAR10_CACHE_DIR"):
        fetch(server, tmp_path)
    assert server.starts == []


def test_a_disk_that_gets_full(server, tmp_path, monkeypatch):
    def full(chunks, *_):
        yield next(iter(chunks))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_with_progress", full)
    with pytest.raises(DownloadError, match="not enough space"):
        fetch(server, tmp_path)
    assert NAME not in files_in(tmp_path)


def _fetch_in_a_process(url, cache):
    fetch_official_archive(cache, url, EXPECTED)


def test_two_processes_download_once(server, tmp_path):
    server.pause_s = 0.5
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch_in_a_process, args=(server.url, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.starts == [0]


def test_the_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CIFAR10_CACHE_DIR", str(tmp_path))
    assert download.default_cache_dir() == tmp_path
    monkeypatch.delenv("CIFAR10_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.default_cache_dir() == tmp_path / "xdg" / "alexnet-cifar10"


def test_the_official_archive_is_expected_by_default():
    assert download.OFFICIAL_URL == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    expected = inspect.signature(fetch_official_archive).parameters["expected"].default
    assert expected == PublishedArchive(170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")


def test_the_command_prints_the_path(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "fetch_official_archive", lambda: fetch(server, tmp_path))
    assert download.main() == 0
    assert capsys.readouterr().out == f"{tmp_path / NAME}\n"
    server.statuses = [404]
    (tmp_path / NAME).unlink()
    assert download.main() == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: http://127.0.0.1")


def test_downloading_needs_neither_tensorflow_nor_tfx():
    module = "components.cifar10_example_gen.download"
    code = f"import sys, {module}; print({{'tensorflow', 'tfx', 'apache_beam'}} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert output.stdout == "set()\n"
