"""The tutorial's RunManager (deeplizard, "CNN Training Loop Refactoring"), built on the sweep's store.

The tutorial's loop runs with one import changed. It writes the tutorial's files exactly, and also a table that is on
the disk after every epoch. Three faults of the tutorial's code are corrected: the loss is weighted by the true batch
size, "epoch duration" is the duration of the epoch, and a row is appended once.
"""

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from runner.errors import UserError
from runner.interfaces import tutorial_files
from runner.storage.folder import METRICS, sole_writer
from runner.storage.rows import EpochRow, RunResult
from runner.storage.store import Store
from runner.training.environment import describe
from runner.training.networks import parameter_count, weights_hash


class RunManager:
    """Records a training loop: call the methods in the order of this example.

    Each epoch's row is written to `out/metrics.csv` at once. `out` is a new folder, by default
    `results/run_manager-TIME`. `run_data` is the tutorial's list of OrderedDicts; runs and epochs count from 1.

    >>> from bnbench import RunBuilder, RunManager
    >>> manager = RunManager("loop")
    >>> images, labels = torch.eye(10), torch.arange(10)
    >>> for run in RunBuilder.get_runs({"lr": [0.1, 0.01]}):
    ...     network = nn.Linear(10, 10)
    ...     manager.begin_run(run, network, [(images, labels)])
    ...     manager.begin_epoch()
    ...     for batch in manager.loader:
    ...         predictions = network(batch[0])
    ...         manager.track_loss(nn.functional.cross_entropy(predictions, labels), batch)
    ...         manager.track_num_correct(predictions, labels)
    ...     manager.end_epoch()
    ...     manager.end_run()
    >>> manager.save("loop/results")
    >>> [(record["run"], record["epoch"], record["lr"]) for record in manager.run_data]
    [(1, 1, 0.1), (2, 1, 0.01)]
    """

    def __init__(self, out: str | Path | None = None) -> None:
        self.out = Path(out or f"results/run_manager-{datetime.now():%Y%m%d-%H%M%S}")
        self.run_data: list[OrderedDict[str, Any]] = []
        self.run_count = 0
        self.epoch_count = 0
        self._parameters: dict[str, dict[str, Any]] = {}
        self._store: Store | None = None
        self._lock = ExitStack()

    def begin_run(self, run: Any, network: nn.Module, loader: Any) -> None:
        """Start a run. `run` is a namedtuple of `RunBuilder.get_runs`; `loader` yields an epoch's batches.

        Errors: UserError where `out` holds a table already, or a parameter has the name of one of its columns.
        """
        self.run_start_time = perf_counter()
        self.run_params, self.network, self.loader = run, network, loader
        self.run_count += 1
        self.epoch_count = 0
        self._rows: list[EpochRow] = []
        self._step = 0
        self._weights_hash = weights_hash(network)
        parameters = run._asdict()
        if reserved := {"run", "epoch", "step", "run_id"} & set(parameters):
            raise UserError(f"RunManager: a parameter cannot be called {', '.join(sorted(reserved))}")
        run_text = f"{self.run_count} {json.dumps(parameters, default=str)}"
        self._run_id = hashlib.sha256(run_text.encode()).hexdigest()[:12]
        if self._store is None:
            self._store = self._open(list(parameters))
        self._parameters[self._run_id] = parameters
        self._store.add(self._run_id)

    def _open(self, columns: Sequence[str]) -> Store:
        self._lock.enter_context(sole_writer(self.out))
        if (self.out / METRICS).exists():
            self._lock.close()
            raise UserError(f"{self.out} already holds a table; choose another folder")
        store = Store(self.out, columns, self._parameters)
        store.start(describe([], Path()))
        print(f"RunManager: every epoch's row is written to {self.out}", file=sys.stderr)
        return store

    def begin_epoch(self) -> None:
        self.epoch_start_time = perf_counter()
        self.epoch_count += 1
        # Each batch's mean loss, and its size where it is known.
        self._losses: list[tuple[float, int | None]] = []
        self._sizes: list[int] = []
        self._correct = 0

    def track_loss(self, loss: Tensor, batch: Sequence[Any] | None = None) -> None:
        """Record a batch's mean loss. Without `batch`, its size is taken from `track_num_correct`."""
        self._losses.append((loss.item(), None if batch is None else len(batch[0])))

    @torch.no_grad()
    def track_num_correct(self, preds: Tensor, labels: Tensor) -> None:
        """Record a batch's predictions [B, classes] and labels [B]."""
        self._correct += int((preds.argmax(dim=1) == labels).sum())
        self._sizes.append(len(labels))

    def end_epoch(self) -> None:
        """Write the epoch's row. Errors: UserError unless both `track_` methods were called once for each batch."""
        now = perf_counter()
        if not self._losses or len(self._losses) != len(self._sizes):
            raise UserError(
                f"run {self.run_count}, epoch {self.epoch_count}: track_loss was called {len(self._losses)} times and "
                f"track_num_correct {len(self._sizes)} times; call each once for every batch"
            )
        samples = sum(self._sizes)
        batches = zip(self._losses, self._sizes, strict=True)
        losses = [loss * (given or size) for (loss, given), size in batches]
        self._step += len(losses)
        row = EpochRow(
            run_id=self._run_id,
            epoch=self.epoch_count,
            step=self._step,
            train_loss=sum(losses) / samples,
            train_accuracy=self._correct / samples,
            valid_loss=float("nan"),
            valid_accuracy=float("nan"),
            epoch_duration=now - self.epoch_start_time,
            run_duration=now - self.run_start_time,
        )
        self._rows.append(row)
        self._opened.on_epoch(row)
        values = asdict(row) | {"run": self.run_count}
        record = {column: values[name] for column, name in tutorial_files.COLUMNS.items()}
        self.run_data.append(OrderedDict(record | self.run_params._asdict()))
        readings = f"loss {row.train_loss:.4f}  accuracy {row.train_accuracy:.4f}"
        text = f"run {self.run_count}  epoch {row.epoch}  {readings}"
        print(text, file=sys.stderr)

    def end_run(self) -> None:
        count, weights = parameter_count(self.network), self._weights_hash
        result = RunResult(self._run_id, "ok", tuple(self._rows), parameter_count=count, weights_hash=weights)
        self._opened.on_result(result)

    def save(self, fileName: str) -> None:
        """Write `fileName.csv` and `fileName.json` as the tutorial does. (The argument has the tutorial's name.)"""
        store = self._opened
        list(tutorial_files.write(fileName, tutorial_files.files(self.run_data)))
        store.finish()

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise UserError("RunManager: call begin_run first")
        return self._store
