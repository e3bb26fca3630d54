"""The classes that a model tells apart: an earlier one is a candidate's measure only where they are the same."""

from __future__ import annotations

from collections.abc import Collection

import tensorflow as tf

from models import features

SIGNATURE = "classify"

CLASS_NAMES_PROPERTY = "class_names"
"""Custom property (str) of a model: its class names in label order, a JSON list; set by the Trainer."""

_MAX_NAMES_SHOWN = 5


def class_names(model_dir: str) -> tuple[str, ...]:
    """The classes of a SavedModel, in label order, as it answers them itself.

    Raises:
        ValueError: It has no signature `classify`, or that answers no `classes`.
    """
    model = tf.saved_model.load(model_dir)  # its signatures alone would not keep the variables alive
    if SIGNATURE not in model.signatures or "classes" not in model.signatures[SIGNATURE].structured_outputs:
        raise ValueError(f"{model_dir} has no signature {SIGNATURE!r} that answers its classes.")
    pixel = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixel]))
    example = tf.train.Example(features=tf.train.Features(feature={features.IMAGE_KEY: image}))
    answer = model.signatures[SIGNATURE](inputs=tf.constant([example.SerializeToString()]))
    return tuple(name.decode() for name in answer["classes"].numpy()[0])


def why_incomparable(candidate: Collection[str], baseline: Collection[str]) -> str:
    """What makes two models' accuracies answers to different questions; empty where nothing does.

    Args:
        candidate: Class names in label order.
        baseline: The same of the earlier model.
    """
    if list(candidate) == list(baseline):
        return ""
    new = [name for name in candidate if name not in baseline]
    gone = [name for name in baseline if name not in candidate]
    if not new and not gone:
        index, (was, now) = next(
            (i, pair) for i, pair in enumerate(zip(baseline, candidate, strict=True)) if pair[0] != pair[1]
        )
        return f"classes differ (another order: class {index} was {was} and is {now})"
    changes = [f"{what}: {_shown(names)}" for what, names in (("new", new), ("gone", gone)) if names]
    return f"classes differ ({'; '.join(changes)})"


def _shown(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
