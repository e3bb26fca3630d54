"""Searches for better hyperparameters: what TFX's Tuner runs, by the name `models.tuning.tuner_fn`.

Random search (Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012): with few trials and
some fields that hardly matter, it finds better values than a grid. The first trial is the recipe as it is, so that the
others show what they are worth. A trial is a whole training of fewer epochs, by the code that the Trainer runs; they
are compared on the validation split, the test split has no part in it.
"""

import shutil
from typing import Any

import keras
import keras_tuner
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from models import training
from models.callbacks import NonFiniteLossError
from models.fitting import TrainingConfig
from models.hyperparameters import Hyperparameters
from models.training import Inputs

TRIALS_KEY = "trials"
"""In the Tuner's `custom_config`, beside what `TrainingConfig` describes: the number of trials, at least 1."""

OBJECTIVE = "val_accuracy"

SIGNIFICANT_DIGITS = 3
"""Of the values tried: what is found can be typed, and typed values give the same training."""


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Prepares the search; one that was interrupted goes on at the trial, and the epoch in it, that it was in.

    Args:
        fn_args: from TFX; `custom_config` as `TrainingConfig` describes it, with `epochs` as those of a trial, and
            TRIALS_KEY; `base_model`, where there is one, is what each trial starts from.

    Returns:
        A tuner whose best hyperparameters have the names of `Hyperparameters`' fields; `training.run_fn` takes them.

    Raises:
        ValueError: a setting, the data or the base model is not usable; the message says which.
    """
    values = dict(fn_args.custom_config or {})
    trials = values.pop(TRIALS_KEY, None)
    if type(trials) is not int or trials < 1:
        raise ValueError(f"The Tuner's custom_config has {TRIALS_KEY} {trials!r}; it has to be a whole number from 1.")
    config = TrainingConfig.from_custom_config(values)
    return TunerFnResult(tuner=RecipeTuner(config, training.read_inputs(fn_args, config), trials), fit_kwargs={})


def search_space(recipe: Hyperparameters) -> keras_tuner.HyperParameters:
    """What is searched, around the recipe where it says nothing of the right order of magnitude by itself."""
    space = keras_tuner.HyperParameters()
    space.Float("learning_rate", recipe.learning_rate / 5, recipe.learning_rate * 5, sampling="log")
    space.Float("weight_decay", 5e-4, 5e-2, sampling="log")
    space.Float("dropout", 0.0, 0.6, step=0.1)
    space.Float("label_smoothing", 0.0, 0.2, step=0.05)
    space.Int("translation", 0, 12, step=2)
    return space


class RecipeOracle(keras_tuner.oracles.RandomSearchOracle):
    """Random values, but the recipe's own ones first."""

    def __init__(self, recipe: Hyperparameters, trials: int) -> None:
        """Defines the search.

        Args:
            recipe: what to improve; its seed is the search's too.
            trials: at least 1.
        """
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=trials,
            hyperparameters=search_space(recipe),
            seed=recipe.seed + 1,  # it takes 0 for none
            max_consecutive_failed_trials=trials + 1,  # a trial that diverged says nothing of the next one
        )
        self.verbose = 0
        self._recipe = recipe

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next trial, as keras_tuner's Oracle describes it."""
        if not self.trials:
            names = [entry.name for entry in self.hyperparameters.space]
            return {"status": "RUNNING", "values": {name: getattr(self._recipe, name) for name in names}}
        chosen = super().populate_space(trial_id)
        if chosen["values"]:
            chosen["values"] = {name: _rounded(value) for name, value in chosen["values"].items()}
        return chosen


class RecipeTuner(keras_tuner.Tuner):
    """Runs each trial as the Trainer would, and keeps no models."""

    def __init__(self, config: TrainingConfig, inputs: Inputs, trials: int) -> None:
        """Goes on where a search for the same was interrupted.

        Args:
            config: of a trial; its checkpoint_dir keeps the state of the search.
            inputs: from `training.read_inputs`.
            trials: at least 1.
        """
        self._config = config
        self._inputs = inputs
        # The key covers data, code and recipe: the state of another search is never taken up.
        folder = inputs.run_dir(config)
        super().__init__(
            RecipeOracle(config.hyperparameters, trials),
            directory=str(folder.parent),
            project_name=f"tuning-{trials}-{folder.name}",
        )

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains with a trial's values.

        Returns:
            OBJECTIVE: the validation accuracy of the weights that would be exported.

        Raises:
            keras_tuner.errors.FailedTrialError: the training diverged; the search goes on.
            keras_tuner.errors.FatalRuntimeError: anything else went wrong, as it would in each trial.
        """
        number, trials = int(trial.trial_id) + 1, self.oracle.max_trials
        print(f"Trial {number} of {trials}: {training.describe_values(trial.hyperparameters.values)}", flush=True)
        config = training.with_values(self._config, trial.hyperparameters.values)
        run_dir = self._inputs.run_dir(config)
        keras.utils.clear_session()
        try:
            _, history = training.train_network(config, self._inputs, run_dir)
        except NonFiniteLossError as error:
            print(f"Trial {number} of {trials} diverged.", flush=True)
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            # Only a FatalError leaves keras_tuner's loop; it would log any other one and go on.
            raise keras_tuner.errors.FatalRuntimeError(f"Trial {number} of {trials}: {error}") from error
        accuracies = [epoch.val_accuracy for epoch in history]
        accuracy = max(accuracies) if config.hyperparameters.export_weights == "best" else accuracies[-1]
        shutil.rmtree(run_dir)
        return {OBJECTIVE: accuracy}

    def on_search_end(self) -> None:
        """Makes sure that there is a result: keras_tuner would give a failed trial for the best one.

        Raises:
            RuntimeError: every trial diverged.
        """
        if self.oracle.get_best_trials()[0].score is None:
            raise RuntimeError(
                f"The training diverged in all {self.oracle.max_trials} trials. Lower learning_rate (it is "
                f"{self._config.hyperparameters.learning_rate}) or raise warmup_fraction, and run again."
            )

    def search_space_summary(self, extended: bool = False) -> None:
        """Says what is searched."""
        names = ", ".join(entry.name for entry in self.oracle.get_space().space)
        epochs = self._config.hyperparameters.epochs
        print(f"Searching for better {names} in {self.oracle.max_trials} trials of {epochs} epochs.", flush=True)

    def results_summary(self, num_trials: int = 10) -> None:
        """Says what was found, the best first."""
        for trial in self.oracle.get_best_trials(num_trials):
            score = "diverged" if trial.score is None else f"{trial.score:.4f}"
            print(f"{score:>8}  {training.describe_values(trial.hyperparameters.values)}", flush=True)


def _rounded(value: float) -> float:
    return type(value)(f"{value:.{SIGNIFICANT_DIGITS}g}")
