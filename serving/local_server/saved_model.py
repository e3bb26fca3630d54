"""A SavedModel in a TensorFlow session, which is how TensorFlow Serving runs it.

Loading by `tf.saved_model.load` would be kinder than production: it finds variables through the object graph, checks
shapes that a session does not check, and knows nothing of tags. What runs here runs in TensorFlow Serving.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.local_server.status import Code, StatusError, invalid_argument
from serving.local_server.tensors import type_name

DEFAULT_SIGNATURE = "serving_default"

_LOG = logging.getLogger(__name__)


class Signature:
    """One signature of a SavedModel."""

    def __init__(self, name: str, definition: meta_graph_pb2.SignatureDef) -> None:
        """Reads a signature.

        Args:
            name: its key in the SavedModel.
            definition: as the SavedModel has it.
        """
        self.name = name
        self.definition = definition
        self.input_types: dict[str, int] = {key: definition.inputs[key].dtype for key in sorted(definition.inputs)}
        """DataType by input, in the order of the names."""
        self.output_types: dict[str, int] = {key: definition.outputs[key].dtype for key in sorted(definition.outputs)}
        """DataType by output, in the order of the names."""


class SavedModel:
    """A loaded SavedModel. `run` may be called from several threads at once."""

    def __init__(self, path: str, tags: Sequence[str], session_config: config_pb2.ConfigProto) -> None:
        """Loads the graph, restores the variables and runs the initialization.

        Args:
            path: the SavedModel's folder.
            tags: of the graph to load.
            session_config: threads and devices.

        Raises:
            StatusError: it cannot be loaded: NOT_FOUND where a file is missing, else TensorFlow's own code.
        """
        self.path = path
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=session_config)
        self._callables: dict[str, Callable[..., list[np.ndarray]]] = {}
        self._callables_lock = threading.Lock()
        try:
            with self._graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, list(tags), path)
            self.signatures: Mapping[str, Signature] = {
                name: Signature(name, definition) for name, definition in meta_graph.signature_def.items()
            }
            self._warn_of_unrestored_variables()
            self._graph.finalize()
        except Exception as error:
            self._session.close()
            raise _load_error(error, path) from error

    def signature(self, name: str) -> Signature | None:
        """The signature of this name, `serving_default` for the empty name; None if there is none."""
        return self.signatures.get(name or DEFAULT_SIGNATURE)

    def run(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs of a signature.

        Args:
            signature: one of `signatures`.
            inputs: array by input name, of the signature's dtypes. Shapes are the graph's to check, as in production.

        Returns:
            Array by output name, strings as objects that are bytes.

        Raises:
            StatusError: with TensorFlow's code and message.
        """
        try:
            values = self._callable(signature)(*(inputs[name] for name in signature.input_types))
        except tf.errors.OpError as error:
            raise StatusError(Code(error.error_code), str(error.message)) from None
        return dict(zip(signature.output_types, values, strict=True))

    def close(self) -> None:
        """Frees what the model holds. No `run` may be under way."""
        self._callables.clear()
        self._session.close()
        del self._session, self._graph
        gc.collect()  # a graph is full of cycles

    def _callable(self, signature: Signature) -> Callable[..., list[np.ndarray]]:
        """What runs a signature: takes its inputs and returns its outputs, each in the order of the names."""
        if signature.name not in self._callables:
            with self._callables_lock:
                if signature.name not in self._callables:
                    definition = signature.definition
                    options = config_pb2.CallableOptions(
                        feed=[_tensor_name(definition.inputs[name], name) for name in signature.input_types],
                        fetch=[_tensor_name(definition.outputs[name], name) for name in signature.output_types],
                    )
                    # Session.run would check fed shapes against the placeholders', which TensorFlow Serving does not.
                    self._callables[signature.name] = self._session._make_callable_from_options(options)
        return self._callables[signature.name]

    def _warn_of_unrestored_variables(self) -> None:
        """Says which variables the signatures read that the checkpoint did not restore: such requests will fail."""
        handles = self._variables_of_signatures()
        if not handles:
            return
        with self._graph.as_default():
            checks = [tf.raw_ops.VarIsInitializedOp(resource=handle.outputs[0]) for handle in handles]
        restored = self._session.run(checks)
        missing = sorted(handle.name for handle, is_restored in zip(handles, restored, strict=True) if not is_restored)
        if missing:
            _LOG.warning(
                "%s: its signatures read %d variables that its checkpoint does not restore (%s, …), so their requests "
                "will fail, in TensorFlow Serving as well. A Keras 3 model below a tf.Module exports like this, unless "
                "the module also holds its tf.Variables: self.variables_to_restore = [v.value for v in "
                "model.variables].",
                self.path,
                len(missing),
                ", ".join(missing[:3]),
            )

    def _variables_of_signatures(self) -> list[tf.Operation]:
        """The variable handles that any signature's outputs depend on."""
        pending = [
            self._graph.get_tensor_by_name(info.name).op
            for signature in self.signatures.values()
            for info in signature.definition.outputs.values()
            if ":" in info.name
        ]
        seen: set[tf.Operation] = set()
        while pending:
            operation = pending.pop()
            if operation not in seen:
                seen.add(operation)
                pending += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
        return [operation for operation in seen if operation.type == "VarHandleOp"]


def _tensor_name(info: meta_graph_pb2.TensorInfo, name: str) -> str:
    """The graph's name of an input or output."""
    if info.WhichOneof("encoding") != "name" or ":" not in info.name:
        raise invalid_argument(f"{name} is not a dense tensor of type {type_name(info.dtype)}: it cannot be served.")
    return info.name


def _load_error(error: Exception, path: str) -> StatusError:
    """What a failed load means."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, tf.errors.OpError):
        return StatusError(Code(error.error_code), str(error.message))
    if not any(os.path.exists(os.path.join(path, name)) for name in ("saved_model.pb", "saved_model.pbtxt")):
        return StatusError(
            Code.NOT_FOUND,
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
        )
    return StatusError(Code.INVALID_ARGUMENT, f"{path} cannot be loaded: {error}")
