"""ExampleValidator with our executor."""

from tfx import components
from tfx.dsl.components.base import executor_spec

from components.example_validator.executor import Executor


class ExampleValidator(components.ExampleValidator):
    """TFX's ExampleValidator, but an anomaly stops the run, and splits are compared with the training split."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
