"""Small SavedModels for the server's tests. TensorFlow is imported where one is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_half_plus(base_path: Path, addend: float, version: str = "00000123") -> None:
    """Saves a TF 1 model of TensorFlow Serving's half_plus_two kind: y = x / 2 + addend, on tensors and on tf.Examples.

    Its weights are variables, and the addend comes from an asset by way of a lookup table that is initialized at load.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    folder = base_path / version
    base_path.mkdir(parents=True, exist_ok=True)
    asset = base_path / f"addend_{version}.txt"
    asset.write_text(f"addend {addend}\n")
    with tf.Graph().as_default(), v1.Session() as session:
        half = v1.get_variable("half", initializer=0.5)
        asset_path = tf.constant(str(asset))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset_path)
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(asset_path, tf.string, 0, tf.string, 1, delimiter=" "),
            "0",
        )
        addend_tensor = tf.strings.to_number(table.lookup(tf.constant("addend")))
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        x = tf.identity(parsed, name="x")
        y = tf.add(tf.multiply(half, x), addend_tensor, name="y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = v1.saved_model.build_tensor_info
        build = v1.saved_model.build_signature_def
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": build({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
                "classify_x_to_y": build(
                    {"inputs": info(examples)}, {"scores": info(y)}, "tensorflow/serving/classify"
                ),
                "regress_x_to_y": build({"inputs": info(examples)}, {"outputs": info(y)}, "tensorflow/serving/regress"),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    asset.unlink()


def save_constant(base_path: Path, version: int) -> None:
    """Saves a model that answers with its version, whatever it is asked: answer int64 [N] of x float32 [N]."""
    import tensorflow as tf

    class Constant(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.version = tf.Variable(version, dtype=tf.int64)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {"answer": tf.fill(tf.shape(x), self.version)}

    module = Constant()
    tf.saved_model.save(module, str(base_path / str(version)), signatures={"serving_default": module.serve})


def save_many_types(base_path: Path) -> None:
    """Saves version 1 of a model with a signature for each thing that a signature can have.

    `serving_default` echoes an input of every dtype; `text` maps strings to strings and bytes; `checked` refuses
    negative numbers, by name of the row; `sum` has an output without rows; `matrix` takes float32 [N, 2, 3].
    """
    import tensorflow as tf

    dtypes = {
        "bool": tf.bool,
        "double": tf.float64,
        "float": tf.float32,
        "half": tf.float16,
        "int16": tf.int16,
        "int32": tf.int32,
        "int64": tf.int64,
        "int8": tf.int8,
        "string": tf.string,
        "uint32": tf.uint32,
        "uint64": tf.uint64,
        "uint8": tf.uint8,
    }

    class ManyTypes(tf.Module):
        @tf.function(input_signature=[{name: tf.TensorSpec([None], dtype, name) for name, dtype in dtypes.items()}])
        def echo(self, inputs: Any) -> Any:
            return {name: tf.identity(value) for name, value in inputs.items()}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def text(self, text: Any) -> Any:
            return {"upper": tf.strings.upper(text), "raw_bytes": text}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def checked(self, x: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="x is negative")]):
                return {"root": tf.sqrt(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def sum(self, x: Any) -> Any:
            return {"sum": tf.reduce_sum(x)}

        @tf.function(input_signature=[tf.TensorSpec([None, 2, 3], tf.float32, name="m")])
        def matrix(self, m: Any) -> Any:
            return {"transposed": tf.transpose(m, [0, 2, 1]), "total": tf.reduce_sum(m, [1, 2])}

    module = ManyTypes()
    signatures = {
        "serving_default": module.echo,
        "text": module.text,
        "checked": module.checked,
        "sum": module.sum,
        "matrix": module.matrix,
    }
    tf.saved_model.save(module, str(base_path / "1"), signatures=signatures)


def save_slow(base_path: Path) -> None:
    """Saves version 1 of a model that counts to n, which takes the longer the larger it is: result int64 [] of n."""
    import tensorflow as tf

    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="n")])
        def count(self, n: Any) -> Any:
            return {"result": tf.while_loop(lambda i: i < n, lambda i: [i + 1], [tf.constant(0, tf.int64)])[0]}

    module = Slow()
    tf.saved_model.save(module, str(base_path / "1"), signatures={"serving_default": module.count})
