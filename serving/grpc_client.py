"""Asks a model server over gRPC, in TensorFlow Serving's protocol."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import grpc

from serving import stubs
from serving.answers import (
    CLASSES,
    INPUT,
    LABEL,
    PROBABILITIES,
    SIGNATURE,
    Metadata,
    Prediction,
    ServedModel,
    ServingError,
    Signature,
    VersionStatus,
    describe_tensor,
)
from serving.loopback import is_loopback
from serving.retries import RetryPolicy

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # metadata of a large model passes the default of 4 MiB
    # gRPC's own second of waiting before it connects again would make our shorter waits useless.
    ("grpc.initial_reconnect_backoff_ms", 100),
)


class GrpcClient:
    """A `PredictionClient` over gRPC."""

    def __init__(
        self, address: str, model: ServedModel, *, timeout_s: float = 10.0, retry_policy: RetryPolicy | None = None
    ) -> None:
        """Prepares to connect; the first call connects.

        Args:
            address: `host:port`, or `unix:path`.
            model: which to ask for.
            timeout_s: for a call with all its attempts.
            retry_policy: when to try again.
        """
        self._model = model
        self._timeout_s = timeout_s
        self._retry_policy = retry_policy or RetryPolicy()
        # gRPC would ask the environment's proxy for this machine as well.
        proxy = ("grpc.enable_http_proxy", int(not is_loopback(address)))
        self._channel = grpc.insecure_channel(address, options=(*_CHANNEL_OPTIONS, proxy))
        self._predictions = stubs.PredictionServiceStub(self._channel)
        self._models = stubs.ModelServiceStub(self._channel)

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Classify encoded image files in one request.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        request = stubs.PredictRequest(model_spec=self._model_spec(SIGNATURE))
        request.inputs[INPUT].dtype = stubs.DT_STRING
        request.inputs[INPUT].tensor_shape.dim.add(size=len(images))
        request.inputs[INPUT].string_val.extend(images)
        answer = self._call(self._predictions.Predict, request)
        rows = float_rows(answer.outputs[PROBABILITIES], len(images))
        if CLASSES in answer.outputs:
            names = _texts(answer.outputs[CLASSES], sum(map(len, rows)))
            return [Prediction(names[i * len(row) : (i + 1) * len(row)], row) for i, row in enumerate(rows)]
        labels = _texts(answer.outputs[LABEL], len(rows)) if LABEL in answer.outputs else [None] * len(rows)
        return [Prediction.of_label(label, row) for label, row in zip(labels, rows, strict=True)]

    def status(self) -> list[VersionStatus]:
        """Ask for the model's versions, of which the highest comes first.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        answer = self._call(self._models.GetModelStatus, stubs.GetModelStatusRequest(model_spec=self._model_spec()))
        versions = [
            VersionStatus(
                version=status.version,
                state=stubs.ModelVersionStatus.State.Name(status.state),
                error=status.status.error_message,
            )
            for status in answer.model_version_status
        ]
        return sorted(versions, key=lambda status: -status.version)

    def metadata(self) -> Metadata:
        """Ask how the model can be called.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        request = stubs.GetModelMetadataRequest(model_spec=self._model_spec(), metadata_field=["signature_def"])
        answer = self._call(self._predictions.GetModelMetadata, request)
        signatures = stubs.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        return Metadata(
            version=answer.model_spec.version.value,
            signatures={
                name: Signature(inputs=_tensors(signature.inputs), outputs=_tensors(signature.outputs))
                for name, signature in sorted(signatures.signature_def.items())
            },
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _model_spec(self, signature_name: str = "") -> stubs.ModelSpec:
        spec = stubs.ModelSpec(name=self._model.name, signature_name=signature_name)
        if self._model.version is not None:
            spec.version.value = self._model.version
        if self._model.label is not None:
            spec.version_label = self._model.label
        return spec

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        def attempt(left_s: float) -> Any:
            try:
                return method(request, timeout=left_s)
            except grpc.RpcError as error:
                raise ServingError(error.code().name, error.details()) from error

        return self._retry_policy.call(attempt, self._timeout_s)


def float_rows(tensor: stubs.TensorProto, num_rows: int) -> list[tuple[float, ...]]:
    """The rows of a float32 [num_rows, n] tensor.

    Raises:
        ServingError: it is no such tensor.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype != stubs.DT_FLOAT or len(shape) != 2 or shape[0] != num_rows:
        described = describe_tensor(stubs.DataType.Name(tensor.dtype), shape)
        raise ServingError(
            "INTERNAL", f"The model answered {PROBABILITIES} of {described}; expected float32 [{num_rows}, …]."
        )
    count = prod(shape)
    if tensor.tensor_content:
        values: Sequence[float] = struct.unpack(f"<{count}f", tensor.tensor_content)
    else:
        values = tensor.float_val
        if values:  # a last value that repeats may be sent once
            values = [*values, *[values[-1]] * (count - len(values))]
    return [tuple(values[start : start + shape[1]]) for start in range(0, count, shape[1])]


def _texts(tensor: stubs.TensorProto, count: int) -> tuple[str, ...]:
    """The values of a string tensor, row by row.

    Raises:
        ServingError: there are not so many.
    """
    if len(tensor.string_val) != count:
        raise ServingError("INTERNAL", f"The model answered {len(tensor.string_val)} names where {count} were due.")
    return tuple(value.decode(errors="replace") for value in tensor.string_val)


def _tensors(infos: Any) -> dict[str, str]:
    """Descriptions by name, of a map of TensorInfo."""
    return {
        name: describe_tensor(
            stubs.DataType.Name(info.dtype),
            None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim],
        )
        for name, info in sorted(infos.items())
    }
