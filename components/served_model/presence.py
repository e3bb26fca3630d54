"""Whether there is a model: apart from what publishes one, so that its other readers do not depend on that code."""

import os

from tfx import types
from tfx.dsl.io import fileio
from tfx.utils import path_utils

NONE_FILE = "NO_MODEL_IS_SERVED"
"""In the folder of a Model artifact: an empty file that says that there never was a model, as against a lost one."""


def holds_model(model: types.Artifact) -> bool:
    """Whether a Model artifact holds a SavedModel for serving."""
    return fileio.exists(os.path.join(path_utils.serving_model_dir(model.uri), "saved_model.pb"))


def says_none(model: types.Artifact) -> bool:
    """Whether a Model artifact was published to say that there is no model."""
    return fileio.exists(os.path.join(model.uri, NONE_FILE))
