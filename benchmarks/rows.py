"""Rows of results in a JSON file that several processes add to, each row once, whatever is interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def read(file: Path) -> list[dict[str, Any]]:
    """All rows, the oldest first; none where there is no file.

    Raises:
        ValueError: the file is not a JSON list of objects; names it.
    """
    if not file.exists():
        return []
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON ({error}); restore it, or remove it to measure anew.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} does not hold a list of rows; restore it, or remove it to measure anew.")
    return rows


def find(file: Path, key: Row) -> dict[str, Any] | None:
    """The row that has all of the key's values; None where there is none."""
    return next((row for row in read(file) if _has(row, key)), None)


def put(file: Path, key: Row, row: Row) -> None:
    """Adds a row, in the place of the one that has the key's values where there is one.

    Another process may do the same at the same time. Whenever this one is killed, the file is whole.

    Args:
        file: its folder is made when absent.
        key: values that tell the row from all others; the row gets them too.
        row: values that JSON can hold.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_name(f".{file.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [other for other in read(file) if not _has(other, key)]
        unfinished = file.with_name(f".{file.name}.unfinished")
        unfinished.write_text(json.dumps([*kept, {**key, **row}], indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, file)


def newest_series(found: Sequence[Row], group: Sequence[str]) -> list[Row]:
    """Leaves out rounds of an earlier measurement that a later one, of fewer rounds, has left in the file.

    Args:
        found: rows, the oldest first. Those of one measurement have the same `series`.
        group: fields that tell apart what the rounds are of.
    """
    series = {tuple(row.get(name) for name in group): row.get("series") for row in found}  # the last one's stays
    return [row for row in found if row.get("series") == series[tuple(row.get(name) for name in group)]]


def write_table(
    file: Path,
    markdown: Callable[[Sequence[Row]], str],
    draw: Callable[[Sequence[Row], Path], None] | None = None,
) -> int:
    """Writes a command's table beside its rows, and prints it.

    Args:
        file: the rows; the table's file has the suffix .md.
        markdown: makes the table from the rows.
        draw: makes the chart from the rows and its file, which has the suffix .png; None where there is none.

    Returns:
        The command's exit status: 0, or 1 where there is no row to make a table of.
    """
    found = read(file)
    if not found:
        print(f"There is no row in {file}: measure first, without --table.", file=sys.stderr)
        return 1
    if draw:
        draw(found, file.with_suffix(".png"))
    table = markdown(found)
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def _has(row: Row, key: Row) -> bool:
    return all(name in row and row[name] == value for name, value in key.items())
