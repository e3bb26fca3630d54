"""Writes what was measured into both README.md files: `python -m benchmarks.readme`.

    python -m benchmarks.readme             writes the parts between the markers anew, from benchmarks/results/*.json
    python -m benchmarks.readme --check     changes nothing; fails where a part is not what the files give

A part begins with `<!-- begin <name> -->` and ends with `<!-- end <name> -->`; what is outside of all of them is
written by hand and has no measured number in it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

README = Path(__file__).parent / "README.md"
PROJECT_README = Path(__file__).parent.parent / "README.md"
RESULTS_DIR = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Part:
    """One benchmark in the page.

    Attributes:
        name: of the part, and of its JSON file where `file` names no other.
        module: in this package; its `markdown` makes a page of the file's content.
        charts: pictures in the results folder, by what they show.
        file: name of the JSON file, without its ending.
        beside: the same of another one, whose content `markdown` gets too where there is one.
    """

    name: str
    module: str
    charts: tuple[tuple[str, str], ...] = ()
    file: str = ""
    beside: str = ""

    def render(self, results_dir: Path) -> str:
        """The page of the file, with the charts that there are; empty where nothing was measured."""
        file = results_dir / f"{self.file or self.name}.json"
        if not file.exists():
            return "Not measured yet.\n"
        files = [file, *results_dir.glob(f"{self.beside}.json")]
        contents: list[Any] = [json.loads(each.read_text(encoding="utf-8")) for each in files]
        page: str = importlib.import_module(f"benchmarks.{self.module}").markdown(*contents)
        pictures = [f"![{shows}](results/{name})" for name, shows in self.charts if (results_dir / name).exists()]
        return "\n\n".join([*pictures, _as_part(page)])


PARTS = {
    part.name: part
    for part in (
        Part("first_run", "first_run"),
        Part("training_rate", "training_rate_table", (("training_rate.png", "Images a second"),)),
        Part("time_to_accuracy", "time_to_accuracy_table", (("time_to_accuracy.png", "Accuracy over time"),)),
        Part("stages", "stages_table", (("stages.png", "Seconds by component"),)),
        Part("flink", "flink"),
        Part("serving", "serving_table", (("serving.png", "Latency and throughput"),)),
        Part(
            "accuracy",
            "accuracy_table",
            (
                ("accuracy_epochs.png", "Accuracy by epoch"),
                ("accuracy_seed.png", "The seed profile and the notebook's own script, by epoch"),
                ("accuracy_ablation.png", "What each convolution is worth"),
            ),
        ),
        Part("pretraining", "pretraining_table", (("pretraining.png", "Accuracy by number of labels"),)),
    )
}
"""By name, in the benchmarks' page."""

PROJECT_PARTS = {"results": Part("results", "results_table", file="accuracy", beside="time_to_accuracy")}
"""The same in the project's page."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or 1 where --check has found a difference.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme", description="Write what was measured into both README.md files."
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a part is out of date")
    options = parser.parse_args(arguments)
    outdated = []
    for page, parts in ((README, PARTS), (PROJECT_README, PROJECT_PARTS)):
        text = page.read_text(encoding="utf-8")
        rendered = render(text, RESULTS_DIR, parts)
        if rendered != text:
            outdated.append(page)
        if not options.check:
            page.write_text(rendered, encoding="utf-8")
    if options.check and outdated:
        files = ", ".join(map(str, outdated))
        print(f"{files}: not what {RESULTS_DIR} gives; run `python -m benchmarks.readme`.", file=sys.stderr)
        return 1
    return 0


def render(text: str, results_dir: Path, parts: Mapping[str, Part] = PARTS) -> str:
    """Replaces the parts of a page.

    Args:
        text: the page, with each of the parts between its markers, once.
        results_dir: has the JSON files and the pictures.
        parts: by name.

    Raises:
        ValueError: a part's markers are not there; says which.
    """
    for name, part in parts.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
        if not (text.count(begin) == text.count(end) == 1 and text.index(begin) < text.index(end)):
            raise ValueError(f"The page has to have {begin.strip()} and, below it, {end.strip()}, each once.")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}{part.render(results_dir)}{end}{after}"
    return text


def _as_part(page: str) -> str:
    """A page without its title, its headings two levels lower."""
    without_title = re.sub(r"\A# .*\n+", "", page)
    return re.sub(r"^(#+) ", r"##\1 ", without_title, flags=re.MULTILINE)


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
