"""Which image of a batch is the bad one: the decoder's own error does not say."""

import tensorflow as tf

from models import decoding

_WHOLE_FILES = (b"\x89PN`\x82", b"\xff\xd8\xff\xff\xd9", b"GIF\x00;")
"""First three and last two bytes of a complete PNG (to its IEND chunk's CRC), JPEG (EOI marker) and GIF (trailer)."""

_BEGINNINGS = (b"\x89PN", b"\xff\xd8\xff", b"GIF", b"BM")
"""How files begin that the decoder takes for a PNG, JPEG, GIF or BMP image."""


def ensure_decodable(encoded: tf.Tensor, name: str) -> tf.Tensor:
    """Fails on a batch that holds a file that is no image, and says which it is and why.

    Files that begin and end like a complete PNG, JPEG or GIF pass at once. If there are others, the decoder is asked
    about those alone. Damage in the middle of a file is left for the decoder to find when the batch is decoded.

    Args:
        encoded: string [N], image files.
        name: of the model's input, for the message.

    Returns:
        `encoded`.

    Raises:
        tf.errors.InvalidArgumentError: when run, "image_bytes[3] is not a PNG, JPEG, BMP or GIF image (11 bytes)", or
            the like, for the first bad one.
    """
    last_two = tf.maximum(tf.strings.length(encoded) - 2, 0)
    ends = tf.strings.substr(encoded, 0, 3) + tf.strings.substr(encoded, last_two, tf.fill(tf.shape(encoded), 2))
    is_whole = tf.reduce_any(ends[:, tf.newaxis] == tf.constant(_WHOLE_FILES), axis=1)
    return tf.cond(
        tf.reduce_all(is_whole), lambda: encoded, lambda: _check_others(encoded, tf.where(~is_whole)[:, 0], name)
    )


def _check_others(encoded: tf.Tensor, indices: tf.Tensor, name: str) -> tf.Tensor:
    """Decodes the files at `indices`, int64 [M] in rising order, and fails on the first that does not; `encoded`."""

    def decode(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The image is an output because TensorFlow would not run a decoder whose output is not asked for.
        return index, decoding.decode(encoded[index])

    def count_to_first_lost(count: tf.Tensor, element: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return count + tf.cast(element[0] == indices[count], tf.int64)

    # A dataset is the one construct of a graph that survives an error in an element: it leaves the element out.
    decoded = tf.data.Dataset.from_tensor_slices(indices).map(decode).ignore_errors()
    num_before_bad = decoded.reduce(tf.constant(0, tf.int64), count_to_first_lost)
    num_others = tf.size(indices, out_type=tf.int64)
    bad = indices[tf.minimum(num_before_bad, num_others - 1)]
    check = tf.debugging.Assert(num_before_bad == num_others, [_describe(encoded[bad], bad, name)])
    with tf.control_dependencies([check]):
        return tf.identity(encoded)


def _describe(file: tf.Tensor, index: tf.Tensor, name: str) -> tf.Tensor:
    """What is wrong with a file, string [], that does not decode."""
    length = tf.strings.length(file)
    begins_like_image = tf.reduce_any([tf.strings.substr(file, 0, len(begin)) == begin for begin in _BEGINNINGS])
    damaged = tf.where(begins_like_image, "is a damaged or incomplete image", "is not a PNG, JPEG, BMP or GIF image")
    what = tf.where(length == 0, "is empty", damaged)
    return tf.strings.join(
        [f"{name}[", tf.strings.as_string(index), "] ", what, " (", tf.strings.as_string(length), " bytes)"]
    )
