"""Where random numbers come from: streams that depend on (seed, stream name, epoch), and on nothing else.

They do not depend on the arm, the position in a stack, the worker or the clock. So the arms of one seed see the same
batches, and a run that is resumed at epoch 7 draws the same numbers as a run that was never interrupted.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


def stream(seed: int, name: str, epoch: int = 0) -> int:
    """The 63-bit seed of one stream.

    >>> stream(7, "batches", 3) == stream(7, "batches", 3)
    True
    >>> stream(7, "batches", 3) == stream(7, "batches", 4)
    False
    """
    digest = hashlib.sha256(f"{seed}/{name}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_generators(seed: int, name: str, epoch: int = 0) -> None:
    """Seed the global generators of torch, numpy and Python for layers that draw from them.

    >>> seed_generators(7, "dropout", epoch=3)
    >>> first = torch.rand(1), numpy.random.rand(), random.random()
    >>> seed_generators(7, "dropout", epoch=3)
    >>> first == (torch.rand(1), numpy.random.rand(), random.random())
    True
    """
    torch.manual_seed(stream(seed, name, epoch))
    numpy.random.seed(stream(seed, f"{name}, numpy", epoch) % 2**32)
    random.seed(stream(seed, f"{name}, python", epoch))


@contextmanager
def generators_unchanged(device: torch.device) -> Iterator[None]:
    """After the block, the global generators of the CPU and of this device are what they were before it."""
    states = numpy.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    numpy.random.set_state(states[0])
    random.setstate(states[1])
