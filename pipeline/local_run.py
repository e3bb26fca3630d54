"""One run on this machine, from the settings to the verdict."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import console, folder_lock
from pipeline.settings import BUNDLED_SAMPLE, OFFICIAL, SAMPLE, Settings
from serving.file_names import printable

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


def run(settings: Settings, change: Callable[[Pipeline], None] | None = None) -> int:
    """Run the whole pipeline and print what came of it.

    Args:
      settings: What to run.
      change: Changes the pipeline before it runs; benchmarks take the training out here.

    Returns:
      0 when the run went through, whether its model was blessed or not; 1 when it failed, which leaves everything
      that was pushed before as it was, and says why.
    """
    started = time.monotonic()
    log_file = settings.log_dir / time.strftime("%Y%m%d-%H%M%S.log")
    try:
        with folder_lock.exclusive(settings.profile_dir):
            data = locate_data(settings.data)  # a download shows its progress on standard error
            print(describe(settings, data), flush=True)
            with console.frameworks_to(None if settings.verbose else log_file):
                _run_pipeline(settings, data, started, change)
    except KeyboardInterrupt:
        print(f"\nInterrupted. The same command goes on from the last finished epoch.{_see(log_file)}")
        return 130
    except Exception as error:
        print(f"\nThe run failed{console.failed_component(error)}: {console.root_message(error)}")
        print(f"What was pushed before is untouched; the same command runs again.{_see(log_file)}")
        return 1
    return 0


def _run_pipeline(settings: Settings, data: str, started: float, change: Callable[[Pipeline], None] | None) -> None:
    """Build the pipeline, run it with LocalDagRunner, a line a component, and say what came of it."""
    from pipeline import metadata_store, removed_artifacts, report
    from pipeline.named_runner import NamedRunner
    from pipeline.pipeline import create_pipeline

    connection = metadata_store.connection(settings)
    metadata_store.prepare(settings, connection)
    removed_artifacts.forget(settings, connection)
    runner = NamedRunner(metadata_store.own_pipeline(settings))
    pipeline = create_pipeline(settings, data, metadata_connection=connection)
    if change is not None:
        change(pipeline)

    def line(component: str) -> str:
        return report.component_line(settings, component, runner.run_name)

    with metadata_store.password_hidden(connection), console.component_lines(line) as finished:
        runner.run(pipeline)
    if finished:  # `tfx pipeline create` goes through here too, with a runner that runs nothing
        print(console.colored(report.last_lines(settings, time.monotonic() - started, runner.run_name)))


def _see(log_file: Path) -> str:
    """Where the frameworks' messages are, where there are any."""
    return f" Log: {log_file}" if log_file.exists() else ""


def locate_data(data: str) -> str:
    """Return the absolute path of the images, downloading the official archive where that is asked for.

    Raises:
      FileNotFoundError: There is nothing at the path given.
    """
    if data == SAMPLE:
        return str(BUNDLED_SAMPLE)
    if data == OFFICIAL:
        from components.cifar10_example_gen.download import fetch_official_archive

        return str(fetch_official_archive())
    if "://" in data:
        return data
    path = Path(data).expanduser().absolute()
    if not path.exists():
        raise FileNotFoundError(
            f"data='{printable(data)}': there is nothing at {printable(str(path))}. Give the path of a CIFAR-10 archive"
            f" or folder, {SAMPLE!r} or {OFFICIAL!r}"
        )
    return str(path)


def describe(settings: Settings, data: str) -> str:
    """Say in two lines what is going to run."""
    return (
        f"Pipeline {settings.pipeline_name} on {printable(data)}\n"
        f"Python {platform.python_version()}, TFX {version('tfx')}, TensorFlow {version('tensorflow')},"
        f" Keras {version('keras')}, {os.cpu_count()} CPU cores"
    )
