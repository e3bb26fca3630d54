"""The pre-training benchmark's rows as Markdown, and what they come to by group."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import markdown as markdown_page
from benchmarks.accuracy_table import spread
from benchmarks.experiments import recipe_of
from benchmarks.rows import Row

ARM_NAMES = {
    "scratch": "from scratch",
    "pretrained": "pre-trained, then trained",
    "longer": "from scratch, as many images as both",
}
"""What an arm is called in tables and charts."""

HEADER = (
    "labels",
    "",
    "n",
    "test accuracy, %",
    "gain over scratch",
    "passes of pre-training",
    "steps on labels",
)

Groups = dict[tuple[float, str], list[Row]]
"""Rows by label fraction and arm, which differ by their seed only."""


def markdown(rows: Sequence[Row]) -> str:
    """A table of the newest experiment's rows, mean ± standard deviation over the seeds, and how it was measured.

    Args:
        rows: content of pretraining.json, the oldest first; not empty.
    """
    found = groups(rows)
    newest = rows[-1]
    machine, data = newest["machine"], newest["data"]
    versions = ", ".join(f"{name} {version}" for name, version in newest["versions"].items())
    hardware = ", ".join([machine["processor"], f"{machine['cores']} cores", *machine.get("gpus", [])])
    lines = [
        *markdown_page.table(HEADER, [_line(found, fraction, arm) for fraction, arm in found]),
        "",
        f"Measured by commands like `{newest['command']}`, {newest['date'][:10]}, {hardware}, {newest['threads']} "
        f"threads; {versions}. Data: {data['name']}, {data['train']:,} training images, {data['test']:,} test images, "
        f"SHA-256 {data['digest'][:12]}. Accuracy is that of the exported model of the last epoch, mean ± "
        "standard deviation over n seeds; a seed chooses the labels too. Gain: of the means, in percentage points. A "
        "pass of pre-training shows each image four times.",
    ]
    return "\n".join(lines) + "\n"


def groups(rows: Sequence[Row]) -> Groups:
    """Rows of the newest experiment, in order of fraction and arm, the seeds together.

    Left out are rows of other data, epochs or recipes than the newest row's, and of more or less pre-training than the
    newest row that has any.
    """
    pretraining_epochs = next((row["pretraining_epochs"] for row in reversed(rows) if row["pretraining_epochs"]), 0)
    newest = _experiment(rows[-1])
    found: Groups = {}
    for row in rows:
        if _experiment(row) == newest and row["pretraining_epochs"] in (0, pretraining_epochs):
            found.setdefault((row["label_fraction"], row["arm"]), []).append(row)
    order = list(ARM_NAMES)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], order.index(item[0][1]))))


def _experiment(row: Row) -> tuple[Any, ...]:
    """What the rows of one experiment have in common, whatever their arm and seed."""
    recipe = {name: value for name, value in recipe_of(row["training"]).items() if name not in ("seed", "epochs")}
    return row["data"]["digest"], row["epochs"], tuple(sorted(recipe.items()))


def _line(found: Groups, fraction: float, arm: str) -> list[object]:
    """A group's line of the table."""
    members = found[fraction, arm]
    accuracy = spread([row["test_accuracy"] for row in members])
    scratch = [row["test_accuracy"] for row in found.get((fraction, "scratch"), [])]
    gain = f"{100 * (accuracy.mean - statistics.mean(scratch)):+.1f}" if scratch and arm != "scratch" else ""
    return [
        f"{members[0]['labels']:,} ({fraction:.0%})",
        ARM_NAMES[arm],
        len(members),
        accuracy.percent(),
        gain,
        members[0]["pretraining_epochs"] if members[0]["pretraining"] else 0,
        f"{members[0]['steps']:,}",
    ]
