"""Times how long the notebook's best accuracy takes to reach, there and here: `python -m benchmarks.time_to_accuracy`.

    python -m benchmarks.time_to_accuracy --data cifar-10.zip                   both, an epoch each in turn
    python -m benchmarks.time_to_accuracy --data cifar-10.zip --only notebook   one of them
    python -m benchmarks.time_to_accuracy --data cifar-10.zip --only cifar10 --epochs 6
    python -m benchmarks.time_to_accuracy --table                               only table and chart, from the rows

The notebook trains on all training images and validates on the test split; its best epoch is what is to be reached. The
profile `cifar10` trains as it always does, with its share of the training images held out. For this one comparison both
are evaluated on the test split after each epoch, which chooses nothing: no weights, no recipe. Seconds are those of
training and of that evaluation together. Both run in one process, epoch by epoch in turn, so that whatever else the
machine does meets both. After each epoch the row in benchmarks/results/time_to_accuracy.json is complete up to there,
and the state is kept: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import experiments, rows, speed_charts, time_to_accuracy_table
from models import features
from pipeline.settings import OFFICIAL, PROJECT_ROOT, make_settings
from pipeline.source_digest import file_digest, source_digest

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from models import checkpoint

RESULTS_FILE = "time_to_accuracy.json"

NOTEBOOK, PROFILE = "notebook", "cifar10"
RECIPES = (NOTEBOOK, PROFILE)


@dataclass
class Course:
    """One recipe's training, an epoch at a time.

    Attributes:
        recipe: one of RECIPES.
        epochs: of the whole training.
        model: compiled.
        training_data: makes the batches of an epoch, counted from 0.
        steps: in an epoch; None where the batches say it.
        test_data: the test split's batches.
        state: of the training so far; `val_` in its history is of the test split.
        state_file: where the state is kept.
    """

    recipe: str
    epochs: int
    model: keras.Model
    training_data: Callable[[int], tf.data.Dataset]
    steps: int | None
    test_data: tf.data.Dataset
    state: checkpoint.TrainingState
    state_file: Path

    def run_epoch(self) -> None:
        """Trains the next epoch, evaluates, and keeps the state."""
        from models.callbacks import RunRecorder

        done = len(self.state.history)
        self.model.fit(
            self.training_data(done),
            initial_epoch=done,
            epochs=done + 1,
            steps_per_epoch=self.steps,
            validation_data=self.test_data,
            callbacks=[RunRecorder(self.model, self.state_file, keep_best=False, state=self.state)],
            verbose=0,
        )

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.state.history) >= self.epochs


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where there is no row to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_accuracy",
        description="Time how long the notebook's best accuracy takes to reach, there and here.",
    )
    parser.add_argument("--data", default=OFFICIAL, help="archive or folder; CIFAR-10, downloaded once, where absent")
    parser.add_argument("--only", choices=RECIPES, help="one recipe instead of both in turn")
    parser.add_argument("--epochs", type=int, help="of each recipe; its own number where absent")
    parser.add_argument("--work-dir", type=Path, default=experiments.WORK_DIR, help="examples, states: %(default)s")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write table and chart, from the rows there are")
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs is {options.epochs}; it has to be at least 1")
    file: Path = options.output_dir / RESULTS_FILE
    if not options.table:
        recipes = [options.only] if options.only else list(RECIPES)
        measure(recipes, options.epochs, options.data, options.work_dir, file)
    return rows.write_table(file, time_to_accuracy_table.markdown, speed_charts.draw_time_to_accuracy)


def measure(recipes: Sequence[str], epochs: int | None, data: str, work_dir: Path, file: Path) -> None:
    """Trains recipes, an epoch each in turn, and adds to their rows after each.

    Args:
        recipes: of RECIPES.
        epochs: of each; its own number where None.
        data: archive or folder, or what else `Settings.data` allows.
        work_dir: keeps examples and states.
        file: of the rows.
    """
    command = f"python -m benchmarks.time_to_accuracy --data {Path(data).name}"
    command += f" --only {recipes[0]}" if len(recipes) == 1 else ""
    command += f" --epochs {epochs}" if epochs else ""
    circumstances = {**experiments.circumstances(), "command": command}
    courses = []
    for recipe in recipes:
        course, about = MAKERS[recipe](epochs, data, work_dir)
        courses.append((course, {"recipe": recipe, "epochs": course.epochs, **about}))
    for _ in itertools.count():
        under_way = [(course, key) for course, key in courses if not course.finished]
        if not under_way:
            return
        for course, key in under_way:
            course.run_epoch()
            history = [dataclasses.asdict(epoch) for epoch in course.state.history]
            rows.put(file, key, {**circumstances, "history": history})
            last = course.state.history[-1]
            print(
                f"{course.recipe}: epoch {last.epoch} of {course.epochs}, {last.seconds:.1f} s, test accuracy "
                f"{last.val_accuracy:.4f}",
                flush=True,
            )


def make_notebook(epochs: int | None, data: str, work_dir: Path) -> tuple[Course, dict[str, Any]]:
    """The notebook's training, with what tells its row from others."""
    import keras

    from benchmarks import pixels, seed_notebook

    examples = experiments.make_examples(make_settings("seed", {"data": data}), work_dir)
    about = {"data": examples.describe()}
    keras.utils.set_random_seed(0)
    images, labels = pixels.decode(examples.read(features.TRAIN_SPLIT))
    training_data = seed_notebook.dataset(images, labels)
    course = _course(
        NOTEBOOK,
        epochs or seed_notebook.EPOCHS,
        seed_notebook.build_model(),
        lambda epoch: training_data,
        None,
        seed_notebook.dataset(*pixels.decode(examples.read(features.TEST_SPLIT))),
        {"source": file_digest(PROJECT_ROOT / "benchmarks" / "seed_notebook.py"), **about},
        work_dir,
    )
    return course, about


def make_profile(epochs: int | None, data: str, work_dir: Path) -> tuple[Course, dict[str, Any]]:
    """The profile's training, with what tells its row from others."""
    import keras
    import tensorflow_transform as tft

    from models import devices, fitting, input_pipeline, training

    settings = make_settings(PROFILE, {"data": data} | ({"epochs": epochs} if epochs else {}))
    recipe = settings.training
    examples = experiments.make_examples(settings, work_dir)
    about = {"data": examples.describe(), "hyperparameters": recipe.to_dict()}
    keras.utils.set_random_seed(recipe.seed)
    transform_dir = tft.TFTransformOutput(examples.transform_dir).transform_savedmodel_dir
    graph = input_pipeline.load_transform_graph(transform_dir)
    train = examples.read(features.TRAIN_SPLIT)
    steps = fitting.count_steps(recipe, len(train))
    components = fitting.principal_components(recipe, train, graph)
    model, _ = training.compile_model(recipe, devices.configure_devices(recipe), steps, components)

    def training_data(epoch: int) -> tf.data.Dataset:
        return input_pipeline.training_dataset(
            train,
            graph,
            batch_size=recipe.batch_size,
            steps_per_epoch=steps,
            epochs=epoch + 1,
            initial_epoch=epoch,
            seed=recipe.seed,
        )

    course = _course(
        PROFILE,
        recipe.epochs,
        model,
        training_data,
        steps,
        input_pipeline.evaluation_dataset(examples.read(features.TEST_SPLIT), graph, batch_size=recipe.batch_size),
        {"source": source_digest("models.training"), **about},
        work_dir,
    )
    return course, about


MAKERS = {NOTEBOOK: make_notebook, PROFILE: make_profile}


def _course(
    recipe: str,
    epochs: int,
    model: keras.Model,
    training_data: Callable[[int], tf.data.Dataset],
    steps: int | None,
    test_data: tf.data.Dataset,
    definition: dict[str, Any],
    work_dir: Path,
) -> Course:
    """A training that goes on where one of the same definition was interrupted."""
    from models import checkpoint
    from models.callbacks import run_variables

    model.optimizer.build(model.trainable_variables)
    key = checkpoint.run_key({"recipe": recipe, "epochs": epochs, **definition})
    state_file = work_dir / "time_to_accuracy" / key / checkpoint.STATE_FILE
    state = checkpoint.load(state_file) or checkpoint.TrainingState(history=[], variables=[], best_weights=[])
    if state.history:
        for variable, array in zip(run_variables(model), state.variables, strict=True):
            variable.assign(array)
        print(f"{recipe}: going on after epoch {len(state.history)} of {epochs}.", flush=True)
    return Course(recipe, epochs, model, training_data, steps, test_data, state, state_file)


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
