"""Evaluator's executor: the evaluation says its headline."""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.components.evaluator import executor as evaluator_executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

from components import model_classes
from components.model_report import results
from components.served_model.presence import holds_model, says_none

ACCURACY_PROPERTY = "accuracy"
"""Custom property (float) of the evaluation: the candidate's accuracy on the test split, in [0, 1]."""

NUM_EXAMPLES_PROPERTY = "num_examples"
"""Custom property (int) of the evaluation: images in the test split."""


class Executor(evaluator_executor.Executor):
    """Evaluates, and records the accuracy beside the files that hold everything."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluate, as TFX's Evaluator does.

        Args:
          input_dict: As TFX's Evaluator has them; a `baseline_model` may say that there is none (ServedModel's).
          output_dict: `evaluation`: gets the custom properties `accuracy`, `num_examples` and, where no baseline took
            part, `not_compared`; and `blessing`.
          exec_properties: As TFX's Evaluator has them.

        Raises:
          FileNotFoundError: The baseline's files are gone.
        """
        key = standard_component_specs.BASELINE_MODEL_KEY
        baselines = [model for model in input_dict.get(key, []) if not says_none(model)]
        for model in baselines:
            if not holds_model(model):
                raise FileNotFoundError(
                    f"the last blessed model is gone from {path_utils.serving_model_dir(model.uri)}: nothing says "
                    "whether the candidate is worse. Copy it back there (the version that it was pushed as holds the "
                    "same files), or do without it in a run with ALEXNET_ACCURACY_TOLERANCE=1, which forgets it."
                )
        not_compared = "" if baselines else results.NO_BASELINE
        for baseline in baselines:
            candidate = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
            not_compared = _incomparable(candidate, baseline)
        inputs = {**input_dict, key: [] if not_compared else baselines}
        super().Do(inputs, output_dict, exec_properties)
        evaluation = artifact_utils.get_single_instance(output_dict[standard_component_specs.EVALUATION_KEY])
        found = results.load(evaluation.uri)
        evaluation.set_float_custom_property(ACCURACY_PROPERTY, found.accuracy)
        evaluation.set_int_custom_property(NUM_EXAMPLES_PROPERTY, found.num_examples)
        if not_compared:
            evaluation.set_string_custom_property(results.NOT_COMPARED_PROPERTY, not_compared)


def _incomparable(candidate: types.Artifact, baseline: types.Artifact) -> str:
    """Why the baseline's accuracy says nothing of the candidate's; empty where it does."""
    own = model_classes.class_names(path_utils.serving_model_path(candidate.uri))
    try:
        reason = model_classes.why_incomparable(
            own, model_classes.class_names(path_utils.serving_model_path(baseline.uri))
        )
    except ValueError as error:
        reason = str(error)
    return f"no comparable earlier model: {reason}" if reason else ""
