"""ServedModel's executor: copies the newest version that is served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from absl import logging
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.pusher.executor import newest_version
from components.served_model.presence import NONE_FILE

BASE_DIRECTORY_KEY = "base_directory"
MODEL_KEY = "model"

VERSION_PROPERTY = "version"
"""Custom property (str) of the model: the version that it is served as; absent where nothing has been pushed."""


class Executor(base_executor.BaseExecutor):
    """Publishes the model that is served now."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copy the newest version.

        Args:
            input_dict: Not used.
            output_dict: `model`: gets the SavedModel and the custom property `version`; where there is none, only the
                file NONE_FILE.
            exec_properties: `base_directory`.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(output_dict[MODEL_KEY])
        newest = newest_version(Path(exec_properties[BASE_DIRECTORY_KEY]))
        if newest is None:
            logging.info("%s holds no version yet.", exec_properties[BASE_DIRECTORY_KEY])
            io_utils.write_string_file(os.path.join(model.uri, NONE_FILE), "")
            return
        io_utils.copy_dir(str(newest), path_utils.serving_model_dir(model.uri))
        model.set_string_custom_property(VERSION_PROPERTY, newest.name)
