"""Where random numbers come from: streams that depend on (seed, stream name, epoch), and on nothing else.

They do not depend on the arm, the position in a stack, the worker or the clock. So the arms of one seed see the same
batches, and a run that is resumed at epoch 7 draws the same numbers as a run that was never interrupted.
"""

import hashlib


def stream(seed: int, name: str, epoch: int = 0) -> int:
    """The 63-bit seed of one stream.

    >>> stream(7, "batches", 3) == stream(7, "batches", 3)
    True
    >>> stream(7, "batches", 3) == stream(7, "batches", 4)
    False
    """
    digest = hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
