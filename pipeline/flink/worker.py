"""A Python worker of Beam, as a task manager starts it through `worker.sh`: `python -m pipeline.flink.worker`.

It keeps Beam's contract between a runner and the container of an SDK (https://s.apache.org/beam-fn-api-container-contract)
without a container: it has this project's folder and environment, so that there is nothing to fetch or install.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

CONNECT_TIMEOUT_S = 20.0
"""The runner listens before it starts a worker: one that does not answer by then has ended, and so must the worker."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks the runner for the job's options and the addresses to work with, and works until the runner hangs up."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.flink.worker", description="A Python worker of Beam.")
    parser.add_argument("--id", required=True, help="the runner's name for this worker")
    parser.add_argument("--provision_endpoint", required=True, metavar="HOST:PORT", help="where the runner answers")
    flags, _ = parser.parse_known_args(arguments)  # what else a runner says is for containers
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from apache_beam.runners.worker import sdk_worker_main
    from google.protobuf import json_format, text_format

    with grpc.insecure_channel(flags.provision_endpoint) as channel:
        response = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            timeout=CONNECT_TIMEOUT_S,
            metadata=[("worker_id", flags.id)],
            wait_for_ready=True,
        )
    os.environ.update(
        WORKER_ID=flags.id,
        PIPELINE_OPTIONS=json_format.MessageToJson(response.info.pipeline_options),
        CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(response.info.control_endpoint),
        LOGGING_API_SERVICE_DESCRIPTOR=text_format.MessageToString(response.info.logging_endpoint),
        RUNNER_CAPABILITIES=" ".join(response.info.runner_capabilities),
    )
    sdk_worker_main.main([])


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    main()
