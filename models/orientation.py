"""Which way up a picture is: a camera stores what its sensor saw, and beside it how to turn that (EXIF Orientation)."""

import tensorflow as tf

_SEARCHED_BYTES = 2**17
"""From a file's beginning, where cameras and editors put the EXIF block. Searching a photograph to its end is slow."""

_MARKS = {b"\xff\xd8": b"Exif\0\0", b"\x89P": b"eXIf"}
"""What comes before the EXIF block in a JPEG (in an APP1 segment) and in a PNG (a chunk's name), by how files begin."""

_ORIENTATION_TAG = 0x0112
_ENTRY_BYTES = 12


def turn_upright(images: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors images as the EXIF Orientation in their files says.

    Args:
        images: uint8 [N, S, S, 3], as the files store them.
        encoded: string [N], the files. JPEG and PNG have an orientation; without one, or with one that cannot be read,
            an image stays as it is.

    Returns:
        uint8 [N, S, S, 3].
    """
    beginnings = tf.strings.substr(encoded, 0, _SEARCHED_BYTES)
    # A file is in two parts where it has the mark. The raw op tells by its shape alone that none has: most batches.
    parts = [tf.raw_ops.StringSplitV2(input=beginnings, sep=mark, maxsplit=1) for mark in _MARKS.values()]
    is_any_marked = tf.reduce_max([split.shape[1] for split in parts]) > 1

    def turn() -> tf.Tensor:
        blocks = [
            tf.sparse.to_dense(tf.SparseTensor(split.indices, split.values, [tf.size(encoded, tf.int64), 2]), b"")[:, 1]
            for split in parts
        ]
        return _turn(images, _exif_blocks(encoded, blocks))

    return tf.cond(is_any_marked, turn, lambda: images)


def _exif_blocks(encoded: tf.Tensor, after_marks: list[tf.Tensor]) -> tf.Tensor:
    """From the TIFF header of each file's EXIF block on, string [N]; empty where there is none."""
    signatures = tf.strings.substr(encoded, 0, 2)
    blocks = tf.zeros_like(encoded)
    for signature, after_mark in zip(_MARKS, after_marks, strict=True):
        blocks = tf.where(signatures == signature, after_mark, blocks)
    is_tiff = tf.strings.regex_full_match(tf.strings.substr(blocks, 0, 4), r"II\*\x00|MM\x00\*")
    return tf.where(is_tiff, blocks, b"")


def _turn(images: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
    """Turns images, uint8 [N, S, S, 3], by their EXIF blocks, string [N]."""
    orientations = tf.map_fn(_orientation, blocks, fn_output_signature=tf.TensorSpec([], tf.int32))

    def is_one_of(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientations[:, tf.newaxis] == values, axis=1)[:, tf.newaxis, tf.newaxis, tf.newaxis]

    images = tf.where(is_one_of(5, 6, 7, 8), tf.transpose(images, [0, 2, 1, 3]), images)
    images = tf.where(is_one_of(2, 3, 6, 7), images[:, :, ::-1], images)
    return tf.where(is_one_of(3, 4, 7, 8), images[:, ::-1], images)


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
