"""The sentence of run.log about a last batch that is very small: written before the training, read by a comparison."""

from collections.abc import Iterable
from pathlib import Path

from runner.storage.norm_changes import logged

_BEGIN = "The last batch of each epoch is small: "


def is_small(samples: int, batch_size: int) -> bool:
    """Whether an epoch's last batch has at most a quarter of the batch size. An epoch of one batch has none.

    >>> is_small(50_000, 64), is_small(55_000, 64)
    (True, False)
    """
    return samples > batch_size and 0 < samples % batch_size <= batch_size / 4


def sentence(batches: Iterable[tuple[int, int]]) -> str:
    """A warning of small last batches, as pairs of their size and the batch size.

    >>> sentence([(16, 64)]).partition(". ")[0]
    'The last batch of each epoch is small: 16 images instead of 64'
    """
    sizes = ", ".join(f"{last} images instead of {size}" for last, size in batches)
    return f"{_BEGIN}{sizes}. Readings right after it are erratic (drop_last: true leaves it out)."


def read(folder: Path) -> tuple[str, ...]:
    """The sentences of a sweep's run.log, each once."""
    return logged(folder, lambda line: line.startswith(_BEGIN))
