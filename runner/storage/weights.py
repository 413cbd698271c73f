"""The final weights of a sweep's runs: `weights/<run_id>.pt`, written before the run's row."""

import re
from collections.abc import Collection
from pathlib import Path

from runner.storage import files
from runner.storage.folder import WEIGHTS

_NAME = re.compile(r"(?P<run_id>[0-9a-f]{12})\.pt|\.[0-9a-f]{12}\.pt\.partial")


def weights_file(folder: Path, run_id: str) -> Path:
    """The file of a run's final weights, in the sweep's folder."""
    return folder / WEIGHTS / f"{run_id}.pt"


def saved(folder: Path) -> set[str]:
    """The ids of the runs whose final weights are saved."""
    matches = (_NAME.fullmatch(name) for name in files.names(folder / WEIGHTS, folder))
    return {match["run_id"] for match in matches if match and match["run_id"]}


def read_weights(folder: Path, run_id: str) -> bytes:
    """The content of a run's file of final weights. Errors: OSError where it cannot be read."""
    return files.read_bytes(weights_file(folder, run_id), folder)


def write_weights(folder: Path, run_id: str, content: bytes) -> None:
    """Write a run's final weights."""
    files.make_folder(folder / WEIGHTS, folder)
    files.write_atomically(weights_file(folder, run_id), content, folder)


def delete_weights(folder: Path, except_of: Collection[str] = ()) -> None:
    """Delete the weights of all runs except these, and the files that a kill left incomplete. Other files stay."""
    weights = folder / WEIGHTS
    for name in files.names(weights, folder):
        match = _NAME.fullmatch(name)
        if match and match["run_id"] not in except_of:
            files.delete(weights / name, folder)
    files.remove_if_empty(weights, folder)
