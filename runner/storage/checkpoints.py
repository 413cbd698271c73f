"""Checkpoints: what the runs of a job need to continue after an epoch, in one file.

A file has four parts: a line that names the format, the SHA-256 of the rest, a line of JSON (what `Found` says of it),
and the state as `torch.save` writes it. `torch.load(weights_only=True)` reads the state, so no code in it is ever run.
Everything in it is per run, so fewer runs can continue a stack's checkpoint, or one run.
"""

import hashlib
import io
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.errors import UserError
from runner.storage.checkpoint_places import place_of
from runner.storage.rows import Checkpoint, EpochRow

FORMAT = b"bnbench checkpoint 1\n"
SUFFIX = ".ckpt"
KEPT = 2
"""The last checkpoint is kept, and the one before it, in case the last one is damaged."""

_WHOLE = re.compile(rf"[0-9a-f]{{12}}\.[0-9]{{6,9}}\{SUFFIX}")
"""The names that `file_name` makes."""
_PARTIAL = re.compile(rf"\.{_WHOLE.pattern}(\.[0-9a-f]{{16}})?\.partial")
"""A checkpoint that is being written, or that a node has written and the driver has not kept."""


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
    readings: Mapping[str, Mapping[str, int]]
    """Table → run id → how many rows of readings the run had then."""


def file_name(run_ids: Sequence[str], epoch: int) -> str:
    """The name of a checkpoint: a digest of the job's runs, and the epoch."""
    job = hashlib.sha256(" ".join(run_ids).encode()).hexdigest()[:12]
    return f"{job}.{epoch:06d}{SUFFIX}"


def epoch_of(path: Path) -> int:
    """The epoch in a checkpoint's name."""
    return int(path.name.split(".")[1])


def written(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Write a checkpoint under a name of its own. Returns it with this name, and without its state.

    Nothing continues from this file until the driver gives it a checkpoint's name. Errors: OSError that names the file.
    """
    name = f".{file_name(checkpoint.run_ids, checkpoint.epoch)}.{secrets.token_hex(8)}.partial"
    place_of(folder).write_new(name, to_bytes(checkpoint))
    return replace(checkpoint, state=b"", written_as=name)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file."""
    counts = {name: [rows[run_id] for run_id in checkpoint.run_ids] for name, rows in checkpoint.readings.items()}
    header = json.dumps({"runs": checkpoint.run_ids, "epoch": checkpoint.epoch, "readings": counts})
    rest = header.encode() + b"\n" + checkpoint.state
    return FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def is_whole(name: str) -> bool:
    """Whether a checkpoint has this name.

    >>> is_whole(file_name(["a"], 3)), is_whole("notes.ckpt")
    (True, False)
    """
    return _WHOLE.fullmatch(name) is not None


def is_own(name: str) -> bool:
    """Whether bnbench gives a checkpoint this name, or the file that it writes first."""
    return is_whole(name) or _PARTIAL.fullmatch(name) is not None


def find(folder: Path) -> tuple[list[Found], list[Path]]:
    """The checkpoints in a folder whose digest is right, the latest epoch first, and the files that are damaged.

    Files with other names are left out. Errors: OSError where the folder cannot be read.
    """
    found, damaged = [], []
    for path in (folder / name for name in place_of(folder).names() if is_whole(name)):
        try:
            header, _ = _parts(path)
            run_ids = tuple(map(str, header["runs"]))
            found.append(Found(path, run_ids, int(header["epoch"]), _readings(header)))
        except (UserError, OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            damaged.append(path)
    return sorted(found, key=lambda checkpoint: -checkpoint.epoch), damaged


def content(path: Path) -> bytes:
    """A checkpoint's file as it is. Errors: OSError where it cannot be read."""
    return place_of(path.parent).read(path.name)


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """(header, state). Errors: UserError where the digest is wrong; ValueError where the header is not JSON."""
    whole = content(path)
    digest, _, rest = whole.removeprefix(FORMAT).partition(b"\n")
    if not whole.startswith(FORMAT) or hashlib.sha256(rest).hexdigest().encode() != digest:
        raise UserError(f"{path}: damaged checkpoint")
    header, _, state = rest.partition(b"\n")
    return json.loads(header), state


def _readings(header: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What `Found.readings` says. The checkpoints of an older bnbench have none."""
    run_ids, counts = list(map(str, header["runs"])), header.get("readings", {}).items()
    return {name: dict(zip(run_ids, map(int, rows), strict=True)) for name, rows in counts}


def pack(state: dict[str, Any]) -> bytes:
    """Tensors and plain values as bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load(path: Path) -> dict[str, Any]:
    """The state that `pack` was given, and the file's `readings`. Errors: UserError where the file is damaged."""
    import torch

    header, packed = _parts(path)
    state: dict[str, Any] = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    return {**state, "readings": _readings(header)}


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
