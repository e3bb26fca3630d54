"""The set-up script: what it chooses, when it has nothing to do, and what it says when it cannot."""

import ast
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import pytest
from processor_time import children_cpu_s

from pipeline import environment
from pipeline.environment import Interpreter, SetupError

PY310 = Interpreter("/usr/bin/python3.10", (3, 10, 13))
PY311 = Interpreter("/usr/bin/python3.11", (3, 11, 7))
PY313 = Interpreter("/usr/bin/python3.13", (3, 13, 5))
DEBIAN_12, DEBIAN_13 = (2, 36), (2, 41)
SCRIPT = Path(environment.__file__)


def write_executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


# Which Python


@pytest.mark.parametrize(
    ("available", "glibc", "wanted", "python", "tfx"),
    [
        ([PY313, PY310], DEBIAN_13, None, PY310.path, "1.16.0"),
        ([PY311, PY313], DEBIAN_13, None, PY313.path, "1.21.0"),
        ([PY311], DEBIAN_13, None, PY311.path, "1.21.0"),
        ([PY311, PY313], DEBIAN_12, None, "3.10", "1.16.0"),
        ([], DEBIAN_13, None, "3.10", "1.16.0"),
        ([PY310, PY313], DEBIAN_13, "3.13", PY313.path, "1.21.0"),
        ([PY310, PY313], DEBIAN_13, "3.13.5", PY313.path, "1.21.0"),
        ([PY310, PY313], DEBIAN_13, "3.13.1", "3.13.1", "1.21.0"),
        ([PY310], DEBIAN_13, "3.12", "3.12", "1.21.0"),
        ([PY310, Interpreter("/opt/python3.10", (3, 10, 1))], DEBIAN_12, None, PY310.path, "1.16.0"),
    ],
)
def test_choice(available, glibc, wanted, python, tfx):
    choice = environment.choose_interpreter(available, glibc, wanted, "3.10")
    assert (choice.python, choice.tfx) == (python, tfx)


def test_choice_says_why():
    asked = environment.choose_interpreter([PY313], DEBIAN_13, "3.13", "3.10")
    assert asked.reason == "PYTHON=3.13 asks for it and it is installed"
    preferred = environment.choose_interpreter([PY310], DEBIAN_13, None, "3.10")
    assert preferred.reason == ".python-version (3.10) asks for it and it is installed"
    newer = environment.choose_interpreter([PY313], DEBIAN_13, None, "3.10")
    assert newer.reason == "it is installed and Python 3.10 is not"
    downloaded = environment.choose_interpreter([], DEBIAN_12, None, "3.10")
    assert downloaded.reason.endswith("it is not installed, so uv downloads it")


@pytest.mark.parametrize(
    ("glibc", "wanted", "default", "message"),
    [
        (DEBIAN_13, "3.9", "3.10", r"PYTHON=3\.9 is not supported: give PYTHON one of 3\.10"),
        (DEBIAN_13, "3", "3.10", r"PYTHON=3 is not supported"),
        (DEBIAN_13, None, "3.14", r"\.python-version \(3\.14\) is not supported"),
        (DEBIAN_12, "3.13", "3.10", r"needs glibc 2\.39 or newer; this machine has 2\.36. Use PYTHON=3\.10"),
        ((2, 17), None, "3.10", r"TFX 1\.16\.0, which needs glibc 2\.28 or newer; this machine has 2\.17"),
    ],
)
def test_choice_refuses(glibc, wanted, default, message):
    with pytest.raises(SetupError, match=message):
        environment.choose_interpreter([PY310, PY313], glibc, wanted, default)


def test_lock_and_python_version_agree_with_the_table():
    lock = (environment.PROJECT_ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^tfx==(\S+) ; python_full_version (<|>=) '3\.11'", lock, re.MULTILINE))
    assert {tfx: "<" if python == "3.10" else ">=" for python, tfx in environment.TFX_BY_PYTHON.items()} == locked
    assert (environment.PROJECT_ROOT / ".python-version").read_text().strip() in environment.TFX_BY_PYTHON


def test_lock_names_no_index_and_hashes_every_package():
    lock = (environment.PROJECT_ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    requirements = re.findall(r"^[a-z0-9].*==.*", lock, re.MULTILINE)
    assert len(requirements) > 200
    assert [line for line in requirements if not line.endswith("\\")] == []


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [("3.10.13", "3.10", True), ("3.10.13", "3.10.13", True), ("3.10.13", "3.10.1", False), ("3.13.0", "3.1", False)],
)
def test_satisfies(version, wanted, expected):
    assert environment.satisfies(version, wanted) is expected


# Where interpreters are


def python_that_says(path: Path, version: str) -> Path:
    return write_executable(path, f"#!/bin/sh\necho cpython {version.replace('.', ' ')}\n")


def test_shim_that_does_not_run_is_passed_over_for_the_python_behind_it(tmp_path):
    shim = "#!/bin/sh\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n"
    write_executable(tmp_path / "pyenv/shims/python3.10", shim)
    behind = python_that_says(tmp_path / "pyenv/versions/3.10.13/bin/python3.10", "3.10.13")
    environ = {"PATH": str(tmp_path / "pyenv/shims"), "PYENV_ROOT": str(tmp_path / "pyenv"), "HOME": str(tmp_path)}
    assert environment.find_interpreters(environ, tmp_path / "project") == [Interpreter(str(behind), (3, 10, 13))]


def test_interpreters_of_path_pyenv_and_uv_are_found_and_those_of_the_project_are_not(tmp_path):
    python_that_says(tmp_path / "project/.venv/bin/python3.10", "3.10.1")
    on_path = python_that_says(tmp_path / "bin/python3.10", "3.10.2")
    in_pyenv = python_that_says(tmp_path / ".pyenv/versions/3.12.3/bin/python3.12", "3.12.3")
    of_uv = python_that_says(
        tmp_path / ".local/share/uv/python/cpython-3.11.4-linux-x86_64-gnu/bin/python3.11", "3.11.4"
    )
    (tmp_path / "usr").symlink_to(tmp_path, target_is_directory=True)
    folders = [tmp_path / "project/.venv/bin", tmp_path / "bin", tmp_path / "usr/bin"]
    environ = {"PATH": os.pathsep.join(map(str, folders)), "HOME": str(tmp_path)}
    found = [interpreter.path for interpreter in environment.find_interpreters(environ, tmp_path / "project")]
    assert found == [str(on_path), str(in_pyenv), str(of_uv)]


def test_probe_reads_this_python_and_refuses_other_programs(tmp_path):
    assert environment.probe_interpreter(sys.executable) == Interpreter(sys.executable, sys.version_info[:3])
    assert environment.probe_interpreter(str(tmp_path / "absent")) is None
    assert environment.probe_interpreter("/bin/true") is None
    other = write_executable(tmp_path / "pypy", "#!/bin/sh\necho pypy 3 10 13\n")
    assert environment.probe_interpreter(str(other)) is None


def test_python_may_be_a_version_or_an_interpreter():
    assert environment.resolve_wanted("3.13") == ("3.13", [])
    wanted, named = environment.resolve_wanted(sys.executable)
    assert wanted == ".".join(map(str, sys.version_info[:3]))
    assert [interpreter.path for interpreter in named] == [sys.executable]
    with pytest.raises(SetupError, match=r"PYTHON=/no/python is neither a version, such as 3\.10, nor"):
        environment.resolve_wanted("/no/python")


# The platform


def test_platform():
    assert environment.check_platform("Linux", "x86_64", DEBIAN_12) == DEBIAN_12
    for system, machine in (("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")):
        with pytest.raises(SetupError, match=f"Linux on x86-64 only and this is {system} on {machine}"):
            environment.check_platform(system, machine, DEBIAN_12)
    with pytest.raises(SetupError, match="need glibc, which this Linux lacks"):
        environment.check_platform("Linux", "x86_64", None)


def test_glibc_is_the_one_that_python_reports():
    glibc = environment.glibc_version()
    assert glibc is not None
    assert ("glibc", environment._dotted(glibc)) == platform.libc_ver()


# pip's settings and uv


@pytest.fixture
def home(tmp_path):
    """A home with configuration files of pip and uv that have packages go elsewhere."""
    files = {
        "etc/pip.conf": "[global]\nindex-url = https://machine.test/simple\ncert = /etc/ca.crt\n",
        ".config/pip/pip.conf": """
[global]
index-url = https://user.test/simple%20x
user = true
target = /elsewhere
require-virtualenv = true
no-index = true
only-binary = :all:
timeout = 7
[install]
extra-index-url =
    https://one.test
    https://two.test
prefix = /elsewhere
constraint = /nowhere.txt
require-hashes = true
""",
        ".config/uv/uv.toml": """
native-tls = true
allow-insecure-host = ["one.test", 'two.test:80']  # inside
exclude-newer = "2020-01-01"
cache-dir = "/cache"
[[index]]
name = "mirror"
url = "https://mirror.test/simple#x"
[pip]
link-mode = "copy"
target = "/elsewhere"
no-binary = [
    ":all:",
]
""",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def given_to_tools(home: Path, **environ: str) -> dict[str, str]:
    given = environment.tool_environment({"HOME": str(home), **environ}, system=home / "etc")
    del given["HOME"]
    return given


def test_of_the_users_pip_and_uv_only_how_packages_are_fetched_counts(home):
    assert given_to_tools(home) == {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "https://user.test/simple%20x",
        "PIP_EXTRA_INDEX_URL": "https://one.test https://two.test",
        "PIP_CERT": "/etc/ca.crt",
        "PIP_TIMEOUT": "7",
        "SSL_CERT_FILE": "/etc/ca.crt",
        "UV_NO_CONFIG": "1",
        "UV_DEFAULT_INDEX": "https://user.test/simple%20x",
        "UV_INDEX": "mirror=https://mirror.test/simple#x",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "one.test two.test:80",
        "UV_NATIVE_TLS": "true",
        "UV_CACHE_DIR": "/cache",
        "UV_LINK_MODE": "copy",
        "UV_HTTP_TIMEOUT": "120",
        "UV_COMPILE_BYTECODE": "1",
    }


def test_variables_win_over_files(home):
    given = given_to_tools(home, PIP_INDEX_URL="https://shell.test", SSL_CERT_FILE="/mine.crt", UV_CACHE_DIR="/mine")
    assert given["PIP_INDEX_URL"] == given["UV_DEFAULT_INDEX"] == "https://shell.test"
    assert (given["SSL_CERT_FILE"], given["PIP_CERT"]) == ("/mine.crt", "/etc/ca.crt")
    assert given["UV_CACHE_DIR"] == "/mine"
    assert given_to_tools(home, UV_INDEX_URL="https://uv.test")["UV_DEFAULT_INDEX"] == "https://uv.test"


def test_files_that_variables_name_count_too(home):
    other = home / "other"
    other.mkdir()
    (other / "pip.conf").write_text("[global]\nproxy = http://proxy.test\n")
    (other / "uv.toml").write_text('[[index]]\nurl = "https://default.test"\ndefault = true\n')
    given = given_to_tools(home, PIP_CONFIG_FILE=str(other / "pip.conf"), UV_CONFIG_FILE=str(other / "uv.toml"))
    assert (given["ALL_PROXY"], given["UV_DEFAULT_INDEX"]) == ("http://proxy.test", "https://default.test")


@pytest.mark.parametrize("content", [b"user = true\n", b"\xff", b"[global\n"])
def test_a_broken_pip_conf_is_named_and_not_read(home, content, capfd):
    (home / ".config/pip/pip.conf").write_bytes(content)
    assert given_to_tools(home)["PIP_INDEX_URL"] == "https://machine.test/simple"
    assert capfd.readouterr().err.startswith(f"{home}/.config/pip/pip.conf is not read: ")


def test_what_decides_which_packages_come_and_where_to_does_not_count(tmp_path):
    names = """
        PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PIP_NO_INDEX PIP_NO_BINARY PIP_CONSTRAINT PIP_NO_DEPS
        PIP_REQUIRE_HASHES PIP_DRY_RUN UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT UV_TARGET UV_EXCLUDE_NEWER UV_RESOLUTION
        UV_PRERELEASE UV_NO_BINARY UV_NO_BUILD UV_CONSTRAINT UV_OVERRIDE UV_PYTHON UV_PYTHON_PREFERENCE UV_WORKING_DIR
        UV_PYTHON_DOWNLOADS UV_TORCH_BACKEND PYTHONOPTIMIZE PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV CONDA_PREFIX
    """
    plain = given_to_tools(tmp_path)
    assert given_to_tools(tmp_path, **dict.fromkeys(names.split(), "1")) == plain
    kept = dict.fromkeys(("LANG", "HTTPS_PROXY", "UV_OFFLINE", "UV_NO_CACHE", "UV_PYTHON_INSTALL_DIR"), "1")
    assert given_to_tools(tmp_path, **kept) == plain | kept


def test_bootstrap_of_uv():
    tools = Path("/project/.tools")
    requirement = f"uv=={environment.UV_VERSION}"
    make, install = environment.bootstrap_commands("python3", tools, has_venv=True, has_pip=False)
    assert make == ["python3", "-m", "venv", "--clear", "/project/.tools"]
    assert install[0] == "/project/.tools/bin/python"
    assert install[-1] == requirement
    (only,) = environment.bootstrap_commands("python3", tools, has_venv=False, has_pip=True)
    assert only[-3:] == ["--target", "/project/.tools", requirement]
    with pytest.raises(SetupError, match="apt-get install python3-venv"):
        environment.bootstrap_commands("python3", tools, has_venv=False, has_pip=False)


@pytest.mark.parametrize(("answer", "expected"), [("uv 0.13.9 (x86_64)", (0, 13, 9)), ("pyenv: uv: not found", None)])
def test_uv_version(tmp_path, answer, expected):
    uv = write_executable(tmp_path / "uv", f"#!/bin/sh\necho '{answer}'\n")
    assert environment.read_uv_version(str(uv)) == expected


def test_uv_on_path_is_used_only_when_it_is_new_enough(tmp_path):
    environ = {"PATH": str(tmp_path / "bin")}
    own = write_executable(tmp_path / ".tools/bin/uv", f"#!/bin/sh\necho uv {environment.UV_VERSION}\n")
    on_path = write_executable(tmp_path / "bin/uv", "#!/bin/sh\necho uv 0.4.30\n")
    assert environment.find_or_install_uv(tmp_path, environ) == str(own)
    write_executable(on_path, "#!/bin/sh\necho uv 0.5.0\n")
    assert environment.find_or_install_uv(tmp_path, environ) == str(on_path)


# What it says when uv fails


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("cause: failed to write to file: No space left on device (os error 28)", "The disk is full"),
        ("fatal error: Python.h: No such file or directory", "apt-get install python3-dev"),
        ("error: [Errno 2] No such file or directory: 'g++'", "apt-get install g\\+\\+"),
        ("error: command 'x86_64-linux-gnu-g++' failed: No such file or directory", "apt-get install g\\+\\+"),
        ("error: Hash mismatch for `absl-py==1.4.0`", "serves another file than the one that requirements.lock names"),
        (
            "cause: Failed to download `https://github.com/astral-sh/python-build-standalone/releases/x.tar.gz`\n"
            "cause: error sending request for url",
            "install Python 3.10",
        ),
        ("cause: Failed to fetch: https://pypi.org/simple/tfx/\ncause: Connection refused", "could not be reached"),
        ("first\n" * 40 + "something else", "The last lines it wrote:\n(first\n){14}something else$"),
    ],
)
def test_failures_say_what_to_do(output, sentence):
    assert re.search(sentence, environment.explain_failure(output))


# Whole set-ups, with a uv that makes an environment of nothing

THIS_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"

FAKE_UV = f"""#!/bin/sh
echo "$@ compile=$UV_COMPILE_BYTECODE" >> "$LOG_OF_UV"
case "$1 $2" in
"--version ") echo "uv 0.13.9" ;;
"venv --no-project")
    mkdir -p "$5/bin" "$5/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    ln -s "$4" "$5/bin/python" ;;
"pip sync")
    echo "Prepared 3 packages in 1s" >&2
    echo " + absl-py==1.4.0" >&2
    if [ -n "$FAILURE_OF_UV" ]; then echo "$FAILURE_OF_UV" >&2; exit 2; fi ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A project of a lock file only, in a folder whose name has a space."""
    root = tmp_path / "my project"
    root.mkdir()
    (root / "requirements.lock").write_text("absl-py==1.4.0\n")
    (root / ".python-version").write_text("3.10\n")
    return root


@pytest.fixture
def environ(tmp_path):
    write_executable(tmp_path / "bin/uv", FAKE_UV)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(tmp_path), "LOG_OF_UV": str(tmp_path / "log"), "PYTHON": sys.executable}


def commands(environ: dict[str, str]) -> list[str]:
    return [
        line
        for line in Path(environ["LOG_OF_UV"]).read_text(encoding="utf-8").splitlines()
        if not line.startswith("--version")
    ]


def test_set_up_once_and_then_not_a_word(project, environ, capfd):
    environment.set_up(project, environ)
    assert [command.split()[0:2] for command in commands(environ)] == [["venv", "--no-project"], ["pip", "sync"]]
    assert "--require-hashes" in commands(environ)[1]
    assert all(command.endswith("compile=1") for command in commands(environ))
    lines = capfd.readouterr().out.splitlines()
    assert re.match(rf"Python {re.escape(sys.executable)} with TFX 1\.\d+\.0: PYTHON=", lines[0])
    assert "  Prepared 3 packages in 1s" in lines
    assert len(lines) == 4
    assert re.fullmatch(r"The environment is ready after \d+ s", lines[-1])
    (path_file,) = project.glob(".venv/lib/python3.*/site-packages/*.pth")
    assert path_file.read_text() == f"{project}\nimport surroundings; surroundings.start()\n"
    path_file.write_text(f"{project}\n")  # as an older set-up wrote it

    environment.set_up(project, environ)
    environment.set_up(project, {**environ, "PYTHON": ""})
    assert len(commands(environ)) == 2
    assert "surroundings" in path_file.read_text()
    assert capfd.readouterr().out == ""


def test_changed_lock_moved_project_or_other_python_means_a_new_set_up(project, environ):
    environment.set_up(project, environ)
    assert environment.is_current(project, None)
    assert environment.is_current(project, THIS_MINOR)
    assert not environment.is_current(project, "3.13" if THIS_MINOR != "3.13" else "3.10")

    (project / "requirements.lock").write_text("absl-py==1.4.1\n")
    assert not environment.is_current(project, None)
    environment.set_up(project, environ)
    assert environment.is_current(project, None)

    moved = project.rename(project.parent / "moved")
    assert not environment.is_current(moved, None)
    environment.set_up(moved, environ)
    assert environment.is_current(moved, None)

    (moved / ".venv/bin/python").unlink()
    assert not environment.is_current(moved, None)


def test_failed_set_up_leaves_no_stamp_and_is_redone(project, environ):
    with pytest.raises(SetupError, match=r"^Installing requirements\.lock failed\. The disk is full"):
        environment.set_up(project, {**environ, "FAILURE_OF_UV": "No space left on device"})
    assert not environment.is_current(project, None)
    assert (project / ".venv/bin/python").exists()
    environment.set_up(project, environ)
    assert environment.is_current(project, None)


def test_gpu_adds_the_cuda_libraries_of_its_own_lock(project, environ, monkeypatch):
    (project / "requirements-gpu.lock").write_text("nvidia-cublas-cu12==12.9.3.13\n")
    monkeypatch.setitem(environment.TFX_BY_PYTHON, THIS_MINOR, "1.21.0")
    monkeypatch.setitem(environment.MIN_GLIBC_BY_TFX, "1.21.0", (2, 17))  # the fake uv installs nothing
    environment.set_up(project, environ)
    assert not environment.is_current(project, None, gpu=True)

    environment.set_up(project, {**environ, "GPU": "1"})
    added = commands(environ)[-1].split()
    assert added[:2] == ["pip", "install"]
    assert {"--require-hashes", "--no-deps"} <= set(added)
    assert environment.is_current(project, None, gpu=True)

    done = len(commands(environ))
    environment.set_up(project, environ)  # not asked for: what is there stays
    assert len(commands(environ)) == done
    (project / "requirements-gpu.lock").write_text("nvidia-cublas-cu12==12.9.3.14\n")
    assert not environment.is_current(project, None)


def test_runtime_installs_less_and_is_not_enough_for_who_did_not_ask_for_it(project, environ):
    environment.set_up(project, {**environ, "RUNTIME": "1"})
    installed = commands(environ)[-1].split()
    assert installed[:2] == ["pip", "install"]
    assert "--require-hashes" in installed
    assert (
        commands(environ)[-1]
        .partition(" -c ")[2]
        .startswith(f"{project}/requirements.lock -r {project}/pyproject.toml")
    )
    assert environment.is_current(project, None, runtime=True)
    assert not environment.is_current(project, None)
    environment.set_up(project, environ)
    assert environment.is_current(project, None)
    assert environment.is_current(project, None, runtime=True)


def test_gpu_without_a_lock_for_it_says_so_before_anything_is_removed(project, environ, monkeypatch):
    environment.set_up(project, environ)
    monkeypatch.setitem(environment.TFX_BY_PYTHON, THIS_MINOR, "1.16.0")
    with pytest.raises(SetupError, match=r"^GPU=1 needs TFX 1\.21"):
        environment.set_up(project, {**environ, "GPU": "1"})
    with pytest.raises(SetupError, match=r"^GPU=yes is not understood"):
        environment.set_up(project, {**environ, "GPU": "yes"})
    assert environment.is_current(project, None)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"python": "3.10.1"}'])
def test_stamp_that_cannot_be_read_is_no_stamp(project, environ, content):
    environment.set_up(project, environ)
    (project / ".venv" / environment.STAMP_NAME).write_text(content)
    assert not environment.is_current(project, None)


# The script itself


def test_script_is_written_for_python_3_8():
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_current_environment_is_answered_at_once_with_the_standard_library_alone(project):
    script = project / "pipeline/environment.py"
    shutil.copytree(SCRIPT.parent.parent / "surroundings", project / "surroundings")
    script.parent.mkdir()
    script.write_text(SCRIPT.read_text(encoding="utf-8"))
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    stamp = environment.make_stamp(project, "3.10.13")
    (project / ".venv" / environment.STAMP_NAME).write_text(json.dumps(stamp))
    before_s = children_cpu_s()
    # No PATH: nothing else is started.
    finished = subprocess.run([sys.executable, "-I", "-S", str(script)], env={"PATH": ""}, capture_output=True)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
    assert children_cpu_s() - before_s < 1


def test_errors_are_one_line_on_stderr_and_fail(monkeypatch, capfd, tmp_path):
    for name, value in {"PYTHON": "2.7", "PATH": "", "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert environment.main([]) == 1
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err.startswith("error: PYTHON=2.7 is not supported")
    assert written.err.count("\n") == 1


def test_of_two_set_ups_at_once_one_waits_and_finds_the_others(project, environ, capfd):
    uv = Path(environ["PATH"].partition(":")[0]) / "uv"
    write_executable(uv, uv.read_text().replace('case "$1 $2" in', '[ "$1" = venv ] && sleep 1\ncase "$1 $2" in'))
    with futures.ThreadPoolExecutor() as pool:
        for done in [pool.submit(environment.set_up, project, environ) for _ in range(2)]:
            done.result()
    assert [command.split()[0] for command in commands(environ)] == ["venv", "pip"]
    assert "Another process is making .venv: waiting for it" in capfd.readouterr().out
    assert environment.is_current(project, None)
