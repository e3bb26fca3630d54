"""Every entry point under the home of a user who has configured all that there is: nothing of it may count."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import nbclient
import nbformat
import pytest
from hostile_home import VARIABLES, write_home

import surroundings
from pipeline.settings import PROJECT_ROOT

PROGRAMS = {
    ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__main__")
    for room in ("benchmarks", "models", "pipeline", "serving")
    for path in (PROJECT_ROOT / room).rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
}

WHAT_COUNTS = """
import hashlib, io, json, sys
import keras
import models.alexnet
from components.model_report import figures
picture = io.BytesIO()
rows = [dict(epoch=1, accuracy=0.5, loss=1, val_accuracy=0.4, val_loss=2, learning_rate=0.1)]
figures.learning_curves(rows).savefig(picture, format="png")
config = keras.config
print(json.dumps({
    "backend": config.backend(),
    "floatx": config.floatx(),
    "policy": config.dtype_policy().name,
    "epsilon": config.epsilon(),
    "image_data_format": config.image_data_format(),
    "max_epochs": config.max_epochs(),
    "max_steps_per_epoch": config.max_steps_per_epoch(),
    "assertions": not sys.flags.optimize,
    "weights": float(abs(models.alexnet.build_alexnet(seed=0).get_weights()[0]).sum()),
    "picture": hashlib.sha256(picture.getvalue()).hexdigest(),
}))
"""

# As in an environment that was made by other means: Python's `site` does not call `surroundings.start`.
WITHOUT_PATH_FILE = ("-S", "-c", f"import sys; sys.path[:0] = {[str(PROJECT_ROOT), *sys.path]}\n")


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A home folder with a configuration file of each tool."""
    return write_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def python(home):
    """Runs Python in the user's home, which is also where a matplotlibrc lies."""

    def run(*arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3"} | changed
        environment = {name: value for name, value in environment.items() if name not in ("KERAS_HOME", "MATPLOTLIBRC")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def what_counts(python):
    """What WHAT_COUNTS prints, after a beginning of the program, under the variables given."""

    def run(*arguments: str, begin: str = "", **variables: str) -> dict[str, object]:
        *before, code = arguments or ("-c", "")
        ended = python(*before, f"{code}{begin}{WHAT_COUNTS}", **variables)
        assert ended.returncode == 0, ended.stderr
        return dict(json.loads(ended.stdout.splitlines()[-1]))

    return run


@pytest.fixture(scope="session")
def right(tmp_path_factory, what_counts) -> dict[str, object]:
    """What counts where nothing is configured."""
    return dict(what_counts(HOME=str(tmp_path_factory.mktemp("empty"))))


@pytest.mark.parametrize(
    "program", sorted(PROGRAMS - {"pipeline.environment", "pipeline.registration", "pipeline.tfx_cli"})
)
def test_every_program_starts(python, program):
    ended = python("-m", program, "--help", **VARIABLES)
    assert ended.returncode == 0, ended.stderr
    assert "usage" in ended.stdout.lower()
    assert ended.stderr == ""


@pytest.mark.parametrize("script", ["pipeline/local_runner.py", "pipeline/kubeflow_runner.py"])
def test_runners_start_by_their_path(python, script):
    ended = python(str(PROJECT_ROOT / script), "--help", **VARIABLES)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("command", [(str(Path(sys.executable).with_name("tfx")),), ("-m", "pipeline.tfx_cli")])
def test_the_tfx_command_starts(python, command):
    ended = python(*command, "--help", **VARIABLES)
    assert ended.returncode == 0, ended.stderr
    assert "pipeline" in ended.stdout


def test_tests_run(python):
    own = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(PROJECT_ROOT / "tests/models/test_hyperparameters.py"))
    ended = python(*own, f"--rootdir={PROJECT_ROOT}", "-c", str(PROJECT_ROOT / "pyproject.toml"), **VARIABLES)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_notebooks_run(home):
    code = (
        "import sys\nfrom pipeline import interactive\nfrom components.model_report import figures\nsys.flags.optimize"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env=os.environ | VARIABLES | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")})
    assert notebook.cells[0].outputs[-1]["data"]["text/plain"] == "0"


def test_nothing_configured_counts(what_counts, right):
    assert right["assertions"]
    assert (right["backend"], right["floatx"]) == ("tensorflow", "float32")
    assert what_counts(**VARIABLES) == right


def test_a_broken_keras_json_is_not_read(python, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text('{"floatx": "float8", "epsilon": 1}')
    ended = python("-c", "import models, tensorflow, keras; print(keras.config.floatx())", HOME=str(tmp_path))
    assert ended.stdout == "float32\n", ended.stderr


@pytest.mark.parametrize("folder", ["/proc/none", ""])
def test_no_home_is_needed(what_counts, right, folder):
    assert what_counts(HOME=folder, MPLCONFIGDIR="/proc/none") == right


def test_without_the_path_file_packages_decide(what_counts, right):
    variables = {name: value for name, value in VARIABLES.items() if not name.startswith("PYTHON")}
    assert what_counts(*WITHOUT_PATH_FILE, begin="import models", **variables) == right


def test_what_somebody_else_has_imported_is_corrected(what_counts, right):
    begin = "import keras; keras.config.dtype_policy(); assert keras.config.floatx() == 'float16'"
    variables = {"KERAS_BACKEND": "tensorflow", "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    assert what_counts(*WITHOUT_PATH_FILE, begin=begin, **variables) == right


def test_another_backend_that_is_in_use_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"^Keras was imported with the backend jax .* unset KERAS_BACKEND, take "):
        surroundings.decide()


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("-O", "-m", "serving.server"), {}),
        ((*WITHOUT_PATH_FILE[:2], WITHOUT_PATH_FILE[2] + "import pipeline"), {"PYTHONOPTIMIZE": "1"}),
    ],
)
def test_missing_assertions_that_cannot_be_had_are_refused_in_a_sentence(python, arguments, variables):
    ended = python(*arguments, **variables)
    assert ended.returncode == 1
    assert re.fullmatch(
        r"Python leaves out assertions, .* unset PYTHONOPTIMIZE, and start it without -O\.\n", ended.stderr
    )


@pytest.mark.parametrize("room", ["benchmarks", "components", "models", "pipeline", "serving"])
def test_every_room_decides_before_it_imports_anything(room):
    text = (PROJECT_ROOT / room / "__init__.py").read_text(encoding="utf-8")
    assert re.fullmatch(r'""".*"""\n\nimport surroundings\n\nsurroundings\.decide\(\)\n', text)


def test_variables_of_the_machine_and_the_notebook_stay(python):
    ours = {
        "TF_NUM_INTRAOP_THREADS": "3",
        "XLA_FLAGS": "--x",
        "PYTHONWARNINGS": "ignore",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    code = f"import os; print({{name: os.environ.get(name) for name in {list(ours)}}})"
    assert python("-c", code, **ours).stdout == f"{ours}\n"
