"""The client against two small servers, built here from the protocol's messages and its JSON as documented."""

import base64
import contextlib
import io
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from waiting import WAIT_S

from models import features
from serving import client, image_files, labelled_pictures, stubs
from serving.answers import Prediction, PredictionClient, ServedModel, ServingError, Signature, VersionStatus
from serving.grpc_client import float_rows
from serving.retries import RetryPolicy

BAD = b"bad"


def png(color: int, width: int = 32, height: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (color, 0, 0)).save(file, "PNG")
    return file.getvalue()


def probabilities(image: bytes) -> list[float]:
    """An answer that tells images apart: most of the mass on the class that the file's length chooses."""
    answer = [0.01] * 10
    answer[len(image) % 10] = 0.61
    answer[(len(image) + 1) % 10] = 0.31
    return answer


def label_of(image: bytes) -> str:
    return features.CLASS_NAMES[len(image) % 10]


class Model:
    """What both servers serve: batches that were asked for, an error to give first, and how classes are named."""

    def __init__(self) -> None:
        self.class_names: tuple[str, ...] = features.CLASS_NAMES
        self.answers: tuple[str, ...] = ("classes", "label")
        self.batches: list[int] = []
        self.specs: list[tuple[str, int | None, str | None]] = []
        self.failures: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def answer(self, images: list[bytes]) -> list[list[float]]:
        """Raises KeyError with a code's name."""
        self.batches.append(len(images))
        self.may_answer.wait(WAIT_S)
        if self.failures:
            raise KeyError(self.failures.pop(0), "made to fail")
        if BAD in images:
            raise KeyError(
                "INVALID_ARGUMENT",
                f"Graph execution error:\n\nassertion failed: [image_bytes[{images.index(BAD)}] is not a PNG, JPEG, "
                "BMP or GIF image (3 bytes)]\n\t [[{{node cond/Assert}}]]",
            )
        return [probabilities(image) for image in images]

    def names(self, row: list[float]) -> dict[str, Any]:
        """The outputs of an image that are texts, by name."""
        outputs = {"classes": list(self.class_names), "label": self.class_names[int(np.argmax(row))]}
        return {name: outputs[name] for name in self.answers}


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def grpc_address(model: Model) -> Iterator[str]:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def note(spec: Any) -> None:
        model.specs.append(
            (spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label or None)
        )

    class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802 (gRPC's name)
            note(request.model_spec)
            assert request.model_spec.signature_name == "serving_default"
            tensor = request.inputs["image_bytes"]
            assert [dim.size for dim in tensor.tensor_shape.dim] == [len(tensor.string_val)]
            try:
                rows = model.answer(list(tensor.string_val))
            except KeyError as error:
                context.abort(grpc.StatusCode[error.args[0]], error.args[1])
            response = predict_pb2.PredictResponse()
            output = response.outputs["probabilities"]
            output.dtype = stubs.DT_FLOAT
            for size in (len(rows), 10):
                output.tensor_shape.dim.add(size=size)
            output.tensor_content = np.asarray(rows, "<f4").tobytes()
            for name in model.answers:
                texts = [model.names(row)[name] for row in rows]
                tensor = response.outputs[name]
                tensor.dtype = stubs.DT_STRING
                for size in np.shape(texts):
                    tensor.tensor_shape.dim.add(size=size)
                tensor.string_val.extend(text.encode() for text in np.ravel(texts).tolist())
            return response

        def GetModelMetadata(self, request, context):  # noqa: N802 (gRPC's name)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            signature = signatures.signature_def["serving_default"]
            signature.inputs["image_bytes"].dtype = stubs.DT_STRING
            signature.inputs["image_bytes"].tensor_shape.dim.add(size=-1)
            signature.outputs["probabilities"].dtype = stubs.DT_FLOAT
            for size in (-1, 10):
                signature.outputs["probabilities"].tensor_shape.dim.add(size=size)
            signatures.signature_def["__saved_model_init_op"].outputs[
                "__saved_model_init_op"
            ].tensor_shape.unknown_rank = True
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.version.value = 7
            response.metadata["signature_def"].Pack(signatures)
            return response

    class ModelService(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802 (gRPC's name)
            response = get_model_status_pb2.GetModelStatusResponse()
            response.model_version_status.add(version=6, state="END").status.error_message = "no such file"
            response.model_version_status.add(version=7, state="AVAILABLE")
            return response

    server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def rest_address(model: Model) -> Iterator[str]:
    http_codes = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    signature = {
        "inputs": {"image_bytes": {"dtype": "DT_STRING", "tensor_shape": shape, "name": "a:0"}},
        "outputs": {
            "probabilities": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": "-1"}, {"size": "10"}], "unknown_rank": False},
                "name": "b:0",
            }
        },
        "method_name": "tensorflow/serving/predict",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/models/alexnet":
                status = [
                    {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
                    {
                        "version": "6",
                        "state": "END",
                        "status": {"error_code": "UNKNOWN", "error_message": "no such file"},
                    },
                ]
                self.reply(200, {"model_version_status": status})
            elif self.path == "/v1/models/alexnet/metadata":
                spec = {"name": "alexnet", "signature_name": "", "version": "7"}
                metadata = {"signature_def": {"signature_def": {"serving_default": signature}}}
                self.reply(200, {"model_spec": spec, "metadata": metadata})
            else:
                self.reply(404, {"error": "Malformed request: GET " + self.path})

        def do_POST(self) -> None:
            path = re.fullmatch(r"/v1/models/(\w+)(?:/versions/(\d+)|/labels/(\w+))?:predict", self.path)
            assert path is not None, self.path
            model.specs.append((path[1], int(path[2]) if path[2] else None, path[3]))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body["signature_name"] == "serving_default"
            try:
                rows = model.answer([base64.b64decode(instance["b64"]) for instance in body["instances"]])
            except KeyError as error:
                self.reply(http_codes[error.args[0]], {"error": error.args[1]})
                return
            answers = [{"probabilities": row} | model.names(row) for row in rows]
            self.reply(200, {"predictions": answers})

        def reply(self, code: int, body: object) -> None:
            content = json.dumps(body).encode()
            with contextlib.suppress(ConnectionError):  # a client may have left
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
            """Not on the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["grpc", "rest"])
def flags(request: pytest.FixtureRequest) -> list[str]:
    """The command's flags for a server, over each protocol."""
    address = request.getfixturevalue(f"{request.param}_address")
    return ["--server", address] + (["--rest"] if request.param == "rest" else [])


@pytest.fixture
def connect(flags: list[str]) -> Iterator[Callable[..., PredictionClient]]:
    opened: list[PredictionClient] = []

    def connect(**arguments: Any) -> PredictionClient:
        opened.append(client.connect(flags[1], rest="--rest" in flags, **arguments))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of different lengths at two depths, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(["b.png", "a.PNG", "deep/a.png", "deep/z.jpeg"]):
        (folder / name).write_bytes(png(0) + b"x" * index)
    (folder / "notes.txt").write_text("no picture")
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_predictions_come_in_the_order_of_the_images(connect):
    images = [png(0) + b"x" * n for n in range(12)]
    answers = connect().predict(images)
    np.testing.assert_allclose([a.probabilities for a in answers], [probabilities(i) for i in images], rtol=1e-6)
    assert [a.label for a in answers] == [label_of(i) for i in images]


def test_status_and_metadata(connect):
    assert connect().status() == [VersionStatus(7, "AVAILABLE", ""), VersionStatus(6, "END", "no such file")]
    signature = Signature({"image_bytes": "string [?]"}, {"probabilities": "float32 [?, 10]"})
    metadata = connect().metadata()
    assert metadata.version == 7
    assert metadata.signatures["serving_default"] == signature


@pytest.mark.parametrize(
    ("served", "asked"),
    [
        (ServedModel(), ("alexnet", None, None)),
        (ServedModel("other", version=3), ("other", 3, None)),
        (ServedModel(label="canary"), ("alexnet", None, "canary")),
    ],
)
def test_the_model_that_is_asked_for(connect, model: Model, served: ServedModel, asked: tuple):
    connect(model=served).predict([png(1)])
    assert model.specs == [asked]


def test_a_server_that_comes_back_is_asked_again(connect, model: Model):
    model.failures = ["UNAVAILABLE", "UNAVAILABLE"]
    policy = RetryPolicy(max_attempts=3, initial_backoff_s=0.01)
    assert len(connect(retry_policy=policy).predict([png(1)])) == 1
    assert len(model.batches) == 3


@pytest.mark.parametrize("code", ["NOT_FOUND", "RESOURCE_EXHAUSTED"])
def test_another_error_is_final_and_keeps_its_code(connect, model: Model, code: str):
    model.failures = [code]
    with pytest.raises(ServingError, match="made to fail") as raised:
        connect().predict([png(1)])
    assert raised.value.code == code
    assert len(model.batches) == 1


def test_the_deadline_holds(connect, model: Model):
    connect().predict([png(1)])  # what is imported at the first request is there
    connection = connect(timeout_s=0.2)
    model.may_answer.clear()
    start = time.monotonic()
    with pytest.raises(ServingError) as raised:
        connection.predict([png(1)])
    seconds = time.monotonic() - start
    model.may_answer.set()
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert seconds < 8  # the default is 10


@pytest.mark.parametrize("rest", [False, True])
def test_no_server(rest: bool):
    policy = RetryPolicy(max_attempts=2, initial_backoff_s=0.01)
    address = f"127.0.0.1:{free_port()}"
    with client.connect(address, rest=rest, retry_policy=policy) as connection, pytest.raises(ServingError) as raised:
        connection.predict([png(1)])
    assert raised.value.code == "UNAVAILABLE"


def tensor(shape: tuple[int, ...], **values: Any) -> stubs.TensorProto:
    proto = stubs.TensorProto(dtype=values.pop("dtype", stubs.DT_FLOAT), **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_every_form_of_a_float_tensor_is_read():
    content = np.arange(4, dtype="<f4").tobytes()
    assert float_rows(tensor((2, 2), tensor_content=content), 2) == [(0, 1), (2, 3)]
    assert float_rows(tensor((2, 2), float_val=[0, 1, 2, 3]), 2) == [(0, 1), (2, 3)]
    assert float_rows(tensor((2, 2), float_val=[0, 1, 2]), 2) == [(0, 1), (2, 2)]
    assert float_rows(tensor((0, 2)), 0) == []


@pytest.mark.parametrize(
    "wrong", [tensor((2,), float_val=[1, 2]), tensor((3, 1), float_val=[1]), tensor((2, 1), dtype=stubs.DT_STRING)]
)
def test_another_tensor_is_no_answer(wrong: stubs.TensorProto):
    with pytest.raises(ServingError, match=r"expected float32 \[2"):
        float_rows(wrong, 2)


@pytest.mark.parametrize("answers", [("classes", "label"), ("classes",), ("label",)])
def test_the_answer_names_the_classes(model, connect, answers):
    model.class_names, model.answers = tuple(reversed(features.CLASS_NAMES)), answers
    images = [png(0) + b"x" * n for n in range(12)]
    predicted = connect().predict(images)
    indices = [int(np.argmax(probabilities(image))) for image in images]
    assert [answer.label for answer in predicted] == [model.class_names[index] for index in indices]
    if "classes" in answers:
        assert {answer.classes for answer in predicted} == {model.class_names}


def test_a_class_that_the_answer_does_not_name_is_a_number(model, connect):
    model.answers = ()
    (answer,) = connect().predict([png(0)])
    assert answer.label == f"class {int(np.argmax(probabilities(png(0))))}"
    assert Prediction.of_label("ok", (0.2, 0.7, 0.1)).classes == ("class 0", "ok", "class 2")


def test_names_that_are_too_few_are_no_answer(model, connect):
    names = model.names
    model.names = lambda row: {"classes": names(row)["classes"][:-1], "label": "cat"}
    with pytest.raises(ServingError, match="names"):
        connect().predict([png(0), png(1)])


def test_labels_that_do_not_fit_the_images_are_no_answer(model, grpc_address):
    model.answers = ("label",)
    model.names = lambda row: {"label": ["cat", "dog"]}
    with client.connect(grpc_address) as connection, pytest.raises(ServingError, match="4 names where 2 were due"):
        connection.predict([png(0), png(1)])


def test_as_many_names_as_probabilities_or_no_answer():
    with pytest.raises(ServingError, match="3 probabilities and the names of 2 classes"):
        Prediction(("dent", "ok"), (0.5, 0.3, 0.2))
    with pytest.raises(ServingError, match="0 probabilities"):
        Prediction.of_label("ok", ())


def test_top_k():
    prediction = Prediction(features.CLASS_NAMES, (0.0, 0.1, 0.0, 0.6, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0))
    assert prediction.top(3) == [("cat", 0.6), ("dog", 0.3), ("automobile", 0.1)]
    assert (prediction.label, prediction.score) == ("cat", 0.6)
    assert len(prediction.top(99)) == 10


def test_a_version_and_a_label_exclude_each_other():
    with pytest.raises(ValueError, match="version 3 or the label 'canary', not both"):
        ServedModel(version=3, label="canary")


def test_table_of_a_folder(flags: list[str], folder: Path, capsys: pytest.CaptureFixture):
    assert client.main([*flags, str(folder), "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["a.PNG", "b.png", "deep/a.png", "deep/z.jpeg"]
    assert [line.split()[0] for line in lines] == [str(folder / name) for name in names]
    for line, name in zip(lines, names, strict=True):
        length = len((folder / name).read_bytes())
        first, second = features.CLASS_NAMES[length % 10], features.CLASS_NAMES[(length + 1) % 10]
        assert line.split()[1:] == [first, "61.0%", second, "31.0%"]


def test_json_of_standard_input(flags: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    image = png(3)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(image), encoding="utf-8"))
    assert client.main([*flags, "-", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["file"], answer["label"]) == ("-", label_of(image))
    assert answer["top"] == [{"label": answer["label"], "score": answer["score"]}]
    assert list(answer["probabilities"]) == list(features.CLASS_NAMES)
    np.testing.assert_allclose(list(answer["probabilities"].values()), probabilities(image), rtol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
def test_a_name_that_is_not_utf8_stops_no_answer(
    grpc_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, as_json: bool
):
    folder = tmp_path / os.fsdecode(b"d\xe9j\xe0")
    folder.mkdir()
    for name, content in [
        (b"caf\xe9.png", png(1)),
        (b"bad\xe9.png", BAD),
        (b"line\nbreak.png", png(2)),
        (b"z.png", png(3)),
    ]:
        (folder / os.fsdecode(name)).write_bytes(content)
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    arguments = ["--server", grpc_address, str(folder), "--picture-dir", str(tmp_path / "out")]
    assert client.main(arguments + ["--json"] * as_json) == client.EXIT_IMAGE_FAILED
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    shown = str(tmp_path / r"d\xe9j\xe0") + "/"
    if as_json:
        answers = {answer["file"]: answer.get("label") for answer in map(json.loads, out.splitlines())}
        names = [r"caf\xe9.png", r"bad\xe9.png", "line\nbreak.png", "z.png"]
        assert set(answers) == {shown + name for name in names}
        assert answers[shown + r"bad\xe9.png"] is None
    else:
        assert [line.split()[0] for line in out.splitlines()] == [
            shown + name for name in (r"caf\xe9.png", r"line\nbreak.png", "z.png")
        ]
        assert err.startswith(shown + r"bad\xe9.png: is not a PNG")
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_folder_that_is_not_there_is_named_whatever_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit):
        client.main([str(tmp_path / os.fsdecode(b"no\xe9"))])
    assert r"no\xe9: there is no such file or folder" in stream.buffer.getvalue().decode()


def test_batches(flags: list[str], folder: Path, model: Model):
    assert client.main([*flags, str(folder), "--batch-size", "3"]) == 0
    assert model.batches == [3, 1]


def test_a_bad_picture_is_named_and_spoils_no_other(
    flags: list[str], folder: Path, model: Model, capsys: pytest.CaptureFixture
):
    bad = folder / "bad.png"
    bad.write_bytes(BAD)
    assert client.main([*flags, str(folder)]) == client.EXIT_IMAGE_FAILED
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    assert captured.err == f"{bad}: is not a PNG, JPEG, BMP or GIF image (3 bytes)\n"
    assert model.batches == [5, 1, 1, 1, 1, 1]


def test_a_bad_picture_in_json(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "bad.png").write_bytes(BAD)
    assert client.main([*flags, str(tmp_path / "bad.png"), "--json"]) == client.EXIT_IMAGE_FAILED
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"file": str(tmp_path / "bad.png"), "error": "is not a PNG, JPEG, BMP or GIF image (3 bytes)"}


def test_pictures_with_their_class(flags: list[str], folder: Path, tmp_path: Path):
    (folder / "b.png").write_bytes(png(200, 100, 50))
    out = tmp_path / "out"
    files = [str(folder / name) for name in ("a.PNG", "b.png", "deep/a.png")]
    assert client.main([*flags, *files, "--picture-dir", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a-2.labelled.png", "a.labelled.png", "b.labelled.png"]
    with Image.open(out / "a.labelled.png") as small, Image.open(out / "b.labelled.png") as wide:
        assert small.size == (256, 256 + 32)
        assert wide.size == (300, 150 + 32)
        assert wide.getpixel((0, 0)) == wide.getpixel((299, 149)) == (200, 0, 0)
        caption = np.asarray(wide)[150:]
        assert (caption == 255).all(axis=-1).any()
        assert 0.01 < (caption.mean(axis=-1) < 128).mean() < 0.3


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_picture_that_a_camera_stored_turned_is_shown_upright(orientation: int, turned: Image.Transpose):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    stored = upright.transpose(turned)
    stored.getexif()[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=stored.getexif())
    shown = np.asarray(labelled_pictures.draw(file.getvalue(), "cat"))
    np.testing.assert_array_equal(shown[: -labelled_pictures.CAPTION_HEIGHT], np.asarray(upright))


def test_status_and_metadata_commands(flags: list[str], capsys: pytest.CaptureFixture):
    assert client.main([*flags, "--status", "--metadata"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "version 7  AVAILABLE",
        "version 6  END  no such file",
        "version 7",
        "serving_default",
        "  in   image_bytes: string [?]",
        "  out  probabilities: float32 [?, 10]",
    ]
    assert client.main([*flags, "--status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"version": 7, "state": "AVAILABLE", "error": ""}
    assert client.main([*flags, "--metadata", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signatures"]["serving_default"]["inputs"] == {
        "image_bytes": "string [?]"
    }


@pytest.mark.parametrize("flag", [[], ["--rest"]])
def test_the_command_says_that_no_server_answers(flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "a.png").write_bytes(png(1))
    address = f"127.0.0.1:{free_port()}"
    status = client.main([str(tmp_path / "a.png"), "--server", address, "--retries", "0", *flag])
    assert status == client.EXIT_SERVER_FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"{address}: no server answers")
    assert "make serve" in error


@pytest.mark.parametrize(
    ("code", "words"), [("NOT_FOUND", "--model-version"), ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED: made to fail")]
)
def test_a_servers_failure_ends_the_command(
    flags: list[str], folder: Path, model: Model, capsys: pytest.CaptureFixture, code: str, words: str
):
    model.failures = [code]
    assert client.main([*flags, str(folder)]) == client.EXIT_SERVER_FAILED
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a picture"),
        (["gone.png"], "gone.png: there is no such file or folder"),
        (["EMPTY"], "EMPTY: the folder holds no image"),
        (["-", "-"], "more than once"),
        (["-", "--top-k", "0"], "--top-k: 0 is not 1 or more"),
        (["-", "--timeout-s", "nan"], "--timeout-s: nan is not above 0"),
        (["-", "--retries", "-1"], "max_attempts is 0"),
        (["-", "--model-version", "1", "--label", "a"], "not both"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        client.main(arguments)
    assert raised.value.code == client.EXIT_USAGE
    assert words in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(flags: list[str], folder: Path, monkeypatch, capsys):
    gone = folder / "b.png"
    monkeypatch.setattr(image_files, "find", lambda names: [str(folder / "a.PNG"), str(gone)])
    gone.unlink()
    assert client.main([*flags, str(folder)]) == client.EXIT_IMAGE_FAILED
    captured = capsys.readouterr()
    assert captured.err == f"{gone}: it cannot be read: No such file or directory\n"
    assert captured.out.startswith(str(folder / "a.PNG"))


def test_batches_are_cut_by_size():
    half = image_files.ImageFile("half", b"x" * (image_files.MAX_BATCH_BYTES // 2))
    large = image_files.ImageFile("large", b"x" * (image_files.MAX_BATCH_BYTES + 1))
    names = [[file.name for file in batch] for batch in image_files.batches([half, half, half, large, half], 32)]
    assert names == [["half", "half"], ["half"], ["large"], ["half"]]


@pytest.mark.parametrize(("what", "limit_s"), [("--help", 1.0), ("picture", 1.5)])
def test_the_command_is_quick(grpc_address: str, tmp_path: Path, what: str, limit_s: float):
    (tmp_path / "picture").write_bytes(png(1))
    argument = what if what == "--help" else str(tmp_path / what)
    command = [sys.executable, "-m", "serving.client", "--server", grpc_address, argument]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Its own time, not the clock's, in which other processes may run.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < limit_s
