"""Uploads a compiled pipeline to Kubeflow Pipelines, starts it and follows the run."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.kubeflow import KubeflowError, pipeline_name

if TYPE_CHECKING:
    import kfp
    from kfp_server_api import V2beta1Run

    from pipeline.settings import Settings

TOKEN_VARIABLE = "KUBEFLOW_TOKEN"
"""Environment variable of a bearer token for the API. Never a setting: settings go into the specification."""

SUCCEEDED = "SUCCEEDED"
FINAL_STATES = (SUCCEEDED, "SKIPPED", "FAILED", "CANCELED")
"""States that a run does not leave (V2beta1RuntimeState). kfp.Client's own waiting goes on after CANCELED."""

POLL_S = 10.0
"""Wait between two looks at a run, in seconds."""

MAX_FAILED_LOOKS = 30
"""Looks in a row without an answer, after which following gives up: five minutes."""


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A run that was started.

    Attributes:
      run_id: Kubeflow's id of it.
      page: Address of its page in Kubeflow's user interface.
    """

    run_id: str
    page: str


def connect(host: str, namespace: str = "") -> kfp.Client:
    """Connect to the Kubeflow Pipelines API. A token in the environment (KUBEFLOW_TOKEN) is sent as a bearer token.

    Args:
      host: Its address.
      namespace: Of the user, in a cluster with several; empty for none.

    Raises:
      KubeflowError: No host is given, or there is no such API.
    """
    if not host:
        raise KubeflowError(
            "kubeflow_host is not set: give ALEXNET_KUBEFLOW_HOST (--kubeflow-host) the address of the Kubeflow"
            " Pipelines API, such as http://localhost:8080 after `kubectl port-forward -n kubeflow"
            " svc/ml-pipeline-ui 8080:80`."
        )
    import kfp

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that it needs Kubeflow Pipelines 2
            client = kfp.Client(host=host, existing_token=os.environ.get(TOKEN_VARIABLE) or None)
        client.get_kfp_healthz()  # the constructor asks only where the user's home has no namespace set
    except _failures() as error:
        raise KubeflowError(f"{host}: no Kubeflow Pipelines API answers there: {_reason(error)}") from error
    if namespace:
        client._context_setting["namespace"] = namespace  # set_user_namespace would write it to the home folder
    return client


def submit(client: kfp.Client, settings: Settings, package: Path) -> Submitted:
    """Upload a compiled pipeline, as a new version where the pipeline is there already, and start it.

    Args:
      client: From `connect`.
      settings: Those that the package was compiled with.
      package: What `kubeflow.compile_pipeline` wrote.

    Raises:
      KubeflowError: The API refuses it; the message says why.
    """
    name = pipeline_name(settings)
    pipeline_id, version_id = upload(client, name, package, settings.cluster.kubeflow_namespace)
    cluster = settings.cluster
    root = "" if cluster.keeps_artifacts_on_volume else cluster.artifact_root
    return start(client, settings, name, pipeline_id, version_id, root)


def upload(client: kfp.Client, name: str, package: Path, namespace: str = "") -> tuple[str, str]:
    """Upload a compiled pipeline; return its id and the id of the new version.

    Raises:
      KubeflowError: The API refuses it; the message says why.
    """
    try:
        pipeline_id = client.get_pipeline_id(name)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(package), name, namespace=namespace or None).pipeline_id
            return pipeline_id, latest_version(client, pipeline_id)
        version = time.strftime(f"{name}-%Y%m%d-%H%M%S")
        uploaded = client.upload_pipeline_version(str(package), version, pipeline_id=pipeline_id)
    except _failures() as error:
        raise KubeflowError(f"Kubeflow does not take {package}: {_reason(error)}") from error
    return pipeline_id, uploaded.pipeline_version_id


def latest_version(client: kfp.Client, pipeline_id: str) -> str:
    """Id of the version of a pipeline that was uploaded last."""
    versions = client.list_pipeline_versions(pipeline_id, page_size=1, sort_by="created_at desc").pipeline_versions
    return versions[0].pipeline_version_id


def compiled_root(client: kfp.Client, pipeline_id: str, version_id: str) -> str:
    """Where the artifacts of an uploaded version go, as it was compiled; empty for the cluster's own root.

    A run has to be told: the backend does not look there.
    """
    specification = client.get_pipeline_version(pipeline_id, version_id).pipeline_spec or {}
    return specification.get("pipeline_spec", specification).get("defaultPipelineRoot", "")


def start(
    client: kfp.Client, settings: Settings, name: str, pipeline_id: str, version_id: str, pipeline_root: str
) -> Submitted:
    """Start an uploaded version, in the experiment that has the pipeline's name.

    Args:
      client: From `connect`.
      settings: Those of the cluster say for whom.
      name: Of the pipeline.
      pipeline_id: Its id.
      version_id: Of the version.
      pipeline_root: Where artifacts go; empty for the cluster's own root.

    Raises:
      KubeflowError: The API refuses it; the message says why.
    """
    cluster = settings.cluster
    try:
        experiment = client.create_experiment(name, namespace=cluster.kubeflow_namespace or None)
        run = client.run_pipeline(
            experiment_id=experiment.experiment_id,
            job_name=time.strftime(f"{name} %Y-%m-%d %H:%M:%S"),
            pipeline_id=pipeline_id,
            version_id=version_id,
            pipeline_root=pipeline_root or None,
            service_account=cluster.service_account or None,
        )
    except _failures() as error:
        raise KubeflowError(f"Kubeflow does not start {name}: {_reason(error)}") from error
    return Submitted(run.run_id, f"{client._get_url_prefix()}/#/runs/details/{run.run_id}")


def follow(
    client: kfp.Client,
    run_id: str,
    steps: Collection[str],
    poll_s: float = POLL_S,
    show: Callable[[str], None] = print,
) -> str:
    """Follow a run to its end; show a line whenever it or one of its steps changes state.

    Args:
      client: From `connect`.
      run_id: Of the run.
      steps: Names of the pipeline's steps. The backend's own tasks, such as a driver for each, are shown if they fail.
      poll_s: Wait between two looks, in seconds.
      show: Takes a line.

    Returns:
      The state in which the run ended, one of FINAL_STATES.

    Raises:
      KubeflowError: The API has not answered MAX_FAILED_LOOKS times in a row. The run goes on.
    """
    shown: dict[str, str] = {}
    failed = 0
    while True:
        try:
            run = client.get_run(run_id)
        except _failures() as error:
            failed += 1
            if failed == MAX_FAILED_LOOKS:
                raise KubeflowError(f"No longer following run {run_id}, which goes on: {_reason(error)}") from error
            time.sleep(poll_s)
            continue
        failed = 0
        for name, state, trouble in _states(run, steps):
            if shown.get(name) != state:
                shown[name] = state
                show(f"  {name:<23} {state.lower()}{f': {trouble}' if trouble else ''}")
        if run.state in FINAL_STATES:
            return run.state
        time.sleep(poll_s)


def _states(run: V2beta1Run, steps: Collection[str]) -> list[tuple[str, str, str]]:
    """Name, state and error of the steps that have one, and last of the run itself."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    states = [
        (task.display_name, task.state, task.error.message if task.error else "")
        for task in tasks
        if task.state and (task.state == "FAILED" or task.display_name in steps)
    ]
    return [*states, ("run", run.state or "PENDING", run.error.message if run.error else "")]


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises: for an answer that is not a success, for none, and after its own repeated tries."""
    import kfp_server_api
    import urllib3

    return kfp_server_api.ApiException, urllib3.exceptions.HTTPError, TimeoutError


def _reason(error: Exception) -> str:
    """What the API said, in a line."""
    body = getattr(error, "body", None)
    status = getattr(error, "status", None)
    return f"{status} {getattr(error, 'reason', '')}: {body}".strip() if status else str(body or error)
