"""Measures what recipes reach, over several seeds: `python -m benchmarks.accuracy`.

    python -m benchmarks.accuracy --data cifar-10.zip --rows seed,cifar10 --seeds 3
    python -m benchmarks.accuracy --data cifar-10.zip --rows cifar10_fit --seeds 1
    python -m benchmarks.accuracy --rows smoke,sample                           on the bundled sample, always
    python -m benchmarks.accuracy --data cifar-10.zip --rows ablation           cifar10, and without each convolution
    python -m benchmarks.accuracy --data cifar-10.zip --rows cifar10 --set epochs=40 --name cifar10_40_epochs
    python -m benchmarks.accuracy --table                                       only table and charts, from the rows

A row of the table is a profile, or one with some fields changed. Each seed of it is trained by the Trainer's own code,
then the exported SavedModel is evaluated once: on the test split, on the sample's lossless test images where the data
has them re-encoded (`shifted_set`), and on the test split corrupted (`corruptions`). Where a profile exports its best
epoch, the validation split says which that is; `seed` exports its last one and has no validation split.

Each seed is added to benchmarks/results/accuracy.json when it is done, and is not measured again. The same command goes
on after an interruption: an unfinished training at its last whole epoch. Several processes may run at once, on the same
rows too; with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 each takes one core. A row that is measured with
another recipe or on other data keeps what there was; table and charts show what was measured last.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import accuracy_table, experiments, rows
from benchmarks.experiments import Examples
from models import features
from models.hyperparameters import NUM_CONVOLUTIONS, Hyperparameters
from pipeline.settings import BUNDLED_SAMPLE, OFFICIAL, SAMPLE, Settings, make_settings
from pipeline.source_digest import source_digest

if TYPE_CHECKING:
    import numpy as np

    from models.input_pipeline import LabeledImages

RESULTS_FILE = "accuracy.json"
TIMES_FILE = "time_to_accuracy.json"
"""What benchmarks/time_to_accuracy.py wrote: the notebook's own script, epoch by epoch."""
EPOCHS_CHART, SEED_CHART, ABLATION_CHART = "accuracy_epochs.png", "accuracy_seed.png", "accuracy_ablation.png"


@dataclass(frozen=True)
class Variant:
    """A row of the table: a profile with some fields changed.

    Attributes:
        name: of the row.
        profile: whose settings it starts from.
        changes: of fields of the recipe, and of `validation_fraction`.
        data: what it is always trained on; None: on what the command says.
    """

    name: str
    profile: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None

    def settings(self, data: str, seed: int) -> Settings:
        """The settings to measure.

        Raises:
            ValueError: a change is not allowed; says which.
        """
        allowed = {"validation_fraction", *(recipe_field.name for recipe_field in dataclasses.fields(Hyperparameters))}
        if unknown := sorted(set(self.changes) - allowed):
            raise ValueError(f"{', '.join(unknown)} is not part of a recipe; there are {', '.join(sorted(allowed))}.")
        return make_settings(self.profile, {"data": self.data or data, **self.changes, "seed": seed})


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("smoke", "smoke", data=SAMPLE),
        Variant("sample", "sample", data=SAMPLE),
        Variant("seed", "seed"),
        Variant("cifar10", "cifar10"),
        *(
            Variant(f"cifar10_without_conv{index}", "cifar10", {"without_convolution": index})
            for index in range(1, NUM_CONVOLUTIONS + 1)
        ),
        Variant("cifar10_fit", "cifar10_fit"),
    )
}
GROUPS = {"ablation": tuple(name for name in VARIANTS if name == "cifar10" or VARIANTS[name].changes)}
"""Several rows by one name."""


@dataclass(frozen=True)
class Evaluation:
    """What an exported model answers. All accuracies are in [0, 1].

    Attributes:
        test_accuracy: on the test split.
        shifted: None where the data has no re-encoded images of the sample; else `images`, their number, `psnr_db`
            (mean, between the two encodings), `accuracy` on the sample's lossless images and `unshifted_accuracy` on
            the data's own.
        corrupted: on the corrupted test split, by corruption and severity.
    """

    test_accuracy: float
    shifted: dict[str, float] | None
    corrupted: dict[str, dict[str, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where there is no row to make a table of.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description="Measure what recipes reach, over several seeds."
    )
    names = ", ".join((*VARIANTS, *GROUPS))
    parser.add_argument("--data", default=OFFICIAL, help="archive or folder; CIFAR-10, downloaded once, where absent")
    parser.add_argument("--rows", default="seed,cifar10", help=f"comma-separated, of {names}: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each row, from 0 on: %(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes the row's recipe")
    parser.add_argument("--name", help="of the row that --set makes")
    parser.add_argument("--work-dir", type=Path, default=experiments.WORK_DIR, help="examples, models: %(default)s")
    parser.add_argument("--output-dir", type=Path, default=experiments.RESULTS_DIR, help="where to write: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write table and charts, from the rows there are")
    options = parser.parse_args(arguments)
    file: Path = options.output_dir / RESULTS_FILE
    if not options.table:
        try:
            variants = choose_variants(options.rows, options.set, options.name)
            if options.seeds < 1:
                raise ValueError(f"--seeds is {options.seeds}; it has to be at least 1.")
            for variant in variants:
                variant.settings(options.data, 0)
        except ValueError as error:
            parser.error(str(error))
        measure(variants, options.seeds, options.data, options.work_dir, file)
    return rows.write_table(file, accuracy_table.markdown, lambda found, _: draw(found, options.output_dir))


def choose_variants(names: str, changes: Sequence[str] = (), new_name: str | None = None) -> list[Variant]:
    """The rows that a command line asks for.

    Args:
        names: of VARIANTS and GROUPS, comma-separated.
        changes: `FIELD=VALUE` each, of a single row.
        new_name: of the row that the changes make.

    Raises:
        ValueError: an unknown name, or changes that name no row of their own.
    """
    chosen: list[str] = []
    for name in names.split(","):
        if name not in VARIANTS and name not in GROUPS:
            raise ValueError(f"--rows has {name!r}; there are {', '.join((*VARIANTS, *GROUPS))}.")
        chosen += [member for member in GROUPS.get(name, (name,)) if member not in chosen]
    variants = [VARIANTS[name] for name in chosen]
    if not changes and not new_name:
        return variants
    if not changes or not new_name or len(variants) != 1 or new_name in VARIANTS:
        raise ValueError("--set and --name go together: they make a single row of --rows one of another name.")
    (base,) = variants
    for change in changes:
        if "=" not in change:
            raise ValueError(f"--set is {change!r}; it has to be FIELD=VALUE.")
    changed = {**base.changes, **dict(change.split("=", 1) for change in changes)}
    return [dataclasses.replace(base, name=new_name, changes=changed)]


def measure(variants: Sequence[Variant], seeds: int, data: str, work_dir: Path, file: Path) -> None:
    """Adds the rows that are not there yet: first all with one seed, then all with the next.

    Args:
        variants: what to measure.
        seeds: how many of each, from 0 on.
        data: as `Settings.data` has it.
        work_dir: keeps examples, checkpoints and models.
        file: the rows.
    """
    prepared: dict[tuple[str, float], tuple[Examples, dict[str, Any]]] = {}
    for seed in range(seeds):
        for variant in variants:
            settings = variant.settings(data, seed)
            fraction = settings.validation_fraction
            if (settings.data, fraction) not in prepared:
                examples = experiments.make_examples(settings, work_dir)
                prepared[settings.data, fraction] = examples, examples.describe()
            examples, description = prepared[settings.data, fraction]
            key = {"name": variant.name, "seed": seed, "data": description, "validation_fraction": fraction}
            label = f"{variant.name}, seed {seed}"
            folder = work_dir / "accuracy" / f"{variant.name}-{seed}-{_digest([key, settings.training.to_dict()])}"
            with _claimed(folder) as ours:
                if not ours:
                    print(f"Another process measures {label}.", flush=True)
                elif is_done(rows.read(file), key, settings.training):
                    print(f"There is a row already: {label}.", flush=True)
                else:
                    print(f"\n{label}:", flush=True)
                    about = _about(variant, key)  # what else the machine does, before this does anything
                    row = measure_seed(settings, examples, folder)
                    rows.put(file, key | {"hyperparameters": settings.training.to_dict()}, about | row)
                    print(f"{label}: test accuracy {row['test_accuracy']:.4f}", flush=True)


def is_done(found: Sequence[rows.Row], key: Mapping[str, Any], recipe: Hyperparameters) -> bool:
    """Whether there is a row with the key's values and this recipe."""
    return any(
        all(row.get(name) == value for name, value in key.items())
        and experiments.is_recipe(row["hyperparameters"], recipe)
        for row in found
    )


def measure_seed(settings: Settings, examples: Examples, folder: Path) -> dict[str, Any]:
    """Trains, unless that is done, and evaluates.

    Args:
        settings: the recipe.
        examples: from `experiments.make_examples`.
        folder: keeps the checkpoint and the model.

    Returns:
        The fields of Evaluation; `parameters`, the number of them; `devices` that train, and in which precision;
        `source`, a digest of the code that trains;
        `seconds` of training, the epochs' sum, and `evaluation_seconds`; `history`, a dictionary an epoch.
    """
    from models import training
    from models.alexnet import build_network
    from models.devices import configure_devices

    history = experiments.train(training.run_fn, examples, folder, settings.training)
    started = time.monotonic()
    evaluation = evaluate(experiments.load_classifier(folder / "model"), examples.read(features.TEST_SPLIT))
    return {
        **dataclasses.asdict(evaluation),
        "parameters": build_network(settings.training).count_params(),
        "devices": configure_devices(settings.training).description,
        "source": source_digest("models.training"),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
        "evaluation_seconds": round(time.monotonic() - started, 1),
        "history": history,
    }


def evaluate(classify: Callable[[Any], np.ndarray], test: LabeledImages) -> Evaluation:
    """Asks a model about the test split, its shifted version and its corrupted versions.

    Args:
        classify: from `experiments.load_classifier`.
        test: the test split.
    """
    from benchmarks import corruptions, shifted_set
    from benchmarks.pixels import decode
    from components.cifar10_example_gen.images import png_from_pixels

    pixels, labels = decode(test)
    right = classify(test.images) == labels

    def accuracy(images: np.ndarray, its_labels: np.ndarray) -> float:
        return float((classify([png_from_pixels(image) for image in images]) == its_labels).mean())

    shifted: dict[str, float] | None = None
    if found := shifted_set.find_shifted(*shifted_set.sample_test_images(BUNDLED_SAMPLE), pixels, labels):
        shifted = {
            "images": len(found),
            "psnr_db": round(found.psnr_db, 2),
            "accuracy": accuracy(found.pixels, found.labels),
            "unshifted_accuracy": float(right[found.counterparts].mean()),
        }
    corrupted = {
        name: {str(severity): accuracy(corrupt(pixels, severity), labels) for severity in corruptions.SEVERITIES}
        for name, corrupt in corruptions.CORRUPTIONS.items()
    }
    return Evaluation(float(right.mean()), shifted, corrupted)


def draw(found: Sequence[rows.Row], folder: Path) -> None:
    """Draws every chart that there are rows for.

    Args:
        found: content of accuracy.json.
        folder: gets the PNG files; the results of `time_to_accuracy` are looked for there.
    """
    from benchmarks import accuracy_chart

    accuracy_chart.draw_epochs(found, folder / EPOCHS_CHART)
    if accuracy_table.SEED in accuracy_table.newest(found):
        accuracy_chart.draw_seed(found, rows.read(folder / TIMES_FILE), folder / SEED_CHART)
    if len(accuracy_table.ablation(found)) > 1:
        accuracy_chart.draw_ablation(found, folder / ABLATION_CHART)


def _about(variant: Variant, key: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of how it was measured; the command with the data's name, wherever it lies."""
    base = next(known for known in VARIANTS.values() if known.profile == variant.profile)
    chosen = variant if VARIANTS.get(variant.name) == variant else base
    data = [] if variant.data else ["--data", key["data"]["name"]]
    arguments = [*data, "--rows", chosen.name, "--seeds", str(key["seed"] + 1)]
    if chosen is base and variant != base:
        changes = [argument for name, value in variant.changes.items() for argument in ("--set", f"{name}={value}")]
        arguments += [*changes, "--name", variant.name]
    return experiments.circumstances() | {
        "profile": variant.profile,
        "changes": dict(variant.changes),
        "command": f"python -m benchmarks.accuracy {shlex.join(arguments)}",
    }


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Holds a folder, which is made when absent, until the process ends; false where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "claimed.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
