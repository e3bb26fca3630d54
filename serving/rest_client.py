"""Asks a model server over HTTP, in TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import requests

from serving.answers import (
    CLASSES,
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

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""gRPC's status codes by HTTP's: what TensorFlow Serving translates, backwards, and what proxies before it say."""


class RestClient:
    """A `PredictionClient` over REST."""

    def __init__(
        self, address: str, model: ServedModel, *, timeout_s: float = 10.0, retry_policy: RetryPolicy | None = None
    ) -> None:
        """Prepares to connect; the first call connects.

        Args:
            address: `host:port`, or the URL before `/v1/models`.
            model: which to ask for.
            timeout_s: for a call with all its attempts.
            retry_policy: when to try again.
        """
        base = address if address.startswith(("http://", "https://")) else f"http://{address}"
        self._url = f"{base.rstrip('/')}/v1/models/{quote(model.name, safe='')}"
        if model.version is not None:
            self._url += f"/versions/{model.version}"
        if model.label is not None:
            self._url += f"/labels/{quote(model.label, safe='')}"
        self._timeout_s = timeout_s
        self._retry_policy = retry_policy or RetryPolicy()
        self._session = requests.Session()
        # requests would ask the environment's proxy for this machine as well.
        self._session.trust_env = not is_loopback(base)

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Classify encoded image files in one request.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        body = {
            "signature_name": SIGNATURE,
            "instances": [{"b64": base64.b64encode(image).decode("ascii")} for image in images],
        }
        answer = self._call("POST", ":predict", body)
        try:
            predictions = [_prediction(row) for row in answer["predictions"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ServingError("INTERNAL", f"The answer holds no {PROBABILITIES}: {str(answer)[:200]}") from error
        if len(predictions) != len(images):
            raise ServingError("INTERNAL", f"{len(images)} images were sent and {len(predictions)} answers came back.")
        return predictions

    def status(self) -> list[VersionStatus]:
        """Ask for the model's versions, of which the highest comes first.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        versions = [
            VersionStatus(
                version=int(status["version"]), state=status["state"], error=status["status"].get("error_message", "")
            )
            for status in self._call("GET", "")["model_version_status"]
        ]
        return sorted(versions, key=lambda status: -status.version)

    def metadata(self) -> Metadata:
        """Ask how the model can be called.

        Raises:
            ServingError: there is no answer, or it is an error.
        """
        answer = self._call("GET", "/metadata")
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        return Metadata(
            version=int(answer["model_spec"]["version"]),
            signatures={
                name: Signature(inputs=_tensors(signature["inputs"]), outputs=_tensors(signature["outputs"]))
                for name, signature in sorted(signatures.items())
            },
        )

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, method: str, suffix: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        url = self._url + suffix

        def attempt(left_s: float) -> dict[str, Any]:
            try:
                response = self._session.request(method, url, json=body, timeout=left_s)
            except requests.Timeout as error:
                raise ServingError("DEADLINE_EXCEEDED", f"{url} did not answer in time: {error}") from error
            except requests.ConnectionError as error:
                raise ServingError("UNAVAILABLE", f"{url} cannot be reached: {error}") from error
            except requests.RequestException as error:
                raise ServingError("INVALID_ARGUMENT", f"{url} cannot be asked: {error}") from error
            return _answer(response)

        return self._retry_policy.call(attempt, self._timeout_s)


def _answer(response: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        ServingError: the answer is an error, or no JSON object.
    """
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        answer = None
    if response.status_code != requests.codes.ok:
        # A proxy's error need not be JSON.
        message = answer["error"] if isinstance(answer, dict) and "error" in answer else response.text[:500]
        raise ServingError(_CODES.get(response.status_code, "UNKNOWN"), message or f"HTTP {response.status_code}")
    if not isinstance(answer, dict):
        raise ServingError("INTERNAL", f"{response.url} answered no JSON object: {response.text[:200]!r}")
    return answer


def _prediction(row: Mapping[str, Any]) -> Prediction:
    """An image's part of an answer."""
    probabilities = tuple(map(float, row[PROBABILITIES]))
    if CLASSES in row:
        return Prediction(tuple(row[CLASSES]), probabilities)
    return Prediction.of_label(row.get(LABEL), probabilities)


def _tensors(infos: Mapping[str, Any]) -> dict[str, str]:
    """Descriptions by name, of a map of TensorInfo in JSON, whose sizes are texts."""
    return {
        name: describe_tensor(
            info["dtype"],
            None
            if info["tensor_shape"].get("unknown_rank")
            else [int(dim["size"]) for dim in info["tensor_shape"].get("dim", [])],
        )
        for name, info in sorted(infos.items())
    }
