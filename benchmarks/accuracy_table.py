"""The accuracy benchmark's rows as Markdown, and what they come to by recipe."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import markdown as markdown_page
from benchmarks.experiments import recipe_of
from benchmarks.rows import Row

SEED = "seed"
"""The row of the notebook's recipe."""

WHOLE_NETWORK = "cifar10"
WITHOUT = "cifar10_without_conv"
"""Begins the names of the rows that leave a convolution out; its number ends them."""

CORRUPTION_NAMES = {"gaussian_noise": "noise", "gaussian_blur": "blur", "contrast": "contrast", "jpeg": "JPEG"}


RESULT_HEADER = (
    "recipe",
    "parameters",
    "epochs",
    "n",
    "test accuracy, %",
    "on lossless images, %",
    "training, s",
    "measured by",
)


@dataclass(frozen=True)
class Spread:
    """Several seeds' values.

    Attributes:
        n: number of seeds.
        mean: of the values.
        sd: standard deviation between seeds (n - 1 in the denominator); None where n is 1.
    """

    n: int
    mean: float
    sd: float | None

    def percent(self) -> str:
        """As `80.1 ± 0.3`, in percent."""
        return f"{100 * self.mean:.1f}" + ("" if self.sd is None else f" ± {100 * self.sd:.1f}")


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more."""
    return Spread(len(values), statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


def times(members: Sequence[Row], unit_s: float, form: str) -> str:
    """What training took: of several seeds the least and the most, since they were not all measured in the same hour.

    Args:
        members: rows.
        unit_s: of the answer, in seconds.
        form: of a number, in Python's format language.
    """
    seconds = [row["seconds"] / unit_s for row in members]
    bounds = dict.fromkeys(f"{value:{form}}" for value in (min(seconds), max(seconds)))
    return " to ".join(bounds)


def newest(found: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by name, the most accurate first and the ablation last, the seeds in order.

    Of several recipes or data sets under one name, the one measured last.

    Args:
        found: content of accuracy.json, the oldest first.
    """
    groups: dict[str, list[Row]] = {}
    for row in found:
        last = next(other for other in reversed(found) if other["name"] == row["name"])
        if _experiment(row) == _experiment(last):
            groups.setdefault(row["name"], []).append(row)

    def place(name: str) -> tuple[bool, object]:
        accuracy = statistics.mean(row["test_accuracy"] for row in groups[name])
        return (True, name) if name.startswith(WITHOUT) else (False, -accuracy)

    return {name: sorted(groups[name], key=lambda row: row["seed"]) for name in sorted(groups, key=place)}


def ablation(found: Sequence[Row]) -> dict[int, Spread]:
    """Test accuracy by the convolution that was left out; 0 is the whole network.

    Only rows that differ from the whole network's in nothing else are compared. Empty where it was not measured.
    """
    groups = newest(found)
    accuracies: dict[int, Spread] = {}
    for name, members in groups.items():
        recipe = members[0]["hyperparameters"]
        if name == WHOLE_NETWORK or (
            name.startswith(WITHOUT)
            and WHOLE_NETWORK in groups
            and _experiment(members[0], without_convolution=0) == _experiment(groups[WHOLE_NETWORK][0])
        ):
            accuracies[recipe["without_convolution"]] = spread([row["test_accuracy"] for row in members])
    return dict(sorted(accuracies.items()))


def markdown(found: Sequence[Row]) -> str:
    """Tables of results, of robustness, and of what each convolution is worth where that was measured.

    Args:
        found: content of accuracy.json; not empty.
    """
    groups = newest(found)
    severities = _severities(next(iter(groups.values()))[0])
    measured = dict.fromkeys(_circumstances(row) for members in groups.values() for row in members)
    lines = [
        *markdown_page.table(RESULT_HEADER, [_result(name, members) for name, members in groups.items()]),
        "",
        "Accuracy of the exported model, mean ± standard deviation over n seeds. On lossless images: the bundled "
        "sample's test images, in brackets the same images as the data has them. Measured " + "; ".join(measured) + ".",
        "",
        *markdown_page.table(
            ("recipe", "clean", *(f"{CORRUPTION_NAMES[name]} {severity}" for name, severity in severities)),
            [_robustness(name, members, severities) for name, members in groups.items()],
        ),
        "",
        "Test accuracy on corrupted images, %; the numbers are CIFAR-10-C's severities, of 5.",
    ]
    by_layer = ablation(found)
    if len(by_layer) > 1:
        header = ("left out", "n", "test accuracy, %", "change, points")
        lines += ["", *markdown_page.table(header, [_layer(index, by_layer) for index in by_layer])]
    return "\n".join(lines) + "\n"


def _result(name: str, members: Sequence[Row]) -> list[object]:
    first = members[0]
    shifted = ""
    if first["shifted"]:
        ours, theirs = (
            spread([row["shifted"][kind] for row in members]) for kind in ("accuracy", "unshifted_accuracy")
        )
        shifted = f"{ours.percent()} ({theirs.percent()}), {first['shifted']['images']:,} images"
    return [
        f"`{name}`",
        f"{first['parameters']:,}",
        first["hyperparameters"]["epochs"],
        len(members),
        f"**{spread([row['test_accuracy'] for row in members]).percent()}**",
        shifted,
        times(members, 1, ",.0f"),
        f"`{members[-1]['command']}`",
    ]


def _robustness(name: str, members: Sequence[Row], severities: Sequence[tuple[str, str]]) -> list[object]:
    means = [statistics.mean(row["test_accuracy"] for row in members)]
    means += [statistics.mean(row["corrupted"][kind][severity] for row in members) for kind, severity in severities]
    return [f"`{name}`", *(f"{100 * mean:.1f}" for mean in means)]


def _layer(index: int, by_layer: Mapping[int, Spread]) -> list[object]:
    accuracy = by_layer[index]
    if not index:
        return ["nothing", accuracy.n, accuracy.percent(), ""]
    change = 100 * (accuracy.mean - by_layer[0].mean)
    return [f"conv{index}", accuracy.n, accuracy.percent(), f"{change:+.1f}"]


def _severities(row: Row) -> list[tuple[str, str]]:
    """Corruptions and severities that a row has, as it names them."""
    return [(name, severity) for name in CORRUPTION_NAMES for severity in row["corrupted"][name]]


def _circumstances(row: Row) -> str:
    """Data, machine, versions and day of a row."""
    machine, data = row["machine"], row["data"]
    images = f"{data['train']:,} training and {data['test']:,} test images, SHA-256 {data['digest'][:12]}"
    hardware = [machine["processor"], f"{row['threads']} of {machine['cores']} cores", *machine.get("gpus", [])]
    hardware.append(row["devices"])
    versions = [f"{name} {version}" for name, version in row["versions"].items()]
    return f"on {data['name']} ({images}), {', '.join([*hardware, *versions, row['date'][:10]])}"


def _experiment(row: Row, **changes: object) -> tuple[object, ...]:
    """What the seeds of one row of the table have in common."""
    recipe = {**recipe_of(row["hyperparameters"]), "seed": 0, **changes}
    return row["data"]["digest"], row["validation_fraction"], tuple(sorted(recipe.items()))
