"""Which images of the test set a run classifies correctly, as a small file: their number, and one bit for each.

10,000 images are 1,254 bytes. The number of images is a 4-byte integer (little-endian). The bits follow in the images'
order, eight in a byte, the highest first, as numpy's `packbits` has them.
"""

import numpy as np
from numpy.typing import NDArray

COUNT = 4
"""Bytes of the number of images."""


def pack(correct: NDArray[np.bool_]) -> bytes:
    """The file's content for images [N].

    >>> pack(np.array([True, False, True])).hex()
    '03000000a0'
    """
    return len(correct).to_bytes(COUNT, "little") + np.packbits(correct).tobytes()


def unpack(content: bytes) -> NDArray[np.bool_]:
    """Which images [N] are classified correctly. Errors: ValueError where the content is no such file.

    >>> unpack(bytes.fromhex("03000000a0")).tolist()
    [True, False, True]
    """
    count = int.from_bytes(content[:COUNT], "little")
    bits = np.frombuffer(content, dtype=np.uint8, offset=min(COUNT, len(content)))
    if len(content) < COUNT or len(bits) != -(-count // 8):
        raise ValueError(f"{len(content)} bytes are no file of {count} predictions")
    return np.unpackbits(bits, count=count).astype(bool)
