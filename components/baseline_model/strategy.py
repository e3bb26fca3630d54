"""Resolver strategy: the last blessed model that the candidate can be compared with."""

from __future__ import annotations

import ml_metadata
from tfx import types
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

from components.model_classes import CLASS_NAMES_PROPERTY

CANDIDATE_KEY = "candidate"


class LastOtherBlessedModelStrategy(ResolverStrategy):
    """As TFX's LatestBlessedModelStrategy, but never the candidate, and of the candidate's classes where there is one.

    When nothing has changed, the Trainer's cached model is the last blessed one. Compared with itself it would be
    evaluated, blessed and pushed again; compared with the one before, everything stays cached. Where all others are of
    other classes, the last of them is chosen: the Evaluator does not compare with it, and says why.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Choose the model.

        Args:
            store: ML Metadata, not used beyond TFX's strategy.
            input_dict: `model` and `model_blessing`: all of the pipeline; `candidate`: the model to be evaluated.

        Returns:
            `model` and `model_blessing`: one artifact each, or none; `candidate` as it was given (TFX fails, and only
            logs it, where an input key is absent from a strategy's answer).
        """
        candidates = {artifact.id for artifact in input_dict[CANDIDATE_KEY]}
        classes = {_class_names(artifact) for artifact in input_dict[CANDIDATE_KEY]}
        others = [model for model in input_dict["model"] if model.id not in candidates]
        last_blessed: dict[str, list[types.Artifact]] = {"model": [], "model_blessing": []}
        same = [model for model in others if _class_names(model) in classes]
        unknown = [model for model in others if not _class_names(model)]  # the Evaluator asks it
        for models in (same, unknown, others):
            found = {"model": models, "model_blessing": input_dict["model_blessing"]}
            if not last_blessed["model"]:
                last_blessed = LatestBlessedModelStrategy().resolve_artifacts(store, found) or last_blessed
        return {**last_blessed, CANDIDATE_KEY: input_dict[CANDIDATE_KEY]}


def _class_names(model: types.Artifact) -> str:
    """As the Trainer has recorded them; empty for a model from before it did."""
    return str(model.get_string_custom_property(CLASS_NAMES_PROPERTY))
