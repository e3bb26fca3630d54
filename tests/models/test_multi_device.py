"""Several devices, and several processes, learn what one device learns; a worker that is killed costs an epoch."""

import csv
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Sample, write_examples
from tfx.components.trainer.fn_args_utils import FnArgs

from models import checkpoint, devices, fitting, input_pipeline, multi_worker, training, worker
from models.hyperparameters import Hyperparameters

EPOCHS = 3
STEPS = 3
BATCH_SIZE = 32
NUM_TRAIN, NUM_VALIDATION = STEPS * BATCH_SIZE, BATCH_SIZE + 1  # a last batch of one image would leave a device none
# Nothing that draws random numbers: it draws others on each device. And small steps: the rest is the same sums in
# another order, but what float32 rounds off grows a thousandfold in three usual steps, on one device as on two;
# bfloat16 rounds off more than that.
RECIPE = Hyperparameters(
    epochs=EPOCHS,
    batch_size=BATCH_SIZE,
    learning_rate=1e-4,
    momentum=0.0,
    schedule="constant",
    dropout=0.0,
    translation=0,
    horizontal_flip=False,
    color_jitter=0.0,
    mixed_precision="off",
    seed=5,
)
TOLERANCE = 1e-4
"""Of losses, relative. Without synchronized batch statistics the first step's is 1e-2 off."""
ONE_IMAGE = 1 / NUM_VALIDATION

MIRRORED = """
import dataclasses, json, sys
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

import keras
from tfx.components.trainer.fn_args_utils import FnArgs
from models import multi_worker, training
from models.hyperparameters import Hyperparameters

configure_devices = training.configure_devices
training.configure_devices = lambda recipe: dataclasses.replace(configure_devices(recipe), strategy=strategy)
training.run_fn(FnArgs(**json.loads(sys.argv[1])))

with strategy.scope():
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(0.5, seed=1)])
draw = lambda: model(tf.ones((1, 1000)), training=True)
together = [[float(tf.reduce_sum(a * b)) for a in drawn] for drawn in [strategy.run(draw).values] for b in drawn]
multi_worker.draw_apart(model, strategy)
apart = [[float(tf.reduce_sum(a * b)) for a in drawn] for drawn in [strategy.run(draw).values] for b in drawn]
print(json.dumps({"together": together, "apart": apart}))
"""

SECOND_WORKER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from models import multi_worker, worker

job_file, part_file, dies = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "dies"
join = multi_worker.join

def join_and_be_watched():
    join()
    import keras
    import tensorflow as tf
    from models import callbacks, checkpoint, fitting, input_pipeline, signatures, warmup

    def refuse(*_, **__):
        raise AssertionError("a worker writes")

    checkpoint.save = fitting.publish = signatures.export = warmup.write_requests = refuse
    keras.callbacks.TensorBoard.__init__ = refuse
    training_dataset = input_pipeline.training_dataset

    def show_part(*arguments, **named):
        dataset = training_dataset(*arguments, **named)
        shared = multi_worker.strategy().experimental_distribute_dataset(dataset)
        # What this worker takes from. To take it the usual way, all workers would have to.
        (own,) = shared._cloned_datasets
        np.savez(part_file, *[images.numpy() for images, _ in own])
        return dataset

    input_pipeline.training_dataset = show_part

    def die(self, batch, logs=None):
        if self._epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    if dies:
        callbacks.StopOnNonFiniteLoss.on_train_batch_end = die

multi_worker.join = join_and_be_watched
while not job_file.exists():
    time.sleep(0.2)
sys.exit(worker.run_job(job_file))
"""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The inputs of a run, and where its attempts write."""

    root: Path
    examples: Path
    transform_output_dir: str

    @property
    def job_file(self) -> Path:
        return self.root / "checkpoints" / worker.JOB_FILE

    def arguments(self, attempt: str) -> dict[str, Any]:
        return {
            "train_files": [str(self.examples / "Split-train" / "*")],
            "eval_files": [str(self.examples / "Split-validation" / "*")],
            "transform_graph_path": self.transform_output_dir,
            "serving_model_dir": str(self.root / attempt / "Format-Serving"),
            "model_run_dir": str(self.root / attempt / "model_run"),
            "custom_config": {
                "hyperparameters": RECIPE.to_dict(),
                "source_digest": "0",
                "validation_split": "validation",
                "checkpoint_dir": str(self.root / "checkpoints"),
            },
        }

    def history(self, attempt: str) -> dict[str, np.ndarray]:
        with (self.root / attempt / "model_run" / fitting.HISTORY_FILE).open() as file:
            rows = list(csv.DictReader(file))
        return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "seconds"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, sample: Sample, transform_output_dir: str) -> Workspace:
    root = tmp_path_factory.mktemp("several")
    for split, chosen in (
        ("train", slice(0, NUM_TRAIN)),
        ("validation", slice(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION)),
    ):
        write_examples(root / f"Split-{split}" / "data.gz", sample.pngs[chosen], sample.labels[chosen])
    return Workspace(root, root, transform_output_dir)


@pytest.fixture(scope="module")
def alone(workspace: Workspace) -> dict[str, np.ndarray]:
    """The history of a run on one device."""
    training.run_fn(FnArgs(**workspace.arguments("alone")))
    return workspace.history("alone")


def assert_same_history(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name in ("loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(found[name], expected[name], rtol=TOLERANCE, err_msg=name)
    for name in ("accuracy", "val_accuracy"):
        np.testing.assert_allclose(found[name], expected[name], atol=1.01 * ONE_IMAGE, err_msg=name)


def files(folder: Path) -> list[str]:
    """What is in a folder, with names that do not change from run to run."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if "events." not in path.name)


def test_two_devices_learn_what_one_learns(workspace: Workspace, alone: dict[str, np.ndarray]):
    ended = subprocess.run(
        [sys.executable, "-c", MIRRORED, json.dumps(workspace.arguments("mirrored"))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert_same_history(workspace.history("mirrored"), alone)
    assert files(workspace.root / "mirrored") == files(workspace.root / "alone")
    # How much of two devices' dropout is the same: all of it, or the half that chance makes.
    drawn = json.loads(ended.stdout.splitlines()[-1])
    assert drawn["together"][0][1] == drawn["together"][0][0]
    assert drawn["apart"][0][1] < 0.7 * drawn["apart"][0][0]


def test_two_workers_learn_what_one_learns_and_go_on_after_one_was_killed(
    workspace: Workspace,
    alone: dict[str, np.ndarray],
    transform_graph: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    def cluster(index: int) -> str:
        return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})

    def start_second(part_file: Path, how: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", SECOND_WORKER, str(workspace.job_file), str(part_file), how],
            env=os.environ | {"TF_CONFIG": cluster(1)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    addresses = free_addresses()
    monkeypatch.setenv("TF_CONFIG", cluster(0))
    with start_second(workspace.root / "first.npz", "dies") as second:
        with pytest.raises(worker.WorkerLostError, match="goes on from the last finished epoch"):
            training.run_fn(FnArgs(**workspace.arguments("workers")))
        output, _ = second.communicate(timeout=60)
        assert second.returncode == -signal.SIGKILL, output
    (state_file,) = workspace.root.glob(f"checkpoints/*/{checkpoint.STATE_FILE}")
    state = checkpoint.load(state_file)
    assert state is not None
    assert len(state.history) == 1
    assert not workspace.job_file.exists()
    assert not (workspace.root / "workers").exists()

    addresses = free_addresses()
    monkeypatch.setenv("TF_CONFIG", cluster(0))
    with start_second(workspace.root / "second.npz", "lives") as second:
        training.run_fn(FnArgs(**workspace.arguments("workers")))
        output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    assert "2 workers, CPU each" in output
    assert "Epoch " not in output
    shown = capfd.readouterr().out
    assert f"Waiting for {addresses[1]}" in shown
    assert f"Resuming at epoch 2 of {EPOCHS}" in shown
    assert_same_history(workspace.history("workers"), alone)
    assert files(workspace.root / "workers") == files(workspace.root / "alone")
    assert not list(workspace.root.glob("checkpoints/*"))

    # The second worker's part of each batch is its second half; the loss says that the first half was learned too.
    train = input_pipeline.read_examples(workspace.arguments("alone")["train_files"])
    batches = input_pipeline.training_dataset(
        train, transform_graph, batch_size=BATCH_SIZE, steps_per_epoch=STEPS, epochs=EPOCHS, seed=RECIPE.seed
    )
    with np.load(workspace.root / "first.npz") as part:
        for index, (images, _) in enumerate(batches):
            np.testing.assert_array_equal(part[f"arr_{index}"], images.numpy()[BATCH_SIZE // 2 :])
        assert len(part) == EPOCHS * STEPS


def free_addresses() -> list[str]:
    """Two addresses on this machine that nothing listens at."""
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{listener.getsockname()[1]}" for listener in (one, other)]


def test_a_worker_follows_one_job_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    job_file = tmp_path / worker.JOB_FILE
    ids = iter(["a", "a", "b"])

    def next_job(_: float) -> None:
        job_file.write_text(json.dumps({"id": next(ids), "function": "models.training.run_fn"}))

    taken = []

    def run_process(file: Path) -> tuple[int, str]:
        taken.append(json.loads(file.read_text(encoding="utf-8"))["id"])
        return (worker.WORKER_LOST if taken == ["a"] else 0), ""

    monkeypatch.setattr(worker.time, "sleep", next_job)
    monkeypatch.setattr(worker, "_run_process", run_process)
    monkeypatch.setenv(
        "TF_CONFIG", '{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}'
    )
    worker.follow(tmp_path, max_jobs=2)
    assert taken == ["a", "b"]
    shown = capsys.readouterr().out
    assert f"Worker 2 of 3 waits for {job_file}" in shown
    assert f"status {worker.WORKER_LOST}" in shown


def test_only_the_first_machine_leads_and_only_the_others_follow(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
    with pytest.raises(ValueError, match=r"worker 1: run the pipeline on the first one only, a:1"):
        training.run_fn(FnArgs(**workspace.arguments("wrong")))
    monkeypatch.delenv("TF_CONFIG")
    assert worker.main([str(workspace.root)]) == 2
    assert "run the pipeline here" in capsys.readouterr().out


def test_an_error_in_the_training_process_is_the_trainers(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    arguments = workspace.arguments("wrong")
    arguments["custom_config"]["checkpoint_dir"] = str(tmp_path)
    monkeypatch.setattr(worker, "_run_process", lambda _: (1, "NonFiniteLossError: The training loss is nan"))
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(RuntimeError, match=r"status 1\. NonFiniteLossError: The training loss is nan"):
        training.run_fn(FnArgs(**arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "config",
    ["workers", "[]", '{"cluster": {"worker": ["a:1"]}}']
    + [
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": t, "index": i}})
        for t, i in [("ps", 0), ("worker", 1)]
    ],
)
def test_a_wrong_cluster_is_refused(config: str):
    with pytest.raises(ValueError, match=r"TF_CONFIG is .*it has to be like"):
        multi_worker.Cluster.from_environment({"TF_CONFIG": config})


def test_without_a_cluster_there_is_one_worker_the_chief():
    assert multi_worker.Cluster.from_environment({}) == multi_worker.Cluster(("localhost",), 0)
    assert multi_worker.is_chief()


def test_a_batch_falls_into_equal_parts(monkeypatch: pytest.MonkeyPatch):
    recipe = dataclasses.replace(RECIPE, batch_size=33)
    monkeypatch.setattr(devices.Devices, "num_replicas", 2)
    with pytest.raises(ValueError, match="batch_size is 33; it has to be a multiple of 2"):
        fitting.compile_for_fit(None, recipe, devices.configure_devices(recipe), 1)


class OtherWorker:
    """Stands in for the strategy of two workers, one of which is the test."""

    def __init__(self, key: str, epoch: int) -> None:
        self._numbers = iter([zlib.crc32(key.encode()), epoch])

    def run(self, function: Callable[[], Any]) -> Any:
        return function()

    def reduce(self, how: str, value: Any, axis: None) -> Any:
        assert how == "MEAN"
        return (value + next(self._numbers)) / 2


def test_workers_with_another_training_or_epoch_do_not_start():
    state_file = Path("checkpoints/0123/state.npz")
    multi_worker.check_same_start(OtherWorker("0123", 2), 2, state_file)
    with pytest.raises(ValueError, match="do not run the same training"):
        multi_worker.check_same_start(OtherWorker("4567", 2), 2, state_file)
    with pytest.raises(ValueError, match=r"0123/state\.npz ends with epoch 2, the other workers' with another"):
        multi_worker.check_same_start(OtherWorker("0123", 0), 2, state_file)


def test_a_worker_takes_the_job_that_is_there_once_all_have_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job_file = tmp_path / worker.JOB_FILE

    def job(train_files: str) -> str:
        arguments: dict[str, Any] = dict.fromkeys(worker.FN_ARGS)
        return json.dumps(
            {"id": "1", "function": "models.training.run_fn", "fn_args": arguments | {"train_files": [train_files]}}
        )

    taken = []
    job_file.write_text(job("of a run that was killed"))
    monkeypatch.setattr(multi_worker, "join", lambda: job_file.write_text(job("of the first worker")))
    monkeypatch.setattr(training, "run_fn", lambda arguments: taken.extend(arguments.train_files))
    assert worker.run_job(job_file) == 0
    assert taken == ["of the first worker"]


def test_a_worker_may_be_given_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> "subprocess.Popen[str]":
        started.append(command)
        return subprocess.Popen(["true"], stdout=subprocess.PIPE, text=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "subprocess", types.SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
    worker._run_process(Path("checkpoints") / worker.JOB_FILE)
    assert started[0][-1] == str(tmp_path / "checkpoints" / worker.JOB_FILE)
