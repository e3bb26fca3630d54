"""Trainer with our executor."""

from tfx import components
from tfx.dsl.components.base import executor_spec

from components.trainer.executor import Executor


class Trainer(components.Trainer):
    """TFX's Trainer, but ML Metadata keeps which libraries and what machine made the model."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
