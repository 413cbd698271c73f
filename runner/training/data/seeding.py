"""Where random numbers come from: streams derived from (seed, stream name, epoch), and from nothing else.

Not from the arm, the position in a stack, the worker or the clock: so the arms of one seed see the same batches, and a
run resumed at epoch 7 draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib


def stream(seed: int, name: str, epoch: int = 0) -> int:
    """The 63-bit seed of one stream, such as (7, "batches", 3)."""
    digest = hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
