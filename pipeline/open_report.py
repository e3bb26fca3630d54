"""Opens the model report of a run: `make report`, or `python -m pipeline.open_report --help`.

On a machine without a display it says where the report is.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

from pipeline import terminal
from pipeline.metadata_store import NotFoundError
from pipeline.settings import DEFAULT_PROFILE, ENVIRONMENT_PREFIX


def main() -> int:
    """Open the report, or print where it is; return the exit status."""
    parser = terminal.argument_parser("pipeline.open_report", "Open the model report of a run in a browser.")
    parser.add_argument(
        "run", nargs="?", default="last", help="Number of a run, a pushed version, or last: %(default)s."
    )
    parser.add_argument(
        "--profile",
        default=os.environ.get(f"{ENVIRONMENT_PREFIX}PROFILE") or DEFAULT_PROFILE,
        help="Whose runs: %(default)s. <profile>/<run> names a run of another one.",
    )
    parser.add_argument("--no-browser", action="store_true", help="Only print where the report is.")
    arguments = parser.parse_args()
    return terminal.run_command(lambda: _open(arguments))


def find_report(output_dir: Path, profile: str, reference: str) -> Path:
    """The page of a run; for `last`, of the latest run that has one: later runs may have failed.

    Args:
        output_dir: Where all that runs write goes.
        profile: Whose runs to look in, where the reference does not say.
        reference: As `pipeline.runs.find` takes it.

    Raises:
        NotFoundError: There is no such run, or it has no report.
        FileNotFoundError: Its report has been removed.
    """
    from components.model_report.contents import REPORT_FILE  # here, and the next line: --help should not wait
    from pipeline import runs

    own_profile, _, name = reference.rpartition("/")
    profile = own_profile or profile
    if name == runs.LAST:
        candidates = list(reversed(runs.runs_of(output_dir, profile)))
    else:
        candidates = [runs.find(output_dir, profile, reference)[1]]
    for run in candidates:
        if "ModelReport" in run.executions and "report" in run.executions["ModelReport"].outputs:
            page = Path(run.executions["ModelReport"].outputs["report"].uri) / REPORT_FILE
            if not page.exists():
                raise FileNotFoundError(f"{page} is gone: run {run.id} wrote it. `make run` writes another.")
            return page
    numbers = ", ".join(str(run.id) for run in candidates) or "none"
    raise NotFoundError(f"No run of profile {profile} has a report (looked at: {numbers}). `make run` writes one.")


def has_display(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a browser could show anything."""
    return platform == "darwin" or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _open(arguments: argparse.Namespace) -> None:
    page = find_report(arguments.output_dir, arguments.profile, arguments.run)
    if arguments.json:
        terminal.print_json({"report": str(page)})
        return
    opened = not arguments.no_browser and has_display() and webbrowser.open(page.as_uri())
    print(f"{'Opened' if opened else 'The report:'} {page}")


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare(only_prints=True)
    sys.exit(main())
