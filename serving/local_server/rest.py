"""TensorFlow Serving's REST API over the core: https://www.tensorflow.org/tfx/serving/api_rest."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.local_server import json_tensors
from serving.local_server.core import SIGNATURE_DEF_FIELD, ServerCore
from serving.local_server.options import ServerOptions
from serving.local_server.status import HTTP_STATUS, Code, StatusError, invalid_argument

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION_PATH = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.I)
_MODEL_PATH = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?", re.I)

_MAX_VERSION = (1 << 63) - 1

_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


KEEP_ALIVE_S = 75
"""How long an idle connection is kept. uvicorn's 5 s would often close one that a client is about to use again."""


class RestApi:
    """The HTTP application."""

    def __init__(self, core: ServerCore, options: ServerOptions) -> None:
        """Prepares the routes.

        Args:
            core: what is answered from.
            options: limits, and where the metrics are.

        Raises:
            ConfigError: the monitoring configuration cannot be read.
        """
        self._core = core
        self._options = options
        self._timeout_s = options.rest_api_timeout_in_ms / 1000
        self._threads = ThreadPoolExecutor(options.max_concurrent_requests, thread_name_prefix="rest")
        self._requests = 0
        self._answers: dict[str, Callable[[model_pb2.ModelSpec, bytes], bytes]] = {
            "predict": self._predict,
            "classify": self._classify,
            "regress": self._regress,
        }
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        routes = [Route("/{path:path}", self._api, methods=methods)]
        metrics_path = options.metrics_path()
        if metrics_path:
            routes.insert(0, Route(metrics_path, self._metrics, methods=["GET"]))
        self.app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found, 500: _internal_error})

    async def _api(self, request: Request) -> Response:
        """Answers anything below /v1, in capitals as well, within the limits."""
        if not request.url.path.lower().startswith("/v1/"):
            return await _not_found(request)
        headers = _CORS_HEADERS if self._options.rest_api_enable_cors_support else {}
        if request.method == "OPTIONS" and headers:
            return Response(headers=headers)
        if self._requests >= self._options.max_concurrent_requests:
            return _error_response(
                Code.RESOURCE_EXHAUSTED,
                f"{self._requests} requests are under way, as many as the server takes.",
                headers,
            )
        self._requests += 1
        try:
            body = await asyncio.wait_for(self._answer(request), self._timeout_s)
        except _BodyTooLargeError as error:
            return _error_response(error.code, error.message, headers, http_status=413)
        except StatusError as error:
            return _error_response(error.code, error.message, headers)
        except asyncio.TimeoutError:
            message = f"No answer within {self._timeout_s:g} s (rest_api_timeout_in_ms)."
            return _error_response(Code.DEADLINE_EXCEEDED, message, headers)
        finally:
            self._requests -= 1
        return Response(body, media_type="application/json", headers=headers)

    async def _answer(self, request: Request) -> bytes:
        """The body of a successful response."""
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        if request.method == "POST" and (match := _PREDICTION_PATH.fullmatch(path)):
            spec = _model_spec(match)
            body = await self._body(request)
            return await self._in_thread(self._predictions, match["method"].lower(), spec, body)
        if request.method == "GET" and (match := _MODEL_PATH.fullmatch(path)):
            spec = _model_spec(match)
            if not spec.name:
                raise invalid_argument("Missing model name in request.")
            return await self._in_thread(self._metadata if match["metadata"] else self._status, spec)
        raise invalid_argument(f"Malformed request: {request.method} {path}")

    async def _in_thread(self, function: Callable[..., bytes], *arguments: object) -> bytes:
        """Runs what computes, or waits, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _predictions(self, method: str, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        """Answers a request that the metrics count."""
        with self._core.counted(spec.name, method.capitalize(), "REST"):
            return self._answers[method](spec, body)

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = json_tensors.parse(body)
        spec.signature_name = json_tensors.signature_name(document)
        answer = self._core.predict_arrays(
            spec, lambda signature: json_tensors.predict_inputs(document, signature), self._timeout_s
        )
        row_format = json_tensors.is_row_format(document)
        return json_tensors.predict_response(answer.outputs, answer.signature.output_types, row_format)

    def _classify(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = json_tensors.parse(body)
        spec.signature_name = json_tensors.signature_name(document)
        examples = json_tensors.examples_input(document)
        response = self._core.classify(
            classification_pb2.ClassificationRequest(model_spec=spec, input=examples), self._timeout_s
        )
        return json_tensors.classify_response(response.result)

    def _regress(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = json_tensors.parse(body)
        spec.signature_name = json_tensors.signature_name(document)
        examples = json_tensors.examples_input(document)
        response = self._core.regress(
            regression_pb2.RegressionRequest(model_spec=spec, input=examples), self._timeout_s
        )
        return json_tensors.regress_response(response.result)

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        response = self._core.model_status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
        return json_tensors.dump(json_tensors.message_json(response))

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF_FIELD])
        response = self._core.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF_FIELD].Unpack(signatures)
        # Without the Any around them, as TensorFlow Serving writes them.
        metadata = {SIGNATURE_DEF_FIELD: json_tensors.message_json(signatures)}
        return json_tensors.dump({"model_spec": json_tensors.message_json(response.model_spec), "metadata": metadata})

    async def _metrics(self, request: Request) -> Response:
        """Prometheus asks here."""
        content, content_type = self._core.metrics.exposition()
        return Response(content, headers={"Content-Type": content_type})

    async def _body(self, request: Request) -> bytes:
        """A request's body, unpacked, within the limit."""
        limit = self._options.max_message_bytes
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise invalid_argument(f"Content-Encoding {encoding} is not supported; gzip is.")
        unzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
        body = bytearray()
        is_too_large = int(request.headers.get("content-length", 0)) > limit
        try:
            async for chunk in request.stream():
                if is_too_large:
                    body.clear()
                    continue  # read to its end, or the client would never see the answer
                body += unzip.decompress(chunk, limit + 1 - len(body)) if unzip else chunk
                is_too_large = len(body) > limit
        except zlib.error as error:
            raise invalid_argument(f"The body is not gzip: {error}") from None
        except ClientDisconnect:
            raise StatusError(Code.CANCELLED, "The client has left.") from None
        if is_too_large:
            raise _BodyTooLargeError(limit)
        if unzip and not unzip.eof:
            raise invalid_argument("The body is not gzip: it ends too early")
        return bytes(body)

    def close(self) -> None:
        """Ends the threads, when they are done."""
        self._threads.shutdown(wait=False)


class RestServer:
    """The HTTP server, on an event loop in a thread of its own."""

    def __init__(self, core: ServerCore, options: ServerOptions) -> None:
        """Prepares the application.

        Args:
            core: what is answered from.
            options: where to listen, and the limits.

        Raises:
            ConfigError: the monitoring configuration cannot be read.
        """
        self._options = options
        self._api = RestApi(core, options)
        config = uvicorn.Config(
            self._api.app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(options.shutdown_grace_seconds)),
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listens.

        Returns:
            The port.

        Raises:
            OSError: the port is taken.
        """
        address = (self._options.host, self._options.rest_api_port or 0)
        family = socket.AF_INET6 if ":" in self._options.host else socket.AF_INET
        try:
            listener = socket.create_server(address, family=family, backlog=1024)
        except OSError as error:
            raise OSError(
                error.errno,
                f"REST cannot listen on {address[0]}:{address[1]} ({error.strerror}): choose another --rest_api_port.",
            ) from None
        # asyncio sets this on its own sockets only. Without it an answer waits 40 ms for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Connections queue up at the listener until the loop takes them.
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="rest-server", daemon=True
        )
        self._thread.start()
        port: int = listener.getsockname()[1]
        return port

    def stop(self) -> None:
        """Refuses new connections at once; waits for requests under way, as long as the grace period."""
        self._server.should_exit = True
        if self._thread:
            self._thread.join()
        self._api.close()


class _BodyTooLargeError(StatusError):
    """A body over the limit; 413 in HTTP's own terms."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, f"The request is larger than {limit_bytes:,} bytes.")


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    """The model and version that a path names."""
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"] or ""))
    if match["version"]:
        if int(match["version"]) > _MAX_VERSION:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = urllib.parse.unquote(match["label"])
    return spec


def _error_response(code: Code, message: str, headers: Mapping[str, str], http_status: int | None = None) -> Response:
    """An error's body, as TensorFlow Serving writes it."""
    return Response(
        json.dumps({"error": message}),
        status_code=http_status or HTTP_STATUS[code],
        media_type="application/json",
        headers=dict(headers),
    )


async def _not_found(request: Request, error: Exception | None = None) -> Response:
    """There is nothing outside /v1 and the metrics."""
    return _error_response(Code.NOT_FOUND, f"Not found: {request.url.path}", {})


async def _internal_error(request: Request, error: Exception) -> Response:
    """What nobody foresaw; uvicorn logs it."""
    return _error_response(Code.INTERNAL, f"{type(error).__name__}; the server's log says more.", {})
