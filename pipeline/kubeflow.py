"""Compiles the pipeline for Kubeflow Pipelines v2: one specification that its client uploads and its backend runs.

TFX's KubeflowV2DagRunner does most of it. What it leaves out is added here: limits and GPUs for every step, retries,
the volume, and the schema version, without resolvers, that the open-source backend insists on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.cluster import EVERY_STEP, Cluster, amounts_by_step
from pipeline.settings import BUNDLED_SAMPLE, LOCAL_SERVER, OFFICIAL, PROJECT_ROOT, SAMPLE, Settings

if TYPE_CHECKING:
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner
    from tfx.orchestration.pipeline import Pipeline

STEP_COMMAND = ("python", "-m", "pipeline.kubeflow_step")
"""What every container runs."""

TRAINING_STEPS = ("PreTrainer", "Tuner", "Trainer")
"""The steps that get the GPUs."""

UNCACHED = "ServedModel"
"""The step whose output depends on more than its parameters."""

DATA_SCHEMES = ("gs://", "hdfs://")
"""What the steps can read images from, besides folders: TensorFlow's file systems that need nothing installed."""


class KubeflowError(RuntimeError):
    """The pipeline cannot be compiled for, or run on, Kubeflow as it is set; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Specification:
    """What Kubeflow Pipelines takes.

    Attributes:
      pipeline: A PipelineSpec of schema version 2.1.0, as JSON-like values.
      platform: The PlatformSpec that goes with it: the volumes of the steps.
    """

    pipeline: dict[str, Any]
    platform: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write both as the two documents of a YAML file, as the KFP client and the API server read them."""
        import yaml

        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump_all([self.pipeline, self.platform], file, sort_keys=True, allow_unicode=True)


def pipeline_name(settings: Settings) -> str:
    """The pipeline's name on Kubeflow, which takes lower-case letters, digits and dashes."""
    return settings.pipeline_name.replace("_", "-").lower()


def compile_pipeline(settings: Settings, output: Path) -> Specification:
    """Compile the pipeline and write the specification.

    Args:
      settings: Settings of the run; those of the cluster among them.
      output: A .yaml file.

    Raises:
      KubeflowError: A setting is missing, or cannot work on a cluster.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise KubeflowError(f"{output}: Kubeflow's client takes a specification whose name ends in .yaml.")
    pipeline = build_pipeline(settings)
    job = runner(settings, output).run(pipeline, write_out=False)
    specification = fit_to_cluster(job["pipelineSpec"], settings.cluster)
    specification.write(output)
    return specification


def build_pipeline(settings: Settings) -> Pipeline:
    """Build the pipeline with the paths that its steps see.

    Raises:
      KubeflowError: A setting is missing, or cannot work on a cluster.
    """
    check(settings)
    # Here, so that a wrong setting is refused at once: it takes seconds.
    from pipeline.pipeline import SERVED, create_pipeline

    cluster = settings.cluster
    pipeline = create_pipeline(
        # Checkpoints and served models, all that steps share without being artifacts, lie below output_dir.
        dataclasses.replace(settings, output_dir=cluster.volume_dir),
        data_in_steps(settings),
        download=settings.data == OFFICIAL,
        project_dir=cluster.image_project_dir,
        baseline=SERVED,
    )
    pipeline.pipeline_info.pipeline_name = pipeline_name(settings)
    pipeline.pipeline_info.pipeline_root = cluster.artifact_root
    return pipeline


def runner(settings: Settings, output: Path) -> KubeflowV2DagRunner:
    """TFX's runner, as it has to be for the open-source backend.

    Raises:
      KubeflowError: The package kfp is missing.
    """
    try:
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as v2
    except ImportError as error:
        raise KubeflowError(
            f"Compiling for Kubeflow needs the package kfp ({error}): `make environment` installs it."
        ) from error
    config = v2.KubeflowV2DagRunnerConfig(
        default_image=settings.cluster.image,
        default_commands=list(STEP_COMMAND),
        use_pipeline_spec_2_1=True,  # the backend refuses 2.0.0 (backend/src/apiserver/template/v2_template.go)
    )
    return v2.KubeflowV2DagRunner(config, output_dir=str(output.parent), output_filename=output.name)


def check(settings: Settings) -> None:
    """Refuse what can only fail on the cluster.

    Raises:
      KubeflowError: Names the setting and what to do.
    """
    cluster = settings.cluster
    if not cluster.image:
        raise KubeflowError("image is not set: give ALEXNET_IMAGE (--image) the image that the steps run in.")
    if not cluster.volume_claim:
        raise KubeflowError(
            "volume_claim is not set: the Pusher needs a volume that outlives its container, and so does a Trainer that"
            " is to go on after a retry. Give ALEXNET_VOLUME_CLAIM (--volume-claim) the name of a"
            " PersistentVolumeClaim."
        )
    if settings.serving_validation != LOCAL_SERVER:
        raise KubeflowError(
            f"serving_validation is {settings.serving_validation!r}: TFX does not run its InfraValidator on Kubeflow"
            f" Pipelines v2. Use {LOCAL_SERVER!r}."
        )
    if settings.metadata_connection:
        raise KubeflowError(
            f"metadata_connection is {settings.metadata_connection!r}: on Kubeflow, runs are in Kubeflow's own metadata"
            " store. Leave it empty."
        )
    endpoints = [flag for flag in settings.beam.pipeline_args("") if flag.startswith("--job_endpoint=")]
    host = endpoints[-1].partition("=")[2].rpartition(":")[0] if endpoints else ""  # the last one counts
    if host == "localhost" or host.startswith("127."):
        raise KubeflowError(
            f"beam_job_endpoint is on {host}, which in a step is the step's own container. Give"
            " ALEXNET_BEAM_JOB_ENDPOINT (--beam-job-endpoint) the host:port of the job server in the cluster."
        )


def data_in_steps(settings: Settings) -> str:
    """Where the steps find the images.

    Raises:
      KubeflowError: What is set is a path of this machine, or an address that the steps cannot read.
    """
    cluster, data = settings.cluster, settings.data
    if data == SAMPLE:
        return f"{cluster.image_project_dir}/{BUNDLED_SAMPLE.relative_to(PROJECT_ROOT)}"
    if data == OFFICIAL:
        from components.cifar10_example_gen.download import ARCHIVE_NAME

        return f"{cluster.volume_dir}/data/{ARCHIVE_NAME}"
    if "://" in data:
        if data.startswith(DATA_SCHEMES):
            return data
        raise KubeflowError(
            f"data is {data!r}: the steps can read {', '.join(DATA_SCHEMES)} addresses and folders. Copy it onto the"
            f" volume and give its path there, below {cluster.volume_dir}."
        )
    path = PurePosixPath(data)
    if any(path.is_relative_to(folder) for folder in (cluster.volume_dir, cluster.image_project_dir)):
        return data
    raise KubeflowError(
        f"data is {data!r}, a path of this machine, which the steps do not see. Copy it onto the volume and give its"
        f" path there, below {cluster.volume_dir}; or use {SAMPLE!r} or {OFFICIAL!r}."
    )


def fit_to_cluster(pipeline_spec: dict[str, Any], cluster: Cluster) -> Specification:
    """Add to a compiled pipeline what TFX does not: limits, GPUs, retries, the volume, and where artifacts are kept.

    Args:
      pipeline_spec: What KubeflowV2DagRunner made; left as it is.
      cluster: What to add.

    Raises:
      KubeflowError: A setting names a step that there is not, or a step cannot run there.
    """
    tasks = pipeline_spec["root"]["dag"]["tasks"]
    cpu_limit = _amount_of("step_cpus", cluster, list(tasks))
    memory_limit = _amount_of("step_memory_gb", cluster, list(tasks))
    executors, new_tasks, mounts = {}, {}, {}
    for name, task in tasks.items():
        label = pipeline_spec["components"][task["componentRef"]["name"]]["executorLabel"]
        executor = pipeline_spec["deploymentSpec"]["executors"][label]
        if "container" not in executor:
            raise KubeflowError(
                f"{name} is a {', '.join(executor)}: of TFX's nodes, Kubeflow's open-source backend runs those that are"
                " containers. Give the pipeline a component in its place."
            )
        container = dict(executor["container"])
        resources: dict[str, Any] = {}
        if limit := cpu_limit(name):
            resources["cpuLimit"] = limit
        if limit := memory_limit(name):
            resources["memoryLimit"] = limit
        if cluster.gpu_count and name in TRAINING_STEPS:
            # An int64, which is a string in JSON.
            resources["accelerator"] = {"type": cluster.gpu_type, "count": str(cluster.gpu_count)}
        if resources:
            container["resources"] = resources
        if cluster.keeps_artifacts_on_volume:
            container["args"] = [*container["args"], "--local_root", cluster.artifact_root]
        executors[label] = {"container": container}
        task = dict(task)
        if cluster.step_retries:
            task["retryPolicy"] = {"maxRetryCount": cluster.step_retries}
        if name == UNCACHED:
            task["cachingOptions"] = {"enableCache": False}
        new_tasks[name] = task
        mounts[label] = {"pvcMount": [{"constant": cluster.volume_claim, "mountPath": cluster.volume_dir}]}
    pipeline = {
        **pipeline_spec,
        "deploymentSpec": {"executors": executors},
        "root": {**pipeline_spec["root"], "dag": {"tasks": new_tasks}},
    }
    if cluster.artifact_root and not cluster.keeps_artifacts_on_volume:
        pipeline["defaultPipelineRoot"] = cluster.artifact_root
    return Specification(pipeline, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": mounts}}}})


def _amount_of(field: str, cluster: Cluster, steps: list[str]) -> Callable[[str], float | None]:
    """A function from a step's name to its amount, None for no limit."""
    amounts = amounts_by_step(field, getattr(cluster, field))
    unknown = sorted(set(amounts) - {EVERY_STEP, *steps})
    if unknown:
        raise KubeflowError(
            f"{field} names {', '.join(unknown)}, which this pipeline does not have; its steps are"
            f" {', '.join(sorted(steps))}."
        )
    return lambda step: amounts.get(step, amounts.get(EVERY_STEP))
