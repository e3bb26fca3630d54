"""Sets up `.venv` from `requirements.lock`, when that is needed: `python3 pipeline/environment.py`.

Standard library only, so that any Python from 3.8 on can run it before anything is installed. A set-up that is
complete and current costs no subprocess and no word of output. `--lock` writes `requirements.lock` anew.

Two stacks are supported and one lock file holds both: TFX 1.16 on Python 3.10, whose wheels run on any glibc, and
TFX 1.21 on Python 3.11 to 3.13, whose wheels need glibc 2.39. `PYTHON` in the environment chooses: a version
(`PYTHON=3.13`) or the path of an interpreter. `GPU=1` adds NVIDIA's CUDA libraries from `requirements-gpu.lock`;
`RUNTIME=1` leaves out what only tests, notebooks and benchmarks need, as the container image does.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]

TFX_BY_PYTHON = {"3.10": "1.16.0", "3.13": "1.21.0", "3.12": "1.21.0", "3.11": "1.21.0"}
"""TFX version that `requirements.lock` installs on each supported Python, in order of preference."""

MIN_GLIBC_BY_TFX = {"1.16.0": (2, 28), "1.21.0": (2, 39)}
"""Oldest C library that the wheels of a TFX version and of its dependencies run on."""

UV_VERSION = "0.13.9"
"""Installed into `.tools` when there is no usable uv on PATH."""

UV_MIN_VERSION = (0, 5, 0)

LOCK_NAME = "requirements.lock"
GPU_LOCK_NAME = "requirements-gpu.lock"
"""What a GPU needs on top of `requirements.lock`: NVIDIA's CUDA libraries, for TFX 1.21's TensorFlow."""

STAMP_NAME = "environment.json"
SETUP_LOCK_NAME = ".venv.lock"
"""Beside `.venv`, which a set-up removes."""

PATH_FILE_NAME = "alexnet-cifar10-tfx.pth"

USER_SETTINGS = re.compile(
    r"PIP_((EXTRA_)?INDEX_URL|FIND_LINKS|TRUSTED_HOST|KEYRING_PROVIDER|(CLIENT_)?CERT|PROXY|(DEFAULT_)?TIMEOUT|RETRIES)"
    r"|UV_((DEFAULT_|EXTRA_)?INDEX(_\w+)?|FIND_LINKS|INSECURE_HOST|KEYRING_PROVIDER|CREDENTIALS_DIR|NATIVE_TLS"
    r"|SYSTEM_CERTS|HTTP_\w+|REQUEST_TIMEOUT|OFFLINE|NO_CACHE|CACHE_DIR|LINK_MODE|CONCURRENT_\w+"
    r"|PYTHON_(INSTALL_DIR|INSTALL_MIRROR|CACHE_DIR|DOWNLOADS_JSON_URL))"
)
"""What counts of the user's configuration of pip and uv: from where and how packages come, not which and where to."""

UV_VARIABLE_BY_PIP_VARIABLE = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
    "PIP_CLIENT_CERT": "SSL_CLIENT_CERT",
    "PIP_PROXY": "ALL_PROXY",
}
"""What uv is told of pip's configuration, which it does not read itself."""

UV_PROGRESS = ("Downloading cpython", "Prepared ", "Installed ", "Bytecode compiled ")
"""Beginnings of the lines of uv's output that are worth passing on."""

PROBE = "import sys; print(sys.implementation.name, *sys.version_info[:3])"

FAILURES = {
    r"no space left on device|os error 28\b|disk quota exceeded": (
        "The disk is full: the environment takes 4 GB, and uv's cache as much again where it lies on another "
        "file system."
    ),
    r"Python\.h: no such file": (
        "A package has to be compiled and Python's headers are missing: install them (Debian, Ubuntu: "
        "`sudo apt-get install python3-dev`)."
    ),
    r"(no such file or directory: '|command '[^']*)(gcc|g\+\+|cc|c\+\+|clang)'": (
        "A package has to be compiled and there is no C++ compiler: install one "
        "(Debian, Ubuntu: `sudo apt-get install g++`)."
    ),
    r"hash mismatch": (
        f"The package index serves another file than the one that {LOCK_NAME} names: set pip's index-url to PyPI "
        "or a mirror of it."
    ),
    r"python-build-standalone": (
        "Python could not be downloaded: install Python 3.10 (or 3.11 to 3.13 where glibc is 2.39 or newer), "
        "with its headers, or name one with PYTHON=path."
    ),
    r"failed to fetch|error sending request|dns error|connection (refused|reset|error)|timed out|certificate|"
    r"temporary failure in name resolution|could not find a version that satisfies the requirement uv": (
        "The package index could not be reached: check the network, the proxy and pip's configuration, "
        "and run the command again."
    ),
}
"""What to do, by a pattern (of any case) in what uv or pip wrote; the first that is found counts."""


class SetupError(Exception):
    """The environment cannot be set up; the message says why and what to do."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that was run and has answered."""

    path: str
    version: tuple[int, int, int]

    @property
    def minor(self) -> str:
        """Major and minor version, such as `3.10`."""
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Choice:
    """Which Python and TFX to install, and why.

    Attributes:
      minor: Python version, such as `3.10`.
      python: What `uv venv --python` is given: the path of an interpreter, or a version that uv is to download.
      reason: Why this one, for the line that tells the user.
    """

    minor: str
    python: str
    reason: str

    @property
    def tfx(self) -> str:
        """Version of TFX that goes with this Python."""
        return TFX_BY_PYTHON[self.minor]


def choose_interpreter(
    available: Sequence[Interpreter], glibc: tuple[int, int], wanted: str | None, default: str
) -> Choice:
    """Chooses the Python to build the environment with.

    Args:
      available: Interpreters of this machine; of two that would do the first one is taken.
      glibc: Version of this machine's C library.
      wanted: Version that the user asks for (`3.13` or `3.13.1`), or None.
      default: Version that is preferred when the user asks for none (`.python-version`).

    Raises:
      SetupError: The version is not supported, or its TFX does not run on this C library.
    """
    preferred = wanted or default
    asked_by = f"PYTHON={wanted}" if wanted else f".python-version ({default})"
    minor = ".".join(preferred.split(".")[:2])
    if minor not in TFX_BY_PYTHON:
        raise SetupError(
            f"{asked_by} is not supported: give PYTHON one of {', '.join(TFX_BY_PYTHON)}, "
            "or the path of such an interpreter."
        )
    tfx = TFX_BY_PYTHON[minor]
    if glibc < MIN_GLIBC_BY_TFX[tfx]:
        raise SetupError(
            f"{asked_by} means TFX {tfx}, which needs glibc {_dotted(MIN_GLIBC_BY_TFX[tfx])} or newer; "
            f"this machine has {_dotted(glibc)}. Use PYTHON=3.10, or a newer system (Debian 13, Ubuntu 24.04)."
        )
    for interpreter in available:
        if satisfies(_dotted(interpreter.version), preferred):
            return Choice(minor, interpreter.path, f"{asked_by} asks for it and it is installed")
    if not wanted:
        for newer, newer_tfx in TFX_BY_PYTHON.items():
            for interpreter in available:
                if interpreter.minor == newer and glibc >= MIN_GLIBC_BY_TFX[newer_tfx]:
                    return Choice(newer, interpreter.path, f"it is installed and Python {default} is not")
    return Choice(minor, preferred, f"{asked_by} asks for it and it is not installed, so uv downloads it")


def _dotted(version: Iterable[int]) -> str:
    return ".".join(str(part) for part in version)


def satisfies(version: str, wanted: str) -> bool:
    """Says whether a full version (`3.10.13`) is what was asked for (`3.10` or `3.10.13`)."""
    return f"{version}.".startswith(f"{wanted}.")


def candidate_paths(environ: Mapping[str, str], project_root: Path) -> Iterator[Path]:
    """Yields where supported interpreters may be: on PATH, in pyenv's and in uv's own folders.

    pyenv's folder is searched because its shims on PATH only run the version that pyenv has selected. What lies in
    the project itself is left out: the old `.venv` is about to be replaced.
    """
    home = Path(environ.get("HOME", "/"))
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    data_home = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    uv_pythons = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data_home / "uv/python")
    on_path = [Path(folder) for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    for minor in TFX_BY_PYTHON:
        paths = [folder / f"python{minor}" for folder in on_path]
        paths += sorted(pyenv.glob(f"versions/{minor}.*/bin/python{minor}"), reverse=True)
        paths += sorted(uv_pythons.glob(f"cpython-{minor}.*-linux-*/bin/python{minor}"), reverse=True)
        for path in paths:
            if os.access(path, os.X_OK) and project_root not in path.parents:
                yield path


def probe_interpreter(path: str) -> Interpreter | None:
    """Runs an interpreter to learn its version; None where it does not run or is not CPython."""
    try:
        answer = subprocess.run([path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.fullmatch(r"cpython (\d+) (\d+) (\d+)", answer.stdout.strip())
    return Interpreter(path, (int(match[1]), int(match[2]), int(match[3]))) if match else None


def find_interpreters(environ: Mapping[str, str], project_root: Path) -> list[Interpreter]:
    """Runs every candidate once and returns those that work."""
    # One interpreter may lie on PATH under several folders (/bin and /usr/bin).
    distinct: dict[Path, str] = {}
    for path in candidate_paths(environ, project_root):
        distinct.setdefault(path.resolve(), str(path))
    return [interpreter for interpreter in map(probe_interpreter, distinct.values()) if interpreter]


def resolve_wanted(wanted: str) -> tuple[str, list[Interpreter]]:
    """Reads the value of PYTHON: a version as it is, or the path or name of an interpreter.

    Returns:
      The version asked for, and the interpreter when one was named.

    Raises:
      SetupError: It is neither a version nor an interpreter that runs.
    """
    if re.fullmatch(r"\d+(\.\d+){0,2}", wanted):
        return wanted, []
    interpreter = probe_interpreter(shutil.which(wanted) or wanted)
    if interpreter is None:
        raise SetupError(
            f"PYTHON={wanted} is neither a version, such as 3.10, nor a CPython interpreter that runs here."
        )
    return _dotted(interpreter.version), [interpreter]


def glibc_version() -> tuple[int, int] | None:
    """Returns the version of this machine's glibc, or None where the C library is another one."""
    try:
        match = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return None
    return (int(match[1]), int(match[2])) if match else None


def check_platform(system: str, machine: str, glibc: tuple[int, int] | None) -> tuple[int, int]:
    """Returns the version of glibc where TFX has wheels: Linux, x86-64, glibc.

    Raises:
      SetupError: This machine is another platform.
    """
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise SetupError(
            f"TFX is published for Linux on x86-64 only and this is {system} on {machine}: "
            "use such a machine, or a linux/amd64 container."
        )
    if glibc is None:
        raise SetupError("TFX's wheels need glibc, which this Linux lacks: use Debian, Ubuntu or another with it.")
    return glibc


def read_pip_file(path: Path) -> dict[str, str]:
    """Reads one of pip's configuration files; returns the variables that mean the same."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        print(f"{path} is not read: {' '.join(str(error).split())}", file=sys.stderr)
    sections = [dict(parser.items(name)) for name in ("global", "install") if parser.has_section(name)]
    return {_variable("PIP", name): " ".join(value.split()) for section in sections for name, value in section.items()}


def read_uv_file(path: Path) -> dict[str, str]:
    """Reads what may count of one of uv's configuration files (Python 3.10 has no TOML); returns variables."""
    text = path.read_text(encoding="utf-8", errors="replace") if os.access(path, os.R_OK) else ""
    variables: dict[str, str] = {}
    for table in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        found = re.findall(r"""^([a-z-]+)\s*=\s*(\[[^\]]*\]|"[^"\n]*"|'[^'\n]*'|\w+)""", table, re.MULTILINE)
        values = {name: " ".join(re.findall(r"""["'](.*?)["']""", value)) or value for name, value in found}
        if table.startswith("[[index]]"):
            name = "UV_DEFAULT_INDEX" if values.get("default") == "true" else "UV_INDEX"
            index = "=".join(values[key] for key in ("name", "url") if key in values)
            variables[name] = f"{variables.get(name, '')} {index}".strip()
        elif table.startswith("[pip]") or not table.startswith("["):
            variables.update({_variable("UV", name.replace("allow-", "")): value for name, value in values.items()})
    return variables


def _variable(tool: str, setting: str) -> str:
    return f"{tool}_{setting.upper().replace('-', '_')}"


def tool_environment(environ: Mapping[str, str], system: Path = Path("/etc")) -> dict[str, str]:
    """Returns the environment for pip and uv: the user's, with nothing that would change what is installed, or where.

    Of pip's and uv's variables and configuration files only USER_SETTINGS count, and variables win. Python's own, which
    would reach the compiler of bytecode and packages that are built, are left out.

    Args:
      environ: The user's.
      system: Where the machine's configuration files are.
    """
    home = Path(environ.get("HOME", "/"))
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    pip_files = [system / "xdg/pip/pip.conf", system / "pip.conf", home / ".pip/pip.conf", user / "pip/pip.conf"]
    uv_files = [system / "xdg/uv/uv.toml", system / "uv/uv.toml", user / "uv/uv.toml"]
    given: dict[str, str] = {}
    for path in [*pip_files, Path(environ.get("PIP_CONFIG_FILE", os.devnull))]:
        given.update(read_pip_file(path))
    for path in [*uv_files, Path(environ.get("UV_CONFIG_FILE", os.devnull))]:
        given.update(read_uv_file(path))
    given.update((name, value) for name, value in environ.items() if value)
    not_ours = ("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")
    environment = {
        name: value for name, value in given.items() if USER_SETTINGS.fullmatch(name) or not name.startswith(not_ours)
    }
    if "UV_INDEX_URL" in environment:  # its older name
        environment.setdefault("UV_DEFAULT_INDEX", environment.pop("UV_INDEX_URL"))
    for pip_name, uv_name in UV_VARIABLE_BY_PIP_VARIABLE.items():
        if pip_name in environment:
            environment.setdefault(uv_name, environment[pip_name])
    if "PIP_EXTRA_INDEX_URL" in environment:  # pip looks into all of them, and hashes say which file is meant
        environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    environment.setdefault("UV_HTTP_TIMEOUT", "120")
    # Without compiled bytecode the first import of TFX takes most of a minute.
    environment.update(PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1", UV_COMPILE_BYTECODE="1")
    return environment


def bootstrap_commands(python: str, tools: Path, has_venv: bool, has_pip: bool) -> list[list[str]]:
    """Returns the commands that put uv at `tools/bin/uv`.

    Args:
      python: Interpreter to run pip with.
      tools: Folder to install into.
      has_venv: Whether `python` can make environments with pip in them (Debian packages that apart).
      has_pip: Whether `python` has pip itself.

    Raises:
      SetupError: It has neither.
    """
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if has_venv:
        return [
            [python, "-m", "venv", "--clear", str(tools)],
            [str(tools / "bin/python"), *install, f"uv=={UV_VERSION}"],
        ]
    if has_pip:
        return [[python, *install, "--upgrade", "--target", str(tools), f"uv=={UV_VERSION}"]]
    raise SetupError(
        f"uv is not on PATH, and {python} has neither venv nor pip to fetch it with: "
        "run `sudo apt-get install python3-venv` (Debian, Ubuntu), or install uv."
    )


def read_uv_version(uv: str) -> tuple[int, ...] | None:
    """Runs `uv --version`; None where there is no uv that runs."""
    try:
        answer = subprocess.run([uv, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


def find_or_install_uv(project_root: Path, environ: Mapping[str, str]) -> str:
    """Returns the path of a uv that is new enough: the one on PATH, else the project's own in `.tools`.

    Raises:
      SetupError: There is none and it cannot be installed.
    """
    tools = project_root / ".tools"
    own = str(tools / "bin/uv")
    on_path = shutil.which("uv", path=environ.get("PATH", ""))
    if on_path and (read_uv_version(on_path) or ()) >= UV_MIN_VERSION:
        return on_path
    if _dotted(read_uv_version(own) or ()) == UV_VERSION:
        return own
    print(f"Installing uv {UV_VERSION} into .tools", flush=True)
    has_venv, has_pip = (importlib.util.find_spec(name) is not None for name in ("ensurepip", "pip"))
    for command in bootstrap_commands(sys.executable, tools, has_venv, has_pip):
        finished = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=dict(environ), check=False
        )
        if finished.returncode:
            raise SetupError(f"uv could not be installed into {tools}. {explain_failure(finished.stderr)}")
    return own


def explain_failure(output: str) -> str:
    """Turns what uv or pip wrote before it failed into a sentence that says what to do."""
    for pattern, sentence in FAILURES.items():
        if re.search(pattern, output, re.IGNORECASE):
            return sentence
    return "The last lines it wrote:\n" + "\n".join(output.strip().splitlines()[-15:])


def run_uv(command: Sequence[str], environment: Mapping[str, str], doing: str) -> None:
    """Runs uv, passing on the few lines of its output that show progress.

    Raises:
      SetupError: It failed; the message begins with `doing` and says why.
    """
    lines = []
    with subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stderr or ():
            lines.append(line)
            if line.startswith(UV_PROGRESS):
                print("  " + line.strip(), flush=True)
    if process.returncode:
        raise SetupError(f"{doing} failed. {explain_failure(''.join(lines))}")


def make_stamp(project_root: Path, python_version: str, gpu: bool = False, runtime: bool = False) -> dict[str, str]:
    """Returns what a complete environment depends on: the locks, the interpreter, and where the project lies.

    The location counts because scripts in `.venv/bin` hold absolute paths.
    """
    stamp = {
        "requirements_sha256": hashlib.sha256((project_root / LOCK_NAME).read_bytes()).hexdigest(),
        "python": python_version,
        "project_root": str(project_root),
    }
    if gpu:
        stamp["gpu_requirements_sha256"] = hashlib.sha256((project_root / GPU_LOCK_NAME).read_bytes()).hexdigest()
    if runtime:
        stamp["holds"] = "what running needs"
    return stamp


def read_stamp(venv: Path) -> dict[str, str]:
    """Returns the stamp of a complete environment; empty where there is none that can be read."""
    try:
        stamp = json.loads((venv / STAMP_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_current(project_root: Path, wanted: str | None, gpu: bool = False, runtime: bool = False) -> bool:
    """Says whether `.venv` is complete, made from these locks, and has the Python and the packages asked for.

    One that has more than was asked for (any Python when none was, CUDA libraries, what tests need) is current too.
    """
    venv = project_root / ".venv"
    stamp = read_stamp(venv)
    version = stamp.get("python", "")
    has_gpu = "gpu_requirements_sha256" in stamp
    is_runtime = "holds" in stamp
    return (
        stamp == make_stamp(project_root, version, has_gpu, is_runtime)
        and (venv / "bin/python").exists()
        and (not wanted or satisfies(version, wanted))
        and (has_gpu or not gpu)
        and (runtime or not is_runtime)
    )


def set_up(project_root: Path, environ: Mapping[str, str]) -> None:
    """Makes `.venv` anew, unless it is current. The stamp is written last, so that an interrupted set-up is redone.

    A second process waits for the first, and then mostly finds that there is nothing to do.

    Raises:
      SetupError: The environment cannot be set up here.
    """
    wanted, named = resolve_wanted(environ["PYTHON"]) if environ.get("PYTHON") else (None, [])
    gpu, runtime = is_switched_on(environ, "GPU"), is_switched_on(environ, "RUNTIME")
    if is_current(project_root, wanted, gpu, runtime):
        write_path_file(project_root)
        return
    with setup_lock(project_root):
        if not is_current(project_root, wanted, gpu, runtime):
            make_environment(project_root, environ, wanted, named, gpu, runtime)


def write_path_file(project_root: Path) -> None:
    """Has each Python of `.venv` find our packages from anywhere, and begin as `surroundings` says."""
    content = f"{project_root}\nimport surroundings; surroundings.start()\n"
    for folder in (project_root / ".venv").glob("lib/python3.*/site-packages"):
        path_file = folder / PATH_FILE_NAME
        if not path_file.exists() or path_file.read_text(encoding="utf-8") != content:
            path_file.write_text(content, encoding="utf-8")


@contextlib.contextmanager
def setup_lock(project_root: Path) -> Iterator[None]:
    """Lets one process at a time make `.venv`. The lock ends with the process, however that ends."""
    with (project_root / SETUP_LOCK_NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another process is making .venv: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_environment(
    project_root: Path,
    environ: Mapping[str, str],
    wanted: str | None,
    named: Sequence[Interpreter],
    gpu: bool,
    runtime: bool,
) -> None:
    """Makes `.venv` anew, whatever is there.

    Args:
      project_root: Where it lies.
      environ: Of this process.
      wanted: Version of Python, or None for any.
      named: The interpreter, where one was named.
      gpu: Whether to add NVIDIA's CUDA libraries.
      runtime: Whether to leave out what only tests, notebooks and benchmarks need.

    Raises:
      SetupError: The environment cannot be set up here.
    """
    start_s = time.monotonic()
    glibc = check_platform(platform.system(), platform.machine(), glibc_version())
    default = (project_root / ".python-version").read_text(encoding="utf-8").strip()
    available = named or find_interpreters(environ, project_root)
    choice = choose_interpreter(available, glibc, wanted, default)
    print(f"Python {choice.python} with TFX {choice.tfx}: {choice.reason}", flush=True)
    if gpu and choice.tfx == "1.16.0":
        raise SetupError(
            f"GPU={environ['GPU']} needs TFX 1.21: {GPU_LOCK_NAME} holds the CUDA libraries of its TensorFlow. Choose "
            "it with PYTHON=3.13 (glibc 2.39 or newer), or leave GPU out and install CUDA for TensorFlow 2.16 yourself."
        )

    environment = tool_environment(environ)
    uv = find_or_install_uv(project_root, environment)
    venv = project_root / ".venv"
    if venv.exists():
        shutil.rmtree(venv)
    make = [uv, "venv", "--no-project", "--python", choice.python, str(venv)]
    run_uv(make, environment, f"Making .venv with Python {choice.python}")
    python = str(venv / "bin/python")
    print(f"Installing {LOCK_NAME} into .venv (4 GB; about 1 GB to download the first time)", flush=True)
    lock = str(project_root / LOCK_NAME)
    install = [uv, "pip", "sync", "--require-hashes", "--python", python, lock]
    if runtime:  # the lock as a constraint: its versions and hashes, for what pyproject.toml itself asks for
        requirements = str(project_root / "pyproject.toml")
        install = [uv, "pip", "install", "--require-hashes", "--python", python, "-c", lock, "-r", requirements]
    run_uv(install, environment, f"Installing {LOCK_NAME}")
    if gpu:
        print(f"Installing {GPU_LOCK_NAME} into .venv: CUDA", flush=True)
        add = [uv, "pip", "install", "--require-hashes", "--no-deps", "--python", python]
        run_uv([*add, "-r", str(project_root / GPU_LOCK_NAME)], environment, f"Installing {GPU_LOCK_NAME}")

    write_path_file(project_root)
    made = probe_interpreter(python)
    if made is None:
        raise SetupError(f"{python} was made but does not run: remove .venv and run the command again.")
    stamp = make_stamp(project_root, _dotted(made.version), gpu, runtime)
    (venv / STAMP_NAME).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    print(f"The environment is ready after {time.monotonic() - start_s:.0f} s", flush=True)


def is_switched_on(environ: Mapping[str, str], name: str) -> bool:
    """Reads a variable that is 1 or 0; one that is absent or empty is 0.

    Raises:
      SetupError: It is something else.
    """
    value = environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SetupError(f"{name}={value} is not understood: it has to be 1 or 0.")
    return value == "1"


def write_lock(project_root: Path, environ: Mapping[str, str]) -> None:
    """Writes `requirements.lock` from `pyproject.toml`, for all supported Pythons, then `requirements-gpu.lock`.

    Versions that they already hold are kept where they still fit; remove the files to upgrade all of them.

    Raises:
      SetupError: The requirements cannot be resolved.
    """
    environment = tool_environment(environ)
    environment.update(UV_NO_CONFIG="0", XDG_CONFIG_HOME=os.devnull)  # pyproject.toml says for which platforms
    uv = find_or_install_uv(project_root, environment)
    compile_ = [uv, "pip", "compile", "--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock"]
    universal = ["--universal", "--python-version", "3.10", "--extra", "dev"]
    run_uv([*compile_, *universal, "pyproject.toml", "-o", LOCK_NAME], environment, f"Resolving {LOCK_NAME}")

    # The CUDA libraries alone: all that requirements.lock holds stays a constraint and is left out.
    held = re.findall(r"^([a-z0-9._-]+)==", (project_root / LOCK_NAME).read_text(encoding="utf-8"), re.MULTILINE)
    newest = ["--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_40", "--extra", "gpu"]
    only_new = [f"--no-emit-package={name}" for name in sorted(set(held))]
    gpu = [*compile_, *newest, *only_new, "--constraint", LOCK_NAME, "pyproject.toml", "-o", GPU_LOCK_NAME]
    run_uv(gpu, environment, f"Resolving {GPU_LOCK_NAME}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description="Set up .venv from requirements.lock, when that is needed.")
    parser.add_argument("--lock", action="store_true", help="write requirements.lock anew, and set up nothing")
    options = parser.parse_args(arguments)
    try:
        if options.lock:
            write_lock(PROJECT_ROOT, os.environ)
        else:
            set_up(PROJECT_ROOT, os.environ)
    except (SetupError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run the command again to set up the environment.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT_ROOT))
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
