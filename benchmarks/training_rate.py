"""Measures how fast training goes, and what holds it up: `python -m benchmarks.training_rate`.

    python -m benchmarks.training_rate --data cifar-10.zip      the bundled sample where no data is given
    python -m benchmarks.training_rate --table                  only table and chart, from the last figures

In each of several rounds each of these trains on as many images, in one process, so that whatever else the machine does
meets all of them: the notebook (`seed_notebook`), its `fit` with its input, at its own batch size and at ours; the
profiles `seed` and `cifar10`, `fit` on what the Trainer builds, their input included; and their training step alone,
again and again on one batch that is already on the device. The inputs are timed alone as well. The first round is not
counted: there functions are traced. Writes benchmarks/results/training_rate.json, and from it training_rate.md and
training_rate.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import experiments, speed_charts, training_rate_table
from benchmarks.spreads import spread
from models import features
from pipeline.settings import SAMPLE, make_settings

if TYPE_CHECKING:
    from models.input_pipeline import LabeledImages

RESULTS_FILE = "training_rate.json"
PROFILES = ("seed", "cifar10")

NOTEBOOK, FIT, STEP = "notebook", "fit", "step alone"
NOTEBOOK_INPUT, INPUT = "notebook's input alone", "input alone"
"""What is measured."""


@dataclass
class Contender:
    """One thing that is measured.

    Attributes:
        kind: NOTEBOOK and the like.
        profile: whose recipe trains; empty for the notebook.
        batch_size: images a step.
        run: takes all images once.
        images_per_s: of each round.
        images_per_core_s: of each round: images by processor time, of all threads together.
    """

    kind: str
    profile: str
    batch_size: int
    run: Callable[[], None] = field(repr=False)
    images_per_s: list[float] = field(default_factory=list)
    images_per_core_s: list[float] = field(default_factory=list)

    def time(self, num_images: int) -> None:
        """Runs once and notes the rates."""
        cpu_s, started_s = time.process_time(), time.perf_counter()
        self.run()
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        self.images_per_s.append(num_images / elapsed_s)
        self.images_per_core_s.append(num_images / cpu_s)

    def row(self) -> dict[str, Any]:
        """Figures for the results file; spreads over the rounds."""
        return {
            "kind": self.kind,
            "profile": self.profile,
            "batch_size": self.batch_size,
            "images_per_s": spread(self.images_per_s),
            "images_per_core_s": spread(self.images_per_core_s),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where there is no result to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_rate", description="Measure how fast training goes."
    )
    parser.add_argument("--data", default=SAMPLE, help="archive or folder; the bundled sample where absent")
    parser.add_argument("--images", type=int, default=4_096, help="training images a round: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted: %(default)s")
    parser.add_argument("--work-dir", type=Path, default=experiments.WORK_DIR, help="for examples: %(default)s")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write table and chart, from the last figures")
    options = parser.parse_args(arguments)
    largest_batch = max(batch_sizes())
    if options.rounds < 1 or options.images < largest_batch or options.images % largest_batch:
        parser.error(f"--rounds has to be at least 1, and --images a multiple of {largest_batch}")
    figures_file: Path = options.output_dir / RESULTS_FILE
    if options.table:
        if not figures_file.exists():
            print(f"There is no {figures_file}: measure first, without --table.", file=sys.stderr)
            return 1
    else:
        figures = measure(options.data, options.images, options.rounds, options.work_dir)
        options.output_dir.mkdir(parents=True, exist_ok=True)
        figures_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    figures = json.loads(figures_file.read_text(encoding="utf-8"))
    speed_charts.draw_rates(figures, figures_file.with_suffix(".png"))
    table = training_rate_table.markdown(figures)
    figures_file.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def batch_sizes() -> list[int]:
    """Of the profiles."""
    return [make_settings(profile).training.batch_size for profile in PROFILES]


def measure(data: str, num_images: int, rounds: int, work_dir: Path) -> dict[str, Any]:
    """Measures everything.

    Args:
        data: archive or folder, or what else `Settings.data` allows.
        num_images: of the training split, that each contender takes in each round.
        rounds: that are counted.
        work_dir: keeps the examples.

    Returns:
        The content of the results file.

    Raises:
        ValueError: the data has fewer training images.
    """
    circumstances = experiments.circumstances()
    name = Path(data).name  # where it lies says nothing
    examples = experiments.make_examples(make_settings(PROFILES[-1], {"data": data}), work_dir)
    train = examples.read(features.TRAIN_SPLIT)
    if len(train) < num_images:
        raise ValueError(f"{examples.data} has {len(train):,} training images; lower --images to that or less.")
    contenders = make_contenders(_first(train, num_images), examples.transform_dir)
    for round_number in range(rounds + 1):
        print(f"round {round_number} of {rounds}" if round_number else "tracing", file=sys.stderr, flush=True)
        for contender in contenders:
            if round_number:
                contender.time(num_images)
            else:
                contender.run()
    return {
        **circumstances,
        "command": f"python -m benchmarks.training_rate --data {name} --images {num_images} --rounds {rounds}",
        "data": examples.data,
        "settings": {"images": num_images, "rounds": rounds},
        "rates": [contender.row() for contender in contenders],
        "ratios": ratios(contenders),
    }


def make_contenders(train: LabeledImages, transform_dir: str) -> list[Contender]:
    """Builds what is measured.

    Args:
        train: the images, a multiple of every batch size.
        transform_dir: of the Transform graph.
    """
    import keras
    import tensorflow_transform as tft

    from benchmarks import pixels, seed_notebook
    from models import devices, fitting, input_pipeline, training

    keras.utils.set_random_seed(0)
    graph = input_pipeline.load_transform_graph(tft.TFTransformOutput(transform_dir).transform_savedmodel_dir)
    decoded, labels = pixels.decode(train)
    contenders = []

    def add(kind: str, profile: str, batch_size: int, run: Callable[[], None]) -> None:
        contenders.append(Contender(kind, profile, batch_size, run))

    def add_fit(kind: str, profile: str, model: Any, dataset: Any, batch_size: int) -> None:
        add(kind, profile, batch_size, lambda: model.fit(dataset, epochs=1, verbose=0))

    def add_input(kind: str, profile: str, dataset: Any, batch_size: int) -> None:
        add(kind, profile, batch_size, lambda: _exhaust(dataset))

    for batch_size in dict.fromkeys((seed_notebook.BATCH_SIZE, *batch_sizes())):
        dataset = seed_notebook.dataset(decoded, labels, batch_size)
        add_fit(NOTEBOOK, "", seed_notebook.build_model(), dataset, batch_size)
        add_input(NOTEBOOK_INPUT, "", dataset, batch_size)
    for profile in PROFILES:
        recipe = make_settings(profile).training
        chosen = devices.configure_devices(recipe)
        steps = fitting.count_steps(recipe, len(train))
        dataset = input_pipeline.training_dataset(
            train, graph, batch_size=recipe.batch_size, steps_per_epoch=steps, epochs=1, seed=recipe.seed
        )
        components = fitting.principal_components(recipe, train, graph)
        # A schedule of far more steps than are taken: at its end the learning rate is 0.
        endless = dataclasses.replace(recipe, epochs=1_000)
        fitted, alone = (training.compile_model(endless, chosen, steps, components)[0] for _ in range(2))
        add_fit(FIT, profile, fitted, dataset, recipe.batch_size)
        add(STEP, profile, recipe.batch_size, _step_alone(alone, next(iter(dataset)), steps))
        add_input(INPUT, profile, dataset, recipe.batch_size)
    return contenders


def ratios(contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """Rates compared round by round: a profile's `fit` with its step alone and the notebook, its input with its step.

    Returns:
        Objects with `kind`, `profile` and `batch_size` of what is compared, `of` and `of_batch_size` of what it is
        compared with, and `ratio`, a spread over the rounds.
    """
    from benchmarks import seed_notebook

    measured = {(c.kind, c.profile, c.batch_size): c for c in contenders}
    pairs = []
    for kind, profile, batch_size in measured:
        if kind == FIT:
            pairs.append(((kind, profile, batch_size), (STEP, profile, batch_size)))
            for notebooks in dict.fromkeys((seed_notebook.BATCH_SIZE, batch_size)):
                pairs.append(((kind, profile, batch_size), (NOTEBOOK, "", notebooks)))
        elif kind == INPUT:
            pairs.append(((kind, profile, batch_size), (STEP, profile, batch_size)))
    return [
        {
            "kind": one[0],
            "profile": one[1],
            "batch_size": one[2],
            "of": other[0],
            "of_batch_size": other[2],
            "ratio": spread(
                [
                    rate / base
                    for rate, base in zip(measured[one].images_per_s, measured[other].images_per_s, strict=True)
                ]
            ),
        }
        for one, other in pairs
    ]


def _first(examples: LabeledImages, count: int) -> LabeledImages:
    from models.input_pipeline import LabeledImages

    return LabeledImages(images=examples.images[:count], labels=examples.labels[:count])


def _exhaust(dataset: Any) -> None:
    for _ in dataset:
        pass


def _step_alone(model: Any, batch: Any, steps: int) -> Callable[[], None]:
    """The compiled training step, a number of times on one batch."""
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=model.jit_compile, reduce_retracing=True)

    def run() -> None:
        for _ in range(steps):
            logs = step(batch)
        float(logs["loss"])  # waits for the device

    return run


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
