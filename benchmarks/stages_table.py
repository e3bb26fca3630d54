"""The stages' figures as a page of Markdown, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import markdown as md
from benchmarks import spreads
from benchmarks.rows import Row, newest_series

TRAINER = "Trainer"

MAX_SECONDS = 60.0
"""Aim: everything but the Trainer, for AIM_IMAGES images."""

AIM_IMAGES = 60_000
MAX_CACHED_S = 20.0
MAX_HELP_S = 1.0

Runs = dict[tuple[str, int], list[Row]]
"""Rounds by variant and number of images."""


def runs(found: Sequence[Row]) -> Runs:
    """The last measurement's runs, variants in the order of their first row, sizes ascending."""
    found = newest_series(found, ("kind", "variant", "images"))
    variants = list(dict.fromkeys(row["variant"] for row in found))
    groups: Runs = {}
    for row in found:
        if row["kind"] == "run":
            groups.setdefault((row["variant"], row["images"]), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: (variants.index(item[0][0]), item[0][1])))


def without_trainer_s(row: Row) -> float:
    """Seconds of a run's whole process, imports included, less those of the Trainer."""
    return row["seconds"] - sum(part["seconds"] for part in row["components"] if part["name"] == TRAINER)


def peak_memory_bytes(row: Row) -> int:
    """Of a run, outside the Trainer."""
    return max(part["peak_memory_bytes"] for part in row["components"] if part["name"] != TRAINER)


def markdown(found: Sequence[Row]) -> str:
    """The page: what runs come to, aims, and each component's part.

    Args:
        found: content of stages.json; not empty.
    """
    groups = runs(found)
    newest = found[-1]
    lines = [
        f"`{newest['command']}` and the like. Seconds, median of the rounds [least to most]; everything but the "
        "Trainer, which exports its initial weights here; imports included. Memory: resident, of all processes. "
        f"{md.origin(newest)}",
        "",
        *md.table(
            (
                "",
                "images",
                "n",
                "all but Trainer, s",
                "start-up, s",
                "s per 1,000 more",
                "peak MiB",
                "cached run, s",
            ),
            [_summary(groups, *key) for key in groups],
        ),
        "",
        *md.table(("aim", "", "measured", ""), _aims(found, groups)),
    ]
    for (variant, images), rounds in groups.items():
        lines += [
            "",
            f"{images:,} images, {variant}:",
            "",
            *md.table(
                ("component", "s", "processor s", "peak MiB", "written to disk MB", "left on disk MB"),
                [_component(name, rounds) for name in _names(rounds)],
            ),
        ]
    return "\n".join(lines) + "\n"


def _summary(groups: Runs, variant: str, images: int) -> tuple[object, ...]:
    rounds = groups[variant, images]
    return (
        variant,
        f"{images:,}",
        len(rounds),
        spreads.text(spreads.spread([without_trainer_s(row) for row in rounds]), ".1f"),
        _median(rounds, "start_up_s"),
        _growth(groups, variant, images),
        _mib(max(peak_memory_bytes(row) for row in rounds)),
        _median(rounds, "cached_s"),
    )


def _growth(groups: Runs, variant: str, images: int) -> str:
    """Seconds that 1,000 images more cost, against the next smaller size; empty where there is none."""
    smaller = [size for other, size in groups if other == variant and size < images]
    if not smaller:
        return ""
    here, there = (
        statistics.median(without_trainer_s(row) for row in groups[variant, size]) for size in (images, max(smaller))
    )
    return f"{(here - there) / (images - max(smaller)) * 1e3:.2f}"


def _aims(found: Sequence[Row], groups: Runs) -> list[tuple[object, ...]]:
    aims: list[tuple[object, ...]] = []
    for (variant, images), rounds in groups.items():
        if images == AIM_IMAGES:
            seconds = statistics.median(without_trainer_s(row) for row in rounds)
            aim = f"all but the Trainer, {images:,} images: at most {MAX_SECONDS:g} s"
            aims.append((aim, variant, f"{seconds:.1f} s", md.verdict(seconds <= MAX_SECONDS)))
        cached = statistics.median(row["cached_s"] for row in rounds)
        aim = f"fully cached run, {images:,} images: under {MAX_CACHED_S:g} s"
        aims.append((aim, variant, f"{cached:.1f} s", md.verdict(cached < MAX_CACHED_S)))
    for row in found:
        if row["kind"] == "help":
            aim = f"`{row['measured_command']}`: under {MAX_HELP_S:g} s"
            measured = spreads.text(row["seconds"], ".2f")
            aims.append((aim, row["variant"], f"{measured} s", md.verdict(row["seconds"]["median"] < MAX_HELP_S)))
    return aims


def _names(rounds: Sequence[Row]) -> list[str]:
    return [part["name"] for part in rounds[0]["components"]]


def _component(name: str, rounds: Sequence[Row]) -> tuple[object, ...]:
    parts = [part for row in rounds for part in row["components"] if part["name"] == name]

    def median(field: str) -> float:
        return statistics.median(part[field] for part in parts)

    label = f"{name} (no training)" if name == TRAINER else name
    return (
        label,
        f"{median('seconds'):.1f}",
        f"{median('cpu_s'):.1f}",
        _mib(max(part["peak_memory_bytes"] for part in parts)),
        f"{median('written_bytes') / 1e6:.1f}",
        f"{median('artifact_bytes') / 1e6:.1f}",
    )


def _median(rounds: Sequence[Row], field: str) -> str:
    return f"{statistics.median(row[field] for row in rounds):.1f}"


def _mib(count: Any) -> str:
    return f"{count / 2**20:,.0f}"
