"""The pipeline: which components run, in what order, with which settings."""

from __future__ import annotations

from typing import TypeVar

from tfx.components import Evaluator, InfraValidator, StatisticsGen, Trainer, Transform
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import infra_validator_pb2, pusher_pb2, trainer_pb2, transform_pb2
from tfx.types import BaseChannel, Channel
from tfx.types.standard_artifacts import Model, ModelBlessing

from components.baseline_model.strategy import LastOtherBlessedModelStrategy
from components.cifar10_example_gen.component import Cifar10ExampleGen
from components.example_validator.component import ExampleValidator
from components.pusher.component import Pusher
from components.serving_validator.component import ServingValidator
from models import features
from pipeline import evaluation
from pipeline.settings import LOCAL_SERVER, PROJECT_ROOT, Settings
from pipeline.source_digest import file_digest, source_digest

SCHEMA_FILE = PROJECT_ROOT / "data" / "schema.pbtxt"

AnyComponent = TypeVar("AnyComponent", bound=BaseComponent)


def create_pipeline(settings: Settings, data: str) -> Pipeline:
    """Build the pipeline for any runner.

    Args:
      settings: Validated settings; they decide everything but where the images are.
      data: Path or URI of the CIFAR-10 archive or folder, as Cifar10ExampleGen reads it.

    Returns:
      A TFX pipeline named `settings.pipeline_name`, without a metadata connection: the runner adds its own.
    """
    example_gen = versioned(
        Cifar10ExampleGen(data=data, validation_fraction=settings.validation_fraction),
        source_digest("components.cifar10_example_gen"),
    )
    examples = example_gen.outputs["examples"]

    schema_gen = versioned(ImportSchemaGen(schema_file=str(SCHEMA_FILE)), file_digest(SCHEMA_FILE))
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

    training_source = source_digest("models.training")
    trainer = versioned(
        Trainer(
            run_fn="models.training.run_fn",
            examples=examples,
            transform_graph=transform.outputs["transform_graph"],
            schema=schema,
            train_args=trainer_pb2.TrainArgs(splits=[features.TRAIN_SPLIT]),
            eval_args=trainer_pb2.EvalArgs(splits=[settings.validation_split]),
            custom_config={
                "hyperparameters": settings.training.to_dict(),
                "validation_split": settings.validation_split,
                "checkpoint_dir": str(settings.checkpoint_dir),
                "source_digest": training_source,
            },
        ),
        training_source,
    )
    model = trainer.outputs["model"]

    last_blessed = Resolver(
        strategy_class=LastOtherBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
        candidate=model,
    ).with_id("LastBlessedModel")
    evaluator = Evaluator(
        examples=examples,  # raw: the exported signature is what is gated, preprocessing included
        example_splits=[features.TEST_SPLIT],
        model=model,
        baseline_model=last_blessed.outputs["model"],
        eval_config=evaluation.eval_config(settings),
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
    return Pipeline(
        pipeline_name=settings.pipeline_name,
        pipeline_root=str(settings.pipeline_root),
        components=[
            example_gen,
            schema_gen,
            statistics_gen,
            example_validator,
            transform,
            trainer,
            last_blessed,
            evaluator,
            serving_validator,
            pusher,
        ],
        enable_cache=settings.enable_cache,
    )


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
