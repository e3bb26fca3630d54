"""ExampleValidator with our executor."""

from tfx import components
from tfx.dsl.components.base import executor_spec

from components.example_validator.executor import Executor


class ExampleValidator(components.ExampleValidator):
    """TFX's ExampleValidator, but anomalies stop the run, and the test split is compared with training."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
