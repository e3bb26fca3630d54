"""Resolver strategy: the last blessed model that is not the candidate itself."""

from __future__ import annotations

import ml_metadata
from tfx import types
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

CANDIDATE_KEY = "candidate"


class LastOtherBlessedModelStrategy(ResolverStrategy):
    """As TFX's LatestBlessedModelStrategy, but never the candidate.

    When nothing has changed, the Trainer's cached model is the last blessed one. Compared with itself it would be
    evaluated, blessed and pushed again; compared with the one before, everything stays cached.
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
        others = {
            "model": [model for model in input_dict["model"] if model.id not in candidates],
            "model_blessing": input_dict["model_blessing"],
        }
        last_blessed = LatestBlessedModelStrategy().resolve_artifacts(store, others) or {key: [] for key in others}
        return {**last_blessed, CANDIDATE_KEY: input_dict[CANDIDATE_KEY]}
