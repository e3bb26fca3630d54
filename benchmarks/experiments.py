"""Trainings for the benchmarks: the pipeline's own functions, on Examples that its own components make once.

A benchmark of recipes needs no gate and no push; what it needs is that the numbers are those of the pipeline. So the
examples and the Transform graph come from a run of the pipeline up to Transform, and what trains is the `run_fn` that
the Trainer runs, with its checkpoints: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from models import features
from models.hyperparameters import Hyperparameters
from pipeline.settings import PROJECT_ROOT, Settings, make_settings
from pipeline.source_digest import source_digest

if TYPE_CHECKING:
    import numpy as np
    from tfx.components.trainer.fn_args_utils import FnArgs

    from models.input_pipeline import LabeledImages

RESULTS_DIR = Path(__file__).parent / "results"
WORK_DIR = PROJECT_ROOT / "outputs" / "benchmarks"
PACKAGES = ("tfx", "tensorflow", "keras", "numpy")
TEST_BATCH_SIZE = 100


@dataclass(frozen=True)
class Examples:
    """What the pipeline's components made of a data set.

    Attributes:
        data: name of the archive or folder.
        examples_dir: of ExampleGen's `examples`.
        transform_dir: of Transform's `transform_graph`.
        validation_split: the split that epochs are compared on.
    """

    data: str
    examples_dir: str
    transform_dir: str
    validation_split: str

    def files(self, split: str) -> list[str]:
        """Patterns of a split's files."""
        return [f"{self.examples_dir}/Split-{split}/*"]

    def read(self, split: str) -> LabeledImages:
        """A split in memory."""
        from models import input_pipeline

        return input_pipeline.read_examples(self.files(split))

    def describe(self) -> dict[str, Any]:
        """Name, SHA-256 of images and labels of all splits, and number of images by split."""
        splits = dict.fromkeys((features.TRAIN_SPLIT, self.validation_split, features.TEST_SPLIT))
        read = {split: self.read(split) for split in splits}
        digest = hashlib.sha256("".join(images.digest() for images in read.values()).encode()).hexdigest()
        return {"name": self.data, "digest": digest, **{split: len(images) for split, images in read.items()}}


def make_examples(settings: Settings, work_dir: Path) -> Examples:
    """Runs the pipeline up to Transform, the data's validation included, unless that has been done.

    Args:
        settings: uses `data` and `validation_fraction`.
        work_dir: keeps what is made, for this and other benchmarks.

    Raises:
        FileNotFoundError: there is nothing at the path of the data.
    """
    from pipeline import local_run

    data = local_run.locate_data(settings.data)
    definition = [data, settings.validation_fraction, source_digest("components.cifar10_example_gen")]
    definition.append(source_digest("models.preprocessing"))
    key = hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:16]
    folder = work_dir.absolute() / "examples" / key
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "examples.json"
    with open(folder / "waiting.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a benchmark that starts beside this one waits for the examples
        if not made.exists():
            chosen = make_settings(
                "cifar10",
                {"data": data, "validation_fraction": settings.validation_fraction, "output_dir": str(folder)},
            )
            made.write_text(json.dumps(dataclasses.asdict(_run_to_transform(chosen, data))), encoding="utf-8")
    return Examples(**json.loads(made.read_text(encoding="utf-8")))


def train(
    run_fn: Callable[[FnArgs], None],
    examples: Examples,
    folder: Path,
    hyperparameters: Hyperparameters,
    *,
    base_model: str | None = None,
    label_fraction: float = 1.0,
) -> list[dict[str, float]]:
    """Trains as the pipeline does, or goes on with what was interrupted; what is finished is not done again.

    Args:
        run_fn: `models.training.run_fn` or `models.pretraining.run_fn`.
        examples: from `make_examples`.
        folder: gets `model` (what `run_fn` writes to its `serving_model_dir`), `model_run` and the checkpoints.
        hyperparameters: the recipe.
        base_model: folder of the model to start from.
        label_fraction: part of the training labels to use.

    Returns:
        The rows of history.csv, an epoch each, as numbers.
    """
    import keras
    from tfx.components.trainer.fn_args_utils import FnArgs

    from models import fitting

    history = folder / "model_run" / fitting.HISTORY_FILE
    custom_config = {
        "hyperparameters": hyperparameters.to_dict(),
        "source_digest": source_digest(run_fn.__module__),
        "validation_split": examples.validation_split,
        "checkpoint_dir": str(folder / "checkpoints"),
        "label_fraction": label_fraction,
    }
    fn_args = FnArgs(
        train_files=examples.files(features.TRAIN_SPLIT),
        eval_files=examples.files(examples.validation_split),
        transform_graph_path=examples.transform_dir,
        serving_model_dir=str(folder / "model"),
        model_run_dir=str(folder / "model_run"),
        base_model=base_model,
        custom_config=custom_config,
    )
    finished = folder / "finished"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "training.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a benchmark beside this one that needs the same model waits for it
        if not finished.exists():
            keras.utils.clear_session()
            run_fn(fn_args)
            finished.touch()
    with history.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in epoch.items()} for epoch in csv.DictReader(file)]


def is_recipe(values: Mapping[str, Any], hyperparameters: Hyperparameters) -> bool:
    """Whether a row's recipe is this one; new fields are off by default."""
    return recipe_of(values) == recipe_of(hyperparameters.to_dict())


def recipe_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's recipe with every field that recipes have now: one that it lacks has its default.

    So has `steps_per_execution`, which does not change what is learned.

    Args:
        values: the row's. With a field that recipes have no more, they are no recipe of now and stay what they are.
    """
    known = Hyperparameters().to_dict()
    if not values.keys() <= known.keys():
        return dict(values)
    return {**known, **values, "steps_per_execution": known["steps_per_execution"]}


def load_classifier(model_dir: Path) -> Callable[[Any], np.ndarray]:
    """An exported model as a function, by the signature that is served.

    Args:
        model_dir: of the SavedModel.

    Returns:
        From encoded image files, string [n], to the most probable class of each, int64 [n].
    """
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(str(model_dir))

    def classify(images: Any) -> np.ndarray:
        batches = tf.data.Dataset.from_tensor_slices(images).batch(TEST_BATCH_SIZE)
        # The signature is looked up here: it does not keep the variables that it reads alive, its model does.
        serve = model.signatures["serving_default"]
        return np.concatenate([serve(image_bytes=batch)["class_id"].numpy() for batch in batches])

    return classify


def accuracy(model_dir: Path, examples: LabeledImages) -> float:
    """Share of images that an exported model classifies rightly, by the signature that is served.

    Args:
        model_dir: of the SavedModel.
        examples: any number of images with their labels.
    """
    return float((load_classifier(model_dir)(examples.images) == examples.labels.numpy()).mean())


def circumstances() -> dict[str, Any]:
    """What a row of results says about where and when it was measured: machine, threads, versions and date."""
    return {
        "machine": machine.describe() | {"gpus": _gpus()},
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or len(os.sched_getaffinity(0)),
        "versions": machine.versions(PACKAGES),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _gpus() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]


def _run_to_transform(settings: Settings, data: str) -> Examples:
    """Runs the real components in a folder of their own."""
    from tfx.orchestration import metadata
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.pipeline import RunOptions

    from components.model_report import lineage
    from pipeline import console
    from pipeline.pipeline import create_pipeline

    print(f"Making examples of {data} …", flush=True)
    with console.frameworks_to(settings.log_dir / "examples.log"):
        pipeline = create_pipeline(settings, data)
        pipeline.metadata_connection_config = metadata.sqlite_metadata_connection_config(str(settings.metadata_path))
        LocalDagRunner().run(pipeline, run_options=RunOptions(to_nodes=["Transform"]))
    executions = lineage.last_run(lineage.open_store(lineage.sqlite_connection(settings.metadata_path))).executions
    return Examples(
        data=Path(data).name,
        examples_dir=executions["Cifar10ExampleGen"].outputs["examples"].uri,
        transform_dir=executions["Transform"].outputs["transform_graph"].uri,
        validation_split=settings.validation_split,
    )
