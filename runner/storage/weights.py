"""The final weights of a sweep's runs: `weights/<run_id>.pt`, written before the run's row."""

import re
from collections.abc import Collection
from pathlib import Path

from runner.storage.files import write_atomically
from runner.storage.folder import WEIGHTS

_NAME = re.compile(r"(?P<run_id>[0-9a-f]{12})\.pt|\.[0-9a-f]{12}\.pt\.partial")


def weights_file(folder: Path, run_id: str) -> Path:
    """The file of a run's final weights, in the sweep's folder."""
    return folder / WEIGHTS / f"{run_id}.pt"


def write_weights(folder: Path, run_id: str, content: bytes) -> None:
    """Write a run's final weights."""
    (folder / WEIGHTS).mkdir(exist_ok=True)
    write_atomically(weights_file(folder, run_id), content)


def delete_weights(folder: Path, except_of: Collection[str] = ()) -> None:
    """Delete the weights of all runs except these, and the files that a kill left incomplete. Other files stay."""
    weights = folder / WEIGHTS
    for path in weights.glob("*"):
        match = _NAME.fullmatch(path.name)
        if match and match["run_id"] not in except_of:
            path.unlink(missing_ok=True)
    if weights.is_dir() and not any(weights.iterdir()):
        weights.rmdir()
