"""The time to the notebook's accuracy as a page of Markdown, and what it comes to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from benchmarks import markdown as md
from benchmarks.rows import Row

NOTEBOOK = "notebook"

MAX_PART = 0.25
"""Aim: of the notebook's time."""


def seconds(row: Row) -> list[float]:
    """Until the end of each epoch, in seconds."""
    return list(itertools.accumulate(epoch["seconds"] for epoch in row["history"]))


def accuracies(row: Row) -> list[float]:
    """On the test split, after each epoch, in [0, 1]."""
    return [epoch["val_accuracy"] for epoch in row["history"]]


def reached(row: Row, accuracy: float) -> int | None:
    """The first epoch, counted from 1, that reaches an accuracy; None where none does."""
    return next((epoch for epoch, value in enumerate(accuracies(row), start=1) if value >= accuracy), None)


def notebook_of(row: Row, found: Sequence[Row]) -> Row | None:
    """What a row is compared with: the notebook's newest on the same data and machine; None where there is none."""
    notebooks = [other for other in found if other["recipe"] == NOTEBOOK and _where(other) == _where(row)]
    return notebooks[-1] if notebooks else None


def _where(row: Row) -> tuple[object, ...]:
    """Data (its parts differ by recipe: the notebook holds nothing out), processor and threads of a row."""
    machine, data = row["machine"], row["data"]
    return data["name"], data["test"], machine["processor"], machine["cores"], row["threads"]


def label(row: Row) -> str:
    """Of a recipe in table and chart."""
    done = len(row["history"])
    part = "" if done == row["epochs"] else f" (so far {done})"
    return f"{row['recipe']}, {row['epochs']} epochs{part}"


def markdown(found: Sequence[Row]) -> str:
    """The page.

    Args:
        found: content of time_to_accuracy.json; not empty.
    """
    lines = [
        *md.table(
            (
                "recipe",
                "seconds an epoch",
                "best test accuracy, %",
                "the notebook's best reached in",
                "of its time",
                "",
            ),
            [_row(row, notebook_of(row, found)) for row in found],
        ),
        "",
        "Test accuracy epoch by epoch, for this comparison only: it chose nothing. It is that of the network as it "
        "trains, without the mirror images that an export averages over. Seconds are those of training and "
        f"of that evaluation. n = 1. Aim: at most {MAX_PART:.0%} of the notebook's time.",
    ]
    for row in found:
        lines += ["", f"{label(row)}: `{row['command']}`, {row['data']['name']}, {md.origin(row)}"]
    return "\n".join(lines) + "\n"


def _row(row: Row, notebook: Row | None) -> tuple[object, ...]:
    times = seconds(row)
    cells = [label(row), f"{times[-1] / len(times):.1f}", f"{100 * max(accuracies(row)):.2f}"]
    if notebook is None:
        return (*cells, "", "", "")
    best = max(accuracies(notebook))
    epoch = reached(row, best)
    if epoch is None:
        return (*cells, "not reached", "", "" if len(times) < row["epochs"] else md.verdict(False))
    own = reached(notebook, best)
    assert own is not None  # its best is one of its own
    part = times[epoch - 1] / seconds(notebook)[own - 1]
    cells += [f"{times[epoch - 1]:,.0f} s, epoch {epoch}", f"{part:.2f}"]
    return (*cells, "" if row["recipe"] == NOTEBOOK else md.verdict(part <= MAX_PART))
