"""What `tfx pipeline create` and `update` were told, kept for the runs that `tfx run create` starts.

TFX's local engine keeps a pipeline's name and the path of its file. A run starts that file, by the path as it was typed
and without the name, so it would go by whatever settings its own shell states. Here TFX is given another file to keep:
a program of a few lines, beside TFX's own notes, that runs the pipeline with the settings of that time, from anywhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.settings import ENVIRONMENT_PREFIX, OFFICIAL, PROJECT_ROOT, SAMPLE, Settings, settings_from_environment
from surroundings import streams

_PROFILE = f"{ENVIRONMENT_PREFIX}PROFILE"

_PROGRAM = '''"""Runs {name} with the settings that `tfx pipeline create` or `update` was told, and kept here."""

import sys

sys.path.insert(0, {project!a})
from pipeline import registration  # is it gone? `tfx pipeline update` finds it where it is now

if __name__ == "__main__":
    sys.exit(registration.run({name!a}, {stated!a}))
'''


def keep(settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
    """Have TFX keep the settings, where this is run by its `tfx pipeline` command; elsewhere do nothing.

    Args:
        settings: what the variables ask for.
        environment: variables by name.
    """
    import click

    context = click.get_current_context(silent=True)
    if context is None:
        return
    from tfx.tools.cli import cli_context, labels
    from tfx.tools.cli.handler import local_handler

    command = context.find_object(cli_context.Context)
    if command is None or command.flags_dict.get(labels.ENGINE_FLAG) != "local":
        return
    folder = local_handler.LocalHandler(command.flags_dict)._get_pipeline_info_path(settings.pipeline_name)
    program = Path(folder).absolute() / "local_runner.py"
    text = _PROGRAM.format(name=settings.pipeline_name, project=str(PROJECT_ROOT), stated=_stated(environment))

    def write() -> None:
        # TFX has emptied the folder, unless it has refused the command or had nothing to keep.
        notes = program.with_name("pipeline_args.json")
        kept = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() and not program.exists() else {}
        if kept.get(labels.PIPELINE_DSL_PATH) == str(program):
            program.write_text(text, encoding="utf-8")

    command.flags_dict[labels.PIPELINE_DSL_PATH] = str(program)
    context.call_on_close(write)


def run(name: str, kept: Mapping[str, str]) -> int:
    """Run a pipeline with the settings that were kept; return the exit status.

    Args:
        name: the pipeline's.
        kept: `ALEXNET_<FIELD>` variables, the profile's among them.
    """
    streams.prepare()
    from pipeline import local_runner

    try:
        here = _stated(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    others = {key: value for key, value in here.items() if os.environ.get(key) and value != kept.get(key)}
    if _PROFILE in others:
        print(
            f"{_PROFILE} is {others[_PROFILE]} in this shell, and {name} is of profile {kept[_PROFILE]}: unset it, or "
            f"ask for alexnet_{others[_PROFILE]}. Nothing was run.",
            file=sys.stderr,
        )
        return 2
    if others:
        stated = " ".join(f"{key}={value}" for key, value in others.items())
        print(
            f"Not used: {stated} of this shell. {name} runs with the settings that `tfx pipeline create` or `update` "
            "was told; `update` takes others.",
            flush=True,
        )
    return local_runner.main([], kept)


def asked_name() -> str:
    """The pipeline that `tfx run create` asks for, where that has started this process; elsewhere nothing."""
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"\0run\0create\0(?:.*\0)?--pipeline[_-]name[=\0]([^\0]+)", command, re.DOTALL)
    return found[1] if found else ""


def _stated(environment: Mapping[str, str]) -> dict[str, str]:
    """The profile and all other settings that variables state, as such variables, with paths that hold in any folder.

    Raises:
        ValueError: a variable names no field.
    """
    profile, stated = settings_from_environment(environment)
    if "output_dir" in stated:
        stated["output_dir"] = str(Path(stated["output_dir"]).absolute())
    if "data" in stated and stated["data"] not in (SAMPLE, OFFICIAL) and "://" not in stated["data"]:
        stated["data"] = str(Path(stated["data"]).expanduser().absolute())
    return {_PROFILE: profile} | {f"{ENVIRONMENT_PREFIX}{name.upper()}": text for name, text in stated.items()}
