"""Tables and messages of the commands that look at runs: rich on a terminal, plain text elsewhere, JSON on request."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.metadata_store import NotFoundError, ServerError
from pipeline.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 200
"""Columns of output that is no terminal: nothing is cut off or wrapped."""


def argument_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser with what all commands that print take: `--json` and `--output-dir`."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--json", action="store_true", help="Print JSON instead of text.")
    add_output_dir(parser)
    return parser


def add_output_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--output-dir`: as for a run, the environment's, else the default."""

    def folder(path: str) -> Path:  # the name is in argparse's message
        return Path(Settings(output_dir=path).output_dir).absolute()

    parser.add_argument(
        "--output-dir",
        type=folder,
        default=os.environ.get(f"{ENVIRONMENT_PREFIX}OUTPUT_DIR") or Settings().output_dir,
        help="Where the runs have written what they write: %(default)s.",
    )


def run_command(command: Callable[[], None]) -> int:
    """Run a command and return its exit status: 1, with the message and nothing else, for what it cannot find."""
    try:
        command()
    except (NotFoundError, ServerError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def console() -> Console:
    """Standard output: in colour on a terminal (not where NO_COLOR is set), without control characters elsewhere."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False)


def table(columns: Mapping[str, str], title: str = "") -> Table:
    """A table without lines between rows.

    Args:
        columns: `left`, `right`, or `wrap` (left, and broken into lines where the terminal is narrow), by heading.
        title: above it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for heading, form in columns.items():
        side: Literal["left", "right"] = "right" if form == "right" else "left"
        made.add_column(heading, justify=side, no_wrap=form != "wrap", overflow="fold")
    return made


def number(value: float | None, digits: int = 4) -> str:
    """A value as the tables show it; – for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def change(before: float, after: float, higher_is_better: bool = True) -> str:
    """A difference with its sign, in rich's markup: green for better, red for worse."""
    difference = after - before
    if math.isnan(difference):
        return "–"
    if abs(difference) < 5e-5:  # what would be shown as 0.0000
        return "0.0000"
    colour = "green" if (difference > 0) == higher_is_better else "red"
    return f"[{colour}]{difference:+.4f}[/{colour}]"


def print_json(value: Any) -> None:
    """Print a value as JSON; what is not a number becomes null, which JSON knows."""
    print(json.dumps(_finite(value), indent=1))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
