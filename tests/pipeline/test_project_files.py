"""What is beside the code: the Makefile, the container image, the package."""

import fcntl
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.settings import PROFILES, PROJECT_ROOT

ROOMS = ("components", "models", "pipeline", "serving", "surroundings")


def make(folder: Path, target: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "-C", str(folder), target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_make_help_names_every_profile():
    (line,) = [line for line in make(PROJECT_ROOT, "help").stdout.splitlines() if line.startswith("  make run ")]
    (names,) = re.findall(r"PROFILE=([\w|]+)", line)
    assert names.split("|") == list(PROFILES)


@pytest.fixture
def project(tmp_path):
    """A folder with the Makefile, a profile's outputs, and a Python that says what it is asked to run."""
    folder = tmp_path / "my project"
    (folder / "outputs" / "smoke" / "artifacts").mkdir(parents=True)
    (folder / "outputs" / "smoke" / ".lock").touch()
    shutil.copy(PROJECT_ROOT / "Makefile", folder)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "asked to run $*"\n')
    python.chmod(0o755)
    return folder


def test_make_clean_leaves_the_folder_of_a_run_that_is_under_way(project):
    lock = project / "outputs" / "smoke" / ".lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cleaned = make(project, "clean")
    assert cleaned.returncode != 0
    assert "A run is under way (it holds outputs/smoke/.lock)" in cleaned.stderr
    assert lock.exists()
    assert make(project, "clean").returncode == 0
    assert not (project / "outputs").exists()
    assert make(project, "clean").returncode == 0


def test_make_clean_stops_the_flink_cluster(project):
    (project / "outputs" / "flink").mkdir()
    (project / "outputs" / "flink" / "cluster.json").touch()
    cleaned = make(project, "clean")
    assert "asked to run -m pipeline.flink stop" in cleaned.stdout
    assert not (project / "outputs").exists()


def test_a_container_keeps_the_downloaded_data_on_its_volume():
    dockerfile = (PROJECT_ROOT / "Dockerfile").read_text()
    (volume,) = re.findall(r"^VOLUME (\S+)$", dockerfile, re.MULTILINE)
    (cache,) = re.findall(r"\bCIFAR10_CACHE_DIR=(\S+)", dockerfile)
    assert Path(cache).is_relative_to(volume)
    assert Path(cache).name not in PROFILES


def test_the_package_holds_what_its_code_reads(tmp_path):
    project = tmp_path / "project"
    for room in ROOMS:
        shutil.copytree(PROJECT_ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(PROJECT_ROOT / name, project)
    build = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(tmp_path / "dist")]
    subprocess.run(build, cwd=project, capture_output=True, text=True, timeout=120, check=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    pictures_of_the_readme = {".png"}
    wanted = {
        str(path.relative_to(PROJECT_ROOT))
        for room in ROOMS
        for path in (PROJECT_ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in pictures_of_the_readme
    }
    assert wanted <= held
    assert any(name.endswith("/LICENSE") for name in held)
