"""Checkpoints: what the runs of a job need to go on after an epoch, in one file, written by the driver.

A file is four parts: a line that names the format, the SHA-256 of the rest, a line of JSON (the runs and the epoch),
and tensors and plain values as `torch.save` writes them, which `torch.load(weights_only=True)` reads: no code in it is
ever run. Everything in it is per run, so a stack's file can be continued by fewer runs, or by one.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from runner.errors import UserError
from runner.storage.rows import Checkpoint, EpochRow

FORMAT = b"bnbench checkpoint 1\n"
SUFFIX = ".ckpt"
KEPT = 2
"""The last one, and the one before, should the last be damaged."""


@dataclass(frozen=True)
class Every:
    """How often to write one: after so many epochs, or at the first end of an epoch after so many seconds."""

    epochs: int | None = None
    seconds: float | None = None

    def due(self, epoch: int, since: float) -> bool:
        if self.epochs is not None:
            return epoch % self.epochs == 0
        return self.seconds is not None and since >= self.seconds


NEVER = Every()


@dataclass(frozen=True)
class Found:
    """A checkpoint on the disk that is whole."""

    path: Path
    run_ids: tuple[str, ...]
    epoch: int


def folder_at(place: str, sweep_folder: Path) -> Path:
    """A sweep's folder in a storage that several machines see: a path, or any of fsspec's, such as s3://bucket/name.

    Errors: UserError where what reads such a path is not installed.
    """
    owner = hashlib.sha256(str(sweep_folder.resolve()).encode()).hexdigest()[:8]  # two results folders, one storage
    name = f"{sweep_folder.name}-{owner}"
    if "://" not in place:
        return Path(place).resolve() / name
    try:
        from upath import UPath

        return cast(Path, UPath(place) / name)
    except ImportError as error:
        raise UserError(f"checkpoint_dir {place} needs {error.name}: pip install 'bnbench[ray]'") from None
    except (ValueError, OSError) as error:
        raise UserError(f"checkpoint_dir {place}: {error}") from None


def file_name(run_ids: Sequence[str], epoch: int) -> str:
    """One name per job and epoch."""
    job = hashlib.sha256(" ".join(run_ids).encode()).hexdigest()[:12]
    return f"{job}.{epoch:06d}{SUFFIX}"


def epoch_of(path: Path) -> int:
    """The epoch in a checkpoint's name."""
    return int(path.name.split(".")[1])


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file."""
    header = json.dumps({"runs": checkpoint.run_ids, "epoch": checkpoint.epoch}).encode() + b"\n"
    digest = hashlib.sha256(header + checkpoint.state).hexdigest().encode()
    return FORMAT + digest + b"\n" + header + checkpoint.state


def find(folder: Path) -> tuple[list[Found], list[Path]]:
    """The whole checkpoints below a folder, the latest epoch first, and the damaged files."""
    found, damaged = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            header, _ = _parts(path)
            found.append(Found(path, tuple(map(str, header["runs"])), int(header["epoch"])))
        except (UserError, OSError, LookupError, TypeError, ValueError):  # of another make, its digest right
            damaged.append(path)
    return sorted(found, key=lambda each: -each.epoch), damaged


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """(header, state). Errors: UserError where the file is not what was written."""
    content = path.read_bytes()
    start = len(FORMAT)
    digest, rest = content[start : start + 64], content[start + 65 :]
    if not content.startswith(FORMAT) or hashlib.sha256(rest).hexdigest().encode() != digest:
        raise UserError(f"{path}: damaged checkpoint")
    header, _, state = rest.partition(b"\n")
    return json.loads(header), state


def pack(state: dict[str, Any]) -> bytes:
    """Tensors and plain values as bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def loads(found: Found) -> bool:
    """Whether a whole file's state can be gone on from."""
    try:
        state = load(found.path)
        return state["runs"] == list(found.run_ids) and state["epoch"] == found.epoch and state.keys() >= STATE
    except Exception:  # whatever torch's unpickler makes of bytes that are not its own
        return False


STATE = {"step", "trained", "elapsed", "hashes", "rows", "tensors", "averages", "steps"}


def load(path: Path) -> dict[str, Any]:
    """What `pack` was given. Errors: UserError where the file is damaged."""
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(_parts(path)[1]), map_location="cpu", weights_only=True)
    return state


def rows(state: dict[str, Any], run_id: str) -> list[EpochRow]:
    """A run's rows up to the checkpoint."""
    return [EpochRow(*values) for values in state["rows"][run_id]]
