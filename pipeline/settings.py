"""What a run is: one frozen, validated value, chosen by a profile's name and changed field by field.

Every field, of `Settings`, of its `training` (`models.hyperparameters.Hyperparameters`), its `beam`
(`pipeline.beam.Beam`) and its `cluster` (`pipeline.cluster.Cluster`), can be changed in one way that every entry point
shares: the environment variable `ALEXNET_<FIELD>`, for example

    ALEXNET_PROFILE=cifar10 ALEXNET_EPOCHS=3 tfx pipeline create --engine local --pipeline_path pipeline/local_runner.py
    make run PROFILE=cifar10 ALEXNET_EPOCHS=3
    python -m pipeline.local_runner --profile cifar10 --epochs 3

The last line's flags are the same names and win over the environment. Imports neither TFX nor TensorFlow.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import features
from models.hyperparameters import Hyperparameters
from pipeline.beam import Beam
from pipeline.cluster import Cluster
from pipeline.metadata_server import Server

PROJECT_ROOT = Path(__file__).resolve().parent.parent
BUNDLED_SAMPLE = PROJECT_ROOT / "data" / "cifar-10-sample-binary.tar.gz"
ENVIRONMENT_PREFIX = "ALEXNET_"
DEFAULT_PROFILE = "sample"

SAMPLE = "sample"
OFFICIAL = "official"

LOCAL_SERVER = "local_server"
SERVING_VALIDATIONS = (LOCAL_SERVER, "docker", "kubernetes")


@dataclass(frozen=True)
class Settings:
    """What defines one pipeline run.

    Raises:
        ValueError: a field is out of its range; names the field, its value and what is allowed.
    """

    profile: str = "custom"
    """Name of the profile. Each is a pipeline of its own: its runs, last blessed model and served versions."""

    data: str = OFFICIAL
    """`sample` (bundled), `official` (CIFAR-10's archive, downloaded once), or the path of an archive or folder."""

    validation_fraction: float = 0.1
    """Part of the training images held out, in [0, 1). 0 trains on all of them and validates on the test split."""

    max_test_overlap: float = 0.01
    """Largest share of the test images that may be training or validation images as well, in [0, 1].

    Above it the run stops before training. 1 never stops it; what was found is said all the same.
    """

    pretraining_epochs: int = 0
    """Passes over the training images without their labels, before training. 0: no pre-training.

    A pass shows each image in four rotations: it takes about as long as four epochs of training.
    """

    label_fraction: float = 1.0
    """Part of the training labels that is used, the same of each class, in (0, 1]. An epoch stays as long."""

    tuning_trials: int = 0
    """Trainings that search for better hyperparameters before training, at least 1. 0: the recipe is used as it is."""

    tuning_epochs: int = 5
    """Epochs of each trial, at least 1."""

    accuracy_floor: float = 0.0
    """Test accuracy that a model must reach to be pushed, in [0, 1]."""

    accuracy_tolerance: float = 0.0
    """How much test accuracy a model may lose against the last blessed one, in [0, 1].

    1 allows any loss, and forgets blessed models whose files are gone; otherwise a run without the last one fails.
    """

    class_recall_floor: float = 0.0
    """Recall on the test split that a model must reach in each class, in [0, 1]."""

    serving_validation: str = LOCAL_SERVER
    """Where a candidate is served on trial: `local_server`, or TFX's InfraValidator on `docker` or `kubernetes`."""

    latency_budget_s: float = 0.2
    """Largest median time of a gRPC request for one image, in seconds. Used with `local_server` only."""

    output_dir: str = str(PROJECT_ROOT / "outputs")
    """Where all that runs write goes, in a folder by profile."""

    metadata_connection: str = ""
    """MySQL server for ML Metadata, `mysql://user@host:3306/database`; the password is in the environment variable
    METADATA_PASSWORD, or in the file that METADATA_PASSWORD_FILE names. Empty: a SQLite file in the output folder."""

    enable_cache: bool = True
    """Reuses the outputs of a component whose inputs, parameters and source have not changed."""

    verbose: bool = False
    """Shows the frameworks' own log on the console instead of writing it to the run's log file."""

    training: Hyperparameters = field(default_factory=Hyperparameters)
    """What the Trainer does."""

    beam: Beam = field(default_factory=Beam)
    """What runs the Beam jobs of ExampleGen, StatisticsGen, Transform and the Evaluator."""

    cluster: Cluster = field(default_factory=Cluster)
    """Where and with what the components run on Kubeflow. Local runs ignore it."""

    def __post_init__(self) -> None:
        self._check("profile", self.profile.isidentifier(), "letters, digits and underscores: it names the pipeline")
        self._check("data", bool(self.data), f"{SAMPLE!r}, {OFFICIAL!r} or a path")
        self._check("validation_fraction", 0 <= self.validation_fraction < 1, "in [0, 1)")
        self._check("pretraining_epochs", self.pretraining_epochs >= 0, "at least 0")
        self._check("tuning_trials", self.tuning_trials >= 0, "at least 0")
        self._check("tuning_epochs", self.tuning_epochs >= 1, "at least 1")
        if self.tuning_trials and not self.validation_fraction:
            raise ValueError(
                f"Settings.tuning_trials is {self.tuning_trials} and validation_fraction is 0; it has to be more than "
                "0: without a validation split the test split would choose the hyperparameters."
            )
        if self.pretraining_epochs and self.training.batch_size % 4:
            raise ValueError(
                f"Hyperparameters.batch_size is {self.training.batch_size}; with pretraining_epochs it has to be a "
                "multiple of 4: a batch holds each of its images in four rotations."
            )
        self._check("label_fraction", 0 < self.label_fraction <= 1, "in (0, 1]")
        for name in ("max_test_overlap", "accuracy_floor", "accuracy_tolerance", "class_recall_floor"):
            self._check(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        allowed = f"one of {', '.join(SERVING_VALIDATIONS)}"
        self._check("serving_validation", self.serving_validation in SERVING_VALIDATIONS, allowed)
        self._check("latency_budget_s", self.latency_budget_s > 0, "greater than 0")
        self._check("output_dir", "://" not in str(self.output_dir), "a folder of this machine, not an address")
        if self.metadata_connection:
            Server.parse(self.metadata_connection)

    def _check(self, name: str, allowed: bool, expected: str) -> None:
        if not allowed:
            raise ValueError(f"Settings.{name} is {getattr(self, name)!r}; it has to be {expected}.")

    @property
    def pipeline_name(self) -> str:
        """Name of the TFX pipeline, one by profile; `metadata_store.own_pipeline` is its name on a server."""
        return f"alexnet_{self.profile}"

    @property
    def validation_split(self) -> str:
        """The split that training is watched on (and the best epoch chosen by, where the profile does that)."""
        return features.VALIDATION_SPLIT if self.validation_fraction > 0 else features.TEST_SPLIT

    @property
    def pretraining(self) -> Hyperparameters:
        """What the PreTrainer does, where `pretraining_epochs` asks for one: as training, less what is for labels."""
        return dataclasses.replace(
            self.training,
            epochs=self.pretraining_epochs,
            export_weights="last",
            label_smoothing=0.0,
            weight_averaging=0.0,
            test_time_flip=False,
            test_time_shift=0,
        )

    @property
    def tuning(self) -> Hyperparameters:
        """What a trial of the Tuner does, but for the fields that it searches."""
        return dataclasses.replace(self.training, epochs=self.tuning_epochs)

    @property
    def profile_dir(self) -> Path:
        """Everything that this profile's runs write."""
        return Path(self.output_dir).absolute() / self.profile

    @property
    def pipeline_root(self) -> Path:
        """Artifacts, by component and execution."""
        return self.profile_dir / "artifacts"

    @property
    def metadata_path(self) -> Path:
        """ML Metadata's SQLite database, where `metadata_connection` names no server."""
        return self.profile_dir / "metadata.db"

    @property
    def metadata_connection_path(self) -> Path:
        """Holds the last run's `metadata_connection`, where it had one: for the commands that look at runs."""
        return self.profile_dir / "metadata_connection"

    @property
    def pipeline_name_path(self) -> Path:
        """Holds the pipeline's name on metadata servers, from the first run with one on."""
        return self.profile_dir / "pipeline_name"

    @property
    def checkpoint_dir(self) -> Path:
        """Checkpoints of trainings under way, which an interrupted run goes on from."""
        return self.profile_dir / "checkpoints"

    @property
    def log_dir(self) -> Path:
        """One file a run, with all that the frameworks said."""
        return self.profile_dir / "logs"

    @property
    def serving_dir(self) -> Path:
        """TensorFlow Serving's base path of the model: a folder a version."""
        return self.profile_dir / "serving_model" / "alexnet"


_RECIPE = Hyperparameters(
    batch_norm_momentum=0.9,
    optimizer="muon",
    kernel_learning_rate=0.04,
    label_smoothing=0.1,
    cutout=8,
    dropout=0.2,
    test_time_flip=True,
)
"""What trains AlexNet well in 20 epochs, on all of CIFAR-10 and on a tenth of it: found on the validation split."""

PROFILES: dict[str, Settings] = {
    settings.profile: settings
    for settings in (
        # For tests: two epochs on the bundled sample; every component runs, the gate is barely above chance.
        Settings(
            profile="smoke",
            data=SAMPLE,
            accuracy_floor=0.15,
            accuracy_tolerance=1.0,
            training=Hyperparameters(epochs=2, batch_size=32, learning_rate=0.02),
        ),
        # For a first look: the bundled sample, in minutes on a laptop.
        Settings(
            profile="sample",
            data=SAMPLE,
            accuracy_floor=0.6,
            accuracy_tolerance=0.02,
            class_recall_floor=0.3,
            training=dataclasses.replace(_RECIPE, batch_size=64),
        ),
        # The recipe of the notebook that this project started from. It validates on the test split, so the weights of
        # the last epoch are exported: choosing the best one would be choosing by the test split.
        Settings(
            profile="seed",
            data=OFFICIAL,
            validation_fraction=0.0,
            accuracy_floor=0.55,
            accuracy_tolerance=0.02,
            class_recall_floor=0.2,
            training=Hyperparameters(
                batch_size=32,
                learning_rate=0.001,
                momentum=0.0,
                nesterov=False,
                weight_decay=0.0,
                schedule="constant",
                translation=0,
                horizontal_flip=False,
                export_weights="last",
                mixed_precision="off",
            ),
        ),
        # The same network and number of epochs, trained well.
        Settings(
            profile="cifar10",
            data=OFFICIAL,
            validation_fraction=0.05,
            accuracy_floor=0.8,
            accuracy_tolerance=0.01,
            class_recall_floor=0.6,
            training=_RECIPE,
        ),
        # AlexNet's layers with kernels, strides and widths made for 64x64 images.
        Settings(
            profile="cifar10_fit",
            data=OFFICIAL,
            validation_fraction=0.05,
            accuracy_floor=0.85,
            accuracy_tolerance=0.01,
            class_recall_floor=0.6,
            training=dataclasses.replace(
                _RECIPE,
                network="alexnet_fit",
                epochs=28,
                kernel_learning_rate=0.03,
                cutout=24,
                dropout=0.4,
                test_time_shift=2,
            ),
        ),
        # `cifar10`, whose convolutions have learned from the images without their labels first.
        Settings(
            profile="pretrained",
            data=OFFICIAL,
            validation_fraction=0.05,
            pretraining_epochs=5,
            accuracy_floor=0.8,
            accuracy_tolerance=0.01,
            class_recall_floor=0.6,
            training=_RECIPE,
        ),
    )
}
"""Settings by profile. What each one reaches, on what and in what time, is measured in the README."""


PARTS: dict[str, type] = {"training": Hyperparameters, "beam": Beam, "cluster": Cluster}
"""Fields of `Settings` that are dataclasses themselves, and what they are. No two have a field of the same name."""


def field_types() -> dict[str, type]:
    """Name and type of every field that can be changed from outside, of `Settings` and of its parts."""
    types: dict[str, type] = {}
    for cls in (Settings, *PARTS.values()):
        types |= typing.get_type_hints(cls)
    return {name: kind for name, kind in types.items() if name not in ("profile", *PARTS)}


def _parse(name: str, text: str) -> Any:
    """Turn a field's text into its type, or raise a ValueError that names the field."""
    kind = field_types()[name]
    if kind is bool:
        values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if text.lower() not in values:
            raise ValueError(f"{name} is {text!r}; it has to be true or false.")
        return values[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} is {text!r}; it has to be {wanted}.") from None
    return text


def make_settings(profile: str = DEFAULT_PROFILE, changes: Mapping[str, Any] | None = None) -> Settings:
    """Return a profile's settings with some fields changed.

    Args:
        profile: a key of PROFILES.
        changes: values by field name, of `Settings` or of one of its parts; texts are parsed to the field's type.

    Raises:
        ValueError: unknown profile or field, or a value that the field does not allow.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; it has to be one of {', '.join(PROFILES)}.")
    changed: dict[str, Any] = {}
    for name, value in (changes or {}).items():
        if name not in field_types():
            raise ValueError(f"There is no setting {name}; there are {', '.join(field_types())}.")
        changed[name] = _parse(name, value) if isinstance(value, str) else value
    settings = PROFILES[profile]
    parts = {
        part: dataclasses.replace(
            getattr(settings, part),
            **{f.name: changed.pop(f.name) for f in dataclasses.fields(cls) if f.name in changed},
        )
        for part, cls in PARTS.items()
    }
    return dataclasses.replace(settings, **changed, **parts)


def settings_from_environment(environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the profile's name and the changed fields that `ALEXNET_<FIELD>` variables state.

    An empty variable counts as not set.

    Raises:
        ValueError: a variable names no field, which is likely a typing mistake.
    """
    stated = {
        name[len(ENVIRONMENT_PREFIX) :].lower(): text
        for name, text in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and text
    }
    profile = stated.pop("profile", DEFAULT_PROFILE)
    for name in stated:
        if name not in field_types():
            known = ", ".join(ENVIRONMENT_PREFIX + key.upper() for key in ("profile", *field_types()))
            raise ValueError(f"There is no setting {ENVIRONMENT_PREFIX}{name.upper()}; there are {known}.")
    return profile, stated


def parse_command_line(
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    parser: argparse.ArgumentParser | None = None,
) -> Settings:
    """Return the settings that the environment and a command line's flags ask for; flags win.

    Prints a message and exits with status 2 where they ask for something that is not allowed.

    Args:
        arguments: the command line, without the program's name; None takes that of this process.
        environment: variables by name.
        parser: of a command with flags of its own, which are left to it; None is the local run's.
    """
    if parser is None:
        parser = argparse.ArgumentParser(
            prog="python -m pipeline.local_runner",
            description="Run the pipeline on this machine: CIFAR-10 in, a gated and pushed AlexNet out.",
        )
    parser.epilog = f"Each setting can also be an environment variable, e.g. {ENVIRONMENT_PREFIX}EPOCHS=3."
    parser.add_argument("--profile", choices=list(PROFILES), help=f"Which settings to start from: {DEFAULT_PROFILE}.")
    for title, cls in {"pipeline": Settings, **PARTS}.items():
        group = parser.add_argument_group(title)
        for name, description in _descriptions(cls).items():
            if kind := field_types().get(name):
                flag = f"--{name.replace('_', '-')}"
                group.add_argument(flag, dest=name, metavar=kind.__name__.upper(), help=description)
    known = {"profile", *field_types()}
    given = vars(parser.parse_args(arguments)).items()
    flags = {name: text for name, text in given if text is not None and name in known}
    try:
        profile, changes = settings_from_environment(environment)
        return make_settings(flags.pop("profile", profile), changes | flags)
    except ValueError as error:
        parser.exit(2, f"{error}\n")


def _descriptions(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, by field; `%` doubled, as argparse wants it."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        statement.target.id: " ".join(text.value.value.split()).replace("%", "%%")
        for statement, text in itertools.pairwise(tree.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
