"""Where a sweep's files are, and who may write them.

This module imports nothing heavy, so that a second writer is turned away before torch is loaded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runner.config.resolved import resolved
from runner.errors import UserError
from runner.storage.files import read_text

METRICS, RUNS, CURVES, PROBES = "metrics.csv", "runs.csv", "curves.csv", "probes.csv"
CONFIG, ENVIRONMENT, STACKS, LOG = "config.yaml", "environment.json", "stacks.json", "run.log"
LOCK, CHECKPOINTS, WEIGHTS = ".lock", "checkpoints", "weights"


def data_folder(option: str | None) -> Path:
    """The folder of `--data-dir`, else of $BNBENCH_DATA_DIR, else ./data."""
    return Path(option or os.environ.get("BNBENCH_DATA_DIR") or "data")


def sweep_folder(out: Path, name: str) -> Path:
    """`out/name`. Errors: UserError where a link leads it out of the results folder."""
    folder = out / name
    if not folder.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{folder} leads out of the results folder {out}")
    return folder


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the sweep's lock. A folder that is still empty at the end is removed.

    Errors: UserError, within a fifth of a second, where another process holds the lock.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        # It waits a moment, because `is_written` may hold the lock.
        lock.acquire(timeout=0.2, poll_interval=0.02)
    except Timeout:
        raise UserError(f"{folder}: another process is writing this sweep") from None
    try:
        yield
    finally:
        if new and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()
        lock.release()


def is_written(folder: Path) -> bool:
    """Whether a process holds the sweep's lock. This writes nothing, and ends before `sole_writer` gives up."""
    # Only Unix has fcntl. Elsewhere a sweep can be trained, but not watched.
    import fcntl

    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # filelock uses flock too. Here it is shared, so that watchers do not disturb each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def config_file(folder: Path) -> Path:
    """The config in a sweep's folder. Errors: UserError where there is none."""
    path = folder / CONFIG
    if not path.is_file():
        hint = "allowed: a folder that 'bnbench run' wrote"
        raise UserError(f"{folder}: no sweep here (no {CONFIG}); {hint}")
    return path


def read_config(path: Path) -> dict[str, Any]:
    """The resolved config of a sweep, as `resolved` gives it. Errors: UserError where the file is not one."""
    return resolved(read_text(path), str(path))
