"""The stages: the repeated data, the Trainer that does not train, and what the page makes of known rows."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import machine, repeated_images, rows, speed_charts, stages, stages_table, untrained
from benchmarks.stages import StageError
from components.cifar10_example_gen.readers import sources
from models import features
from pipeline.settings import BUNDLED_SAMPLE, PROJECT_ROOT, make_settings


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, np.ndarray]]:
    """In the place of the bundled sample: its first 10 training and last 2 test images."""
    images = list(repeated_images.sample())
    few = images[:10] + images[-2:]

    def sample() -> Iterator[tuple[str, int, np.ndarray]]:
        yield from few

    monkeypatch.setattr(repeated_images, "sample", sample)
    monkeypatch.setattr(repeated_images, "SAMPLE_IMAGES", len(few))
    return few


def test_the_sample_is_read_whole():
    images = list(repeated_images.sample())
    assert len(images) == repeated_images.SAMPLE_IMAGES
    assert [split for split, _, _ in images].count("test") == 1_000


def test_repeated_images_are_shifted_and_all_different(small_sample, tmp_path: Path):
    path = tmp_path / "36.zip"
    repeated_images.write_archive(path, 3 * len(small_sample))
    found = [record for part in sources.plan(str(path)) for record in sources.read(part)]
    assert [record.split for record in found].count("test") == 6
    for index, record in enumerate(found):
        split, label, pixels = small_sample[index % len(small_sample)]
        assert (record.split, record.label) == (split, label)
        assert isinstance(record.image, bytes)
        (tmp_path / "image.png").write_bytes(record.image)
        with Image.open(tmp_path / "image.png") as image:
            np.testing.assert_array_equal(np.asarray(image), np.roll(pixels, index // len(small_sample), axis=1))
    assert len({record.image for record in found}) == len(found)


@pytest.mark.parametrize("count", [0, 7, 12 * 1024 + 12])
def test_an_impossible_number_of_images_is_refused(small_sample, count: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(repeated_images, "MAX_IMAGES", 12 * 1024)
    with pytest.raises(ValueError, match="a multiple of 12"):
        repeated_images.write_archive(tmp_path / "images.zip", count)


def test_only_the_trainer_is_changed():
    from pipeline.pipeline import create_pipeline

    usual, changed = (create_pipeline(make_settings("cifar10"), str(BUNDLED_SAMPLE)) for _ in range(2))
    untrained.without_training(changed)
    different = {
        (one.id, name)
        for one, other in zip(usual.components, changed.components, strict=True)
        for name, value in getattr(one, "exec_properties", {}).items()
        if other.exec_properties[name] != value
    }
    assert different == {("Trainer", "run_fn")}


def test_the_trainer_that_does_not_train_leaves_what_the_others_need(few_examples, tmp_path: Path):
    import tensorflow as tf
    from tfx.components.trainer.fn_args_utils import FnArgs

    untrained.run_fn(
        FnArgs(
            eval_files=few_examples.files(features.VALIDATION_SPLIT),
            transform_graph_path=few_examples.transform_dir,
            serving_model_dir=str(tmp_path / "model"),
            model_run_dir=str(tmp_path / "run"),
            custom_config={
                "hyperparameters": make_settings("cifar10").training.to_dict(),
                "source_digest": "",
                "validation_split": features.VALIDATION_SPLIT,
                "checkpoint_dir": str(tmp_path),
            },
        )
    )
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    images = few_examples.read(features.TEST_SPLIT).images[:4]
    probabilities = loaded.signatures["serving_default"](image_bytes=images)["probabilities"].numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 2


def run_row(variant: str, images: int, number: int, seconds: float, cached_s: float = 12.0) -> dict[str, Any]:
    """A row of a run with three components; everything but the Trainer takes `seconds`."""

    def part(name: str, part_s: float, memory_bytes: int) -> dict[str, Any]:
        return {
            "name": name,
            "seconds": part_s,
            "cpu_s": part_s / 2,
            "peak_memory_bytes": memory_bytes,
            "written_bytes": 3_000_000,
            "artifact_bytes": 2_000_000,
        }

    return {
        "kind": "run",
        "variant": variant,
        "images": images,
        "round": number,
        "seconds": seconds + 7.0,
        "start_up_s": 5.0,
        "cached_s": cached_s,
        "components": [
            part("ExampleGen", seconds / 2, 2**30),
            part("Trainer", 7.0, 2**31),
            part("Evaluator", seconds / 4, 2**29),
        ],
        "command": "python -m benchmarks.stages --sizes 6000,60000 --rounds 2",
        "machine": machine.describe(),
        "versions": {"python": "3.10"},
        "date": "2026-01-02T03:04:05+00:00",
    }


@pytest.fixture
def found() -> list[dict[str, Any]]:
    """Two variants: before, at 60,000 images; now, at two sizes of two rounds each; and the help."""
    measured = [run_row("before", 60_000, 1, 90.0, cached_s=21.0)]
    measured += [
        run_row("now", images, number, seconds)
        for number in (1, 2)
        for images, seconds in ((60_000, 59.0), (6_000, 32.0))
    ]
    spread = {"median": 0.2, "min": 0.1, "max": 0.3}
    about = {name: measured[0][name] for name in ("command", "machine", "versions", "date")}
    measured.append({"kind": "help", "variant": "now", "measured_command": "x --help", "seconds": spread, **about})
    return measured


def test_the_page_says_what_runs_come_to(found: list[dict[str, Any]]):
    lines = stages_table.markdown(found).splitlines()
    assert "| before | 60,000 | 1 | 90.0 [90.0 to 90.0] | 5.0 |  | 1,024 | 21.0 |" in lines
    assert "| now | 6,000 | 2 | 32.0 [32.0 to 32.0] | 5.0 |  | 1,024 | 12.0 |" in lines
    assert "| now | 60,000 | 2 | 59.0 [59.0 to 59.0] | 5.0 | 0.50 | 1,024 | 12.0 |" in lines
    assert "| Trainer (no training) | 7.0 | 3.5 | 2,048 | 3.0 | 2.0 |" in lines


def test_the_page_says_which_aims_are_reached(found: list[dict[str, Any]]):
    lines = stages_table.markdown(found).splitlines()
    assert "| all but the Trainer, 60,000 images: at most 60 s | before | 90.0 s | **missed** |" in lines
    assert "| all but the Trainer, 60,000 images: at most 60 s | now | 59.0 s | reached |" in lines
    assert "| fully cached run, 60,000 images: under 20 s | before | 21.0 s | **missed** |" in lines
    assert "| `x --help`: under 1 s | now | 0.20 [0.10 to 0.30] s | reached |" in lines


def test_rounds_of_an_earlier_measurement_are_left_out(found: list[dict[str, Any]]):
    later = run_row("now", 60_000, 1, 40.0) | {"series": "later"}
    lines = stages_table.markdown([*found, later]).splitlines()
    assert "| now | 60,000 | 1 | 40.0 [40.0 to 40.0] | 5.0 | 0.15 | 1,024 | 12.0 |" in lines
    assert "| now | 6,000 | 2 | 32.0 [32.0 to 32.0] | 5.0 |  | 1,024 | 12.0 |" in lines


def test_chart(found: list[dict[str, Any]], tmp_path: Path):
    speed_charts.draw_stages(found, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as chart:
        assert chart.width > 800


def test_rows_are_added_and_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runs: list[Path] = []

    def measure_run(archive: Path, project: Path, output_dir: Path) -> dict[str, Any]:
        runs.append(archive)
        return {name: run_row("", 0, 0, 40.0)[name] for name in ("seconds", "start_up_s", "components", "cached_s")}

    monkeypatch.setattr(stages, "measure_run", measure_run)
    monkeypatch.setattr(stages, "make_archive", lambda count, work_dir: work_dir / f"{count}.zip")
    monkeypatch.setattr(stages, "HELP_ROUNDS", 1)
    arguments = ["--sizes", "6000,12000", "--work-dir", str(tmp_path), "--output-dir", str(tmp_path)]
    assert stages.main(arguments) == stages.main(arguments) == 0
    assert [archive.name for archive in runs] == ["6000.zip", "12000.zip"] * 2
    measured = rows.read(tmp_path / stages.RESULTS_FILE)
    assert [(row["kind"], row.get("images")) for row in measured] == [("help", None), ("run", 6000), ("run", 12000)]
    assert (tmp_path / "stages.md").read_text() == stages_table.markdown(measured)


def test_a_run_that_fails_is_an_error_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StageError, match="there is nothing at"):
        stages.measure_run(tmp_path / "nothing.zip", PROJECT_ROOT, tmp_path)


def test_without_rows_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert stages.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["training_rate", "time_to_accuracy", "stages", "readme", "untrained"])
def test_help_needs_no_tensorflow(name: str):
    code = (
        f"import runpy, sys\nsys.argv = ['{name}', '--help']\n"
        f"try:\n    runpy.run_module('benchmarks.{name}', run_name='__main__')\n"
        "except SystemExit as error:\n    assert not error.code\n"
        "assert not {'tensorflow', 'tfx', 'matplotlib'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)
