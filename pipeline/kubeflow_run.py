"""One compilation for Kubeflow, and one run there, from the settings to the state in which it ended."""

from __future__ import annotations

from pathlib import Path

from pipeline import kubeflow
from pipeline.kubeflow import KubeflowError
from pipeline.settings import Settings


def run(settings: Settings, package: Path, *, submit: bool) -> int:
    """Compile the pipeline, submit it where that is asked for, and say what came of it.

    Args:
      settings: Validated settings.
      package: The specification to write, a .yaml file.
      submit: Whether to upload and start it, and to follow the run.

    Returns:
      0 when all went through; 1 when something was refused or the run did not succeed, which is said.
    """
    from pipeline import kubeflow_client

    try:
        specification = kubeflow.compile_pipeline(settings, package)
        steps = list(specification.pipeline["root"]["dag"]["tasks"])
        print(f"Compiled {kubeflow.pipeline_name(settings)}, {len(steps)} steps in {settings.cluster.image}: {package}")
        if not submit:
            print("Next: the same command with --submit, or upload the file in Kubeflow's user interface")
            return 0
        client = kubeflow_client.connect(settings.cluster.kubeflow_host, settings.cluster.kubeflow_namespace)
        submitted = kubeflow_client.submit(client, settings, package)
        print(f"Run {submitted.run_id}: {submitted.page}", flush=True)
        state = kubeflow_client.follow(client, submitted.run_id, steps)
    except (KubeflowError, ValueError) as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        print("No longer following; the run goes on.")
        return 130
    print(f"The run ended: {state.lower()}")
    return 0 if state == kubeflow_client.SUCCEEDED else 1
