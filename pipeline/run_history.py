"""Lists past runs of all profiles: `make runs`, or `python -m pipeline.run_history --help`.

Everything comes from ML Metadata: it takes a second, however many images and models the runs have made.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.metadata_store import ServerError

if TYPE_CHECKING:
    from pipeline.runs import Summary


COLUMNS = {
    "started": "left",
    "profile": "left",
    "run": "right",
    "data": "left",
    "images": "right",
    "accuracy": "right",
    "verdict": "wrap",
    "version": "right",
    "cached": "right",
    "seconds": "right",
}
"""Form of each column, see `terminal.table`."""

WIDE = 140
"""Columns of a terminal that has room for all of the table's; on a narrower one the data go below the verdict."""

WIDE_COLUMNS = tuple(COLUMNS)
NARROW_COLUMNS = tuple(name for name in COLUMNS if name not in ("data", "images", "cached"))


def main() -> int:
    """Print the list; return the exit status."""
    parser = terminal.argument_parser("pipeline.run_history", "List the pipeline's runs, the last one at the end.")
    parser.add_argument("--profile", help="Only this profile's runs; of all profiles without it.")
    parser.add_argument("--last", type=int, metavar="N", help="Only the last N runs.")
    arguments = parser.parse_args()
    return terminal.run_command(lambda: _list(arguments))


def _list(arguments: argparse.Namespace) -> None:
    """Print the runs of the profiles that can be read.

    Raises:
        NotFoundError: there is no run, or none of the profile asked for.
        ServerError: the runs of some profiles, after all others, cannot be read.
    """
    from pipeline import runs  # here: it takes half a second, and --help should not

    found: list[Summary] = []
    unread: list[str] = []
    for profile in [arguments.profile] if arguments.profile else runs.profiles(arguments.output_dir):
        try:
            found += runs.summaries(arguments.output_dir, profile)
        except ServerError as error:
            unread.append(f"Profile {profile}: {error}")
    found.sort(key=lambda summary: summary.started_s)
    if arguments.last is not None:
        found = found[-arguments.last :] if arguments.last > 0 else []
    if arguments.json:
        terminal.print_json([{"started": s.started.isoformat(), **dataclasses.asdict(s)} for s in found])
    elif found or not unread:
        _print_table(found)
    if unread:
        raise ServerError("\n".join(unread))


def _print_table(found: Sequence[Summary]) -> None:
    console = terminal.console()
    wide = console.width >= WIDE
    names = WIDE_COLUMNS if wide else NARROW_COLUMNS
    table = terminal.table({name: COLUMNS[name] for name in names})
    for summary in found:
        cells = _cells(summary)
        if not wide:
            cells["verdict"] += f"\n[dim]{cells['data']}[/dim]"
        table.add_row(*(cells[name] for name in names))
    console.print(table)


def _cells(summary: Summary) -> dict[str, str]:
    """What a run shows, by column."""
    from pipeline.runs import BLESSED

    verdict = summary.verdict
    colour = "green" if verdict.startswith(BLESSED) else "blue" if verdict.startswith("under way") else "red"
    all_cached = summary.cached == summary.components
    return {
        "started": summary.started.strftime("%Y-%m-%d %H:%M"),
        "profile": summary.profile,
        "run": str(summary.run),
        "data": summary.data or "–",
        "images": f"{summary.num_examples:,}" if summary.num_examples else "–",
        "accuracy": terminal.number(summary.accuracy),
        "verdict": f"[{colour}]{verdict}[/{colour}]",
        "version": summary.version or "–",
        "cached": "all" if all_cached else f"{summary.cached} of {summary.components}",
        "seconds": f"{summary.seconds:.1f}",
    }


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare(only_prints=True)
    sys.exit(main())
