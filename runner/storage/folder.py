"""Where a sweep's files are, and who may write them.

This module imports nothing heavy, so that a second writer is turned away before torch is loaded.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from runner.config import yaml_source
from runner.config.resolved import resolved
from runner.errors import UserError
from runner.storage import files

METRICS, RUNS, CURVES, PROBES = "metrics.csv", "runs.csv", "curves.csv", "probes.csv"
CONFIG, ENVIRONMENT, STACKS, LOG = "config.yaml", "environment.json", "stacks.json", "run.log"
CONTRAST = "contrast.json"
LOCK, CHECKPOINTS, WEIGHTS, PREDICTIONS, PLUGINS = ".lock", "checkpoints", "weights", "predictions", "plugins"


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
    lock = _locked(folder)
    try:
        yield
    finally:
        try:
            if new and files.names(folder) == [LOCK]:
                files.delete(folder / LOCK)
                folder.rmdir()
        finally:
            os.close(lock)


def _locked(folder: Path) -> int:
    """The descriptor of the sweep's lock file. The lock is held until it is closed."""
    # It waits a moment, because `is_written` may hold the lock.
    for _ in range(10):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = files.open_file(folder / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A writer that wrote nothing deletes its lock file.
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except (BlockingIOError, PermissionError):
            sleep(0.02)
        except OSError as error:
            os.close(descriptor)
            raise OSError(error.errno, error.strerror, str(folder / LOCK)) from None
        os.close(descriptor)
    raise UserError(f"{folder}: another process is writing this sweep")


def is_written(folder: Path) -> bool:
    """Whether a process holds the sweep's lock. This writes nothing, and ends before `sole_writer` gives up."""
    try:
        descriptor = files.open_file(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # The lock is shared, so that watchers do not disturb each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def config_file(folder: Path) -> Path:
    """The config in a sweep's folder. Errors: UserError where there is none, or a link in its place."""
    path = folder / CONFIG
    if not files.exists(path):
        hint = "allowed: a folder that 'bnbench run' wrote"
        raise UserError(f"{folder}: no sweep here (no {CONFIG}); {hint}")
    if not files.is_regular(path):
        raise UserError(f"{path}: a link, or not a regular file")
    return path


def read_config(path: Path) -> dict[str, Any]:
    """The resolved config of a sweep, as `resolved` gives it. Errors: UserError where the file is not one."""
    return resolved(yaml_source.file_text(path, files.open_file), str(path))
