"""The pieces that the benchmarks' pages are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def verdict(reached: bool) -> str:
    """Of an aim."""
    return "reached" if reached else "**missed**"


def origin(figures: Mapping[str, Any]) -> str:
    """Where and when something was measured, as a sentence.

    Args:
        figures: has what `experiments.circumstances` returns.
    """
    machine = figures["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    hardware = [machine["processor"], f"{machine['cores']} cores", *machine.get("gpus", [])]
    return (
        f"{figures['date'][:10]}, {', '.join(hardware)}, {machine['memory_gib']} GiB, load average "
        f"{machine['load_average_1min']} before it began (what else the machine was doing); {versions}."
    )
