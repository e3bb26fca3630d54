"""The TFX component ServedModel."""

from __future__ import annotations

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import Channel, component_spec, standard_artifacts

from components.served_model.executor import BASE_DIRECTORY_KEY, MODEL_KEY, Executor


class ServedModelSpec(component_spec.ComponentSpec):
    """Outputs and parameters of ServedModel."""

    PARAMETERS = {  # noqa: RUF012 (TFX's convention)
        BASE_DIRECTORY_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012 (TFX's convention)
    OUTPUTS = {  # noqa: RUF012 (TFX's convention)
        MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
    }


class ServedModel(base_component.BaseComponent):
    """Finds the newest version below a TensorFlow Serving base path: the last model that was blessed and pushed.

    For runners that cannot ask ML Metadata for the last blessed model: Kubeflow Pipelines refuses TFX's resolvers. The
    output `model` says so where nothing has been pushed yet; our Evaluator takes that for no baseline. What is found
    depends on more than the parameters: the output must not be cached.
    """

    SPEC_CLASS = ServedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, base_directory: str) -> None:
        """Construct the component.

        Args:
            base_directory: the folder whose numeric subfolders are versions, as Pusher writes it.
        """
        super().__init__(
            spec=ServedModelSpec(base_directory=base_directory, model=Channel(type=standard_artifacts.Model))
        )
