"""Runs the pipeline on this machine: `python -m pipeline.local_runner --help`, or through the `tfx` command.

`tfx pipeline create` starts this file by its path, without arguments: there the settings come from `ALEXNET_<FIELD>`
environment variables (pipeline/settings.py), and are kept for `tfx run create` (pipeline/registration.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":
    # Started by its path, Python looks for modules in this folder, where `pipeline` would be pipeline.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run the pipeline with the settings that the command line and the environment ask for; return the exit status."""
    from pipeline import registration, settings

    chosen = settings.parse_command_line(arguments, environment)
    if (asked := registration.asked_name()) not in ("", chosen.pipeline_name):
        print(
            f"`tfx run create` asks for {asked}, and what it starts makes {chosen.pipeline_name}: nothing was run. "
            f"`tfx pipeline update`, with the settings of {asked}, keeps them for its runs.",
            file=sys.stderr,
        )
        return 2
    registration.keep(chosen, environment)

    from pipeline import local_run  # here: it takes seconds, and --help should not

    return local_run.run(chosen)


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
