"""The `tfx` command with an engine `kubeflow` that works, and with output that cannot fail it, as `make run` uses it.

    python -m pipeline.tfx_cli pipeline --help

TFX's own handler for Kubeflow (tfx.tools.cli.handler.kubeflow_handler, in 1.16 and in 1.21) imports a
kubeflow_dag_runner that TFX no longer has, and calls the API of kfp 1. This puts pipeline/kubeflow_handler.py in its
place and leaves the rest of the command, and all other engines, to TFX. It can go when `tfx pipeline create --engine
kubeflow` works by itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPLACED = "tfx.tools.cli.handler.kubeflow_handler"
"""The module that TFX's handler_factory imports for `--engine kubeflow`."""


def main() -> None:
    """Run TFX's command line; it ends the process."""
    from tfx.tools.cli import cli_main

    if "local" not in sys.argv:  # it brings kfp, which takes seconds
        from pipeline import kubeflow_handler

        sys.modules[REPLACED] = kubeflow_handler
    # TFX asks the first `pip` on PATH whether kfp is installed; the user's settings may have it look elsewhere.
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        del os.environ[name]
    os.environ["PIP_CONFIG_FILE"] = os.devnull
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    cli_main.cli_group(prog_name="python -m pipeline.tfx_cli")


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    main()
