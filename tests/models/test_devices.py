import pytest
import tensorflow as tf

from models import devices
from models.hyperparameters import Hyperparameters


@pytest.mark.parametrize(
    ("mixed_precision", "capabilities", "expected"),
    [
        ("auto", [], "float32"),
        ("auto", [(7, 5)], "float32"),
        ("auto", [None], "float32"),
        ("auto", [(8, 0)], "mixed_bfloat16"),
        ("auto", [(9, 0), (9, 0)], "mixed_bfloat16"),
        ("auto", [(9, 0), (7, 0)], "float32"),
        ("on", [], "mixed_bfloat16"),
        ("off", [(9, 0)], "float32"),
    ],
)
def test_precision(mixed_precision: str, capabilities: list[tuple[int, int] | None], expected: str):
    assert devices.choose_dtype(mixed_precision, capabilities) == expected


@pytest.mark.parametrize(
    ("xla", "num_gpus", "expected"),
    [("auto", 0, False), ("auto", 1, True), ("auto", 2, False), ("on", 0, True), ("off", 1, False)],
)
def test_xla(xla: str, num_gpus: int, expected: bool):
    assert devices.choose_jit_compile(xla, num_gpus) is expected


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU")
def test_without_gpu_training_is_plain():
    chosen = devices.configure_devices(Hyperparameters())
    assert chosen.strategy.num_replicas_in_sync == 1
    assert (chosen.dtype, chosen.jit_compile, chosen.description) == ("float32", False, "CPU, float32")
