"""TensorFlow Serving's messages and gRPC stubs, without TensorFlow.

The modules of tensorflow-serving-api import messages from `tensorflow.core`, and Python runs a package's `__init__`
before it imports anything of it: TensorFlow's takes seconds. Here an empty package stands in for `tensorflow` while
the messages are imported. A later `import tensorflow` is the real one, and has the same message classes.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _not_running_init_of(package: str) -> Iterator[None]:
    """Lets submodules of a package be imported without its `__init__`; does nothing where that has run already.

    Raises:
        ImportError: the package is not installed.
    """
    if package in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{package} is not installed; run `make environment`.", name=package)
    stand_in = ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        del sys.modules[package]


with _not_running_init_of("tensorflow"):
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_STRING, DataType
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

__all__ = [
    "DT_FLOAT",
    "DT_STRING",
    "DataType",
    "GetModelMetadataRequest",
    "GetModelStatusRequest",
    "ModelServiceStub",
    "ModelSpec",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictionServiceStub",
    "SignatureDefMap",
    "TensorProto",
]
