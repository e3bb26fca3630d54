"""What a notebook needs of the project: its settings, a run to look at, charts with a text, and quiet frameworks.

A notebook's settings come from where every entry point's do, the `ALEXNET_<FIELD>` variables: `make notebook
PROFILE=cifar10` opens the notebooks on that profile's last run. What notebooks write goes to `notebooks/` in the
output folder.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.model_report.lineage import Run
from pipeline import metadata_store, runs
from pipeline.settings import PROJECT_ROOT, Settings, make_settings, parse_command_line, settings_from_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from pandas.io.formats.style import Styler
    from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext

FALLBACK_PROFILE = "smoke"
"""What is run where there is no run to look at: a minute, and a model that is hardly trained."""

LOG_FILE = "frameworks.log"
"""In the folder `logs`."""

_DPI = 100
_SCALE = 2  # a chart has twice the pixels that it is shown with, for sharp text on today's screens


def start() -> Settings:
    """Begin a notebook: keep the frameworks' warnings and log lines out of it, and return its settings.

    Call it before TensorFlow is imported. What C++ libraries write to standard error goes to LOG_FILE, since some of it
    comes before they ask for a log level. Python's errors are shown as ever.

    Raises:
        ValueError: an `ALEXNET_` variable states no setting, or a value that is not allowed.
    """
    settings = make_settings(*settings_from_environment(os.environ))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # else scikit-learn prints a traceback where the system has no lscpu
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with open(folder(settings, "logs") / LOG_FILE, "ab") as log:
        os.dup2(log.fileno(), 2)
    return settings


def folder(settings: Settings, name: str) -> Path:
    """The folder for what a notebook writes, made when absent."""
    path = Path(settings.output_dir).absolute() / "notebooks" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def context(settings: Settings) -> InteractiveContext:
    """A TFX InteractiveContext: runs a component at a time, in this process, and writes where the settings say."""
    from apache_beam.runners.interactive import interactive_environment
    from IPython.utils.capture import capture_output
    from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext

    with capture_output():  # Beam begins by adding scripts from the internet to the notebook
        interactive_environment.current_env()
    settings.profile_dir.mkdir(parents=True, exist_ok=True)
    connection = metadata_store.connection(settings)
    metadata_store.prepare(settings, connection)
    return InteractiveContext(
        pipeline_name=metadata_store.own_pipeline(settings) or settings.pipeline_name,
        pipeline_root=str(settings.pipeline_root),
        metadata_connection_config=connection,
    )


def last_run(settings: Settings, *, pushed: bool = False) -> tuple[Settings, Run]:
    """Find a run to look at: the profile's last that went through, else one of FALLBACK_PROFILE, run now if need be.

    Args:
        settings: from `start`.
        pushed: whether its model has to have been pushed.

    Returns:
        The settings of the profile that the run is of, and the run.

    Raises:
        RuntimeError: there was no such run, and the one made now failed or pushed nothing.
    """
    found = _last_run(settings, pushed)
    if found is not None:
        return settings, found
    print(
        f"The profile {settings.profile} has no {'pushed model' if pushed else 'run'} yet: running the profile "
        f"{FALLBACK_PROFILE}. `make run` makes a better model."
    )
    return _run(FALLBACK_PROFILE, {}, pushed)


def short_run(settings: Settings, epochs: int = 1) -> Run:
    """Run a profile with a few epochs only, in a folder of its own: something to compare its last run with.

    Nothing is served from there, so its gate has no floors. Where it has run before, everything is cached.

    Args:
        settings: of the profile, as `start` or `last_run` returned them.
        epochs: of training.

    Raises:
        RuntimeError: the run failed.
    """
    changes = {
        "epochs": epochs,
        "output_dir": folder(settings, f"epochs_{epochs}"),
        "accuracy_floor": 0.0,
        "class_recall_floor": 0.0,
    }
    return _run(settings.profile, changes)[1]


def show(figure: Figure, alt: str) -> None:
    """Display a chart below the cell.

    Args:
        figure: From `components.model_report`'s charts.
        alt: What it shows, in a sentence, for those who do not see it.
    """
    from IPython.display import display

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI * _SCALE, bbox_inches="tight")
    png = file.getvalue()
    width = int.from_bytes(png[16:20], "big") // _SCALE  # of the PNG's header
    display(
        {"image/png": base64.b64encode(png).decode(), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width}},
        raw=True,
    )


def text_table(frame: DataFrame, *, index: bool = False) -> Styler:
    """A table of texts, which begin at the left; with the frame's index where `index` asks for it."""
    left = [("text-align", "left")]
    table = frame.style.set_properties(**dict(left)).set_table_styles([{"selector": "th", "props": left}])
    return table if index else table.hide(axis="index")


def _last_run(settings: Settings, pushed: bool) -> Run | None:
    settings = metadata_store.found(settings)
    if not settings.metadata_connection and not settings.metadata_path.is_file():
        return None
    for candidate in reversed(metadata_store.list_runs(settings)):
        whole = "Pusher" in candidate.executions and not candidate.failed and not candidate.unfinished
        if whole and (not pushed or runs.pushed_version(candidate)):
            return candidate
    return None


def _run(profile: str, changes: Mapping[str, object], pushed: bool = False) -> tuple[Settings, Run]:
    """Run the pipeline in a process of its own, and show its lines as they come.

    Args:
        profile: its name.
        changes: to its settings, beside those that the environment asks for.
        pushed: whether the model has to be pushed.

    Raises:
        RuntimeError: the run failed, or pushed nothing where `pushed` asks for that.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {"profile": profile, **changes}.items()]
    command = [sys.executable, "-m", "pipeline.local_runner", *flags]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
    settings = parse_command_line(flags)
    found = _last_run(settings, pushed)
    if process.returncode or found is None:
        raise RuntimeError(f"There is no run to look at in {settings.profile_dir}: the lines above say why.")
    return settings, found
