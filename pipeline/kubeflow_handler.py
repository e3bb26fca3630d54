"""What `--engine kubeflow` of the `tfx` command does: see pipeline/tfx_cli.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import kfp
from kfp_server_api import ApiException, V2beta1Run
from tfx.tools.cli import labels
from tfx.tools.cli.handler import base_handler
from tfx.tools.cli.handler.kubeflow_v2_dag_runner_patcher import KubeflowV2DagRunnerPatcher

from pipeline import kubeflow_client, settings
from pipeline.kubeflow import KubeflowError

Method = TypeVar("Method", bound=Callable[..., None])


def _told(method: Method) -> Method:
    """End the command with an error's message, where it is one that a user can act on."""

    @wraps(method)
    def told(*arguments: Any) -> None:
        try:
            method(*arguments)
        except (KubeflowError, ValueError) as error:
            sys.exit(str(error))
        except ApiException as error:
            sys.exit(f"Kubeflow answers {error.status} {error.reason}: {error.body}")

    return told  # type: ignore[return-value]  # wraps() gives it the method's signature


class KubeflowHandler(base_handler.BaseHandler):
    """The commands of `tfx pipeline` and `tfx run`, spoken to the API of Kubeflow Pipelines 2.

    All settings come from `ALEXNET_<FIELD>`: of a run, those alone that say where Kubeflow is and for whom it runs, and
    the others from the version that was uploaded last. `--endpoint` wins over `kubeflow_host`. `--namespace` and
    `--iap_client_id` are not used: `kubeflow_namespace` and the token in KUBEFLOW_TOKEN are.
    """

    def _client(self) -> kfp.Client:
        cluster = self._settings().cluster
        return kubeflow_client.connect(
            self.flags_dict.get(labels.ENDPOINT) or cluster.kubeflow_host, cluster.kubeflow_namespace
        )

    def _settings(self) -> settings.Settings:
        return settings.make_settings(*settings.settings_from_environment(os.environ))

    @_told
    def create_pipeline(self, update: bool = False) -> None:
        """Compile a pipeline and upload it; with `update`, as a new version of one that is there."""
        context = self._compile()
        name, package = context[KubeflowV2DagRunnerPatcher.PIPELINE_NAME], self._package(context)
        client = self._client()
        exists = client.get_pipeline_id(name) is not None
        if exists and not update:
            raise KubeflowError(f"Pipeline {name} is there already: `pipeline update` uploads a new version.")
        if update and not exists:
            raise KubeflowError(f"There is no pipeline {name} yet: `pipeline create` uploads it.")
        pipeline_id, version_id = kubeflow_client.upload(
            client, name, package, self._settings().cluster.kubeflow_namespace
        )
        click.echo(f"Pipeline {name} {'updated' if update else 'created'}: {pipeline_id}, version {version_id}.")

    def update_pipeline(self) -> None:
        """Compile a pipeline and upload it as a new version."""
        self.create_pipeline(True)

    @_told
    def compile_pipeline(self) -> None:
        """Compile a pipeline and say where the specification is."""
        click.echo(f"Pipeline compiled: {self._package(self._compile())}")

    @_told
    def list_pipelines(self) -> None:
        """List the names and ids of the pipelines."""
        pipelines = self._client().list_pipelines(page_size=100).pipelines or []
        click.echo("\n".join(f"{pipeline.display_name}  {pipeline.pipeline_id}" for pipeline in pipelines))

    @_told
    def delete_pipeline(self) -> None:
        """Delete a pipeline with all its versions; its runs stay."""
        client = self._client()
        pipeline_id = self._pipeline_id(client)
        for version in client.list_pipeline_versions(pipeline_id, page_size=100).pipeline_versions or []:
            client.delete_pipeline_version(pipeline_id, version.pipeline_version_id)
        client.delete_pipeline(pipeline_id)
        click.echo(f"Pipeline {self.flags_dict[labels.PIPELINE_NAME]} deleted.")

    @_told
    def create_run(self) -> None:
        """Start the version of a pipeline that was uploaded last."""
        if self.flags_dict.get(labels.RUNTIME_PARAMETER):
            raise KubeflowError("This pipeline has no runtime parameters: settings are given when it is compiled.")
        client = self._client()
        pipeline_id = self._pipeline_id(client)
        version_id = kubeflow_client.latest_version(client, pipeline_id)
        root = kubeflow_client.compiled_root(client, pipeline_id, version_id)
        name = self.flags_dict[labels.PIPELINE_NAME]
        submitted = kubeflow_client.start(client, self._settings(), name, pipeline_id, version_id, root)
        click.echo(f"Run {submitted.run_id}: {submitted.page}")

    @_told
    def list_runs(self) -> None:
        """List the runs of a pipeline."""
        client = self._client()
        self._pipeline_id(client)
        experiment = client.get_experiment(experiment_name=self.flags_dict[labels.PIPELINE_NAME])
        runs = client.list_runs(experiment_id=experiment.experiment_id, page_size=100).runs or []
        click.echo("\n".join(_line(run) for run in runs))

    @_told
    def get_run(self) -> None:
        """Say the state of a run."""
        click.echo(_line(self._client().get_run(self.flags_dict[labels.RUN_ID])))

    @_told
    def terminate_run(self) -> None:
        """Stop a run."""
        self._client().terminate_run(self.flags_dict[labels.RUN_ID])
        click.echo("Run terminated.")

    @_told
    def delete_run(self) -> None:
        """Delete a run."""
        self._client().delete_run(self.flags_dict[labels.RUN_ID])
        click.echo("Run deleted.")

    def get_schema(self) -> NoReturn:
        """Say where the schema is: this pipeline infers none."""
        sys.exit("The schema is data/schema.pbtxt; the pipeline imports it.")

    def _compile(self) -> dict[str, Any]:
        if self.flags_dict.get(labels.BUILD_IMAGE):
            raise KubeflowError("--build_image is not supported: build the image first and name it in ALEXNET_IMAGE.")
        return self.execute_dsl(KubeflowV2DagRunnerPatcher(call_real_run=True))

    def _package(self, context: dict[str, Any]) -> Path:
        return Path(context[KubeflowV2DagRunnerPatcher.OUTPUT_FILE_PATH])

    def _pipeline_id(self, client: kfp.Client) -> str:
        name = self.flags_dict[labels.PIPELINE_NAME]
        pipeline_id = client.get_pipeline_id(name)
        if pipeline_id is None:
            raise KubeflowError(f"Kubeflow has no pipeline {name}: `pipeline create` uploads it.")
        return pipeline_id


def _line(run: V2beta1Run) -> str:
    return f"{run.run_id}  {(run.state or 'PENDING').lower()}  {run.display_name}"
