"""The REST API of a server in this process, by the documentation's bodies."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from local_server_models import save_constant, save_half_plus, save_many_types, save_slow
from waiting import wait_until

from serving.server import LocalServer, ServerOptions

TIMEOUT_S = 20


class Rest:
    """A client."""

    def __init__(self, server: LocalServer) -> None:
        self.address = f"http://127.0.0.1:{server.rest_port}"
        self._session = requests.Session()

    def get(self, path: str) -> tuple[int, Any]:
        response = self._session.get(self.address + path, timeout=TIMEOUT_S)
        return response.status_code, response.json()

    def post(self, path: str, body: object) -> tuple[int, Any]:
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        response = self._session.post(self.address + path, data=data, timeout=TIMEOUT_S)
        assert response.headers["Content-Type"] == "application/json"
        return response.status_code, response.json()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_half_plus(folder / "half_plus_two", 2.0)
    save_many_types(folder / "many_types")
    save_slow(folder / "slow")
    for version in (1, 2):
        save_constant(folder / "constant", version)
    return folder


@pytest.fixture(scope="module")
def rest(models: Path) -> Iterator[Rest]:
    config = models / "models.config"
    config.write_text(
        f"""model_config_list {{
          config {{ name: "half_plus_two" base_path: "{models / "half_plus_two"}" }}
          config {{ name: "many_types" base_path: "{models / "many_types"}" }}
          config {{ name: "a name/with slash" base_path: "{models / "half_plus_two"}" }}
          config {{
            name: "constant" base_path: "{models / "constant"}" model_version_policy {{ all {{}} }}
            version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
          }}
        }}"""
    )
    options = ServerOptions(port=0, rest_api_port=0, model_config_file=str(config), enable_batching=True)
    with LocalServer(options) as server:
        yield Rest(server)


def test_documented_predictions(rest: Rest):
    path = "/v1/models/half_plus_two:predict"
    assert rest.post(path, {"instances": [2.0, 3.0, 4.0]}) == (200, {"predictions": [3.0, 3.5, 4.0]})
    assert rest.post(path, {"inputs": [2.0, 3.0, 4.0]}) == (200, {"outputs": [3.0, 3.5, 4.0]})
    assert rest.post(path, {"instances": [{"x": [2.0]}]}) == (200, {"predictions": [[3.0]]})
    assert rest.post("/v1/models/half_plus_two/versions/123:predict", {"instances": [1]}) == (
        200,
        {"predictions": [2.5]},
    )


def test_documented_classify_and_regress(rest: Rest):
    examples = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}
    assert rest.post("/v1/models/half_plus_two:classify", examples) == (200, {"results": [[["", 3.0]]]})
    examples["signature_name"] = "regress_x_to_y"
    assert rest.post("/v1/models/half_plus_two:regress", examples) == (200, {"results": [3.0]})


def test_documented_status(rest: Rest):
    available = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/half_plus_two", "/v1/models/half_plus_two/versions/123", "/V1/Models/half_plus_two"):
        assert rest.get(path) == (200, {"model_version_status": [available]})


def test_documented_metadata(rest: Rest):
    status, metadata = rest.get("/v1/models/half_plus_two/metadata")
    assert status == 200
    assert metadata["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    y = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
        "name": "y:0",
    }
    assert signatures["regress_x_to_y"].pop("defaults", {}) == {}  # a field of newer TensorFlow
    assert signatures["regress_x_to_y"] == {
        "inputs": {
            "inputs": {
                "dtype": "DT_STRING",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "tf_example:0",
            }
        },
        "outputs": {"outputs": y},
        "method_name": "tensorflow/serving/regress",
    }


def test_versions_and_labels(rest: Rest):
    def answer(path: str) -> tuple[int, object]:
        return rest.post(f"/v1/models/constant{path}:predict", {"instances": [0.0]})

    assert answer("") == (200, {"predictions": [2]})
    assert answer("/versions/1") == (200, {"predictions": [1]})
    assert answer("/labels/stable") == (200, {"predictions": [1]})
    assert answer("/labels/canary") == (200, {"predictions": [2]})
    assert answer("/versions/3") == (404, {"error": "Servable not found for request: Specific(constant, 3)"})
    assert answer("/labels/nope") == (400, {"error": "Unrecognized servable version label: nope"})
    status, body = rest.get("/v1/models/constant/labels/stable")
    assert (status, [entry["version"] for entry in body["model_version_status"]]) == (200, ["1"])
    status, body = rest.get("/v1/models/constant")
    assert [entry["version"] for entry in body["model_version_status"]] == ["2", "1"]


def test_names_may_be_quoted(rest: Rest):
    name = urllib.parse.quote("a name/with slash", safe="")
    assert rest.post(f"/v1/models/{name}:predict", {"instances": [2]}) == (200, {"predictions": [3.0]})


def test_binary_values(rest: Rest):
    encoded = {"b64": base64.b64encode(b"ab\0c").decode()}
    body = {"signature_name": "text", "instances": [encoded, "abc"]}
    expected = [{"raw_bytes": encoded, "upper": "AB\0C"}, {"raw_bytes": {"b64": "YWJj"}, "upper": "ABC"}]
    assert rest.post("/v1/models/many_types:predict", body) == (200, {"predictions": expected})
    column = rest.post("/v1/models/many_types:predict", {"signature_name": "text", "inputs": {"text": ["abc"]}})
    assert column == (200, {"outputs": {"raw_bytes": [{"b64": "YWJj"}], "upper": ["ABC"]}})


def test_every_dtype(rest: Rest):
    instance = {
        "bool": True,
        "double": 0.1,
        "float": 0.2,
        "half": 0.5,
        "int16": -32768,
        "int32": -(2**31),
        "int64": -(2**63),
        "int8": -128,
        "string": "grüße",
        "uint32": 2**32 - 1,
        "uint64": 2**64 - 1,
        "uint8": 255,
    }
    assert rest.post("/v1/models/many_types:predict", {"instances": [instance]}) == (200, {"predictions": [instance]})


def test_several_dimensions(rest: Rest):
    body = {"signature_name": "matrix", "instances": [[[1, 2, 3], [4, 5, 6]]]}
    expected = [{"total": 21.0, "transposed": [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]}]
    assert rest.post("/v1/models/many_types:predict", body) == (200, {"predictions": expected})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/models/nope:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nope)"),
        ("POST", "/v1/models/half_plus_two:predict", "not json", 400, "JSON Parse error"),
        ("POST", "/v1/models/half_plus_two:predict", b"\xff\xfe\xfd", 400, "JSON Parse error"),
        ("POST", "/v1/models/half_plus_two:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", "/v1/models/half_plus_two:predict", {"instances": ["a"]}, 400, "is not of expected type: float"),
        (
            "POST",
            "/v1/models/half_plus_two:predict",
            {"signature_name": "nope", "instances": [1]},
            400,
            'Serving signature name: "nope" not found in signature def',
        ),
        (
            "POST",
            "/v1/models/half_plus_two:classify",
            {"signature_name": "nope", "examples": [{"x": 1.0}]},
            400,
            "No signature was found with the name: nope",
        ),
        ("POST", "/v1/models/many_types:predict", {"signature_name": "checked", "instances": [-1]}, 400, "negative"),
        ("POST", "/v1/models/many_types:predict", {"signature_name": "sum", "instances": [1]}, 400, "0 dimensions"),
        (
            "POST",
            "/v1/models/half_plus_two:explain",
            {},
            400,
            "Malformed request: POST /v1/models/half_plus_two:explain",
        ),
        (
            "GET",
            "/v1/models/half_plus_two:predict",
            None,
            400,
            "Malformed request: GET /v1/models/half_plus_two:predict",
        ),
        ("DELETE", "/v1/models/half_plus_two", None, 400, "Malformed request: DELETE /v1/models/half_plus_two"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/nope", None, 404, "Could not find any versions of model nope"),
        ("GET", "/v1/models/nope/metadata", None, 404, "Servable not found for request: Latest(nope)"),
        ("GET", "/v1/models/constant/versions/9", None, 404, "Could not find version 9 of model constant"),
        ("GET", f"/v1/models/constant/versions/{2**63}", None, 400, "Failed to convert version"),
        ("GET", "/", None, 404, "Not found: /"),
        ("GET", "/v2/models/half_plus_two", None, 404, "Not found: /v2/models/half_plus_two"),
        ("POST", "/monitoring/prometheus/metrics", {}, 404, "Not found"),
    ],
)
def test_errors_have_a_status_and_say_why(rest: Rest, method, path, body, status, message):
    data = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
    response = requests.request(method, rest.address + path, data=data, timeout=TIMEOUT_S)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


def test_gzip(rest: Rest):
    url = rest.address + "/v1/models/half_plus_two:predict"
    headers = {"Content-Encoding": "gzip"}
    body = gzip.compress(b'{"instances": [2.0]}')
    assert requests.post(url, data=body, headers=headers, timeout=TIMEOUT_S).json() == {"predictions": [3.0]}
    for damaged, message in ((b"{}", "The body is not gzip"), (body[:-10], "it ends too early")):
        response = requests.post(url, data=damaged, headers=headers, timeout=TIMEOUT_S)
        assert (response.status_code, message in response.json()["error"]) == (400, True)
    headers["Content-Encoding"] = "br"
    response = requests.post(url, data=body, headers=headers, timeout=TIMEOUT_S)
    assert (response.status_code, response.json()["error"]) == (400, "Content-Encoding br is not supported; gzip is.")


def test_metrics(rest: Rest):
    def value(line_start: str) -> float:
        text = requests.get(rest.address + "/monitoring/prometheus/metrics", timeout=TIMEOUT_S).text
        assert "# TYPE :tensorflow:serving:request_latency histogram" in text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(line_start))

    good = ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}'
    bad = ':tensorflow:serving:request_count{model_name="half_plus_two",status="INVALID_ARGUMENT"}'
    unknown = ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"}'
    latency = ':tensorflow:serving:request_latency_count{API="Predict",entrypoint="REST",model_name="half_plus_two"}'
    lines = (good, bad, unknown, latency)
    before = [value(line) for line in lines]
    for body in ({"instances": [1]}, {"instances": [1]}, {"instances": ["a"]}):
        rest.post("/v1/models/half_plus_two:predict", body)
    rest.post("/v1/models/a-name-nobody-knows:predict", {"instances": [1]})
    assert [value(line) - old for line, old in zip(lines, before, strict=True)] == [2, 1, 1, 3]


def test_many_clients_get_their_own_answers(rest: Rest):
    def ask(value: int) -> tuple[int, object]:
        return Rest.post(rest, "/v1/models/half_plus_two:predict", {"instances": [value]})

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(300))) == [(200, {"predictions": [v / 2 + 2]}) for v in range(300)]


@pytest.mark.parametrize("compress", [False, True])
def test_bodies_over_the_limit_are_refused_and_the_server_goes_on(models: Path, compress: bool):
    options = ServerOptions(
        port=0, rest_api_port=0, model_base_path=str(models / "half_plus_two"), max_message_bytes=1 << 16
    )
    headers = {"Content-Encoding": "gzip"} if compress else {}
    body = b'{"instances": [' + b" " * (8 << 20) + b"2.0]}"
    with LocalServer(options) as server:
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/default:predict"
        data = gzip.compress(body) if compress else body
        response = requests.post(url, data=data, headers=headers, timeout=TIMEOUT_S)
        assert response.status_code == 413
        assert response.json() == {"error": "The request is larger than 65,536 bytes."}
        assert requests.post(url, data='{"instances": [2.0]}', timeout=TIMEOUT_S).json() == {"predictions": [3.0]}


def test_too_slow_and_too_many(models: Path):
    options = ServerOptions(
        port=0,
        rest_api_port=0,
        model_base_path=str(models / "slow"),
        rest_api_timeout_in_ms=300,
        max_concurrent_requests=2,
        rest_api_enable_cors_support=True,
    )
    with LocalServer(options) as server:
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/default:predict"

        def ask(n: int) -> tuple[int, str]:
            response = requests.post(url, data=json.dumps({"inputs": n}), timeout=TIMEOUT_S)
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            return response.status_code, response.text

        answers: dict[int, str] = {}
        with ThreadPoolExecutor(8) as threads:

            def ask_at_once() -> bool:
                """Whether the eight have met; on a busy machine the first may be over when the last arrive."""
                answers.update(threads.map(ask, [400_000] * 8))
                return 429 in answers

            wait_until(ask_at_once)
        assert set(answers) == {429, 504}
        assert '{"error": "No answer within 0.3 s (rest_api_timeout_in_ms)."}' in answers[504]
        assert "2 requests are under way" in answers[429]
        assert requests.options(url, timeout=TIMEOUT_S).headers["Access-Control-Allow-Methods"] == "POST, GET"


def test_metrics_at_another_path_or_nowhere(models: Path, tmp_path: Path):
    monitoring = tmp_path / "monitoring.config"
    for text, statuses in (
        ('prometheus_config { enable: true path: "/metrics" }', (200, 404)),
        ("prometheus_config { enable: false }", (404, 404)),
    ):
        monitoring.write_text(text)
        options = ServerOptions(
            port=0,
            rest_api_port=0,
            model_base_path=str(models / "half_plus_two"),
            monitoring_config_file=str(monitoring),
        )
        with LocalServer(options) as server:
            got = [
                requests.get(f"http://127.0.0.1:{server.rest_port}{path}", timeout=TIMEOUT_S).status_code
                for path in ("/metrics", "/monitoring/prometheus/metrics")
            ]
        assert tuple(got) == statuses


def test_a_broken_model_has_a_status(tmp_path: Path):
    (tmp_path / "1").mkdir()
    with LocalServer(ServerOptions(port=0, rest_api_port=0, model_base_path=str(tmp_path))) as server:
        assert server.available == {"default": []}
        assert server.unavailable["default"].startswith("version 1: NOT_FOUND: Could not find SavedModel")
        code, body = Rest(server).get("/v1/models/default")
    assert code == 200
    (status,) = body["model_version_status"]
    assert (status["version"], status["state"], status["status"]["error_code"]) == ("1", "END", "NOT_FOUND")
    assert str(tmp_path / "1") in status["status"]["error_message"]
