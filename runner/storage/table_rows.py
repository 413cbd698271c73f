"""The rows of a table that may be larger than the memory. Only their places stay there, in 30 bytes for each row."""

import csv
import io
import math
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from runner.errors import UserError
from runner.storage import files
from runner.storage.tables import MOST, CompleteLines, as_number, cells_of, number_in

Bools = NDArray[np.bool_]


class TableRows:
    """The complete rows of a table on the disk, in numbers. A table that is not there has no rows and no columns.

    `run_ids` are the runs of the table, each once, and `numbers` are their numbers as text. For each row there is
    `run`, a position in `run_ids`, and `epoch`. The epoch is 0 in a table of runs, and NaN where the cell is no number.
    Errors: UserError where the table cannot be read, is damaged, or was replaced while it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.columns, self.numbers = path, list[str](), list[str]()
        position: dict[str, int] = {}
        runs, epochs, starts, digests = array("i"), array("d"), array("q"), array("q")
        if files.exists(path):
            with files.reading(path) as file:
                self._inode = os.fstat(file.fileno()).st_ino
                lines = CompleteLines(file)
                table = cells_of(lines, path)
                self.columns = next(table)
                place = {name: place for place, name in enumerate(self.columns)}
                epoch = place.get("epoch")
                starts.append(lines.end)
                for cells in table:
                    run_id = cells[place["run_id"]]
                    if run_id not in position:
                        position[run_id] = len(position)
                        self.numbers.append(cells[place["run"]])
                    runs.append(position[run_id])
                    epochs.append(0.0 if epoch is None else as_number(cells[epoch]))
                    digests.append(hash(tuple(cells)))
                    starts.append(lines.end)
        self.run_ids = list(position)
        self.run = np.frombuffer(runs, np.int32) if runs else np.empty(0, np.int32)
        self.epoch = np.frombuffer(epochs) if epochs else np.empty(0)
        self._starts, self._digests = starts, digests

    def __len__(self) -> int:
        return len(self.run)

    def distinct(self) -> Bools:
        """For each row, whether no row before it is the same.

        A line that is in a table twice was not written twice: its durations have too many digits.
        """
        first = np.ones(len(self), bool)
        if len(self):
            digests = np.frombuffer(self._digests, np.int64)
            # The order is stable, so the first of equal rows comes first.
            order = np.lexsort((digests, self.run))
            first[order[1:]] = (np.diff(self.run[order]) != 0) | (np.diff(digests[order]) != 0)
        return first

    def counts(self, rows: Bools) -> Counter[str]:
        """Run id → how many of these rows are the run's."""
        numbers = np.bincount(self.run[rows], minlength=len(self.run_ids))
        return Counter(dict(zip(self.run_ids, numbers.tolist(), strict=True)))

    def until(self, last_epoch: Mapping[str, float]) -> Bools:
        """For each row, whether its run is one of these, and its epoch not after the run's last one.

        Errors: UserError where the epoch of a row of these runs is no count.
        """
        last = np.array([last_epoch.get(run_id, -math.inf) for run_id in self.run_ids])[self.run]
        of_these = last >= 0
        for row in self.read(np.flatnonzero(of_these & ~((self.epoch >= 0) & (self.epoch <= MOST)))[:1]):
            number_in(row, "epoch", self.path)
        return of_these & (self.epoch <= last)

    def epochs(self, run_ids: Collection[str]) -> defaultdict[str, list[float]]:
        """Run id → the epoch of each row, of these runs."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        wanted = np.array([run_id in run_ids for run_id in self.run_ids], bool)
        for row in np.flatnonzero(wanted[self.run]):
            found[self.run_ids[self.run[row]]].append(float(self.epoch[row]))
        return found

    def read(self, order: Iterable[int]) -> Iterator[dict[str, str]]:
        """These rows as text, one at a time, by column."""
        rows = iter(order)
        # The file is not kept open: a merge reads the tables of thousands of shards side by side.
        while some := list(islice(rows, 100)):
            with self._opened() as file:
                lines = [self._line(file, row).decode() for row in some]
            for line in lines:
                cells = next(filter(None, csv.reader(io.StringIO(line))))
                yield dict(zip(self.columns, cells, strict=True))

    def lines(self, order: Iterable[int]) -> Iterator[bytes]:
        """The header's line, then the lines of these rows, as they are in the file: a thousand lines at a time."""
        rows = chain([-1], order)
        with self._opened() as file:
            while some := list(islice(rows, 1000)):
                yield b"".join(self._line(file, row) for row in some)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with files.reading(self.path) as file:
            # The driver of a shard that still trains sorts its tables at its end. Then no row is where it was.
            if os.fstat(file.fileno()).st_ino != self._inode:
                raise UserError(f"{self.path}: replaced while it was read; repeat the command")
            yield file

    def _line(self, file: BinaryIO, row: int) -> bytes:
        start = self._starts[row] if row >= 0 else 0
        file.seek(start)
        return file.read(self._starts[row + 1] - start)
