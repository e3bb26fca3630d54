import subprocess
import sys


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_tensorflow_is_not_imported():
    assert run_python("import sys, serving.stubs; print('tensorflow' in sys.modules)") == "False\n"


def test_tensorflow_imported_later_is_whole_and_shares_the_messages():
    code = """
from serving import stubs
import tensorflow as tf
tensor = tf.make_tensor_proto([b"a", b"bc"])
assert isinstance(tensor, stubs.TensorProto)
request = stubs.PredictRequest(inputs={"x": tensor})
print(tf.make_ndarray(request.inputs["x"]).tolist(), tf.constant(1).numpy())
"""
    assert run_python(code) == "[b'a', b'bc'] 1\n"


def test_tensorflow_imported_before_stays():
    code = """
import tensorflow as tf
from serving import stubs
import sys
assert sys.modules["tensorflow"] is tf
print(isinstance(tf.make_tensor_proto(1), stubs.TensorProto))
"""
    assert run_python(code) == "True\n"
