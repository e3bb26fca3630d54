import dataclasses
import subprocess
import sys

import pytest
from processor_time import children_cpu_s

from models import features
from pipeline import settings
from pipeline.settings import PROFILES, PROJECT_ROOT, Settings, make_settings, parse_command_line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("validation_fraction", 1.0),
        ("validation_fraction", -0.1),
        ("max_test_overlap", 1.01),
        ("max_test_overlap", -0.01),
        ("accuracy_floor", 1.5),
        ("accuracy_tolerance", -0.01),
        ("class_recall_floor", 2),
        ("data", ""),
        ("serving_validation", "nowhere"),
        ("latency_budget_s", 0.0),
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", -1.0),
        ("schedule", "steps"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_the_fields_name(field, value):
    with pytest.raises(ValueError, match=rf"\.{field} is {value!r}; it has to be"):
        make_settings("sample", {field: value})


def test_profile_must_be_able_to_name_a_pipeline():
    with pytest.raises(ValueError, match="profile is 'my profile'"):
        Settings(profile="my profile")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_settings("sample").accuracy_floor = 0.0  # type: ignore[misc]  # the assignment is the test


def test_every_profile_is_known_by_its_own_name():
    assert set(PROFILES) == {"smoke", "sample", "seed", "cifar10", "cifar10_fit", "pretrained"}
    assert all(name == profile.profile for name, profile in PROFILES.items())


def test_seed_profile_is_the_notebooks_recipe():
    seed = PROFILES["seed"]
    training = seed.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (20, 32, 0.001)
    assert (training.momentum, training.weight_decay, training.schedule) == (0.0, 0.0, "constant")
    assert (training.translation, training.horizontal_flip, training.color_jitter) == (0, False, 0.0)
    assert training.mixed_precision == "off"
    assert (training.network, training.without_convolution, training.batch_norm_momentum) == ("alexnet", 0, 0.99)
    assert (training.optimizer, training.dropout, training.label_smoothing) == ("sgd", 0.5, 0.0)
    assert (training.weight_averaging, training.test_time_flip) == (0.0, False)
    assert (seed.validation_fraction, seed.validation_split) == (0.0, features.TEST_SPLIT)
    assert training.export_weights == "last"  # choosing an epoch by the test split would not be the notebook's


def test_full_size_profiles_never_fall_back_to_the_sample():
    assert {PROFILES[name].data for name in ("seed", "cifar10", "cifar10_fit", "pretrained")} == {settings.OFFICIAL}


def test_environment_changes_fields_of_settings_and_of_training():
    chosen = parse_command_line(
        [],
        {"ALEXNET_PROFILE": "cifar10", "ALEXNET_EPOCHS": "3", "ALEXNET_ACCURACY_FLOOR": "0.5", "HOME": "/x"},
    )
    assert (chosen.profile, chosen.training.epochs, chosen.accuracy_floor) == ("cifar10", 3, 0.5)
    assert chosen.training.batch_size == PROFILES["cifar10"].training.batch_size


def test_flags_win_over_the_environment():
    chosen = parse_command_line(["--epochs", "5"], {"ALEXNET_EPOCHS": "3", "ALEXNET_BATCH_SIZE": "64"})
    assert (chosen.training.epochs, chosen.training.batch_size) == (5, 64)


def test_empty_environment_variable_counts_as_not_set():
    assert parse_command_line([], {"ALEXNET_PROFILE": "", "ALEXNET_DATA": ""}) == PROFILES["sample"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ALEXNET_EPOCH": "3"}, "There is no setting ALEXNET_EPOCH;"),
        (
            {"ALEXNET_PROFILE": "cifar"},
            "profile is 'cifar'; it has to be one of smoke, sample, seed, cifar10",
        ),
        ({"ALEXNET_EPOCHS": "many"}, "epochs is 'many'; it has to be a whole number"),
        ({"ALEXNET_ACCURACY_FLOOR": "high"}, "accuracy_floor is 'high'; it has to be a number"),
        ({"ALEXNET_ENABLE_CACHE": "maybe"}, "enable_cache is 'maybe'; it has to be true or false"),
        ({"ALEXNET_SCHEDULE": "steps"}, "schedule is 'steps'; it has to be one of"),
    ],
)
def test_a_wrong_environment_is_refused_with_its_name(environment, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_command_line([], environment)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0", False), ("Yes", True), ("no", False)])
def test_booleans(text, value):
    assert make_settings("sample", {"enable_cache": text}).enable_cache is value


def test_every_field_has_a_flag_and_a_description():
    fields = set(settings.field_types())
    own = {f.name for f in dataclasses.fields(Settings)} - {"profile", *settings.PARTS}
    parts = [{f.name for f in dataclasses.fields(cls)} for cls in settings.PARTS.values()]
    assert fields == own.union(*parts)
    assert len(fields) == len(own) + sum(len(part) for part in parts)  # no name is used twice
    described = settings._descriptions(Settings)
    for cls in settings.PARTS.values():
        described |= settings._descriptions(cls)
    assert fields < set(described)
    assert all(described.values())


def test_profiles_write_to_folders_of_their_own(tmp_path):
    chosen = [make_settings(name, {"output_dir": str(tmp_path)}) for name in PROFILES]
    for place in (
        "pipeline_root",
        "metadata_path",
        "checkpoint_dir",
        "log_dir",
        "serving_dir",
        "pipeline_name",
    ):
        assert len({getattr(s, place) for s in chosen}) == len(chosen)


def test_help_imports_nothing_heavy_and_answers_at_once():
    before_s = children_cpu_s()
    code = (
        "import sys, runpy; sys.argv = ['local_runner', '--help']\n"
        "try:\n    runpy.run_module('pipeline.local_runner', run_name='__main__')\n"
        "except SystemExit as stopped:\n    assert stopped.code == 0\n"
        "print(sorted({'tensorflow', 'tfx', 'keras', 'apache_beam'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert shown.splitlines()[-1] == "[]"
    assert "--accuracy-floor" in shown
    assert "--learning-rate" in shown
    assert children_cpu_s() - before_s < 1


def test_an_address_is_no_output_folder():
    with pytest.raises(ValueError, match=r"Settings\.output_dir is 'gs://bucket/runs'; it has to be a folder"):
        make_settings("smoke", {"output_dir": "gs://bucket/runs"})
