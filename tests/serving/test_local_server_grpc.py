"""The gRPC services of a server in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from local_server_models import save_constant, save_half_plus, save_many_types, save_slow
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
from waiting import WAIT_S, wait_until
from whole_files import write_whole

from serving.local_server.batching import BatchingRunner
from serving.server import LocalServer, ServerOptions

TIMEOUT_S = 20
POLL_S = 0.05


class Stubs:
    """A client of every service."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)])
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.reflection = reflection_pb2_grpc.ServerReflectionStub(self.channel)

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        return self.prediction.Predict(request, timeout=TIMEOUT_S)

    def version(self, name: str = "default", **spec: Any) -> int:
        """Asks a constant model which version it is."""
        response = self.predict(predict_request({"x": [0.0]}, name=name, **spec))
        assert list(response.outputs["answer"].int64_val) == [response.model_spec.version.value]
        return int(response.model_spec.version.value)

    def states(self, name: str = "default") -> dict[int, str]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        statuses = self.model.GetModelStatus(request, timeout=TIMEOUT_S).model_version_status
        states = get_model_status_pb2.ModelVersionStatus.State
        return {status.version: states.Name(status.state) for status in statuses}


def predict_request(
    inputs: dict[str, Any],
    name: str = "default",
    signature: str = "",
    version: int | None = None,
    label: str | None = None,
    outputs: tuple[str, ...] = (),
) -> predict_pb2.PredictRequest:
    """A request; lists of numbers are float32."""
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for key, value in inputs.items():
        is_numbers = isinstance(value, list) and not any(isinstance(element, bytes) for element in value)
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value, tf.float32 if is_numbers else None))
    return request


def fails(call: Callable[[], Any], code: grpc.StatusCode, message: str) -> None:
    """Checks how a call fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() == code, error.value.details()
    assert message in error.value.details()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_half_plus(folder / "half_plus_two", 2.0)
    save_many_types(folder / "many_types")
    save_slow(folder / "slow")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "batching"])
def server(models: Path, request: pytest.FixtureRequest) -> Iterator[Stubs]:
    config = models / "models.config"
    config.write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" }}'
            for name in ("half_plus_two", "many_types")
        )
        + "}"
    )
    options = ServerOptions(port=0, model_config_file=str(config), enable_batching=request.param)
    with LocalServer(options) as local_server:
        yield Stubs(local_server.grpc_port)


def test_predict(server: Stubs):
    response = server.predict(predict_request({"x": [2.0, 3.0, 4.0]}, "half_plus_two"))
    assert list(response.outputs["y"].float_val) == [3.0, 3.5, 4.0]
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [3]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", "serving_default", 123)


def test_predict_every_dtype(server: Stubs):
    inputs = {
        "bool": np.array([True, False]),
        "double": np.array([0.1, -1e300]),
        "float": np.array([0.1, -1e30], np.float32),
        "half": np.array([0.1, -2], np.float16),
        "int16": np.array([-32768, 32767], np.int16),
        "int32": np.array([-(2**31), 2**31 - 1], np.int32),
        "int64": np.array([-(2**63), 2**63 - 1], np.int64),
        "int8": np.array([-128, 127], np.int8),
        "string": np.array([b"\0\xff\0", b""], object),
        "uint32": np.array([0, 2**32 - 1], np.uint32),
        "uint64": np.array([0, 2**64 - 1], np.uint64),
        "uint8": np.array([0, 255], np.uint8),
    }
    response = server.predict(predict_request(inputs, "many_types"))
    assert response.outputs.keys() == inputs.keys()
    for name, array in inputs.items():
        output = tf.make_ndarray(response.outputs[name])
        assert output.dtype == array.dtype
        assert output.tolist() == array.tolist()


def test_output_filter(server: Stubs):
    matrix = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    request = predict_request({"m": matrix}, "many_types", "matrix", outputs=("total",))
    response = server.predict(request)
    assert {name: list(tensor.float_val) for name, tensor in response.outputs.items()} == {"total": [15]}
    fails(
        lambda: server.predict(predict_request({"m": matrix}, "many_types", "matrix", outputs=("sum",))),
        grpc.StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: sum Outputs expected to be in the set {total,transposed}.",
    )
    fails(
        lambda: server.predict(predict_request({"m": matrix}, "many_types", "matrix", outputs=("total", "total"))),
        grpc.StatusCode.INVALID_ARGUMENT,
        "duplicate output tensor alias: total",
    )


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_request({}, ""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (predict_request({}, "nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (
            predict_request({}, "half_plus_two", version=7),
            "NOT_FOUND",
            "Servable not found for request: Specific(half_plus_two, 7)",
        ),
        (
            predict_request({}, "half_plus_two", label="canary"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        ),
        (
            predict_request({}, "half_plus_two", "nope"),
            "FAILED_PRECONDITION",
            'Serving signature key "nope" not found.',
        ),
        (
            predict_request({}, "half_plus_two"),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            predict_request({"z": [1.0]}, "half_plus_two"),
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: z. Inputs expected to be in the set {x}.",
        ),
        (
            predict_request({"x": np.array([1])}, "half_plus_two"),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but int64 is provided",
        ),
        (predict_request({"x": [-1.0]}, "many_types", "checked"), "INVALID_ARGUMENT", "x is negative"),
    ],
)
def test_wrong_requests(server: Stubs, request_, code, message):
    fails(lambda: server.predict(request_), grpc.StatusCode[code], message)


def test_a_malformed_tensor(server: Stubs):
    request = predict_request({"x": [1.0]}, "half_plus_two")
    request.inputs["x"].tensor_shape.dim[0].size = 1 << 50
    fails(lambda: server.predict(request), grpc.StatusCode.INVALID_ARGUMENT, "tensor parsing error: x")


def examples(*values: float) -> list[tf.train.Example]:
    made = [tf.train.Example() for _ in values]
    for example, value in zip(made, values, strict=True):
        example.features.feature["x"].float_list.value.append(value)
    return made


def test_classify(server: Stubs):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", "classify_x_to_y"
    request.input.example_list.examples.extend(examples(2, 4))
    response = server.prediction.Classify(request, timeout=TIMEOUT_S)
    assert [[entry.score for entry in row.classes] for row in response.result.classifications] == [[3], [4]]
    assert (response.model_spec.signature_name, response.model_spec.version.value) == ("classify_x_to_y", 123)


def test_classify_with_a_context(server: Stubs):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", "classify_x_to_y"
    request.input.example_list_with_context.context.CopyFrom(examples(8)[0])
    request.input.example_list_with_context.examples.extend([tf.train.Example(), *examples(2)])
    response = server.prediction.Classify(request, timeout=TIMEOUT_S)
    assert [row.classes[0].score for row in response.result.classifications] == [6, 3]


def test_regress(server: Stubs):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", "regress_x_to_y"
    request.input.example_list.examples.extend(examples(2, 4))
    response = server.prediction.Regress(request, timeout=TIMEOUT_S)
    assert [regression.value for regression in response.result.regressions] == [3, 4]


def test_multi_inference(server: Stubs):
    request = inference_pb2.MultiInferenceRequest()
    for method in ("regress", "classify"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "half_plus_two", f"{method}_x_to_y"
    request.input.example_list.examples.extend(examples(2))
    results = server.prediction.MultiInference(request, timeout=TIMEOUT_S).results
    assert results[0].regression_result.regressions[0].value == 3
    assert results[1].classification_result.classifications[0].classes[0].score == 3
    assert [result.model_spec.signature_name for result in results] == ["regress_x_to_y", "classify_x_to_y"]
    request.tasks[1].method_name = "tensorflow/serving/predict"
    fails(
        lambda: server.prediction.MultiInference(request, timeout=TIMEOUT_S),
        grpc.StatusCode.UNIMPLEMENTED,
        "Unsupported signature method_name: tensorflow/serving/predict",
    )


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("nope", "No signature was found with the name: nope"),
        ("", "No classification inputs found"),
        ("regress_x_to_y", "at least one of"),
    ],
)
def test_classify_by_signatures_that_cannot(server: Stubs, signature, message):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", signature
    request.input.example_list.examples.extend(examples(2))
    with pytest.raises(grpc.RpcError, match=message):
        server.prediction.Classify(request, timeout=TIMEOUT_S)


def test_classify_nothing(server: Stubs):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", "classify_x_to_y"
    fails(
        lambda: server.prediction.Classify(request, timeout=TIMEOUT_S),
        grpc.StatusCode.INVALID_ARGUMENT,
        "Input is empty.",
    )


def test_metadata(server: Stubs, models: Path):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half_plus_two"
    response = server.prediction.GetModelMetadata(request, timeout=TIMEOUT_S)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        path = str(models / "half_plus_two" / "00000123")
        saved = tf.compat.v1.saved_model.loader.load(session, ["serve"], path).signature_def
    assert {name: definition.SerializeToString(deterministic=True) for name, definition in saved.items()} == {
        name: definition.SerializeToString(deterministic=True) for name, definition in signatures.signature_def.items()
    }
    request.metadata_field[:] = ["weights"]
    fails(
        lambda: server.prediction.GetModelMetadata(request, timeout=TIMEOUT_S),
        grpc.StatusCode.INVALID_ARGUMENT,
        "Metadata field weights is not supported",
    )


def test_status(server: Stubs):
    assert server.states("half_plus_two") == {123: "AVAILABLE"}
    fails(lambda: server.states("nope"), grpc.StatusCode.NOT_FOUND, "Could not find any versions of model nope")


def test_health_and_reflection(server: Stubs):
    services = [
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    for service in ("", *services):
        response = server.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=services[0]),
    ]
    listing, file = server.reflection.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S)
    assert {service.name for service in listing.list_services_response.service} == set(services)
    (serialized,) = file.file_descriptor_response.file_descriptor_proto[-1:]
    names = [
        service.name
        for content in file.file_descriptor_response.file_descriptor_proto
        for service in descriptor_pb2.FileDescriptorProto.FromString(content).service
    ]
    assert "PredictionService" in names, serialized


def test_unknown_methods_are_unimplemented(server: Stubs):
    call = server.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    fails(lambda: call(b"", timeout=TIMEOUT_S), grpc.StatusCode.UNIMPLEMENTED, "")


def test_many_clients_get_their_own_answers(server: Stubs):
    def ask(value: int) -> float:
        if value % 10 == 9:
            with pytest.raises(grpc.RpcError, match="x is negative"):
                server.predict(predict_request({"x": [-float(value)]}, "many_types", "checked"))
            return value**0.5
        request = predict_request({"x": [float(value)]}, "many_types", "checked")
        return float(server.predict(request).outputs["root"].float_val[0])

    with ThreadPoolExecutor(32) as threads:
        np.testing.assert_allclose(list(threads.map(ask, range(1000))), np.sqrt(np.arange(1000)), rtol=1e-6)


def test_as_tensor_content(models: Path):
    options = ServerOptions(
        port=0, model_base_path=str(models / "half_plus_two"), enable_serialization_as_tensor_content=True
    )
    with LocalServer(options) as local_server:
        output = Stubs(local_server.grpc_port).predict(predict_request({"x": [2.0]})).outputs["y"]
    assert output.tensor_content == np.float32(3).tobytes()


def test_the_method_name_is_checked_where_that_is_asked_for(models: Path):
    options = ServerOptions(port=0, model_base_path=str(models / "many_types"), enable_signature_method_name_check=True)
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "default", "text"
    request.input.example_list.examples.extend(examples(2))
    with LocalServer(options) as local_server:
        fails(
            lambda: Stubs(local_server.grpc_port).prediction.Classify(request, timeout=TIMEOUT_S),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict",
        )


def test_messages_over_the_limit_are_refused_and_the_server_goes_on(models: Path):
    options = ServerOptions(port=0, model_base_path=str(models / "half_plus_two"), max_message_bytes=1 << 16)
    with LocalServer(options) as local_server:
        stubs = Stubs(local_server.grpc_port)
        fails(
            lambda: stubs.predict(predict_request({"x": [0.0] * (1 << 15)})),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "larger than max",
        )
        assert list(stubs.predict(predict_request({"x": [2.0]})).outputs["y"].float_val) == [3]


def test_requests_over_the_limit_are_refused_and_the_server_goes_on(models: Path):
    options = ServerOptions(port=0, model_base_path=str(models / "slow"), max_concurrent_requests=2)
    request = predict_request({"n": np.int64(400_000)})  # takes long enough for all of them to arrive
    with LocalServer(options) as local_server:
        stubs = Stubs(local_server.grpc_port)

        def ask(_: int) -> grpc.StatusCode:
            try:
                return grpc.StatusCode.OK if stubs.predict(request) else grpc.StatusCode.UNKNOWN
            except grpc.RpcError as error:
                return error.code()

        with ThreadPoolExecutor(8) as threads:
            codes = list(threads.map(ask, range(8)))
        assert codes.count(grpc.StatusCode.OK) >= 2
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 1
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        wait_until(lambda: ask(0) == grpc.StatusCode.OK)


def test_a_deadline_in_the_batching_queue(models: Path, tmp_path: Path):
    parameters = tmp_path / "batching.txt"
    parameters.write_text("num_batch_threads { value: 1 } batch_timeout_micros { value: 60000000 }")
    options = ServerOptions(
        port=0,
        model_base_path=str(models / "half_plus_two"),
        enable_batching=True,
        batching_parameters_file=str(parameters),
    )
    with LocalServer(options) as local_server:
        stubs = Stubs(local_server.grpc_port)
        started = time.monotonic()
        fails(
            lambda: stubs.prediction.Predict(predict_request({"x": [2.0]}), timeout=0.2),
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "",
        )
        wait_until(lambda: requests_in_the_queue(local_server) == 0)
        waiting = stubs.prediction.Predict.future(predict_request({"x": [2.0]}))
        wait_until(lambda: requests_in_the_queue(local_server) == 1)
    # The server stopped without letting the batch wait for its minute.
    assert list(waiting.result().outputs["y"].float_val) == [3]
    assert time.monotonic() - started < 30


def requests_in_the_queue(local_server: LocalServer) -> int:
    """Those that somebody still waits for."""
    assert local_server._core is not None
    runner = local_server._core._runner
    assert isinstance(runner, BatchingRunner)
    return sum(not task.is_abandoned for batch in runner._waiting for task in batch.tasks)


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A base path with version 1, and versions 2 to 4 beside it."""
    staged = tmp_path / "staged"
    for version in range(1, 5):
        save_constant(staged, version)
    (tmp_path / "model").mkdir()
    (staged / "1").rename(tmp_path / "model" / "1")
    return tmp_path / "model"


def push(base_path: Path, version: int) -> None:
    (base_path.parent / "staged" / str(version)).rename(base_path / str(version))


def test_versions_change_under_load_without_a_failed_request(versions: Path):
    options = ServerOptions(
        port=0, model_base_path=str(versions), file_system_poll_wait_seconds=POLL_S, max_num_load_retries=0
    )
    with LocalServer(options) as local_server:
        stubs = Stubs(local_server.grpc_port)
        stop, answers, errors = threading.Event(), set(), []

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.add(stubs.version())
                except grpc.RpcError as error:
                    errors.append(f"{error.code()}: {error.details()}")

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        push(versions, 2)
        wait_until(lambda: stubs.states() == {1: "END", 2: "AVAILABLE"})
        # A broken version changes nothing, and says why.
        (versions.parent / "staged" / "3" / "saved_model.pb").write_bytes(b"broken")
        push(versions, 3)
        wait_until(lambda: stubs.states().get(3) == "END")
        assert stubs.version() == 2
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "default"
        request.model_spec.version.value = 3
        (status,) = stubs.model.GetModelStatus(request, timeout=TIMEOUT_S).model_version_status
        assert status.status.error_code != 0
        assert "saved_model.pb" in status.status.error_message
        push(versions, 4)
        wait_until(lambda: stubs.states().get(2) == "END")
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert {1, 2, 4} >= answers >= {2, 4}


def test_rollback_and_canary_by_configuration(versions: Path, caplog: pytest.LogCaptureFixture):
    push(versions, 2)
    config_file = versions.parent / "models.config"

    def config(policy: str, labels: str = "") -> str:
        return (
            f'model_config_list {{ config {{ name: "default" base_path: "{versions}" '
            f"model_version_policy {{ {policy} }} {labels} }} }}"
        )

    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    config_file.write_text(config("specific { versions: 1 versions: 2 }", labels))
    options = ServerOptions(port=0, model_config_file=str(config_file), model_config_file_poll_wait_seconds=POLL_S)
    with LocalServer(options) as local_server:
        stubs = Stubs(local_server.grpc_port)
        assert (stubs.version(label="stable"), stubs.version(label="canary"), stubs.version()) == (1, 2, 2)
        # The canary is taken back: version N-1 serves again.
        write_whole(config_file, config("specific { versions: 1 }"))
        wait_until(lambda: stubs.states() == {1: "AVAILABLE", 2: "END"})
        assert stubs.version() == 1
        # A wrong file changes nothing.
        write_whole(config_file, "improperly formatted file")
        wait_until(lambda: "The model configuration was not applied" in caplog.text)
        assert stubs.version() == 1
        # The same by a request.
        write_whole(config_file, config("specific { versions: 1 }"))
        request = model_management_pb2.ReloadConfigRequest()
        model = request.config.model_config_list.config.add(name="other", base_path=str(versions))
        response = stubs.model.HandleReloadConfigRequest(request, timeout=TIMEOUT_S)
        assert response.status.error_code == 0
        assert stubs.version(name="other") == 2
        model.base_path = "relative"
        response = stubs.model.HandleReloadConfigRequest(request, timeout=TIMEOUT_S)
        assert (response.status.error_code, "absolute path" in response.status.error_message) == (3, True)


def test_stop_finishes_what_is_under_way_and_refuses_the_rest(models: Path):
    options = ServerOptions(port=0, model_base_path=str(models / "slow"), shutdown_grace_seconds=60)
    local_server = LocalServer(options)
    local_server.start()
    stubs = Stubs(local_server.grpc_port)
    watch = stubs.health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    under_way = stubs.prediction.Predict.future(predict_request({"n": np.int64(300_000)}))
    wait_until(lambda: is_in_use(local_server))
    stopping = threading.Thread(target=local_server.stop)
    stopping.start()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    wait_until(lambda: refused(stubs))
    assert under_way.result().outputs["result"].int64_val[0] == 300_000
    stopping.join(WAIT_S)
    assert not stopping.is_alive()


def is_in_use(local_server: LocalServer) -> bool:
    """Whether the model runs a request."""
    assert local_server._core is not None
    with local_server._core.manager.use("default") as servable:
        return servable._users > 1  # beside this one


def refused(stubs: Stubs) -> bool:
    """Whether the server takes no new request."""
    try:
        stubs.predict(predict_request({"n": np.int64(1)}))
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.UNAVAILABLE
    return False
