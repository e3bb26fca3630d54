"""Which hardware trains, and how: distribution, precision, compilation."""

import dataclasses
import os
from pathlib import Path

import tensorflow as tf

from models import multi_worker
from models.hyperparameters import Hyperparameters

BFLOAT16_CAPABILITY = (8, 0)
"""First compute capability of NVIDIA GPUs (Ampere) with bfloat16 arithmetic."""

BFLOAT16_CPU_FLAGS = ("avx512_bf16", "amx_bf16")
"""What Linux calls bfloat16 arithmetic on x86 processors (AMD from Zen 4 on, Intel Xeon from Cooper Lake on)."""

CPU_INFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Devices:
    """What `configure_devices` chose.

    Attributes:
        strategy: MultiWorkerMirroredStrategy in a cluster, else MirroredStrategy over several GPUs, else TensorFlow's
            default.
        dtype: the model's Keras dtype policy.
        jit_compile: whether XLA compiles the training step.
        description: the choice, in a few words.
    """

    strategy: tf.distribute.Strategy
    dtype: str
    jit_compile: bool
    description: str

    @property
    def num_replicas(self) -> int:
        """How many parts a batch is cut into, one a device of each worker."""
        return int(self.strategy.num_replicas_in_sync)


def configure_devices(hyperparameters: Hyperparameters) -> Devices:
    """Uses all visible GPUs, or else the CPU; of all workers, where this process has joined a cluster.

    Args:
        hyperparameters: uses `mixed_precision` and `xla`.

    Returns:
        The choice. GPU memory then grows as needed, if TensorFlow had not started the GPUs before.
    """
    gpus = grow_gpu_memory()
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
    dtype = choose_dtype(hyperparameters.mixed_precision, capabilities, cpu_has_bfloat16())
    workers = multi_worker.strategy()
    num_workers = len(multi_worker.Cluster.from_environment().workers) if workers else 1
    jit_compile = choose_jit_compile(hyperparameters.xla, len(gpus) * num_workers)
    names = "CPU" if not gpus else "1 GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
    if workers:
        names = f"{num_workers} workers, {names} each"
    alone = tf.distribute.MirroredStrategy() if len(gpus) > 1 and not workers else tf.distribute.get_strategy()
    return Devices(
        strategy=workers or alone,
        dtype=dtype,
        jit_compile=jit_compile,
        description=f"{names}, {dtype}{', XLA' if jit_compile else ''}",
    )


def grow_gpu_memory() -> list[tf.config.PhysicalDevice]:
    """Makes TensorFlow take GPU memory as it needs it; returns the visible GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            print(f"{gpu.name} is in use already: its memory is taken as TF_FORCE_GPU_ALLOW_GROWTH said at the start.")
    return list(gpus)


def cpu_has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this machine's CPU multiplies bfloat16 itself, and TensorFlow lets oneDNN use that.

    Args:
        cpu_info: Linux' description of the processors; without it (macOS) the answer is no.
    """
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") in ("0", "false") or not cpu_info.exists():
        return False
    words = cpu_info.read_text(encoding="utf-8").split()
    return any(flag in words for flag in BFLOAT16_CPU_FLAGS)


def choose_dtype(mixed_precision: str, capabilities: list[tuple[int, int] | None], bfloat16_cpu: bool) -> str:
    """The Keras dtype policy.

    bfloat16 and not float16, since its range is that of float32: no loss scaling is needed.

    Args:
        mixed_precision: the setting.
        capabilities: the GPUs' compute capabilities, None where unknown. No GPU: the CPU trains.
        bfloat16_cpu: from `cpu_has_bfloat16`.
    """
    if capabilities:
        fast = all(found is not None and found >= BFLOAT16_CAPABILITY for found in capabilities)
    else:
        fast = bfloat16_cpu
    return "mixed_bfloat16" if mixed_precision == "on" or (mixed_precision == "auto" and fast) else "float32"


def choose_jit_compile(xla: str, num_gpus: int) -> bool:
    """Whether to compile with XLA: it slows a CPU down, and several GPUs synchronize better without it."""
    return xla == "on" or (xla == "auto" and num_gpus == 1)
