"""The training rate's figures as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import markdown as md
from benchmarks import spreads

NOTEBOOK_BATCH_SIZE = 32

AIMS = {
    ("fit", "seed", "step alone"): 0.97,
    ("fit", "cifar10", "step alone"): 0.97,
    ("fit", "seed", "notebook"): 1.1,
    ("fit", "cifar10", "notebook"): 1.3,
    ("input alone", "seed", "step alone"): 10.0,
    ("input alone", "cifar10", "step alone"): 10.0,
}
"""The least that a ratio has to be, by kind, profile and what it is compared with (the notebook at batch 32)."""


def markdown(figures: Mapping[str, Any]) -> str:
    """The page.

    Args:
        figures: content of training_rate.json.
    """
    settings = figures["settings"]
    lines = [
        f"`{figures['command']}`: {figures['data']}, {settings['images']:,} training images, {settings['rounds']} "
        "rounds in turn in one process; median of the rounds [least to most]. A core's rate: images by processor time "
        f"of all threads. {md.origin(figures)}",
        "",
        *md.table(
            ("what", "batch", "images/s", "images/s and core"),
            [
                (
                    name(row),
                    row["batch_size"],
                    spreads.text(row["images_per_s"]),
                    spreads.text(row["images_per_core_s"]),
                )
                for row in figures["rates"]
            ],
        ),
        "",
        *md.table(
            ("ratio", "measured", "aim", ""),
            [
                (
                    f"{name(row)}, batch {row['batch_size']}, by {_of(row)}",
                    spreads.text(row["ratio"], ".2f"),
                    *_aim(row),
                )
                for row in figures["ratios"]
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def name(row: Mapping[str, Any]) -> str:
    """What a row measures, with the profile where it is one."""
    return f"{row['profile']}: {row['kind']}" if row["profile"] else str(row["kind"])


def _of(row: Mapping[str, Any]) -> str:
    own = "" if row["of"] != "notebook" else f", batch {row['of_batch_size']}"
    return f"{row['of']}{own}"


def _aim(row: Mapping[str, Any]) -> tuple[str, str]:
    """The bound, and whether the median reaches it; nothing where there is none."""
    if row["of"] == "notebook" and row["of_batch_size"] != NOTEBOOK_BATCH_SIZE:
        return "", ""
    least = AIMS[row["kind"], row["profile"], row["of"]]
    return f"at least {least:g}", md.verdict(row["ratio"]["median"] >= least)
