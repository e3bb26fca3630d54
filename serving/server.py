"""The local model server: SavedModels over TensorFlow Serving's gRPC and REST, without Docker or a compiled server.

    python -m serving.server --port=8500 --rest_api_port=8501 --model_name=alexnet --model_base_path=/path/to/models

It is for laptops, notebooks, tests and validation, not for production. In Python:

    with LocalServer(ServerOptions(port=0, rest_api_port=0, model_name="alexnet", model_base_path=path)) as server:
        ...  # server.grpc_port, server.rest_port
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from serving.local_server.options import LOCAL_USE_NOTE, ServerOptions, parse_flags

if TYPE_CHECKING:
    from serving.local_server.core import ServerCore
    from serving.local_server.grpc_services import GrpcServer
    from serving.local_server.rest import RestServer

__all__ = ["LocalServer", "ServerOptions", "main"]


class LocalServer:
    """A server in this process, on threads of its own.

    It listens once the models on disk have been loaded. A model that could not be loaded does not keep it from
    starting: its status says why, and it is tried again.
    """

    def __init__(self, options: ServerOptions) -> None:
        """Prepares; `start`, or entering the context, serves.

        Args:
            options: what to serve.
        """
        self._options = options
        self._core: ServerCore | None = None
        self._grpc: GrpcServer | None = None
        self._rest: RestServer | None = None
        self._grpc_port = 0
        self._rest_port: int | None = None

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def grpc_port(self) -> int:
        """The gRPC port, chosen by the system where the options say 0."""
        return self._grpc_port

    @property
    def rest_port(self) -> int | None:
        """The REST port, chosen by the system where the options say 0; None without REST."""
        return self._rest_port

    @property
    def available(self) -> dict[str, list[int]]:
        """The available versions by model."""
        return self._core.manager.available() if self._core else {}

    @property
    def unavailable(self) -> dict[str, str]:
        """Why a model has no available version, by model."""
        return self._core.manager.unavailable() if self._core else {}

    def start(self) -> None:
        """Loads the models, and listens.

        Raises:
            ConfigError: a configuration file cannot be read, or says something that cannot be served.
            OSError: a port is taken.
        """
        # TensorFlow is imported here, so that the command line, and a wrong configuration, are answered at once.
        self._options.check_files()
        from serving.local_server.core import ServerCore
        from serving.local_server.grpc_services import GrpcServer
        from serving.local_server.rest import RestServer

        try:
            self._core = ServerCore(self._options)
            grpc_server = GrpcServer(self._core, self._options)
            rest_server = RestServer(self._core, self._options) if self._options.rest_api_port is not None else None
            self._core.start()
            if rest_server:
                self._rest_port = rest_server.start()
                self._rest = rest_server
            self._grpc_port = grpc_server.start()
            self._grpc = grpc_server
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Refuses new requests, lets those under way finish within the grace period, and unloads the models."""
        if self._grpc:
            self._grpc.set_serving(False)
        stopping = [
            threading.Thread(target=stop)
            for stop in (
                self._grpc and functools.partial(self._grpc.stop, self._options.shutdown_grace_seconds),
                self._rest and self._rest.stop,
            )
            if stop
        ]
        for thread in stopping:
            thread.start()
        if self._core:
            self._core.hurry()
        for thread in stopping:
            thread.join()
        if self._core:
            self._core.stop()
        self._core = self._grpc = self._rest = None


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT.

    Args:
        argv: the command line's arguments; those of the process when None.

    Returns:
        The exit code: 0 after a signal, 1 where the server could not start.
    """
    options = parse_flags(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server = LocalServer(options)
    try:
        server.start()
    except (OSError, ValueError) as error:
        print(f"Failed to start server. Error: {error}", file=sys.stderr)
        return 1
    for name, reason in server.unavailable.items():
        print(f"Model {name} is not available: {reason}", file=sys.stderr)
    print(_serving_line(server, options), flush=True)
    stopped.wait()
    print("Stopping: requests under way are finished.", flush=True)
    server.stop()
    return 0


def _serving_line(server: LocalServer, options: ServerOptions) -> str:
    """What is served, and where."""
    models = ", ".join(f"{name} {versions}" for name, versions in server.available.items())
    where = f"gRPC at {options.host}:{server.grpc_port}"
    if options.grpc_socket_path:
        where += f" and unix:{options.grpc_socket_path}"
    if server.rest_port is not None:
        where += f", REST at http://{options.host}:{server.rest_port}/v1/models"
    return f"Local model server, {LOCAL_USE_NOTE}. Serves {models}: {where}"


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare()
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # a model that runs on past the grace period must not keep the process
