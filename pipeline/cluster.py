"""What a Kubeflow cluster has to be told: one frozen, validated value. Imports nothing heavy; local runs ignore it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import PurePosixPath

ARTIFACT_SCHEMES = ("s3://", "gs://", "minio://")
"""What Kubeflow Pipelines takes as a pipeline root (backend/src/v2/objectstore/config.go)."""

EVERY_STEP = "*"
"""Key of `amounts_by_step`'s answer that holds for the steps without a key of their own."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where, and with what, the steps of a pipeline run on Kubeflow.

    Nothing here is a secret, and no secret belongs here: all of it but the host goes into the compiled specification.

    Raises:
        ValueError: a field is not usable; names the field, its value and what is allowed.
    """

    image: str = ""
    """Container image of every step, as the cluster pulls it: `registry/name:tag`. Needed for Kubeflow only."""

    image_project_dir: str = "/app"
    """Folder of this repository in that image."""

    artifact_root: str = ""
    """Where Kubeflow keeps artifacts: `s3://`, `gs://` or `minio://` with bucket and prefix, or a folder on the volume.

    Empty: the cluster's own default. The steps themselves need no access to a bucket, Kubeflow copies for them."""

    volume_claim: str = ""
    """Name of the PersistentVolumeClaim (ReadWriteMany) that every step mounts. Needed for Kubeflow only.

    Served models, checkpoints and downloaded data are kept on it."""

    volume_dir: str = "/mnt/alexnet"
    """Where the steps mount the volume. On Kubeflow it takes the place of `output_dir`."""

    step_cpus: str = ""
    """CPU cores that a step may use: `2` for every step, `Trainer=8` for one, or `2,Trainer=8`. Empty: no limit."""

    step_memory_gb: str = ""
    """Memory that a step may use, in GB (1e9 bytes), written as `step_cpus`. Empty: no limit."""

    gpu_type: str = "nvidia.com/gpu"
    """Kubernetes' name of the resource that GPUs are."""

    gpu_count: int = 0
    """GPUs of a step that trains: Trainer, and PreTrainer and Tuner where there are any. 0: none."""

    step_retries: int = 1
    """How often a step that failed is started again; the Trainer then goes on at its last whole epoch."""

    service_account: str = ""
    """Kubernetes service account that the steps run as. Empty: the cluster's default."""

    kubeflow_host: str = ""
    """Address of the Kubeflow Pipelines API, such as `http://localhost:8080`. Needed to submit only."""

    kubeflow_namespace: str = ""
    """Namespace of the runs, in a cluster with several users. Empty: the cluster has one."""

    def __post_init__(self) -> None:
        for name in ("image_project_dir", "volume_dir"):
            self._check(name, _is_absolute(getattr(self, name)), "an absolute path without `..`")
        self._check("image", not re.search(r"\s", self.image), "the name of an image, without spaces")
        volume = PurePosixPath(self.volume_dir)
        self._check(
            "artifact_root",
            self.artifact_root == ""
            or self.artifact_root.startswith(ARTIFACT_SCHEMES)
            or (_is_absolute(self.artifact_root) and PurePosixPath(self.artifact_root).is_relative_to(volume)),
            f"empty, an address that begins with {', '.join(ARTIFACT_SCHEMES)}, or a folder below volume_dir"
            f" ({self.volume_dir})",
        )
        # RFC 1123: what Kubernetes takes as a name.
        for name in ("volume_claim", "service_account", "kubeflow_namespace"):
            value = getattr(self, name)
            legal = value == "" or re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", value)
            self._check(name, bool(legal), "a Kubernetes name: lower-case letters, digits and dashes")
        for name in ("step_cpus", "step_memory_gb"):
            amounts_by_step(name, getattr(self, name))
        self._check("gpu_count", self.gpu_count >= 0, "at least 0")
        self._check("gpu_type", bool(self.gpu_type) or self.gpu_count == 0, "set where gpu_count is")
        self._check("step_retries", self.step_retries >= 0, "at least 0")

    def _check(self, name: str, allowed: bool, expected: str) -> None:
        if not allowed:
            raise ValueError(f"Cluster.{name} is {getattr(self, name)!r}; it has to be {expected}.")

    @property
    def keeps_artifacts_on_volume(self) -> bool:
        """Whether the contents of artifacts stay on the volume instead of in an object store."""
        return self.artifact_root.startswith("/")


def amounts_by_step(name: str, text: str) -> dict[str, float]:
    """Read an amount by step.

    Args:
        name: of the field, for the error.
        text: `2`, `Trainer=8` or `2,Trainer=8`.

    Returns:
        Amounts by step; the one of `EVERY_STEP` holds for the steps that are not named.

    Raises:
        ValueError: it is written otherwise, or an amount is not greater than 0.
    """
    amounts: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        step, _, amount = part.rpartition("=")
        try:
            value = float(amount)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ValueError(
                f"Cluster.{name} is {text!r}; it has to be amounts greater than 0, such as '2', 'Trainer=8' or"
                " '2,Trainer=8'."
            )
        amounts[step.strip() or EVERY_STEP] = value
    return amounts


def _is_absolute(path: str) -> bool:
    return path.startswith("/") and ".." not in PurePosixPath(path).parts
