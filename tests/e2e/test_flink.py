"""The pipeline's Beam jobs on a Flink cluster: what the direct runner makes, Flink makes.

A job manager, two task managers, Beam's job server and Python workers, all processes of their own. The Trainer exports
its initial weights, which a seed fixes, so that both runs have the same model to evaluate. The data is the whole
sample: batches of images have to be as large as they get.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow_transform as tft
from tensorflow_data_validation import load_stats_binary
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import RunOptions

from benchmarks import untrained
from components.model_report import results
from models import input_pipeline
from models.input_pipeline import LabeledImages
from pipeline import local_run, runs
from pipeline.flink import jars
from pipeline.flink.cluster import Cluster, running_cluster
from pipeline.pipeline import create_pipeline
from pipeline.settings import BUNDLED_SAMPLE, SAMPLE

RELEASE = jars.chosen_release()
MISSING = jars.missing(RELEASE)
pytestmark = [pytest.mark.skipif(bool(MISSING), reason=f"no Flink here: {MISSING}"), pytest.mark.timeout(1800)]

SPLITS = ("train", "validation", "test")
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("flink"), jars.jar_dir(RELEASE)) as running:
        yield running


@pytest.fixture(scope="module")
def direct_run(settings_for, tmp_path_factory) -> dict[str, runs.Execution]:
    return _run(settings_for(data=SAMPLE, output_dir=str(tmp_path_factory.mktemp("direct"))))


@pytest.fixture(scope="module")
def flink_settings(settings_for, cluster, tmp_path_factory):
    return settings_for(
        data=SAMPLE,
        output_dir=str(tmp_path_factory.mktemp("on-flink")),
        beam_runner="flink",
        beam_job_endpoint=cluster.job_endpoint,
        verbose=True,
    )


@pytest.fixture(scope="module")
def flink_run(flink_settings) -> dict[str, runs.Execution]:
    return _run(flink_settings)


def _run(settings) -> dict[str, runs.Execution]:
    assert local_run.run(settings, untrained.without_training) == 0
    return runs.last_run(settings)


def _folder(run: dict[str, runs.Execution], component: str, output: str) -> Path:
    return Path(run[component].outputs[output].uri)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_jobs_ran_on_both_task_managers(flink_run, cluster):
    jobs = [cluster.get(f"jobs/{job['id']}") for job in cluster.get("jobs")["jobs"]]
    assert {job["state"] for job in jobs} == {"FINISHED"}
    assert len(jobs) == 3  # ExampleGen, StatisticsGen, the Evaluator; Transform's analyzers need no data
    vertices = [(job["jid"], vertex["id"]) for job in jobs for vertex in job["vertices"]]
    used = {
        manager["endpoint"]
        for job, vertex in vertices
        for manager in cluster.get(f"jobs/{job}/vertices/{vertex}/taskmanagers")["taskmanagers"]
    }
    assert len(used) == 2


def test_examples_are_the_same_to_the_byte(direct_run, flink_run):
    direct, flink = (_folder(run, "Cifar10ExampleGen", "examples") for run in (direct_run, flink_run))
    assert _digests(direct) == _digests(flink)
    assert len(_digests(flink)) > len(SPLITS)


def test_counts_are_the_same(direct_run, flink_run):
    counts = [
        {split: run["Cifar10ExampleGen"].outputs["examples"].properties[f"{split}_examples"] for split in SPLITS}
        for run in (direct_run, flink_run)
    ]
    assert counts[0] == counts[1]
    assert sum(counts[1].values()) == 6000


def test_the_schema_is_the_same(direct_run, flink_run):
    assert _digests(_folder(direct_run, "ImportSchemaGen", "schema")) == _digests(
        _folder(flink_run, "ImportSchemaGen", "schema")
    )


@pytest.mark.parametrize("split", SPLITS)
def test_statistics_are_the_same(direct_run, flink_run, split):
    direct, flink = (
        load_stats_binary(str(_folder(run, "StatisticsGen", "statistics") / f"Split-{split}" / "FeatureStats.pb"))
        for run in (direct_run, flink_run)
    )
    assert flink.datasets[0].num_examples == direct.datasets[0].num_examples > 0
    texts, numbers = _flat(direct)
    assert _flat(flink)[0] == texts
    assert _flat(flink)[1] == pytest.approx(numbers, rel=TOLERANCE, abs=TOLERANCE)
    assert texts
    assert numbers


def _flat(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> tuple[dict[str, object], dict[str, float]]:
    """All texts and all numbers of the statistics by their path; features by name, since their order says nothing."""
    (dataset,) = statistics.datasets
    texts: dict[str, object] = {}
    numbers: dict[str, float] = {}

    def visit(path: str, message) -> None:
        for field, value in message.ListFields():
            values = value if field.label == field.LABEL_REPEATED else [value]
            for index, item in enumerate(values):
                name = f"{path}/{field.name}[{index}]"
                if field.type == field.TYPE_MESSAGE:
                    visit(name, item)
                elif isinstance(item, int | float):
                    numbers[name] = item
                else:
                    texts[name] = item

    for feature in dataset.features:
        visit("/".join(feature.path.step) or feature.name, feature)
    return texts, numbers


def test_the_transform_graph_is_the_same(direct_run, flink_run):
    direct, flink = (
        _digests(_folder(run, "Transform", "transform_graph") / "transformed_metadata")
        for run in (direct_run, flink_run)
    )
    assert direct == flink
    assert flink
    examples = input_pipeline.read_examples([f"{_folder(direct_run, 'Cifar10ExampleGen', 'examples')}/Split-test/*"])
    expected, found = (_transformed(run, examples) for run in (direct_run, flink_run))
    assert expected.images.std() > 0.1  # constant pictures would prove nothing
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)


def _transformed(run: dict[str, runs.Execution], examples: LabeledImages) -> LabeledImages:
    """The first images as a run's Transform graph makes them, as NumPy arrays."""
    output = tft.TFTransformOutput(str(_folder(run, "Transform", "transform_graph")))
    graph = input_pipeline.load_transform_graph(output.transform_savedmodel_dir)
    images, labels = input_pipeline.transform(graph, examples.images[:64], examples.labels[:64])
    return LabeledImages(images.numpy(), labels.numpy())


def test_metrics_are_the_same(direct_run, flink_run):
    direct, flink = (results.load(str(_folder(run, "Evaluator", "evaluation"))) for run in (direct_run, flink_run))
    assert flink.num_examples == direct.num_examples == 1000
    assert flink.metrics == pytest.approx(direct.metrics, abs=TOLERANCE, nan_ok=True)
    assert flink.by_class.keys() == direct.by_class.keys()
    for name, metrics in flink.by_class.items():
        assert metrics == pytest.approx(direct.by_class[name], abs=TOLERANCE, nan_ok=True)
    np.testing.assert_array_equal(flink.confusion, direct.confusion)
    for name, calibration in flink.calibration.items():
        for field, values in vars(calibration).items():
            np.testing.assert_allclose(values, getattr(direct.calibration[name], field), atol=TOLERANCE)


def test_the_whole_run_comes_to_the_same(direct_run, flink_run):
    assert list(direct_run) == list(flink_run)
    for component in ("Evaluator", "ServingValidator"):
        blessed = [run[component].outputs["blessing"].properties["blessed"] for run in (direct_run, flink_run)]
        assert blessed == [1, 1]
    assert flink_run["Pusher"].outputs["pushed_model"].properties["pushed"]


def test_a_killed_task_manager_costs_a_retry_not_the_result(cluster, direct_run, flink_settings, flink_run):
    """After `flink_run`: one of its task managers is killed while a job is at work."""
    connection = sqlite_metadata_connection_config(str(flink_settings.metadata_path))
    pipeline = create_pipeline(flink_settings, str(BUNDLED_SAMPLE), metadata_connection=connection)
    pipeline.enable_cache = False
    victim = cluster.task_managers[-1]
    with _killing(cluster, victim) as killed:
        LocalDagRunner().run(pipeline, run_options=RunOptions(to_nodes=["Cifar10ExampleGen"]))
    assert killed, "the job was over before its task manager could be killed"
    assert victim not in cluster.task_managers
    (job,) = [job for job in cluster.get("jobs/overview")["jobs"] if job["jid"] == killed[0].job]
    assert job["state"] == "FINISHED"
    lost = cluster.get(f"jobs/{job['jid']}/exceptions")["exceptionHistory"]["entries"]
    assert lost, "the job did not notice that a task manager was lost"
    again = _folder(runs.last_run(flink_settings), "Cifar10ExampleGen", "examples")
    assert again != _folder(flink_run, "Cifar10ExampleGen", "examples")
    assert _digests(again) == _digests(_folder(direct_run, "Cifar10ExampleGen", "examples"))
    assert killed[0].workers
    _wait_until_ended(killed[0].workers)


@dataclass(frozen=True)
class _Kill:
    job: str
    workers: list[int]


@contextmanager
def _killing(cluster: Cluster, victim: str) -> Iterator[list[_Kill]]:
    """Kills a task manager when some of a job's tasks are done and its own workers are at work."""
    killed: list[_Kill] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for job in cluster.get("jobs/overview")["jobs"]:
                workers = _children(cluster.pids[victim])
                if job["state"] == "RUNNING" and job["tasks"]["finished"] and workers:
                    cluster.kill(victim)
                    killed.append(_Kill(job["jid"], workers))
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_no_process_outlives_the_cluster(cluster, flink_run):
    processes = [*cluster.pids.values(), *(worker for pid in cluster.pids.values() for worker in _children(pid))]
    cluster.stop()
    _wait_until_ended(processes)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has ended


def _wait_until_ended(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
