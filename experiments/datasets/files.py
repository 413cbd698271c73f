"""What the data sets' files have in common: digests, packed files, MNIST's format, downloads."""

from __future__ import annotations

import gzip
import hashlib
import socket
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def digest_of(content: bytes) -> str:
    """The SHA-256 of a file's content: 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def unpacked(content: bytes, place: Path, remedy: str) -> bytes:
    """The content of a `.gz` file. Errors: UserError where it is none, with the remedy."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{place}: not a gzip file ({error}). {remedy}") from None


def idx(content: bytes) -> Tensor:
    """The numbers of a file in the format of MNIST's files, IDX: a header, then uint8 or int32 values.

    Source: LeCun's page on MNIST: two zeros, the type (8: unsigned byte, 12: int), the number of dimensions, then each
    dimension as a 4-byte integer; the highest byte comes first.

    >>> idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]))
    tensor([5, 6, 7], dtype=torch.uint8)
    """
    import numpy
    import torch

    kind, dimensions = content[2], content[3]
    sizes = numpy.frombuffer(content, ">i4", dimensions, offset=4)
    values = numpy.frombuffer(content, {8: ">u1", 12: ">i4"}[kind], offset=4 + 4 * dimensions)
    native = values.astype(values.dtype.newbyteorder("="))
    return torch.from_numpy(native.reshape(*map(int, sizes)))


@contextmanager
def downloading(name: str, root: Path) -> Iterator[None]:
    """Inside the block, torchvision downloads a data set, and no other process does.

    After a failure files are missing, and the caller reports that.
    """
    from filelock import FileLock

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"), redirect_stdout(sys.stderr):
            yield
    except (OSError, RuntimeError) as error:
        print(f"{name}: download failed: {error}", file=sys.stderr)
    finally:
        socket.setdefaulttimeout(timeout)
