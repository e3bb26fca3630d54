"""Compiles the pipeline for Kubeflow, and runs it there: `python -m pipeline.kubeflow_runner --help`.

`python -m pipeline.tfx_cli pipeline create --engine kubeflow` starts this file by its path, without arguments: there
the settings come from `ALEXNET_<FIELD>` environment variables (pipeline/settings.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started by its path, Python looks for modules in this folder, where `pipeline` would be pipeline.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


def main() -> int:
    """Compile, and submit where that is asked for; return the exit status."""
    from pipeline import settings

    parser = argparse.ArgumentParser(
        prog="python -m pipeline.kubeflow_runner",
        description="Compile the pipeline for Kubeflow Pipelines v2 and, with --submit, run it there.",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="Specification to write: outputs/PROFILE/kubeflow.yaml."
    )
    parser.add_argument("--submit", action="store_true", help="Upload and start it, and follow the run to its end.")
    chosen = settings.parse_command_line(parser=parser)
    flags = parser.parse_args()

    from pipeline import kubeflow_run  # here: it takes seconds, and --help should not

    return kubeflow_run.run(chosen, flags.output or chosen.profile_dir / "kubeflow.yaml", submit=flags.submit)


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
