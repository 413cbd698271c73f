"""Checkpoints: what the runs of a job need to continue after an epoch, in one file, written by the driver.

A file has four parts: a line that names the format, the SHA-256 of the rest, a line of JSON (the runs and the epoch),
and the state as `torch.save` writes it. `torch.load(weights_only=True)` reads the state, so no code in it is ever run.
Everything in it is per run, so fewer runs can continue a stack's checkpoint, or one run.
"""

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
"""The last checkpoint is kept, and the one before it, in case the last one is damaged."""

STATE = {"step", "trained", "elapsed", "hashes", "rows", "states"}
"""What a state holds besides `runs`, the ids of its runs, and `epoch`.

`step` counts optimizer steps. `trained` is the seconds of training and `elapsed` all seconds, both per run. `hashes`
has a digest of the batch order per run and epoch. `rows` are the runs' rows so far. `states` has the learner's state of
each run.
"""


@dataclass(frozen=True)
class Every:
    """How often to write a checkpoint: after so many epochs, or at the first end of an epoch after so many seconds.

    >>> Every(epochs=5).due(epoch=10, since=0.0)
    True
    >>> Every(seconds=60).due(epoch=10, since=59.0)
    False
    """

    epochs: int | None = None
    seconds: float | None = None

    def due(self, epoch: int, since: float) -> bool:
        """Whether to write one at the end of this epoch, `since` seconds after the last one."""
        if self.epochs is not None:
            return epoch % self.epochs == 0
        return self.seconds is not None and since >= self.seconds


NEVER = Every()


@dataclass(frozen=True)
class Found:
    """A checkpoint on the disk whose digest is right."""

    path: Path
    run_ids: tuple[str, ...]
    epoch: int


def folder_at(place: str, sweep_folder: Path) -> Path:
    """A sweep's folder in a storage that several machines see. `place` is a path, or a URL such as s3://bucket/name.

    Errors: UserError where the URL cannot be used, or where the package that reads it is not installed.
    """
    # The digest tells two results folders apart that share one storage.
    owner = hashlib.sha256(str(sweep_folder.resolve()).encode()).hexdigest()[:8]
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
    """The name of a checkpoint: a digest of the job's runs, and the epoch."""
    job = hashlib.sha256(" ".join(run_ids).encode()).hexdigest()[:12]
    return f"{job}.{epoch:06d}{SUFFIX}"


def epoch_of(path: Path) -> int:
    """The epoch in a checkpoint's name."""
    return int(path.name.split(".")[1])


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file."""
    header = json.dumps({"runs": checkpoint.run_ids, "epoch": checkpoint.epoch})
    rest = header.encode() + b"\n" + checkpoint.state
    return FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def find(folder: Path) -> tuple[list[Found], list[Path]]:
    """The checkpoints in a folder whose digest is right, the latest epoch first, and the files that are damaged."""
    found, damaged = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            header, _ = _parts(path)
            found.append(Found(path, tuple(map(str, header["runs"])), int(header["epoch"])))
        except (UserError, OSError, LookupError, TypeError, ValueError):
            damaged.append(path)
    return sorted(found, key=lambda checkpoint: -checkpoint.epoch), damaged


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """(header, state). Errors: UserError where the digest is wrong; ValueError where the header is not JSON."""
    content = path.read_bytes()
    digest, _, rest = content.removeprefix(FORMAT).partition(b"\n")
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


def load(path: Path) -> dict[str, Any]:
    """The state that `pack` was given. Errors: UserError where the file is damaged."""
    import torch

    content = io.BytesIO(_parts(path)[1])
    state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    return state


def loads(found: Found) -> bool:
    """Whether training can continue from a checkpoint whose digest is right."""
    try:
        state = load(found.path)
        same = state["runs"] == list(found.run_ids) and state["epoch"] == found.epoch
        return same and state.keys() >= STATE
    except Exception:
        # torch's unpickler may raise anything when the bytes are not its own.
        return False


def rows(state: dict[str, Any] | None, run_id: str) -> list[EpochRow]:
    """A run's rows up to the checkpoint; none where there is no checkpoint."""
    return [EpochRow(*values) for values in state["rows"][run_id]] if state else []


def goes_on(state: dict[str, Any], run_id: str) -> bool:
    """Whether a run goes on after the checkpoint. It has not diverged at the checkpoint's epoch or before."""
    written = rows(state, run_id)
    return len(written) == state["epoch"] and written[-1].finite
