from pathlib import Path

import pytest
import tensorflow as tf

from models import devices
from models.hyperparameters import Hyperparameters


@pytest.mark.parametrize(
    ("mixed_precision", "capabilities", "bfloat16_cpu", "expected"),
    [
        ("auto", [], False, "float32"),
        ("auto", [], True, "mixed_bfloat16"),
        ("auto", [(7, 5)], True, "float32"),
        ("auto", [None], True, "float32"),
        ("auto", [(8, 0)], False, "mixed_bfloat16"),
        ("auto", [(9, 0), (9, 0)], False, "mixed_bfloat16"),
        ("auto", [(9, 0), (7, 0)], True, "float32"),
        ("on", [], False, "mixed_bfloat16"),
        ("off", [(9, 0)], False, "float32"),
        ("off", [], True, "float32"),
    ],
)
def test_precision(mixed_precision: str, capabilities: list[tuple[int, int] | None], bfloat16_cpu: bool, expected: str):
    assert devices.choose_dtype(mixed_precision, capabilities, bfloat16_cpu) == expected


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse2\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni\n", False),
        ("model name\t: avx512_bf16x\n", False),
        (None, False),
    ],
)
def test_the_cpu_says_whether_it_has_bfloat16(cpu_info: str | None, expected: bool, tmp_path: Path):
    if cpu_info is not None:
        (tmp_path / "cpuinfo").write_text(cpu_info)
    assert devices.cpu_has_bfloat16(tmp_path / "cpuinfo") is expected


def test_without_onednn_the_cpus_bfloat16_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16\n")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert devices.cpu_has_bfloat16(tmp_path / "cpuinfo") is False


@pytest.mark.parametrize(
    ("xla", "num_gpus", "expected"),
    [("auto", 0, False), ("auto", 1, True), ("auto", 2, False), ("on", 0, True), ("off", 1, False)],
)
def test_xla(xla: str, num_gpus: int, expected: bool):
    assert devices.choose_jit_compile(xla, num_gpus) is expected


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU")
def test_without_gpu_training_is_plain():
    chosen = devices.configure_devices(Hyperparameters(mixed_precision="off"))
    assert chosen.strategy.num_replicas_in_sync == 1
    assert (chosen.dtype, chosen.jit_compile, chosen.description) == ("float32", False, "CPU, float32")
