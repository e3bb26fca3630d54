"""The TFX component ServingValidator."""

from __future__ import annotations

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, Channel, component_spec, standard_artifacts

from components.serving_validator.executor import (
    BLESSING_KEY,
    EXAMPLES_KEY,
    LATENCY_BUDGET_KEY,
    MODEL_KEY,
    SPLIT_KEY,
    Executor,
)


class ServingValidatorSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of ServingValidator."""

    PARAMETERS = {  # noqa: RUF012 (TFX's convention)
        SPLIT_KEY: component_spec.ExecutionParameter(type=str),
        LATENCY_BUDGET_KEY: component_spec.ExecutionParameter(type=float),
    }
    INPUTS = {  # noqa: RUF012 (TFX's convention)
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {  # noqa: RUF012 (TFX's convention)
        BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
    }


class ServingValidator(base_component.BaseComponent):
    """Starts a model server on the candidate, asks it about real images over gRPC and REST, and judges the answers.

    The output `blessing` is what Pusher takes as `infra_blessing`. Unlike TFX's InfraValidator it needs neither Docker
    nor Kubernetes, and it compares the answers with those of the signature that the Evaluator has gated.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model: BaseChannel, examples: BaseChannel, split: str, latency_budget_s: float) -> None:
        """Construct the component.

        Args:
            model: a Model whose SavedModel has the signatures `serving_default` and `classify`.
            examples: raw Examples, as ExampleGen writes them.
            split: the split to take images from.
            latency_budget_s: largest median time of a gRPC request for one image, in seconds.
        """
        super().__init__(
            spec=ServingValidatorSpec(
                model=model,
                examples=examples,
                split=split,
                latency_budget_s=latency_budget_s,
                blessing=Channel(type=standard_artifacts.InfraBlessing),
            )
        )
