"""Whether there is a model: apart from what publishes one, so that its other readers do not depend on that code."""

import os

from tfx import types
from tfx.dsl.io import fileio
from tfx.utils import path_utils


def holds_model(model: types.Artifact) -> bool:
    """Whether a Model artifact holds a SavedModel for serving."""
    return fileio.exists(os.path.join(path_utils.serving_model_dir(model.uri), "saved_model.pb"))
