"""One run on this machine, from the settings to the verdict."""

from __future__ import annotations

import logging
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
      0 when the run went through up to its push, whether its model was blessed or not: what fails after that, the
      report, is said and costs nothing but itself; 1 when it failed before, which leaves everything that was pushed as
      it was, and says why; 130 when it was interrupted.
    """
    started = time.monotonic()
    versions = _versions(settings)
    log_file = settings.log_dir / time.strftime("%Y%m%d-%H%M%S.log")
    try:
        with folder_lock.exclusive(settings.profile_dir):
            data = locate_data(settings.data)  # a download shows its progress on standard error
            print(describe(settings, data), flush=True)
            with console.frameworks_to(None if settings.verbose else log_file):
                late = _run_pipeline(settings, data, started, change)
    except KeyboardInterrupt:
        print(f"\nInterrupted. The same command goes on from the last finished epoch.{_see(log_file)}")
        if pushed := _pushed_since(versions, settings):
            print(pushed)
        return 130
    except Exception as error:
        print(f"\nThe run failed{console.failed_component(error)}: {console.root_message(error)}")
        pushed = _pushed_since(versions, settings) or "What was pushed before is untouched"
        print(f"{pushed}; the same command runs again.{_see(log_file)}")
        return 1
    if late is None:
        return 0
    interrupted = isinstance(late, KeyboardInterrupt)
    what = "Interrupted" if interrupted else "Failed"
    said = "" if interrupted else f": {console.root_message(late)}"
    print(f"{what}{console.failed_component(late)}, after the push{said}.{_see(log_file)}")
    print(f"{_pushed_since(versions, settings) or 'All else is done'}; the same command makes what is missing.")
    return 130 if interrupted else 0


def _run_pipeline(
    settings: Settings, data: str, started: float, change: Callable[[Pipeline], None] | None
) -> BaseException | None:
    """Build the pipeline, run it with LocalDagRunner, a line a component, and say what came of it.

    Returns:
      What went wrong once the Pusher was done, None for nothing; what goes wrong before is raised.
    """
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

    late: BaseException | None = None
    finished: list[str] = []
    try:
        with metadata_store.password_hidden(connection), console.component_lines(line, finished):
            runner.run(pipeline)
    except (Exception, KeyboardInterrupt) as error:
        if "Pusher" not in finished:
            raise
        logging.getLogger(__name__).exception("The run ended after its push.")
        late = error
    if finished:  # `tfx pipeline create` goes through here too, with a runner that runs nothing
        try:
            print(console.colored(report.last_lines(settings, time.monotonic() - started, runner.run_name)))
        except Exception as error:
            logging.getLogger(__name__).exception("What the run came to cannot be read.")
            late = late or error
    return late


def _versions(settings: Settings) -> set[str]:
    """Names of the versions that are pushed."""
    return {folder.name for folder in settings.serving_dir.glob("[0-9]*")}


def _pushed_since(versions: set[str], settings: Settings) -> str:
    """Say which version has been pushed besides those, whatever came after; nothing where none has."""
    new = ", ".join(sorted(_versions(settings) - versions))
    return f"Version {new} was pushed and stays in {settings.serving_dir}" if new else ""


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
