"""The pipeline: which components run, in what order, with which settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig
from tfx.components import InfraValidator, StatisticsGen, Transform, Tuner
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import infra_validator_pb2, pusher_pb2, trainer_pb2, transform_pb2
from tfx.types import BaseChannel, Channel
from tfx.types.standard_artifacts import Model, ModelBlessing

from components.baseline_model.strategy import LastOtherBlessedModelStrategy
from components.cifar10_example_gen.component import Cifar10ExampleGen
from components.evaluator.component import Evaluator
from components.example_validator.component import ExampleValidator
from components.model_report.component import ModelReport
from components.pusher.component import Pusher
from components.served_model.component import ServedModel
from components.serving_validator.component import ServingValidator
from components.trainer.component import Trainer
from models import features
from models.hyperparameters import Hyperparameters
from pipeline import evaluation
from pipeline.settings import LOCAL_SERVER, PROJECT_ROOT, Settings
from pipeline.source_digest import file_digest, source_digest

SCHEMA_FILE = PROJECT_ROOT / "data" / "schema.pbtxt"

REPORT_TEMPLATES = sorted((PROJECT_ROOT / "components" / "model_report" / "templates").iterdir())

LAST_BLESSED, SERVED = "last_blessed", "served"
"""What a candidate can be compared with: the last blessed model but itself, or the model that is served."""

AnyComponent = TypeVar("AnyComponent", bound=BaseComponent)


def create_pipeline(
    settings: Settings,
    data: str,
    *,
    download: bool = False,
    project_dir: str = str(PROJECT_ROOT),
    baseline: str = LAST_BLESSED,
    metadata_connection: ConnectionConfig | None = None,
) -> Pipeline:
    """Build the pipeline for any runner.

    Args:
      settings: Validated settings; they decide everything but what a runner's machines do otherwise.
      data: Path or URI of the CIFAR-10 archive or folder, as Cifar10ExampleGen reads it.
      download: Whether Cifar10ExampleGen fetches the official archive to that path.
      project_dir: Folder of this repository on the machines that run the components.
      baseline: LAST_BLESSED, or SERVED for a runner that cannot ask ML Metadata.
      metadata_connection: To ML Metadata, where the runner's components can reach it.

    Returns:
      A TFX pipeline named `settings.pipeline_name`.
    """
    example_gen = versioned(
        Cifar10ExampleGen(
            data=data,
            validation_fraction=settings.validation_fraction,
            download=download,
            max_test_overlap=settings.max_test_overlap,
        ),
        source_digest("components.cifar10_example_gen"),
    )
    examples = example_gen.outputs["examples"]

    schema_file = f"{project_dir}/{SCHEMA_FILE.relative_to(PROJECT_ROOT)}"
    schema_gen = versioned(ImportSchemaGen(schema_file=schema_file), file_digest(SCHEMA_FILE))
    schema = schema_gen.outputs["schema"]
    statistics_gen = StatisticsGen(examples=examples, schema=schema)
    example_validator = versioned(
        ExampleValidator(statistics=statistics_gen.outputs["statistics"], schema=schema),
        source_digest("components.example_validator"),
    )

    transform = versioned(
        Transform(
            examples=examples,
            schema=schema,
            preprocessing_fn="models.preprocessing.preprocessing_fn",
            splits_config=transform_pb2.SplitsConfig(analyze=[features.TRAIN_SPLIT]),
            # The graph only: 64×64×3 floats of every image would be 20 times the data. It has no analyzers to cache.
            materialize=False,
            disable_statistics=True,
            disable_analyzer_cache=True,
        ),
        source_digest("models.preprocessing"),
    )
    transform.add_upstream_node(example_validator)

    learning: dict[str, Any] = {
        "examples": examples,
        "transform_graph": transform.outputs["transform_graph"],
        "schema": schema,
        "train_args": trainer_pb2.TrainArgs(splits=[features.TRAIN_SPLIT]),
        "eval_args": trainer_pb2.EvalArgs(splits=[settings.validation_split]),
    }
    before_training: list[BaseComponent] = []
    starting_point: dict[str, BaseChannel] = {}
    if settings.pretraining_epochs:
        pre_trainer = _learner(Trainer, "models.pretraining.run_fn", learning, settings, settings.pretraining)
        before_training.append(pre_trainer.with_id("PreTrainer"))
        starting_point["base_model"] = pre_trainer.outputs["model"]
    label_fraction = {"label_fraction": settings.label_fraction}
    if settings.tuning_trials:
        tuner = _learner(
            Tuner,
            "models.tuning.tuner_fn",
            learning | starting_point,
            settings,
            settings.tuning,
            trials=settings.tuning_trials,
            **label_fraction,
        )
        before_training.append(tuner)
        starting_point["hyperparameters"] = tuner.outputs["best_hyperparameters"]
    trainer = _learner(
        Trainer, "models.training.run_fn", learning | starting_point, settings, settings.training, **label_fraction
    )
    model = trainer.outputs["model"]

    baseline_model = _baseline_model(baseline, settings, trainer)
    evaluator = versioned(
        Evaluator(
            examples=examples,  # raw: the exported signature is what is gated, preprocessing included
            example_splits=[features.TEST_SPLIT],
            model=model,
            baseline_model=baseline_model.outputs["model"],
            eval_config=evaluation.eval_config(settings),
        ),
        source_digest("components.evaluator", "components.classification_metrics"),
    )
    serving_validator = _serving_validator(settings, model, examples)
    pusher = versioned(
        Pusher(
            model=model,
            model_blessing=evaluator.outputs["blessing"],
            infra_blessing=serving_validator.outputs["blessing"],
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(settings.serving_dir))
            ),
        ),
        source_digest("components.pusher"),
    )
    components = [
        example_gen,
        schema_gen,
        statistics_gen,
        example_validator,
        transform,
        *before_training,
        trainer,
        baseline_model,
        evaluator,
        serving_validator,
        pusher,
    ]
    model_report = versioned(
        ModelReport(
            examples=examples,
            statistics=statistics_gen.outputs["statistics"],
            anomalies=example_validator.outputs["anomalies"],
            model=model,
            model_run=trainer.outputs["model_run"],
            baseline_model=baseline_model.outputs["model"],
            evaluation=evaluator.outputs["evaluation"],
            serving_blessing=serving_validator.outputs["blessing"],
            pushed_model=pusher.outputs["pushed_model"],
            settings=_reported(settings),
            source_digests=_source_digests(components),
            hyperparameters=starting_point.get("hyperparameters"),
            metadata_connection=_without_password(metadata_connection),
        ),
        "-".join(
            [source_digest("components.model_report.executor"), *(file_digest(path) for path in REPORT_TEMPLATES)]
        ),
    )
    return Pipeline(
        pipeline_name=settings.pipeline_name,
        pipeline_root=str(settings.pipeline_root),
        components=[*components, model_report],
        enable_cache=settings.enable_cache,
        beam_pipeline_args=settings.beam.pipeline_args(project_dir),
        metadata_connection_config=metadata_connection,
    )


def _reported(settings: Settings) -> dict[str, Any]:
    """The settings that a run's outcome depends on; the others would only make its report again."""
    left_out = ("beam", "cluster", "enable_cache", "metadata_connection", "verbose")
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in left_out}


def _source_digests(components: Sequence[BaseNode]) -> dict[str, str]:
    """What `versioned` has added, by component."""
    digests = {node.id: node.spec.exec_properties.get("source_digest") for node in components if hasattr(node, "spec")}
    return {name: digest for name, digest in digests.items() if digest}


def _without_password(connection: ConnectionConfig | None) -> ConnectionConfig | None:
    """The connection as a component's parameters may hold it, which everyone can read."""
    if connection is None:
        return None
    shown = ConnectionConfig()
    shown.CopyFrom(connection)
    for kind in ("mysql", "postgresql"):
        if shown.HasField(kind):
            getattr(shown, kind).ClearField("password")
    return shown


def _learner(
    component: Callable[..., AnyComponent],
    function: str,
    inputs: Mapping[str, Any],
    settings: Settings,
    hyperparameters: Hyperparameters,
    **options: Any,
) -> AnyComponent:
    """A component that learns by one of our functions.

    Args:
      component: Its class.
      function: Dotted name; its last part is the name of the component's parameter for it.
      inputs: The component's other parameters.
      settings: Of the run.
      hyperparameters: The recipe.
      **options: What else the function's custom_config holds.
    """
    module, _, parameter = function.rpartition(".")
    source = source_digest(module)
    custom_config = {
        "hyperparameters": hyperparameters.to_dict(),
        "validation_split": settings.validation_split,
        "checkpoint_dir": str(settings.checkpoint_dir),
        "source_digest": source,
        **options,
    }
    return versioned(component(**{parameter: function}, **inputs, custom_config=custom_config), source)


def _baseline_model(baseline: str, settings: Settings, trainer: Trainer) -> BaseNode:
    """The node whose output `model` is what the candidate is compared with, or nothing."""
    if baseline == LAST_BLESSED:
        return Resolver(
            strategy_class=LastOtherBlessedModelStrategy,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
            candidate=trainer.outputs["model"],
        ).with_id("LastBlessedModel")
    served = versioned(ServedModel(base_directory=str(settings.serving_dir)), source_digest("components.served_model"))
    # What is served when the candidate is evaluated, not when training begins.
    served.add_upstream_node(trainer)
    return served


def _serving_validator(settings: Settings, model: BaseChannel, examples: BaseChannel) -> BaseComponent:
    """The component that serves the candidate on trial: ours, or TFX's where Docker or Kubernetes is asked for."""
    if settings.serving_validation == LOCAL_SERVER:
        return versioned(
            ServingValidator(
                model=model,
                examples=examples,
                split=features.TEST_SPLIT,
                latency_budget_s=settings.latency_budget_s,
            ),
            source_digest("components.serving_validator", "serving.server"),
        )
    platforms = {
        "docker": {"local_docker": infra_validator_pb2.LocalDockerConfig()},
        "kubernetes": {"kubernetes": infra_validator_pb2.KubernetesConfig()},
    }
    return InfraValidator(
        model=model,
        examples=examples,
        serving_spec=infra_validator_pb2.ServingSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServing(tags=["latest"]),
            **platforms[settings.serving_validation],
        ),
        request_spec=infra_validator_pb2.RequestSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServingRequestSpec(signature_names=[evaluation.SIGNATURE]),
            num_examples=16,
            split_name=features.TEST_SPLIT,
        ),
    )


def versioned(component: AnyComponent, digest: str) -> AnyComponent:
    """Make a digest one of a component's parameters, and so part of its cache key. Executors do not read it."""
    component.spec.exec_properties["source_digest"] = digest
    return component
