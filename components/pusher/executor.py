"""Pusher's executor: a model version appears whole or not at all, and the same model is not pushed twice."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import logging
from tfx import types
from tfx.components.pusher import executor as pusher_executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

NEW_PROPERTY = "new"
"""Custom property (int) of the pushed model: whether this push made the version."""

ABANDONED_S = 24 * 3600.0
"""Age of a staging folder, in seconds, from which a killed push has left it: one under way is younger."""


class Executor(pusher_executor.Executor):
    """Pushes a blessed model to a TensorFlow Serving base path on a file system that renames atomically.

    TFX's own executor copies file by file into the version's folder, which a model server can see half full, and it
    pushes a model again whenever it is blessed again (by a changed threshold, say). This one copies into a folder
    beside the base path and renames it, and it recognizes the newest version there by its content.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Push the model if its blessings allow it.

        Args:
          input_dict: `model`, and `model_blessing` and `infra_blessing` where the pipeline has them.
          output_dict: `pushed_model`: gets the custom properties `pushed` (0 or 1), `pushed_destination` (the
            version's folder) and `pushed_version`, and `new` (0 where that version had been pushed before).
          exec_properties: `push_destination`, a JSON PushDestination with a file system's base directory.

        Raises:
          OSError: The base directory cannot be written. What was served before is untouched.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        model_path = Path(self.GetModelPath(input_dict))
        base_dir = Path(destination.filesystem.base_directory)
        # Before the push: after it a failure would leave a version that no run knows of.
        io_utils.copy_dir(str(model_path), pushed_model.uri)
        before = newest_version(base_dir)
        version_dir = push(model_path, base_dir)
        pushed_model.set_int_custom_property(NEW_PROPERTY, int(version_dir != before))
        self._MarkPushed(pushed_model, pushed_destination=str(version_dir), pushed_version=version_dir.name)


def push(model_path: Path, base_dir: Path) -> Path:
    """Make a SavedModel the newest version below a TensorFlow Serving base path.

    Args:
      model_path: Folder of the SavedModel.
      base_dir: Base path: a folder whose numeric subfolders are versions.

    Returns:
      The version's folder, named by the Unix time in seconds (or one more than the newest version, if that is not
      smaller). Where the newest version has the same content, it is returned and nothing is written.
    """
    base_dir.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(base_dir)
    newest = newest_version(base_dir)
    if newest is not None and same_content(newest, model_path):
        logging.info("The model is already served as %s.", newest)
        return newest
    # Beside the base path, so on the same file system, and out of the model server's sight.
    staging = Path(tempfile.mkdtemp(prefix=f".{base_dir.name}-", dir=base_dir.parent))
    try:
        whole = staging / "version"
        shutil.copytree(model_path, whole)
        version = max(int(time.time()), int(newest.name) + 1 if newest else 0)
        target = base_dir / str(version)
        os.rename(whole, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # once the version is there, nothing may fail
    logging.info("Pushed %s.", target)
    return target


def newest_version(base_dir: Path) -> Path | None:
    """The folder of the highest version below a base path, None where there is none."""
    folders = base_dir.iterdir() if base_dir.exists() else ()
    versions = [path for path in folders if path.is_dir() and path.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name), default=None)


def _remove_abandoned(base_dir: Path) -> None:
    """Remove the staging folders of pushes to this base path that were killed."""
    own = re.compile(rf"\.{re.escape(base_dir.name)}-[a-z0-9_]+")  # another base path's name may begin with this one's
    for path in base_dir.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another push has just finished, or removed it
            if own.fullmatch(path.name) and time.time() - path.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def same_content(left: Path, right: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    files = [sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file()) for top in (left, right)]
    return files[0] == files[1] and all(filecmp.cmp(left / f, right / f, shallow=False) for f in files[0])
