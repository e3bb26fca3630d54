"""What pre-training without labels is worth, by number of labels: `python -m benchmarks.pretraining`.

    python -m benchmarks.pretraining --data cifar-10.zip --seeds 0,1,2
    python -m benchmarks.pretraining --data cifar-10.zip --fractions 0.01 --arms pretrained,scratch
    python -m benchmarks.pretraining --table                     only writes table and chart again, from the last rows

Trains with 1 %, 10 % and 100 % of the training labels, the same of each class, in up to three ways:

* `scratch`: from random weights, for --epochs;
* `pretrained`: from convolutions that have learned to tell rotations of all training images (models/pretraining.py),
  for as many epochs: the same number of steps on labels, whatever the part of them that is used;
* `longer`: from random weights, for as many steps as pre-training and training take together (a pass of pre-training
  shows each image four times): what the same time buys without pre-training.

Each row is added to benchmarks/results/pretraining.json when it is done and is not measured again; an interrupted
training goes on at its last whole epoch; two processes may work on other seeds at once. All rows export the weights of
the last epoch: choosing an epoch by 5,000 validation labels would be using more labels than the smallest part has. The
test split is read once a row.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import experiments, pretraining_chart, pretraining_table, rows
from benchmarks.experiments import Examples
from models import features
from models.hyperparameters import Hyperparameters
from pipeline.settings import OFFICIAL, Settings, make_settings

RESULTS_FILE = "pretraining.json"
SCRATCH, PRETRAINED, LONGER = "scratch", "pretrained", "longer"
ARMS = (SCRATCH, PRETRAINED, LONGER)
FRACTIONS = (0.01, 0.1, 1.0)
PASS_IN_EPOCHS = 4
"""Epochs of training that see as many images as one of pre-training does: each image in four rotations."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where there is no row to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretraining", description="Measure what pre-training is worth, by number of labels."
    )
    parser.add_argument("--data", default=OFFICIAL, help="archive or folder; CIFAR-10, downloaded once, where absent")
    parser.add_argument("--profile", default="pretrained", help="whose recipe: %(default)s")
    parser.add_argument("--epochs", type=int, help="of training; the profile's where absent")
    parser.add_argument("--pretraining-epochs", type=int, help="passes of pre-training; the profile's where absent")
    parser.add_argument("--fractions", type=_list_of(float), default=FRACTIONS, help="of the labels: 0.01,0.1,1")
    parser.add_argument("--arms", type=_list_of(str), default=(SCRATCH, PRETRAINED), help="scratch,pretrained[,longer]")
    parser.add_argument("--seeds", type=_list_of(int), default=(0,), help="of weights, order and choice of labels: 0")
    parser.add_argument("--work-dir", type=Path, default=experiments.WORK_DIR, help="examples, models: %(default)s")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write table and chart, from the rows there are")
    options = parser.parse_args(arguments)
    file: Path = options.output_dir / RESULTS_FILE
    if unknown := sorted(set(options.arms) - set(ARMS)):
        parser.error(f"--arms has {', '.join(unknown)}; there are {', '.join(ARMS)}")
    if not options.table:
        changes = {"data": options.data, "epochs": options.epochs, "pretraining_epochs": options.pretraining_epochs}
        try:
            stated = {name: value for name, value in changes.items() if value is not None}
            settings = make_settings(options.profile, stated)
            for fraction in options.fractions:
                dataclasses.replace(settings, label_fraction=fraction)  # says what is wrong with it
        except ValueError as error:
            parser.error(str(error))
        if not settings.pretraining_epochs:
            parser.error(f"the profile {options.profile} has no pre-training: give --pretraining-epochs")
        measure(settings, options.fractions, options.arms, options.seeds, options.work_dir, file)
    return rows.write_table(file, pretraining_table.markdown, pretraining_chart.draw)


def measure(
    settings: Settings,
    fractions: Sequence[float],
    arms: Sequence[str],
    seeds: Sequence[int],
    work_dir: Path,
    file: Path,
) -> None:
    """Adds the rows that are not there yet.

    Args:
        settings: uses `data`, `validation_fraction`, `pretraining_epochs` and `training`.
        fractions: parts of the labels, each in (0, 1].
        arms: of ARMS.
        seeds: a row each, of every fraction and arm.
        work_dir: keeps examples, checkpoints and models.
        file: the rows.
    """
    examples = experiments.make_examples(settings, work_dir)
    data = examples.describe()
    for seed in seeds:
        recipe = dataclasses.replace(settings.training, seed=seed, export_weights="last")
        seeded = dataclasses.replace(settings, training=recipe)
        for fraction in fractions:
            for arm in arms:
                case = Case.of(arm, fraction, seeded)
                if any(case.is_row(row) and row["data"] == data for row in rows.read(file)):
                    print(f"There is a row already: {case}.", flush=True)
                    continue
                print(f"\n{case}:", flush=True)
                row = {"data": data, **measure_case(case, examples, data["digest"], work_dir / "pretraining")}
                about = {"profile": settings.profile, "command": case.command(settings.profile, data["name"])}
                rows.put(file, {**case.key(), "data": data}, {**row, **about, **experiments.circumstances()})
                print(f"{case}: test accuracy {row['test_accuracy']:.4f}", flush=True)


@dataclass(frozen=True)
class Case:
    """One training to measure.

    Attributes:
        arm: of ARMS.
        label_fraction: part of the training labels, in (0, 1].
        epochs: of training; `longer` has more.
        pretraining_epochs: of the comparison that the case belongs to; 0 from scratch, which has no part in it.
        training: the recipe.
        pretraining: that of the pre-training, in the arm that has one.
    """

    arm: str
    label_fraction: float
    epochs: int
    pretraining_epochs: int
    training: Hyperparameters
    pretraining: Hyperparameters | None

    @classmethod
    def of(cls, arm: str, label_fraction: float, settings: Settings) -> Case:
        """An arm of settings that have pre-training."""
        pretraining_epochs = 0 if arm == SCRATCH else settings.pretraining_epochs
        epochs = settings.training.epochs
        longer = epochs + (PASS_IN_EPOCHS * pretraining_epochs if arm == LONGER else 0)
        training = dataclasses.replace(settings.training, epochs=longer)
        pretraining = settings.pretraining if arm == PRETRAINED else None
        return cls(arm, label_fraction, epochs, pretraining_epochs, training, pretraining)

    def key(self) -> dict[str, Any]:
        """What tells its row from others, besides the data."""
        return dataclasses.asdict(self)

    def is_row(self, row: rows.Row) -> bool:
        """Whether a row is of this case."""
        pretraining = row["pretraining"]
        return (
            all(row[name] == getattr(self, name) for name in ("arm", "label_fraction", "epochs", "pretraining_epochs"))
            and experiments.is_recipe(row["training"], self.training)
            and (not self.pretraining or experiments.is_recipe(pretraining, self.pretraining))
        )

    def command(self, profile: str, data: str) -> str:
        """The command line that measures it."""
        passes = f" --pretraining-epochs {self.pretraining_epochs}" if self.pretraining_epochs else ""
        return (
            f"python -m benchmarks.pretraining --data {data} --profile {profile} --epochs {self.epochs}{passes} "
            f"--fractions {self.label_fraction:g} --arms {self.arm} --seeds {self.training.seed}"
        )

    def __str__(self) -> str:
        return f"{self.arm}, {self.label_fraction:.0%} of the labels, seed {self.training.seed}"


def measure_case(case: Case, examples: Examples, data_digest: str, work_dir: Path) -> dict[str, Any]:
    """Pre-trains where the arm does (once for all its fractions), trains, and evaluates on the test split.

    Args:
        case: what to measure.
        examples: from `experiments.make_examples`.
        data_digest: of them.
        work_dir: keeps checkpoints and models, a folder each.

    Returns:
        `test_accuracy` and `val_accuracy` in [0, 1]; `labels`, the number of labelled images used; `steps` on them;
        `seconds` of training and `pretraining_seconds`, the epochs' sums of time on the clock, pauses included;
        `history` and `pretraining_history`, a dictionary an epoch.
    """
    from models import label_subset, pretraining, training
    from models.fitting import count_steps

    before: list[dict[str, float]] = []
    base_model = None
    if case.pretraining:
        folder = work_dir / _digest([case.pretraining.to_dict(), data_digest])
        before = experiments.train(pretraining.run_fn, examples, folder, case.pretraining)
        base_model = str(folder / "model")
    folder = work_dir / _digest([case.key(), data_digest])
    fraction = case.label_fraction
    history = experiments.train(
        training.run_fn, examples, folder, case.training, base_model=base_model, label_fraction=fraction
    )
    train = examples.read(features.TRAIN_SPLIT)
    return {
        "test_accuracy": experiments.accuracy(folder / "model", examples.read(features.TEST_SPLIT)),
        "val_accuracy": history[-1]["val_accuracy"],
        "labels": len(label_subset.choose(train, fraction, case.training.seed)),
        "steps": case.training.epochs * count_steps(case.training, len(train)),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
        "pretraining_seconds": round(sum(epoch["seconds"] for epoch in before), 1),
        "history": history,
        "pretraining_history": before,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Parses `a,b,c`."""

    def parse(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of {kind.__name__}s, as in a,b,c") from None

    return parse


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
