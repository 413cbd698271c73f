"""The sentences of run.log about norm layers that were replaced: written before the training, read by a comparison."""

import re
from collections.abc import Callable
from pathlib import Path

from runner.errors import printable
from runner.storage import files
from runner.storage.folder import LOG

_SENTENCE = re.compile(r"network .+, swap_norm \S+: .+")


def sentence(network: str, norm: str, change: str) -> str:
    """What was done to a network.

    >>> sentence("lenet norm=batch", "none", "replaced 4 norm layers")
    'network lenet norm=batch, swap_norm none: replaced 4 norm layers'
    """
    return f"network {network}, swap_norm {norm}: {change}"


def read(folder: Path) -> tuple[str, ...]:
    """The sentences of a sweep's run.log, each once."""
    return logged(folder, lambda line: bool(_SENTENCE.fullmatch(line)))


def logged(folder: Path, chosen: Callable[[str], bool]) -> tuple[str, ...]:
    """The lines of a sweep's run.log that are chosen, each once."""
    if not files.exists(folder / LOG):
        return ()
    lines = files.read_bytes(folder / LOG).decode(errors="replace").splitlines()
    return tuple(dict.fromkeys(printable(line) for line in lines if chosen(line)))
