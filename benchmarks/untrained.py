"""The whole pipeline with a Trainer that does not train: `python -m benchmarks.untrained`, flags as the local runner's.

What every other component costs does not depend on the weights, so the initial ones do. Everything else is what
`python -m pipeline.local_runner` runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs
    from tfx.orchestration.pipeline import Pipeline

RUN_FN = "benchmarks.untrained.run_fn"


def main() -> int:
    """Runs the pipeline; returns the exit status."""
    from pipeline import settings

    chosen = settings.parse_command_line()

    from pipeline import local_run

    return local_run.run(chosen, without_training)


def without_training(pipeline: Pipeline) -> None:
    """Gives a pipeline's Trainer the `run_fn` below."""
    (trainer,) = (component for component in pipeline.components if component.id == "Trainer")
    trainer.spec.exec_properties["run_fn"] = RUN_FN


def run_fn(fn_args: FnArgs) -> None:
    """Exports the recipe's network with its initial weights, in the way of `models.training.run_fn`.

    Args:
        fn_args: from TFX.
    """
    import keras
    import tensorflow as tf
    import tensorflow_transform as tft

    from models import checkpoint, devices, fitting, input_pipeline, signatures, training, warmup

    hyperparameters = fitting.TrainingConfig.from_custom_config(fn_args.custom_config).hyperparameters
    keras.utils.set_random_seed(hyperparameters.seed)
    savedmodel_dir = tft.TFTransformOutput(fn_args.transform_graph_path).transform_savedmodel_dir
    transform_graph = input_pipeline.load_transform_graph(savedmodel_dir)
    _, network = training.compile_model(hyperparameters, devices.configure_devices(hyperparameters), steps=1)
    signatures.export(network, transform_graph, fn_args.serving_model_dir, hyperparameters)
    images = input_pipeline.read_examples(fn_args.eval_files).images[: max(warmup.BATCH_SIZES)]
    warmup.write_requests(images.numpy(), fn_args.serving_model_dir)
    nothing = checkpoint.Epoch(
        epoch=0, loss=0.0, accuracy=0.0, val_loss=0.0, val_accuracy=0.0, learning_rate=0.0, seconds=0.0
    )
    tf.io.gfile.makedirs(fn_args.model_run_dir)
    with tf.io.gfile.GFile(f"{fn_args.model_run_dir}/{fitting.HISTORY_FILE}", "w") as file:
        file.write(checkpoint.history_csv([nothing]))


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    sys.exit(main())
