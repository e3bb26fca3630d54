"""What both protocols share: finds the version, runs the signature, counts the request."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.local_server import inference, tensors, warmup
from serving.local_server.batching import Arrays, BatchingRunner, DirectRunner, Runner
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import ConfigError, model_configs_from_proto
from serving.local_server.model_manager import ManagerOptions, ModelManager, Servable
from serving.local_server.options import ServerOptions
from serving.local_server.saved_model import DEFAULT_SIGNATURE, SavedModel, Signature
from serving.local_server.status import Code, StatusError, invalid_argument

SIGNATURE_DEF_FIELD = "signature_def"
"""The one metadata field there is."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A signature's outputs, and what they came from."""

    signature: Signature
    version: int
    outputs: Arrays


class ServerCore:
    """The models, what runs them, and what is counted. Requests may come from any number of threads at once.

    A `timeout_s` is how long a request's caller waits, None for ever.
    """

    def __init__(self, options: ServerOptions) -> None:
        """Reads the configuration; `start` loads the models.

        Args:
            options: what to serve.

        Raises:
            ConfigError: a configuration file cannot be read, or says something that cannot be served.
        """
        self._options = options
        self._tags = options.saved_model_tags.split(",")
        self._session_config = _session_config(options)
        self._configs = options.model_configs()
        parameters = options.batching_parameters()
        self.metrics = Metrics(config.name for config in self._configs)
        self.manager: ModelManager[SavedModel] = ModelManager(
            self._configs,
            self._load,
            ManagerOptions(
                poll_wait_s=options.file_system_poll_wait_seconds,
                max_num_load_retries=options.max_num_load_retries,
                load_retry_interval_s=options.load_retry_interval_micros / 1e6,
                allow_version_labels_for_unavailable_models=options.allow_version_labels_for_unavailable_models,
            ),
        )
        self._runner: Runner = BatchingRunner(parameters) if parameters else DirectRunner(4 * (os.cpu_count() or 1))
        self._stopped = threading.Event()

    def start(self) -> None:
        """Loads the models that are there, and watches for more.

        Raises:
            ConfigError: a version label cannot be assigned.
        """
        self.manager.start()
        if self._options.model_config_file and self._options.model_config_file_poll_wait_seconds > 0:
            threading.Thread(target=self._watch_config_file, name="model-config-watch", daemon=True).start()

    def hurry(self) -> None:
        """Answers what is under way as soon as possible, before `stop`."""
        self._runner.hurry()

    def stop(self) -> None:
        """Unloads the models, when the runs under way have ended or the grace period is over."""
        self._stopped.set()
        self._runner.close()
        self.manager.stop(self._options.shutdown_grace_seconds)

    def predict(self, request: predict_pb2.PredictRequest, timeout_s: float | None) -> predict_pb2.PredictResponse:
        """Answers a Predict request.

        Raises:
            StatusError: why it cannot be answered.
        """
        spec = request.model_spec
        with self._use(spec) as servable:
            signature = inference.predict_signature(servable.model, spec.signature_name)
            inputs = inference.predict_inputs(signature, request.inputs, self._options.max_message_bytes)
            names = inference.check_output_filter(signature, request.output_filter)
            outputs = self._run("Predict", servable, signature, inputs, timeout_s)
        response = predict_pb2.PredictResponse()
        _fill_model_spec(response.model_spec, spec.name, servable.version, signature.name)
        as_content = self._options.enable_serialization_as_tensor_content
        for name in names:
            tensors.to_proto(outputs[name], signature.output_types[name], response.outputs[name], as_content)
        return response

    def predict_arrays(
        self,
        spec: model_pb2.ModelSpec,
        read_inputs: Callable[[Signature], Mapping[str, np.ndarray]],
        timeout_s: float | None,
    ) -> Answer:
        """Answers a Predict request that did not come as TensorProtos.

        Args:
            spec: the model, version and signature.
            read_inputs: gives the inputs, of the signature's names and dtypes.
            timeout_s: how long the caller waits.

        Raises:
            StatusError: why it cannot be answered.
        """
        with self._use(spec) as servable:
            signature = servable.model.signature(spec.signature_name)
            if signature is None:
                name = spec.signature_name or DEFAULT_SIGNATURE
                raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
            outputs = self._run("Predict", servable, signature, read_inputs(signature), timeout_s)
        return Answer(signature, servable.version, outputs)

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_s: float | None
    ) -> classification_pb2.ClassificationResponse:
        """Answers a Classify request.

        Raises:
            StatusError: why it cannot be answered.
        """
        spec = request.model_spec
        with self._use(spec) as servable:
            signature = inference.classify_signature(servable.model, spec.signature_name, self._check_method)
            inputs = inference.examples_inputs(signature, request.input)
            outputs = self._run("Classify", servable, signature, inputs, timeout_s)
        rows = len(next(iter(inputs.values())))
        response = classification_pb2.ClassificationResponse(result=inference.classification_result(outputs, rows))
        _fill_model_spec(response.model_spec, spec.name, servable.version, signature.name)
        return response

    def regress(
        self, request: regression_pb2.RegressionRequest, timeout_s: float | None
    ) -> regression_pb2.RegressionResponse:
        """Answers a Regress request.

        Raises:
            StatusError: why it cannot be answered.
        """
        spec = request.model_spec
        with self._use(spec) as servable:
            signature = inference.regress_signature(servable.model, spec.signature_name, self._check_method)
            inputs = inference.examples_inputs(signature, request.input)
            outputs = self._run("Regress", servable, signature, inputs, timeout_s)
        rows = len(next(iter(inputs.values())))
        response = regression_pb2.RegressionResponse(result=inference.regression_result(outputs, rows))
        _fill_model_spec(response.model_spec, spec.name, servable.version, signature.name)
        return response

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, timeout_s: float | None
    ) -> inference_pb2.MultiInferenceResponse:
        """Answers a MultiInference request: classifications and regressions of the same examples, by one version.

        Raises:
            StatusError: why it cannot be answered.
        """
        _check_tasks(request.tasks)
        response = inference_pb2.MultiInferenceResponse()
        with self._use(request.tasks[0].model_spec) as servable:
            for task in request.tasks:
                spec = task.model_spec
                is_classification = task.method_name == inference.CLASSIFY_METHOD
                choose = inference.classify_signature if is_classification else inference.regress_signature
                signature = choose(servable.model, spec.signature_name, self._check_method)
                inputs = inference.examples_inputs(signature, request.input)
                outputs = self._run("MultiInference", servable, signature, inputs, timeout_s)
                rows = len(next(iter(inputs.values())))
                result = response.results.add()
                if is_classification:
                    result.classification_result.CopyFrom(inference.classification_result(outputs, rows))
                else:
                    result.regression_result.CopyFrom(inference.regression_result(outputs, rows))
                _fill_model_spec(result.model_spec, spec.name, servable.version, signature.name)
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answers a GetModelMetadata request: all signatures.

        Raises:
            StatusError: why it cannot be answered.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF_FIELD:
                raise invalid_argument(f"Metadata field {field} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._use(request.model_spec) as servable:
            for name, signature in servable.model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature.definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _fill_model_spec(response.model_spec, servable.name, servable.version)
        response.metadata[SIGNATURE_DEF_FIELD].Pack(signatures)
        return response

    def model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answers a GetModelStatus request.

        Raises:
            StatusError: why it cannot be answered.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self.manager.statuses(request.model_spec.name, *_version_choice(request.model_spec)):
            version = response.model_version_status.add(version=status.version, state=status.state.value)
            version.status.error_code = status.code.value
            version.status.error_message = status.message
        return response

    def reload_config(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serves other models from now on.

        Raises:
            StatusError: INVALID_ARGUMENT: the configuration cannot be served; else see ModelManager.reload.
        """
        try:
            configs = model_configs_from_proto(config)
        except ConfigError as error:
            raise invalid_argument(str(error)) from None
        if config.WhichOneof("config") is None:
            return  # as in TensorFlow Serving: no action for an empty configuration
        self.metrics.set_model_names(model.name for model in configs)
        self.manager.reload(configs)

    @contextlib.contextmanager
    def counted(self, model_name: str, api: str, entrypoint: str) -> Iterator[None]:
        """Counts a request that is answered within the context, however it ends.

        Args:
            model_name: as in Metrics.request.
            api: as in Metrics.request.
            entrypoint: as in Metrics.request.

        Raises:
            StatusError: the answer's; INTERNAL for what nobody foresaw, which is logged.
        """
        started = time.perf_counter()
        code = Code.OK
        try:
            yield
        except StatusError as error:
            code = error.code
            raise
        except Exception as error:
            _LOG.exception("%s of model %s failed.", api, model_name)
            code = Code.INTERNAL
            raise StatusError(code, f"{type(error).__name__}; the server's log says more.") from error
        finally:
            self.metrics.request(model_name, api, entrypoint, code, time.perf_counter() - started)

    @property
    def _check_method(self) -> bool:
        return self._options.enable_signature_method_name_check

    def _use(self, spec: model_pb2.ModelSpec) -> contextlib.AbstractContextManager[Servable[SavedModel]]:
        """The version that a request asks for."""
        return self.manager.use(spec.name, *_version_choice(spec))

    def _run(
        self,
        api: str,
        servable: Servable[SavedModel],
        signature: Signature,
        inputs: Arrays,
        timeout_s: float | None,
    ) -> Arrays:
        """Runs a signature, and times it."""
        started = time.perf_counter()
        outputs = self._runner.run(servable, signature, inputs, timeout_s)
        self.metrics.run(servable.name, api, time.perf_counter() - started)
        return outputs

    def _load(self, name: str, version: int, path: str) -> SavedModel:
        """Loads and warms up a version, in the manager's thread."""
        model = SavedModel(path, self._tags, self._session_config)
        if not self._options.enable_model_warmup:
            return model
        started = time.perf_counter()
        code = Code.OK
        try:
            iterations = self._options.num_request_iterations_for_warmup or 1
            records = warmup.replay(model, iterations, self._options.max_message_bytes)
        except StatusError as error:
            code = error.code
            model.close()
            raise
        finally:
            self.metrics.warmup(path, code, time.perf_counter() - started)
        _LOG.info("Version %d of model %s: %d warm-up requests replayed.", version, name, records)
        return model

    def _watch_config_file(self) -> None:
        """Applies the configuration file when it has changed; one that cannot be applied is tried again and again."""
        applied = self._configs
        problem = ""
        while not self._stopped.wait(self._options.model_config_file_poll_wait_seconds):
            try:
                configs = self._options.model_configs()
                if configs != applied:
                    self.metrics.set_model_names(config.name for config in configs)
                    self.manager.reload(configs)
                    _LOG.info("The model configuration of %s is applied.", self._options.model_config_file)
                    applied = configs
                problem = ""
            except (ConfigError, StatusError) as error:
                if str(error) != problem:
                    _LOG.error("The model configuration was not applied: %s", error)
                problem = str(error)


def _version_choice(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    """The version and the label that a ModelSpec has, at most one of them."""
    choice = spec.WhichOneof("version_choice")
    return (
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _fill_model_spec(spec: model_pb2.ModelSpec, name: str, version: int, signature_name: str = "") -> None:
    """Says what has answered."""
    spec.name = name
    spec.version.value = version
    spec.signature_name = signature_name


def _check_tasks(tasks: Sequence[inference_pb2.InferenceTask]) -> None:
    """Refuses tasks that cannot be done together."""
    if not tasks:
        raise invalid_argument("Inference request must have at least one task.")
    signatures: set[str] = set()
    for task in tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        if task.method_name not in (inference.CLASSIFY_METHOD, inference.REGRESS_METHOD):
            raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        signature_name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature_name in signatures:
            raise invalid_argument(f"Duplicate evaluation of signature: {signature_name}")
        signatures.add(signature_name)


def _session_config(options: ServerOptions) -> config_pb2.ConfigProto:
    """Threads and devices of the models' sessions."""
    parallelism = options.tensorflow_session_parallelism
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism or parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or parallelism,
    )
    # Idle threads that spin take the cores from the client and from gRPC, which share them on a laptop.
    config.experimental.disable_thread_spinning = True
    config.gpu_options.per_process_gpu_memory_fraction = options.per_process_gpu_memory_fraction
    config.gpu_options.allow_growth = not options.per_process_gpu_memory_fraction
    return config
