"""Runs the pipeline on this machine: `python -m pipeline.local_runner --help`, or through the `tfx` command.

`tfx pipeline create` and `tfx run create` start this file by its path, without arguments: there the settings come
from `ALEXNET_<FIELD>` environment variables (pipeline/settings.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Started by its path, Python looks for modules in this folder, where `pipeline` would be pipeline.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


def main() -> int:
    """Run the pipeline with the settings that the command line and the environment ask for; return the exit status."""
    from pipeline import settings

    chosen = settings.parse_command_line()

    from pipeline import local_run  # here: it takes seconds, and --help should not

    return local_run.run(chosen)


if __name__ == "__main__":
    from process import streams

    streams.prepare()
    sys.exit(main())
