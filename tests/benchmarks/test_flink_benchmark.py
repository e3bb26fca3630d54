import json
from pathlib import Path

from benchmarks import experiments, flink, stages
from pipeline.flink import jars

CIRCUMSTANCES = {
    "machine": {"processor": "a processor", "cores": 2, "memory_gib": 24.0, "load_average_1min": 0.1},
    "versions": {"python": "3.10"},
    "date": "2026-11-23T00:00:00+00:00",
}


def figures(seconds: float) -> dict:
    return {
        "seconds": 4 * seconds + 20,
        "components": [{"name": name, "seconds": seconds} for name in (*flink.WITH_BEAM, "Trainer")],
    }


def test_a_row_a_size_and_engine_in_rising_order_with_the_median_of_its_rounds():
    rows = [
        {**CIRCUMSTANCES, "command": "c", "task_managers": managers, "images": images, "round": number, **figures(s)}
        for managers, images, number, s in [(2, 6000, 1, 7), (0, 60000, 1, 9), (0, 6000, 1, 1), (0, 6000, 2, 2)]
    ]
    table = [line for line in flink.markdown(rows).splitlines() if line.startswith("|")]
    assert table[2:] == [
        "| 6,000 | direct runner | 2 | 1.5 | 1.5 | 1.5 | 1.5 | 26.0 |",
        "| 6,000 | Flink, 2 task managers | 1 | 7.0 | 7.0 | 7.0 | 7.0 | 48.0 |",
        "| 60,000 | direct runner | 1 | 9.0 | 9.0 | 9.0 | 9.0 | 56.0 |",
    ]


def test_rounds_of_an_earlier_measurement_are_left_out():
    rows = [
        {**CIRCUMSTANCES, "series": series, "command": "c", "task_managers": 0, "images": 6000, "round": number}
        | figures(seconds)
        for series, number, seconds in [("then", 2, 9), ("then", 3, 9), ("now", 1, 1)]
    ]
    assert "| 6,000 | direct runner | 1 | 1.0 | 1.0 | 1.0 | 1.0 | 24.0 |" in flink.markdown(rows)


def test_every_run_is_kept_as_soon_as_it_is_done(tmp_path, monkeypatch):
    file = tmp_path / "results" / flink.RESULTS_FILE
    runs: list[tuple[int, int]] = []

    def measure_run(archive: Path, folder: Path, jar_dir: Path, task_managers: int) -> dict:
        assert (len(json.loads(file.read_text())) if file.exists() else 0) == len(runs)
        runs.append((int(archive.stem), task_managers))
        (folder / "outputs").mkdir(parents=True)
        return figures(1.0)

    monkeypatch.setattr(jars, "fetch", lambda release: tmp_path)
    monkeypatch.setattr(experiments, "circumstances", lambda: CIRCUMSTANCES)
    monkeypatch.setattr(stages, "make_archive", lambda size, folder: folder / f"{size}.zip")
    monkeypatch.setattr(flink, "measure_run", measure_run)
    flink.measure([6000, 12000], 1, tmp_path / "work", file)
    assert runs == [(6000, 0), (6000, 1), (6000, 2), (12000, 0), (12000, 1), (12000, 2)]
    rows = json.loads(file.read_text())
    assert [row["task_managers"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert rows[0]["versions"]["beam_flink_runner"] == jars.chosen_release().beam
    assert not (tmp_path / "work" / "flink").exists()


def test_without_a_result_there_is_no_table(tmp_path, capsys):
    assert flink.main(["--table", "--output-dir", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err
