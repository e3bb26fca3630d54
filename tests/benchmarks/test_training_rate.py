"""The training rate: the notebook is what it claims to be, rounds are compared, the page says what came out."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import experiments, pixels, seed_notebook, training_rate, training_rate_table
from benchmarks.training_rate import FIT, INPUT, NOTEBOOK, STEP, Contender
from models import features, preprocessing
from models.alexnet import build_alexnet


def test_the_notebooks_network_is_the_seed_profiles():
    def described(model):
        """Kind, output shape and number of parameters of each layer that does something."""
        return [
            (type(layer).__name__, tuple(layer.output.shape), layer.count_params())
            for layer in model.layers
            if type(layer).__name__ != "InputLayer"
        ]

    assert described(seed_notebook.build_model()) == described(build_alexnet())


def test_the_notebooks_input_is_the_preprocessing_of_every_image_once(few_examples):
    images, labels = pixels.decode(few_examples.read(features.TEST_SPLIT))
    batches = list(seed_notebook.dataset(images, labels, batch_size=32))
    assert [batch.shape for batch, _ in batches] == [(32, 64, 64, 3)] * 2
    found = np.concatenate([batch.numpy() for batch, _ in batches])
    expected = preprocessing.resize(preprocessing.standardize(images)).numpy()
    order_found, order_expected = (np.argsort(values[:, 20, 20, 0]) for values in (found, expected))
    np.testing.assert_allclose(found[order_found], expected[order_expected], atol=1e-5)
    found_labels = np.concatenate([label.numpy() for _, label in batches])
    np.testing.assert_array_equal(found_labels[order_found], labels[order_expected])


def contender(kind: str, profile: str, batch_size: int, rates: list[float]) -> Contender:
    return Contender(kind, profile, batch_size, lambda: None, rates, rates)


def test_ratios_compare_the_same_round():
    measured = [
        contender(NOTEBOOK, "", 32, [100.0, 200.0]),
        contender(NOTEBOOK, "", 128, [200.0, 400.0]),
        contender(FIT, "cifar10", 128, [150.0, 280.0]),
        contender(STEP, "cifar10", 128, [150.0, 280.0]),
        contender(INPUT, "cifar10", 128, [3000.0, 2800.0]),
    ]
    found = {(row["kind"], row["of"], row["of_batch_size"]): row["ratio"] for row in training_rate.ratios(measured)}
    assert found[FIT, STEP, 128] == {"median": 1, "min": 1, "max": 1}
    assert found[FIT, NOTEBOOK, 32] == {"median": pytest.approx(1.45), "min": 1.4, "max": 1.5}
    assert found[FIT, NOTEBOOK, 128] == {"median": pytest.approx(0.725), "min": 0.7, "max": 0.75}
    assert found[INPUT, STEP, 128] == {"median": 15, "min": 10, "max": 20}


def test_a_contender_is_timed(monkeypatch: pytest.MonkeyPatch):
    now = {"s": 100.0, "cpu_s": 7.0}
    takes_s = iter((2.0, 4.0))

    def run() -> None:
        seconds = next(takes_s)
        now["s"] += seconds
        now["cpu_s"] += 2 * seconds  # two cores are busy

    clock = SimpleNamespace(perf_counter=lambda: now["s"], process_time=lambda: now["cpu_s"])
    monkeypatch.setattr(training_rate, "time", clock)
    timed = Contender(FIT, "seed", 32, run)
    timed.time(640)
    timed.time(640)
    assert timed.row()["images_per_s"] == {"median": 240, "min": 160, "max": 320}
    assert timed.row()["images_per_core_s"] == {"median": 120, "min": 80, "max": 160}


@pytest.fixture(scope="module")
def figures(few_examples, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """A measurement of the seed profile alone, and its folder."""
    folder = tmp_path_factory.mktemp("training_rate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_rate, "PROFILES", ("seed",))
        patch.setattr(experiments, "make_examples", lambda settings, work_dir: few_examples)
        arguments = ["--data", "somewhere/few.zip", "--images", "64", "--rounds", "1", "--output-dir", str(folder)]
        assert training_rate.main(arguments) == 0
    return json.loads((folder / training_rate.RESULTS_FILE).read_text()), folder


def test_everything_is_measured(figures):
    found, _ = figures
    kinds = {row["kind"] for row in found["rates"]}
    assert kinds == {NOTEBOOK, FIT, STEP, INPUT, training_rate.NOTEBOOK_INPUT}
    assert all(row["images_per_s"]["min"] > 0 for row in found["rates"])
    assert found["command"] == "python -m benchmarks.training_rate --data few.zip --images 64 --rounds 1"
    assert {"machine", "versions", "date"} <= set(found)


def test_page_and_chart_come_from_the_file(figures, capsys: pytest.CaptureFixture[str]):
    found, folder = figures
    assert training_rate.main(["--table", "--output-dir", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == (folder / "training_rate.md").read_text().strip()
    rate = found["rates"][0]["images_per_s"]["median"]
    assert f"| notebook | 32 | {rate:.0f} [" in (folder / "training_rate.md").read_text()
    with Image.open(folder / "training_rate.png") as chart:
        assert chart.width > 800


@pytest.mark.parametrize(("ratio", "verdict"), [(1.1, "reached"), (1.09, "**missed**")])
def test_the_page_says_which_aims_are_reached(figures, ratio: float, verdict: str):
    row = {"kind": FIT, "profile": "seed", "batch_size": 32, "of": NOTEBOOK, "of_batch_size": 32}
    spread = {"median": ratio, "min": ratio, "max": ratio}
    page = training_rate_table.markdown({**figures[0], "ratios": [{**row, "ratio": spread}]})
    assert page.splitlines()[-1].endswith(f"| at least 1.1 | {verdict} |")


def test_a_size_that_fills_no_batch_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        training_rate.main(["--images", "100"])
    assert "a multiple of" in capsys.readouterr().err


def test_without_figures_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert training_rate.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err
