"""Trainer's executor: the model says with which libraries it was made."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Any

from tfx import types
from tfx.components.trainer import executor as trainer_executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

from components import model_classes
from components.served_model.presence import holds_model

LIBRARY_VERSIONS_PROPERTY = "library_versions"
"""Custom property (str) of the model: JSON object, version by name."""

MACHINE_PROPERTY = "machine"
"""Custom property (str) of the model: operating system, processor and GPUs that trained it."""

LIBRARIES = ("tfx", "tensorflow", "keras", "tensorflow-transform", "numpy")


class Executor(trainer_executor.GenericExecutor):
    """Trains, and records what no parameter says.

    The versions are not parameters, and so no part of the cache key: a model stays usable when a library is updated.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Train, as TFX's GenericExecutor does.

        Args:
          input_dict: As TFX's Trainer has them.
          output_dict: `model`: gets the custom properties `library_versions`, `machine` and, where it is a SavedModel
            (pre-training leaves weights), `class_names`; and `model_run`.
          exec_properties: As TFX's Trainer has them.
        """
        super().Do(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(output_dict[standard_component_specs.MODEL_KEY])
        model.set_string_custom_property(LIBRARY_VERSIONS_PROPERTY, json.dumps(library_versions()))
        model.set_string_custom_property(MACHINE_PROPERTY, machine())
        if holds_model(model):
            names = model_classes.class_names(path_utils.serving_model_path(model.uri))
            model.set_string_custom_property(model_classes.CLASS_NAMES_PROPERTY, json.dumps(names))


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model depends on, by name."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def machine() -> str:
    """The machine that trains, in a few words: system, processor's cores, GPUs that TensorFlow sees."""
    import tensorflow as tf

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, {', '.join(gpus) or 'no GPU'}"
