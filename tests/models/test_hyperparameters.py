import dataclasses
import json
import math
import subprocess
import sys

import pytest

from models.hyperparameters import Hyperparameters


def test_survives_json():
    recipe = Hyperparameters(epochs=3, learning_rate=1.0, schedule="constant", horizontal_flip=False, seed=7)
    assert Hyperparameters.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_whole_numbers_of_float_fields_become_floats():
    recipe = Hyperparameters.from_dict({"momentum": 0, "weight_decay": 0})
    assert json.dumps(recipe.to_dict()) == json.dumps(Hyperparameters(momentum=0.0, weight_decay=0.0).to_dict())


def test_absent_fields_keep_their_default():
    assert Hyperparameters.from_dict({"epochs": 2}) == dataclasses.replace(Hyperparameters(), epochs=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", "resnet"),
        ("without_convolution", 6),
        ("without_convolution", -1),
        ("batch_norm_momentum", 1.0),
        ("optimizer", "adam"),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("weight_averaging", 1.0),
        ("weight_averaging", -0.5),
        ("test_time_flip", 1),
        ("test_time_shift", -1),
        ("test_time_shift", 64),
        ("epochs", 0),
        ("epochs", True),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "0.1"),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("nesterov", 1),
        ("weight_decay", -1e-4),
        ("schedule", "cosine"),
        ("warmup_fraction", 1.0),
        ("translation", -1),
        ("translation", 64),
        ("cutout", -1),
        ("cutout", 65),
        ("color_jitter", -0.1),
        ("dropout", 1.0),
        ("export_weights", "first"),
        ("seed", -1),
        ("seed", 2**31),
        ("steps_per_execution", 0),
        ("mixed_precision", "yes"),
        ("xla", True),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object):
    with pytest.raises(ValueError, match=rf"Hyperparameters\.{field} is .*; it has to be ") as error:
        Hyperparameters.from_dict({field: value})
    assert repr(value) in str(error.value)


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no field learningrate; it has network, "):
        Hyperparameters.from_dict({"learningrate": 0.1})


def test_imports_nothing_heavy():
    code = (
        "import sys, models.hyperparameters, models.features;"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'tensorflow', 'keras', 'tfx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
