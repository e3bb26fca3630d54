"""ServingValidator's executor: images in, checks made, blessing out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import posixpath
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.serving_validator import validation
from components.serving_validator.validation import Check
from models import features

MODEL_KEY = "model"
EXAMPLES_KEY = "examples"
BLESSING_KEY = "blessing"
SPLIT_KEY = "split"
LATENCY_BUDGET_KEY = "latency_budget_s"

EVALUATED_SIGNATURE = "classify"
NUM_IMAGES = 64

CHECKS_FILE = "checks.json"
"""In the blessing's folder: the checks, a list of objects with `name`, `reached` and `finding`."""

SERVER_LOG_FILE = "server.log"
"""In the blessing's folder: what the model server said."""

# What Pusher looks for (tfx.components.infra_validator.executor).
BLESSED_FILE, NOT_BLESSED_FILE, BLESSED_PROPERTY = "INFRA_BLESSED", "INFRA_NOT_BLESSED", "blessed"


class Executor(base_executor.BaseExecutor):
    """Judges how a candidate serves. A model that fails is not blessed; the run goes on, and nothing is pushed."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Make the checks.

        Args:
            input_dict: `model`, in a folder of this machine: a model server reads local files; and `examples`.
            output_dict: `blessing`: gets the custom property `blessed` (0 or 1), an empty file of the name that says
                the same, and the checks as JSON.
            exec_properties: `split` and `latency_budget_s`.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(input_dict[MODEL_KEY])
        model_dir = Path(path_utils.serving_model_path(model.uri))
        folder = artifact_utils.get_split_uri(input_dict[EXAMPLES_KEY], exec_properties[SPLIT_KEY])
        examples = read_examples(folder, NUM_IMAGES)
        with tempfile.NamedTemporaryFile(suffix=".log") as log:
            checks = judge(model_dir, examples, exec_properties[LATENCY_BUDGET_KEY], Path(log.name))
            server_log = Path(log.name).read_text(encoding="utf-8", errors="replace")
        blessed = all(check.reached for check in checks)

        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        blessing.set_int_custom_property(BLESSED_PROPERTY, int(blessed))
        fileio.makedirs(blessing.uri)
        files = {
            CHECKS_FILE: json.dumps([dataclasses.asdict(check) for check in checks], indent=1),
            SERVER_LOG_FILE: server_log,
            BLESSED_FILE if blessed else NOT_BLESSED_FILE: "",
        }
        for name, text in files.items():
            with fileio.open(posixpath.join(blessing.uri, name), "w") as file:
                file.write(text)
        for check in checks:
            logging.info("%s: %s: %s", check.name, "ok" if check.reached else "NO", check.finding)


def judge(model_dir: Path, examples: list[bytes], latency_budget_s: float, log_file: Path) -> list[Check]:
    """Compare what a served SavedModel answers with the answers of the signature that the Evaluator gates.

    Args:
        model_dir: the SavedModel.
        examples: serialized tf.Examples with an image.
        latency_budget_s: largest median time of a gRPC request for one image, in seconds.
        log_file: where to write what the model server says.
    """
    try:
        expected = evaluated_answers(model_dir, examples)
    except Exception as error:  # whatever TensorFlow raises: this model cannot be used, which is the finding
        return [Check("serving", False, f"the model does not load or answer in process: {error}")]
    images = [
        tf.train.Example.FromString(example).features.feature[features.IMAGE_KEY].bytes_list.value[0]
        for example in examples
    ]
    return validation.validate(model_dir, images, expected, latency_budget_s, log_file)


def evaluated_answers(model_dir: Path, examples: list[bytes]) -> np.ndarray:
    """Probabilities, float32 [n, 10], of the evaluated signature, in this process."""
    loaded = tf.saved_model.load(str(model_dir))
    return loaded.signatures[EVALUATED_SIGNATURE](inputs=tf.constant(examples))["scores"].numpy()


def read_examples(folder: str, count: int) -> list[bytes]:
    """The first serialized examples of a split. ExampleGen orders them by a hash of the image: all classes are there.

    Raises:
        ValueError: there are none.
    """
    files = sorted(tf.io.gfile.glob(posixpath.join(folder, "*")))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    examples = list(itertools.islice(records, count))
    if not examples:
        raise ValueError(f"{folder} holds no example to ask the model about.")
    return examples
