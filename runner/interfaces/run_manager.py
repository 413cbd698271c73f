"""The tutorial's RunManager (deeplizard, "CNN Training Loop Refactoring"), a thin face over the sweep's store.

The tutorial's loop runs with one import changed, writes its files exactly, and gains a table on the disk after every
epoch. Where the tutorial's copies are wrong, this is right: the loss is weighted by the true batch size, "epoch
duration" is the epoch's, and a row is appended once.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from runner.errors import UserError
from runner.interfaces.tutorial_files import files
from runner.storage.files import write_atomically
from runner.storage.folder import sole_writer
from runner.storage.rows import EpochRow, RunResult
from runner.storage.store import Store
from runner.training.environment import describe
from runner.training.networks import parameter_count, weights_hash


class RunManager:
    """`begin_run`, `begin_epoch`, `track_loss`, `track_num_correct`, `end_epoch`, `end_run`, `save`.

    Rows go to `out/metrics.csv` as they come; `out` defaults to a new folder `results/run_manager-<time>`.
    `run_data` is the tutorial's list of OrderedDicts; runs and epochs count from 1.
    """

    def __init__(self, out: str | Path | None = None) -> None:
        self.out = Path(out or f"results/run_manager-{datetime.now():%Y%m%d-%H%M%S}")
        self.run_data: list[OrderedDict[str, Any]] = []
        self.run_count = 0
        self.epoch_count = 0
        self._store: Store | None = None
        self._held = ExitStack()

    def begin_run(self, run: Any, network: nn.Module, loader: Any) -> None:
        """`run` is a namedtuple of `RunBuilder.get_runs`; `loader` is what the epochs iterate over."""
        self.run_start_time = perf_counter()
        self.run_params, self.network, self.loader = run, network, loader
        self.run_count += 1
        self.epoch_count = 0
        self._rows: list[EpochRow] = []
        self._step = 0
        self._weights_hash = weights_hash(network)
        parameters = run._asdict()
        taken = {"run", "epoch", "step", "run_id"} & set(parameters)
        if taken:
            raise UserError(f"RunManager: the table has columns of its own called {', '.join(sorted(taken))}")
        self._run_id = hashlib.sha256(f"{self.run_count} {json.dumps(parameters, default=str)}".encode()).hexdigest()[
            :12
        ]
        if self._store is None:
            self._store = self._open(list(parameters))
        self._store.add(self._run_id, parameters)

    def _open(self, columns: Sequence[str]) -> Store:
        self._held.enter_context(sole_writer(self.out))
        store = Store(self.out, columns, {})
        if (self.out / "metrics.csv").exists():
            self._held.close()
            raise UserError(f"{self.out} already holds a table; give RunManager another folder")
        store.start(describe([], Path()))
        print(f"RunManager: every epoch's row goes to {self.out}", file=sys.stderr)
        return store

    def begin_epoch(self) -> None:
        self.epoch_start_time = perf_counter()
        self.epoch_count += 1
        self._losses: list[float] = []
        self._loss_sizes: list[int | None] = []
        self._correct = 0
        self._sizes: list[int] = []

    def track_loss(self, loss: Tensor, batch: Sequence[Any] | None = None) -> None:
        """A batch's mean loss; without `batch` its size is taken from `track_num_correct`."""
        self._losses.append(loss.item())
        self._loss_sizes.append(None if batch is None else len(batch[0]))

    @torch.no_grad()
    def track_num_correct(self, preds: Tensor, labels: Tensor) -> None:
        """A batch's predictions [B, classes] and labels [B]."""
        self._correct += int((preds.argmax(dim=1) == labels).sum())
        self._sizes.append(len(labels))

    def end_epoch(self) -> None:
        """Errors: UserError where the epoch's batches were not tracked once each."""
        now = perf_counter()
        if not self._losses or len(self._losses) != len(self._sizes):
            raise UserError(
                f"run {self.run_count}, epoch {self.epoch_count}: track_loss was called {len(self._losses)} times and "
                f"track_num_correct {len(self._sizes)} times; call each once a batch"
            )
        samples = sum(self._sizes)
        sizes = [given or size for given, size in zip(self._loss_sizes, self._sizes, strict=True)]
        self._step += len(self._sizes)
        row = EpochRow(
            run_id=self._run_id,
            epoch=self.epoch_count,
            step=self._step,
            train_loss=sum(loss * size for loss, size in zip(self._losses, sizes, strict=True)) / samples,
            train_accuracy=self._correct / samples,
            valid_loss=float("nan"),
            valid_accuracy=float("nan"),
            epoch_duration=now - self.epoch_start_time,
            run_duration=now - self.run_start_time,
        )
        self._rows.append(row)
        self._opened.on_epoch(row)
        self.run_data.append(
            OrderedDict(
                [
                    ("run", self.run_count),
                    ("epoch", row.epoch),
                    ("loss", row.train_loss),
                    ("accuracy", row.train_accuracy),
                    ("epoch duration", row.epoch_duration),
                    ("run duration", row.run_duration),
                    *self.run_params._asdict().items(),
                ]
            )
        )
        print(
            f"run {self.run_count}  epoch {row.epoch}  loss {row.train_loss:.4f}  accuracy {row.train_accuracy:.4f}",
            file=sys.stderr,
        )

    def end_run(self) -> None:
        self._opened.on_result(
            RunResult(
                run_id=self._run_id,
                status="ok",
                rows=tuple(self._rows),
                parameter_count=parameter_count(self.network),
                weights_hash=self._weights_hash,
            )
        )

    def save(self, fileName: str) -> None:  # the tutorial's name
        """Write `fileName.csv` and `fileName.json` as the tutorial does."""
        store = self._opened
        for suffix, text in zip((".csv", ".json"), files(self.run_data), strict=True):
            write_atomically(Path(f"{fileName}{suffix}"), text)
        store.finish()

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise UserError("RunManager: begin_run comes first")
        return self._store
