"""TensorFlow Serving's gRPC services over the core, with health and reflection."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.local_server.core import ServerCore
from serving.local_server.options import ServerOptions
from serving.local_server.status import StatusError

for _module in ("prediction_service_pb2", "model_service_pb2"):
    # They register the services' descriptors, for reflection. Their last lines fail under protobuf 5 and newer, which
    # they were not generated for; this can go when tensorflow-serving-api has new ones.
    with contextlib.suppress(AttributeError):
        importlib.import_module(f"tensorflow_serving.apis.{_module}")

SERVICE_NAMES = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)

MAX_DETAILS_CHARS = 1024
"""Length of an error message, as in TensorFlow Serving: gRPC clients refuse trailers of more than 8 KiB."""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    def __init__(self, core: ServerCore) -> None:
        """Serves a core."""
        self._core = core

    def Predict(  # noqa: N802 (gRPC's name)
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs any signature on tensors."""
        with _status_of(context), self._core.counted(request.model_spec.name, "Predict", "GRPC"):
            return self._core.predict(request, _timeout_s(context))

    def Classify(  # noqa: N802 (gRPC's name)
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Classifies tf.Examples."""
        with _status_of(context), self._core.counted(request.model_spec.name, "Classify", "GRPC"):
            return self._core.classify(request, _timeout_s(context))

    def Regress(  # noqa: N802 (gRPC's name)
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Gives tf.Examples a value each."""
        with _status_of(context), self._core.counted(request.model_spec.name, "Regress", "GRPC"):
            return self._core.regress(request, _timeout_s(context))

    def MultiInference(  # noqa: N802 (gRPC's name)
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Runs several signatures on the same tf.Examples."""
        name = request.tasks[0].model_spec.name if request.tasks else ""
        with _status_of(context), self._core.counted(name, "MultiInference", "GRPC"):
            return self._core.multi_inference(request, _timeout_s(context))

    def GetModelMetadata(  # noqa: N802 (gRPC's name)
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describes a model's signatures."""
        with _status_of(context):
            return self._core.metadata(request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, core: ServerCore) -> None:
        """Serves a core."""
        self._core = core

    def GetModelStatus(  # noqa: N802 (gRPC's name)
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Says in which state a model's versions are."""
        with _status_of(context):
            return self._core.model_status(request)

    def HandleReloadConfigRequest(  # noqa: N802 (gRPC's name)
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves other models from now on. An error is part of the response, as in TensorFlow Serving."""
        response = model_management_pb2.ReloadConfigResponse()
        try:
            self._core.reload_config(request.config)
        except StatusError as error:
            response.status.error_code = error.code.value
            response.status.error_message = error.message
        return response


class GrpcServer:
    """The gRPC server: a thread a request."""

    def __init__(self, core: ServerCore, options: ServerOptions) -> None:
        """Prepares the services.

        Args:
            core: what they answer from.
            options: limits and channel arguments.

        Raises:
            ConfigError: a channel argument is malformed.
        """
        self._options = options
        self._threads = ThreadPoolExecutor(options.max_concurrent_requests, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._threads,
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a port that is taken has to be an error
                *options.channel_arguments(),
            ],
            maximum_concurrent_rpcs=options.max_concurrent_requests,
        )
        self._health = health.HealthServicer()
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(core), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(core), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(SERVICE_NAMES, self._server)

    def start(self) -> int:
        """Listens.

        Returns:
            The port.

        Raises:
            OSError: the port or the socket is taken.
        """
        address = f"{self._options.host}:{self._options.port}"
        try:
            port = self._server.add_insecure_port(address)
            if self._options.grpc_socket_path:
                address = f"unix:{self._options.grpc_socket_path}"
                self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: choose another --port or --grpc_socket_path.") from error
        self._server.start()
        self.set_serving(True)
        return port

    def set_serving(self, is_serving: bool) -> None:
        """Changes what the health service says, of the server and of each service."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *SERVICE_NAMES):
            self._health.set(name, status)

    def stop(self, grace_s: float) -> None:
        """Refuses new requests at once; waits for those under way.

        Args:
            grace_s: seconds until those are cancelled.
        """
        self._server.stop(grace_s).wait()
        self._threads.shutdown(wait=False)


def _timeout_s(context: grpc.ServicerContext) -> float | None:
    """Seconds until the call's deadline; None without one, for which gRPC has a time beyond all timers."""
    remaining_s = context.time_remaining()
    return None if remaining_s is None or remaining_s > threading.TIMEOUT_MAX else remaining_s


@contextlib.contextmanager
def _status_of(context: grpc.ServicerContext) -> Iterator[None]:
    """Turns a StatusError into the call's status."""
    try:
        yield
    except StatusError as error:
        context.abort(_CODES[error.code], error.message[:MAX_DETAILS_CHARS])
