"""Which way up a picture is: a camera stores what its sensor saw, and beside it how to turn that (EXIF Orientation)."""

import tensorflow as tf

_SEARCHED_BYTES = 2**17
"""From a file's beginning, where cameras and editors put the EXIF block. Searching a photograph to its end is slow."""

_ORIENTATION_TAG = 0x0112
_ENTRY_BYTES = 12


def turn_upright(images: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors images as the EXIF Orientation in their files says.

    Args:
        images: uint8 [N, S, S, 3], as the files store them.
        encoded: string [N], the files. JPEG (APP1 segment) and PNG (eXIf chunk) have an orientation; without one, or
            with one that cannot be read, an image stays as it is.

    Returns:
        uint8 [N, S, S, 3].
    """
    blocks = _exif_blocks(encoded)

    def turn() -> tf.Tensor:
        orientations = tf.map_fn(_orientation, blocks, fn_output_signature=tf.TensorSpec([], tf.int32))

        def is_one_of(*values: int) -> tf.Tensor:
            return tf.reduce_any(orientations[:, tf.newaxis] == values, axis=1)[:, tf.newaxis, tf.newaxis, tf.newaxis]

        turned = tf.where(is_one_of(5, 6, 7, 8), tf.transpose(images, [0, 2, 1, 3]), images)
        turned = tf.where(is_one_of(2, 3, 6, 7), turned[:, :, ::-1], turned)
        return tf.where(is_one_of(3, 4, 7, 8), turned[:, ::-1], turned)

    return tf.cond(tf.reduce_any(blocks != b""), turn, lambda: images)


def _exif_blocks(encoded: tf.Tensor) -> tf.Tensor:
    """String [N]: from the TIFF header of each file's EXIF block on; empty where there is none."""
    beginnings = tf.strings.substr(encoded, 0, _SEARCHED_BYTES)
    signatures = tf.strings.substr(encoded, 0, 2)
    blocks = []
    for signature, mark in ((b"\xff\xd8", b"Exif\0\0"), (b"\x89P", b"eXIf")):
        searched = tf.where(signatures == signature, beginnings, b"")
        blocks.append(tf.strings.split(searched, mark, maxsplit=1).to_tensor(b"", shape=[None, 2])[:, 1])
    found = tf.strings.join(blocks)  # a file has one signature, so one of the two is empty
    is_tiff = tf.strings.regex_full_match(tf.strings.substr(found, 0, 4), r"II\*\x00|MM\x00\*")
    return tf.where(is_tiff, found, b"")


def _orientation(block: tf.Tensor) -> tf.Tensor:
    """Orientation, int32 [], in the first directory (IFD0) of an EXIF block, string []; 1, upright, without one."""
    data = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int32)
    is_little_endian = tf.strings.substr(block, 0, 1) == b"I"

    def numbers(digits: tf.Tensor) -> tf.Tensor:
        """Int32 [..., k], digits of base 256, to [...]."""
        digits = tf.where(is_little_endian, digits, digits[..., ::-1])
        return tf.reduce_sum(digits * 256 ** tf.range(tf.shape(digits)[-1]), axis=-1)

    start = tf.clip_by_value(numbers(data[4:8]), 0, tf.size(data))
    count = tf.minimum(numbers(data[start : start + 2]), (tf.size(data) - start - 2) // _ENTRY_BYTES)
    entries = tf.reshape(data[start + 2 :][: tf.maximum(count, 0) * _ENTRY_BYTES], [-1, _ENTRY_BYTES])
    is_orientation = numbers(entries[:, :2]) == _ORIENTATION_TAG
    values = tf.boolean_mask(numbers(entries[:, 8:10]), is_orientation)
    return tf.concat([values, [1]], axis=0)[0]
