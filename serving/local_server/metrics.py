"""Prometheus metrics, by the names that TensorFlow Serving gives them."""

from __future__ import annotations

from collections.abc import Iterable

import prometheus_client

from serving.local_server.status import Code

_LATENCY_BUCKETS_US = tuple(10 * 1.8**power for power in range(33))
"""Bounds of TensorFlow Serving's latency histograms, in microseconds: 10 µs to 20 minutes."""


class Metrics:
    """What one server has counted and timed. Every method may be called from any thread."""

    def __init__(self, model_names: Iterable[str]) -> None:
        """Starts at zero.

        Args:
            model_names: the models that get a label value of their own. Requests for others share the empty one, so
                that no client can make the metrics grow.
        """
        self._registry = prometheus_client.CollectorRegistry()
        self.set_model_names(model_names)
        # A prometheus_client Counter would add _total to the name.
        self._requests = prometheus_client.Gauge(
            ":tensorflow:serving:request_count",
            "The total number of requests.",
            ("model_name", "status"),
            registry=self._registry,
        )
        self._request_latency = prometheus_client.Histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) of a request.",
            ("model_name", "API", "entrypoint"),
            buckets=_LATENCY_BUCKETS_US,
            registry=self._registry,
        )
        self._runtime_latency = prometheus_client.Histogram(
            ":tensorflow:serving:runtime_latency",
            "Distribution of wall time (in microseconds) of a request's computation, its time in the queue included.",
            ("model_name", "API", "runtime"),
            buckets=_LATENCY_BUCKETS_US,
            registry=self._registry,
        )
        self._warmup_latency = prometheus_client.Histogram(
            ":tensorflow:serving:model_warmup_latency",
            "Distribution of wall time (in microseconds) for warming up the model.",
            ("model_path", "status"),
            buckets=_LATENCY_BUCKETS_US,
            registry=self._registry,
        )

    def set_model_names(self, model_names: Iterable[str]) -> None:
        """Changes the models that get a label value of their own."""
        self._model_names = frozenset(model_names)

    def request(self, model_name: str, api: str, entrypoint: str, code: Code, seconds: float) -> None:
        """Counts a request.

        Args:
            model_name: the model asked for.
            api: `Predict`, `Classify`, `Regress` or `MultiInference`.
            entrypoint: `GRPC` or `REST`.
            code: how it ended.
            seconds: from its arrival to its answer.
        """
        name = model_name if model_name in self._model_names else ""
        self._requests.labels(name, code.name).inc()
        self._request_latency.labels(name, api, entrypoint).observe(seconds * 1e6)

    def run(self, model_name: str, api: str, seconds: float) -> None:
        """Times a request's computation.

        Args:
            model_name: the model that computed.
            api: as in `request`.
            seconds: from its hand-over to the runner to the runner's answer.
        """
        self._runtime_latency.labels(model_name, api, "TF1").observe(seconds * 1e6)

    def warmup(self, model_path: str, code: Code, seconds: float) -> None:
        """Times a model's warm-up.

        Args:
            model_path: the version's folder.
            code: how it ended.
            seconds: all of it.
        """
        self._warmup_latency.labels(model_path, code.name).observe(seconds * 1e6)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return prometheus_client.generate_latest(self._registry), prometheus_client.CONTENT_TYPE_LATEST
