import os
from pathlib import Path

import pytest

from pipeline.flink import jars
from pipeline.flink.jars import FlinkError, Release

RELEASE = Release("1.19", "2.62.0")

MAVEN = """#!/bin/sh
for argument; do case "$argument" in -DoutputDirectory=*) out=${argument#*=};; esac; done
echo "$@" >> "$CALLS"
mkdir -p "$out" && echo jar > "$out/beam-runners-flink-1.19.jar"
"""

FAILING_MAVEN = """#!/bin/sh
printf '\\033[0m\\033[0m[ERROR] Could not find artifact org.apache.beam:beam-runners-flink-1.19:jar:9.9.9\\n'
echo "[ERROR] "
exit 1
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts programs of a test's own in front of those that are installed; returns how."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def put(name: str, text: str) -> None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return put


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_the_environment_can_name_another_runner(monkeypatch):
    monkeypatch.delenv(jars.BEAM_VARIABLE, raising=False)
    assert jars.chosen_release() == Release(jars.FLINK_LINE, jars.RUNNER)
    monkeypatch.setenv(jars.BEAM_VARIABLE, "2.71.0")
    assert jars.chosen_release() == Release(jars.FLINK_LINE, "2.71.0")


def test_jars_are_fetched_once_with_their_checksums_checked(tmp_path, programs):
    programs("mvn", MAVEN)
    folder = jars.fetch(RELEASE, tmp_path / "cache")
    assert folder == jars.jar_dir(RELEASE, tmp_path / "cache")
    assert [jar.name for jar in folder.iterdir()] == ["beam-runners-flink-1.19.jar"]
    assert jars.fetch(RELEASE, tmp_path / "cache") == folder
    (call,) = calls(tmp_path)
    assert "--strict-checksums" in call
    assert "-Dbeam.version=2.62.0" in call
    assert "-Dflink.line=1.19" in call


def test_a_failed_fetch_leaves_nothing_and_says_why(tmp_path, programs):
    programs("mvn", FAILING_MAVEN)
    with pytest.raises(FlinkError, match=r"Could not find artifact .*9\.9\.9\n.*FLINK_BEAM_VERSION names another"):
        jars.fetch(Release("1.19", "9.9.9"), tmp_path / "cache")
    assert not jars.jar_dir(Release("1.19", "9.9.9"), tmp_path / "cache").exists()
    assert not list((tmp_path / "cache").rglob("*.jar"))


def test_without_maven_or_java_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FlinkError, match="install Maven"):
        jars.fetch(RELEASE, tmp_path / "cache")
    assert "default-jre-headless" in (jars.missing(RELEASE, tmp_path / "cache") or "")


def test_what_is_missing_is_said(tmp_path, programs):
    programs("java", "#!/bin/sh\n")
    assert "make flink-fetch" in (jars.missing(RELEASE, tmp_path) or "")
    jars.jar_dir(RELEASE, tmp_path).mkdir(parents=True)
    assert jars.missing(RELEASE, tmp_path) is None


def test_the_cache_is_the_users_unless_a_variable_names_another(tmp_path, monkeypatch):
    monkeypatch.delenv(jars.CACHE_DIR_VARIABLE, raising=False)
    assert "alexnet-cifar10" in jars.jar_dir(RELEASE).parts
    monkeypatch.setenv(jars.CACHE_DIR_VARIABLE, str(tmp_path))
    assert jars.jar_dir(RELEASE).is_relative_to(tmp_path)
