"""The notebooks: clean in git, and each runs from top to bottom on a small part of the bundled sample."""

import ast
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from nbclient import NotebookClient

from components.model_report import lineage
from pipeline import interactive
from pipeline.settings import BUNDLED_SAMPLE, PROJECT_ROOT

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))
CELL_TIMEOUT_S = 600
RECORD_BYTES = 1 + 3 * 32 * 32
NUM_TEST = 200
NUM_TRAINING_BATCH = 120

on_each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_the_five_lessons():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_explore_data",
        "02_interactive_pipeline",
        "03_train_alexnet",
        "04_model_analysis",
        "05_query_serving",
    ]


@on_each_notebook
def test_is_stripped(path):
    """Neither outputs nor counts nor anything of the machine that it was last run on: git shows changes of the text."""
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        assert cell.get("outputs", []) == [], cell.id
        assert cell.get("execution_count") is None, cell.id
    assert str(PROJECT_ROOT) not in text
    assert re.findall(r"(?<![\w.~:/])/(?:home|root|tmp|work|Users|mnt|opt)\b", text) == []


@on_each_notebook
def test_cells_have_names(path):
    """Names that tell what a cell is for: a test, a diff and a link can point at it."""
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name)] == []


@on_each_notebook
def test_defines_nothing_of_its_own(path):
    """What a notebook needs is in the project's rooms, where it is tested."""
    own = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    cells = code_of(nbformat.read(path, as_version=4))
    assert [cell.id for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, own)] == []


@on_each_notebook
def test_links_lead_somewhere(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Variables that have the notebooks work on 800 pictures, in a folder of their own."""
    data = tmp_path_factory.mktemp("cifar-10-batches-bin")
    with tarfile.open(BUNDLED_SAMPLE) as archive:
        for member in archive.getmembers():
            if member.name.endswith(".bin"):
                count = NUM_TEST if "test" in member.name else NUM_TRAINING_BATCH
                file = archive.extractfile(member)
                assert file is not None
                (data / Path(member.name).name).write_bytes(file.read(count * RECORD_BYTES))
    # ipykernel shows what C++ libraries write in the notebook, but not under pytest.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ALEXNET_") and k != "PYTEST_CURRENT_TEST"}
    return inherited | {
        "ALEXNET_PROFILE": "smoke",
        "ALEXNET_DATA": str(data),
        "ALEXNET_OUTPUT_DIR": str(tmp_path_factory.mktemp("outputs")),
        "ALEXNET_ACCURACY_FLOOR": "0.05",
        "ALEXNET_LATENCY_BUDGET_S": "30",
        # So few steps would leave the running statistics of the normalization where they began.
        "ALEXNET_BATCH_NORM_MOMENTUM": "0.8",
    }


@pytest.fixture(scope="session")
def finished_run(environment) -> None:
    """The run that three notebooks look at, made in the way in which they make it where there is none."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith("ALEXNET_"):
                patch.setenv(name, value)
        settings = interactive.make_settings(*interactive.settings_from_environment(environment))
        interactive.last_run(settings, pushed=True)


Execute = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def execute(environment) -> Execute:
    """Runs a notebook and returns its outputs by the cell's name: texts by type, streams by name, alt texts."""

    def run(name: str) -> dict[str, Any]:
        path = PROJECT_ROOT / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
        )
        client.execute(env=environment)
        return {cell.id: cell.outputs for cell in code_of(notebook)}

    return run


def text_of(outputs: list[Any]) -> str:
    """What a cell has printed, and its tables without their marks."""
    parts = []
    for output in outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        else:
            parts.append(re.sub(r"<style.*?</style>|<[^>]+>", " ", output.data.get("text/html", ""), flags=re.DOTALL))
    return re.sub(r"[ \n]+", " ", " ".join(parts))


def check_outputs(by_cell: dict[str, list[Any]], pictures: int) -> None:
    """No noise, nothing that has to be fetched, and pictures that say what they show."""
    outputs = [output for found in by_cell.values() for output in found]
    noise = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert noise == []
    shown = [output for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert {kind for output in shown for kind in output.data} <= {"text/plain", "text/html", "image/png"}
    assert not [output for output in shown if "<script" in output.data.get("text/html", "")]
    charts = [output for output in shown if "image/png" in output.data]
    assert len(charts) == pictures
    for chart in charts:
        assert chart.metadata["image/png"]["alt"].endswith(".")
        assert 300 <= chart.metadata["image/png"]["width"] <= 1000


def test_explore_data_runs(execute):
    outputs = execute("01_explore_data")
    check_outputs(outputs, pictures=6)
    assert re.search(r"test 200 0 0 200 ", text_of(outputs["statistics-table"]))
    assert "min: 0; max: 9" in text_of(outputs["schema-table"])
    said = text_of(outputs["anomalies-table"])
    assert re.search(r"as it is no anomalies", said)
    assert "Unexpectedly large value: 10" in said
    assert "present in fewer examples than expected" in said
    assert re.search(r"ship is there five times .*High Linfty distance", said)
    assert "cannot decode this PNG of 200 bytes" in text_of(outputs["undecodable-image"])


def executions_of_the_interactive_pipeline(environment: dict[str, str]) -> list[tuple[str, bool]]:
    """Component, and whether it was cached, in the order in which they ran.

    InteractiveContext writes each down as a run of its own, in an older form than `lineage.read_run` reads.
    """
    file = f"{environment['ALEXNET_OUTPUT_DIR']}/notebooks/interactive_pipeline/smoke/metadata.db"
    store = lineage.open_store(lineage.sqlite_connection(file))
    executions = sorted(store.get_executions(), key=lambda execution: execution.id)
    return [
        (execution.properties["component_id"].string_value, execution.last_known_state == mlmd.Execution.CACHED)
        for execution in executions
    ]


def test_interactive_pipeline_runs(execute, environment):
    outputs = execute("02_interactive_pipeline")
    check_outputs(outputs, pictures=2)
    components = text_of(outputs["create-pipeline"])
    for name in ("Cifar10ExampleGen", "Trainer", "Evaluator", "Pusher", "ModelReport"):
        assert name in components
    assert "test_examples 200" in text_of(outputs["run-example-gen"])
    assert "validation: no anomalies" in text_of(outputs["run-validator"])
    assert "accuracy_floor" not in text_of(outputs["run-evaluator"])
    assert re.search(r"accuracy 0\.\d+, (not )?blessed", text_of(outputs["run-evaluator"]))
    assert "answers over gRPC" in text_of(outputs["run-serving-validator"])
    assert re.search(r"version \d+", text_of(outputs["run-pusher"]))
    assert "report.html" in text_of(outputs["run-report"])
    assert len(re.findall(r" \d+\.\d\d s", text_of(outputs["run-again"]))) == 3
    executions = executions_of_the_interactive_pipeline(environment)
    assert executions[-3:] == [("StatisticsGen", True), ("Trainer", True), ("Evaluator", True)]
    assert ("Evaluator", False) in executions  # it can be told
    assert "TransformGraph" in text_of(outputs["list-artifacts"])


@pytest.mark.usefixtures("finished_run")
def test_train_alexnet_runs(execute):
    outputs = execute("03_train_alexnet")
    check_outputs(outputs, pictures=5)
    assert "2,915,338 parameters" in text_of(outputs["build-network"])
    assert re.search(r"dense6 Dense 1024 263,168 9\.0%", text_of(outputs["build-network"]))
    assert text_of(outputs["train"]).count("Epoch ") == 5
    shares = [float(text) for text in re.findall(r"(\d+\.\d)%", text_of(outputs["dropout"]))]
    before, after, before_in_use, after_in_use = shares
    assert after == pytest.approx(100 - (100 - before) / 2, abs=2)  # half of those that were not 0
    assert after_in_use == before_in_use


@pytest.mark.usefixtures("finished_run")
def test_model_analysis_runs(execute):
    outputs = execute("04_model_analysis")
    check_outputs(outputs, pictures=8)
    assert re.search(r"profile smoke, 200 test pictures accuracy 0\.\d{3};", text_of(outputs["overall"]))
    assert all(f" {name} " in text_of(outputs["by-class"]) for name in ("airplane", "cat", "truck"))
    assert "Epoch 1/1" in text_of(outputs["short-run"])
    assert re.search(r"one epoch 0\.\d+ .*profile smoke 0\.\d+", text_of(outputs["compare-runs"]))
    assert re.search(r"\d+ pictures gained, \d+ lost", text_of(outputs["flips"]))
    assert re.search(r"calibration error 0\.\d{3}", text_of(outputs["calibration"]))


@pytest.mark.usefixtures("finished_run")
def test_query_serving_runs(execute):
    outputs = execute("05_query_serving")
    check_outputs(outputs, pictures=1)
    assert "AVAILABLE" in text_of(outputs["status"])
    assert "probabilities: float32 [?, 10]" in text_of(outputs["metadata"])
    difference = re.search(r"probabilities: (\S+)", text_of(outputs["rest"]))
    assert difference is not None
    assert float(difference[1]) < 1e-5
    assert '"predictions"' in text_of(outputs["raw-rest"])
    wrong = text_of(outputs["wrong-requests"])
    assert wrong.count("INVALID_ARGUMENT") == 2
    assert wrong.count("NOT_FOUND") == 1
    assert wrong.count("UNAVAILABLE") == 1
    assert "It still serves: " in text_of(outputs["still-serving"])
