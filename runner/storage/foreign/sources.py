"""CSV and Parquet files of other tools, row by row. Every cell is a text."""

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import UserError, line_of, unknown
from runner.storage import files

Place = int | str
"""Where a row stands: its line or row in the file, or a text that names the file, too."""

Row = tuple[Place, Sequence[str]]

MOST_BYTES = 2**30
"""A larger file is refused, before it is read."""

SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Source:
    """A table of texts. `rows` gives the cells of the columns that are named, in their order."""

    path: Path
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    unit: str = "line"
    """What a number as a `Place` counts."""
    notes: tuple[str, ...] = ()
    """What of it is not read, in sentences."""

    def check(self, names: Sequence[str]) -> None:
        """Errors: UserError for a column that the table lacks, or has twice."""
        for name in names:
            if name not in self.columns:
                raise UserError(
                    f"{self.path}: {unknown('column', name, sorted({line_of(column) for column in self.columns}))}"
                )
            if self.columns.count(name) > 1:
                raise UserError(f"{self.path}: more than one column is named '{line_of(name)}'")

    def at(self, place: Place) -> str:
        """A place in words."""
        return f"{self.unit} {place}" if isinstance(place, int) else place


def open_file(path: Path, inside: Path | None = None) -> int:
    """The descriptor of a file that is not too large.

    Links are followed only where the user has named them: not below `inside`.
    Errors: UserError where there is no such file.
    """
    try:
        descriptor = files.open_file(path if inside else path.resolve(), os.O_RDONLY, inside)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if (size := os.fstat(descriptor).st_size) > MOST_BYTES:
        os.close(descriptor)
        limit = MOST_BYTES // 2**30
        raise UserError(f"{path}: has {size / 2**30:.1f} GiB; allowed: up to {limit} GiB. Keep a row for each run.")
    return descriptor


def csv_source(path: Path, inside: Path | None = None) -> Source:
    """A CSV file: UTF-8, a header, and a comma, semicolon or tab between cells. `inside`: see `open_file`.

    Errors: UserError, also from its `rows`, where it is not one.
    """
    with _text(path, inside) as file:
        first = _next(file, path)
    if not first.strip():
        raise UserError(f"{path}: is empty; allowed: a CSV file with a header")
    separator = max(SEPARATORS, key=lambda separator: len(next(csv.reader([first], delimiter=separator), [])))
    reader = csv.reader([first, ""], delimiter=separator)
    header = [name.strip() for name in next(reader)]
    if reader.line_num > 1:
        raise UserError(f"{path}: line 1: a column name is quoted and does not end; column names must be on one line")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        chosen = [header.index(name) for name in names]
        with _text(path, inside) as file:
            reader = csv.reader(file, delimiter=separator)
            next(reader)
            try:
                for cells in filter(None, reader):
                    if len(cells) != len(header):
                        counts = f"{len(cells)} cells, and the header has {len(header)}"
                        raise UserError(f"{path}: line {reader.line_num} has {counts}")
                    yield reader.line_num, [cells[index] for index in chosen]
            except (csv.Error, UnicodeDecodeError) as error:
                reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                raise UserError(f"{path}: cannot be read after line {reader.line_num}: {reason}") from None

    return Source(path, tuple(header), rows)


def _text(path: Path, inside: Path | None) -> io.TextIOWrapper:
    return os.fdopen(open_file(path, inside), encoding="utf-8-sig", newline="")


def _next(file: io.TextIOWrapper, path: Path) -> str:
    """A file's first line."""
    try:
        return file.readline(2**20)
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: not UTF-8; allowed: a CSV or Parquet file") from None


def parquet_source(path: Path) -> Source:
    """A Parquet file. Errors: UserError where it cannot be read, or where pyarrow is missing."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: a Parquet file needs pyarrow: pip install 'bnbench[parquet]'") from None

    @contextmanager
    def opened() -> Iterator[Any]:
        try:
            with os.fdopen(open_file(path), "rb") as file:
                yield ParquetFile(file)
        except (ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read as Parquet: {line_of(error)}") from None

    def rows(names: Sequence[str]) -> Iterator[Row]:
        numbers = itertools.count(1)
        with opened() as file:
            for batch in file.iter_batches(columns=list(names)):
                columns = [batch.column(name).to_pylist() for name in names]
                for cells in zip(*columns, strict=True):
                    yield next(numbers), ["" if cell is None else str(cell) for cell in cells]

    with opened() as file:
        header = tuple(file.schema_arrow.names)
    return Source(path, header, rows, unit="row")


@dataclass(frozen=True)
class Run:
    """A run of a tracker: its parameters, and its rows of metrics, each with its place.

    Where a metric has a parameter's name, "metrics." precedes it in the table.
    """

    parameters: Mapping[str, str]
    metrics: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the metrics in the table."""
        return tuple(f"metrics.{name}" if name in self.parameters else name for name in self.metrics)


def of_runs(path: Path, runs: Sequence[Run]) -> Source:
    """The runs of a tracker as one table. A run has empty cells in the columns that only others have."""
    columns = tuple(dict.fromkeys(name for run in runs for name in (*run.parameters, *run.columns)))

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for run in runs:
            indices = {name: index for index, name in enumerate(run.columns)}
            chosen = [(indices.get(name), run.parameters.get(name, "")) for name in names]
            for place, cells in run.rows:
                yield place, [parameter if index is None else cells[index] for index, parameter in chosen]

    return Source(path, columns, rows)
