"""SavedModels in sessions: TF 1 and TF 2, every dtype, what cannot be loaded, warm-up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from local_server_models import save_constant, save_half_plus, save_many_types
from tensorflow_serving.apis import prediction_log_pb2

from serving.local_server import warmup
from serving.local_server.saved_model import SavedModel
from serving.local_server.status import Code, StatusError

MAX_BYTES = 1 << 20


def load(path: Path, tags: tuple[str, ...] = ("serve",)) -> SavedModel:
    return SavedModel(str(path), tags, tf.compat.v1.ConfigProto())


@pytest.fixture(scope="module")
def half_plus_two(tmp_path_factory) -> Iterator[SavedModel]:
    base = tmp_path_factory.mktemp("half_plus_two")
    save_half_plus(base, 2.0)
    model = load(base / "00000123")
    yield model
    model.close()


@pytest.fixture(scope="module")
def many_types(tmp_path_factory) -> Iterator[SavedModel]:
    base = tmp_path_factory.mktemp("many_types")
    save_many_types(base)
    model = load(base / "1")
    yield model
    model.close()


def test_a_tf1_model_with_an_asset_and_a_table(half_plus_two):
    signature = half_plus_two.signature("")
    assert signature is half_plus_two.signatures["serving_default"]
    # A session checks shapes where they matter only: [3] is no [batch, 1], and TensorFlow Serving's tests send it.
    outputs = half_plus_two.run(signature, {"x": np.array([2, 3, 4], np.float32)})
    assert outputs["y"].tolist() == [3.0, 3.5, 4.0]


def test_every_dtype_passes_through_as_the_reference_loader_sees_it(many_types):
    signature = many_types.signatures["serving_default"]
    inputs: dict[str, np.ndarray] = {}
    for name, dtype in signature.input_types.items():
        numpy_type = tf.dtypes.as_dtype(dtype).as_numpy_dtype
        inputs[name] = np.array([b"\0\xff", b""], object) if name == "string" else np.array([1, 0], numpy_type)
    outputs = many_types.run(signature, inputs)
    reference = tf.saved_model.load(many_types.path).signatures["serving_default"]
    expected = reference(**{name: tf.constant(array) for name, array in inputs.items()})
    assert outputs.keys() == inputs.keys()
    for name, array in outputs.items():
        assert array.tolist() == inputs[name].tolist() == expected[name].numpy().tolist()
        assert array.dtype == inputs[name].dtype


def test_several_dimensions_and_outputs(many_types):
    m = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    outputs = many_types.run(many_types.signatures["matrix"], {"m": m})
    np.testing.assert_array_equal(outputs["transposed"], m.transpose(0, 2, 1))
    np.testing.assert_array_equal(outputs["total"], m.sum((1, 2)))


def test_errors_of_the_model_have_its_code_and_message(many_types):
    with pytest.raises(StatusError, match="x is negative") as error:
        many_types.run(many_types.signatures["checked"], {"x": np.array([-1], np.float32)})
    assert error.value.code == Code.INVALID_ARGUMENT


def test_threads_run_it_at_once(half_plus_two):
    signature = half_plus_two.signatures["serving_default"]

    def ask(value: float) -> float:
        return float(half_plus_two.run(signature, {"x": np.array([value], np.float32)})["y"][0])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(500))) == [value / 2 + 2 for value in range(500)]


def test_an_empty_folder_is_not_found(tmp_path):
    with pytest.raises(StatusError, match=f"Could not find SavedModel .pb or .pbtxt .*{tmp_path}") as error:
        load(tmp_path)
    assert error.value.code == Code.NOT_FOUND


def test_a_damaged_graph_is_refused(tmp_path):
    save_constant(tmp_path, 1)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(StatusError, match=r"saved_model\.pb"):
        load(tmp_path / "1")


def test_missing_variables_are_refused(tmp_path):
    save_constant(tmp_path, 1)
    for file in (tmp_path / "1" / "variables").iterdir():
        file.unlink()
    with pytest.raises(StatusError) as error:
        load(tmp_path / "1")
    assert error.value.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.DATA_LOSS)


def test_unknown_tags_are_refused(tmp_path):
    save_constant(tmp_path, 1)
    with pytest.raises(StatusError, match="tags"):
        load(tmp_path / "1", ("serve", "gpu"))


def test_variables_that_the_checkpoint_does_not_restore_are_named(tmp_path, caplog):
    import keras

    class Wrapped(tf.Module):
        """Keras 3 has SavedModel restore other variables than the function reads."""

        def __init__(self, holds_variables: bool) -> None:
            super().__init__()
            inputs = keras.Input((2,))
            self.model = keras.Model(inputs, keras.layers.Dense(1, name="dense")(inputs))
            if holds_variables:
                self.variables_to_restore = [variable.value for variable in self.model.variables]

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def serve(self, x):
            return {"y": self.model(x)}

    for holds_variables in (False, True):
        module = Wrapped(holds_variables)
        path = tmp_path / str(holds_variables)
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="serving"):
            model = load(path)
        inputs = {"x": np.ones((1, 2), np.float32)}
        if holds_variables:
            assert caplog.text == ""
            np.testing.assert_allclose(
                model.run(model.signatures["serving_default"], inputs)["y"], module.serve(inputs["x"])["y"]
            )
        else:
            assert "dense/kernel" in caplog.text
            with pytest.raises(StatusError, match="Could not find variable") as error:
                model.run(model.signatures["serving_default"], inputs)
            assert error.value.code == Code.FAILED_PRECONDITION
        model.close()


def predict_log(value: float) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([value], tf.float32))
    return log.SerializeToString()


def examples_log(field: str, signature: str) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, field).request
    request.model_spec.signature_name = signature
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(2)
    return log.SerializeToString()


def write_warmup(model_path: str, *records: bytes) -> Path:
    path = Path(model_path) / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.fixture
def warmed(half_plus_two, monkeypatch) -> Iterator[tuple[SavedModel, list[str]]]:
    """A model whose runs are recorded by signature."""
    runs: list[str] = []
    run = half_plus_two.run

    def recorded(signature, inputs):
        runs.append(signature.name)
        return run(signature, inputs)

    monkeypatch.setattr(half_plus_two, "run", recorded)
    yield half_plus_two, runs
    (Path(half_plus_two.path) / "assets.extra" / "tf_serving_warmup_requests").unlink(missing_ok=True)


def test_warmup_replays_every_kind_of_request(warmed):
    model, runs = warmed
    write_warmup(
        model.path,
        predict_log(1),
        examples_log("classify_log", "classify_x_to_y"),
        examples_log("regress_log", "regress_x_to_y"),
    )
    assert warmup.replay(model, 2, MAX_BYTES) == 3
    assert runs == ["serving_default"] * 2 + ["classify_x_to_y"] * 2 + ["regress_x_to_y"] * 2


def test_a_model_without_warmup_requests(warmed):
    model, runs = warmed
    assert warmup.replay(model, 1, MAX_BYTES) == 0
    assert runs == []


def test_wrong_warmup_requests_are_refused(warmed):
    model, _ = warmed
    unknown = prediction_log_pb2.PredictionLog()
    unknown.predict_log.request.model_spec.signature_name = "nope"
    for record, code, message in (
        (unknown.SerializeToString(), Code.FAILED_PRECONDITION, 'record 2 .* failed: .*"nope" not found'),
        (b"\xff\xff", Code.INVALID_ARGUMENT, "Failed to parse warmup record 2"),
        (prediction_log_pb2.PredictionLog().SerializeToString(), Code.UNIMPLEMENTED, "Unsupported log_type"),
    ):
        write_warmup(model.path, predict_log(1), record)
        with pytest.raises(StatusError, match=message) as error:
            warmup.replay(model, 1, MAX_BYTES)
        assert error.value.code == code


def test_a_damaged_warmup_file_is_refused(warmed):
    model, _ = warmed
    path = write_warmup(model.path, predict_log(1))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StatusError, match="verify your warmup data is in TFRecord format") as error:
        warmup.replay(model, 1, MAX_BYTES)
    assert error.value.code == Code.DATA_LOSS


def test_too_many_warmup_requests_are_refused(warmed):
    model, _ = warmed
    write_warmup(model.path, *[predict_log(1)] * 1001)
    with pytest.raises(StatusError, match=r"exceeds the maximum \(1000\)"):
        warmup.replay(model, 1, MAX_BYTES)


def test_no_threads_are_left_by_loading(tmp_path):
    save_constant(tmp_path, 1)
    before = set(threading.enumerate())  # some of earlier tests may end meanwhile
    for _ in range(3):
        load(tmp_path / "1").close()
    assert set(threading.enumerate()) <= before
