"""The local model server's parts: TensorFlow Serving's protocol over SavedModels, for laptops, notebooks and tests.

How a request runs, whichever protocol it came by:

    grpc_services · rest  →  core  →  model_manager (version)  →  inference (inputs)  →  batching  →  saved_model (run)

`serving/server.py` is the command and the Python API. Behaviour, names, codes and messages are TensorFlow Serving's
(https://www.tensorflow.org/tfx/serving/api_rest and the protos of `tensorflow-serving-api`) unless a docstring says so.
"""
