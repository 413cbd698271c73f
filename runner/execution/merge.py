"""Shards → the folder of the whole sweep. It has the bytes that one sweep would have written, the times aside."""

import heapq
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from runner.config import grid, yaml_source
from runner.config.resolved import resolved
from runner.config.shards import name_of, order_of_jobs, shares
from runner.config.sweep import Shard
from runner.errors import UserError, quoted
from runner.execution import merged_records
from runner.storage import files, folder, plugin_sources, stacks
from runner.storage.folder import CONFIG, CONTRAST, CURVES, ENVIRONMENT, LOG, METRICS, PLUGINS, PROBES, RUNS
from runner.storage.resume import environment_text
from runner.storage.run_files import RUN_FILES
from runner.storage.table_rows import TableRows
from runner.storage.tables import as_number, csv_lines, each_row, read_header

TABLES = (METRICS, RUNS, CURVES, PROBES)

TIMES = ("epoch_duration", "run_duration")

SHOWN = 5
"""How many missing runs of a shard are named."""

Rows = Iterator[dict[str, str]]


@dataclass(frozen=True)
class Part:
    """The folder of a shard, and the config of its whole sweep, with the whole paths of plugins."""

    folder: Path
    shard: Shard
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Shards:
    """Shards of one sweep, in their order. Some may not be there."""

    parts: Sequence[Part]

    @property
    def shard(self) -> Shard:
        """A shard that is there."""
        return self.parts[0].shard

    @cached_property
    def config(self) -> str:
        """The config of the whole sweep, as text. It names plugins relative to a folder beside the shards."""
        config = dict(self.parts[0].config)
        if "plugins" in config:
            config["plugins"] = [os.path.relpath(file, self.parts[0].folder.resolve()) for file in config["plugins"]]
        return yaml_source.dump(config)

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The resolved config of the whole sweep."""
        return resolved(self.config, str(self.parts[0].folder / CONFIG))

    @cached_property
    def shares(self) -> list[list[int]]:
        return shares(self.whole, self.shard)

    def rows(self, name: str, part: Part) -> Rows:
        """A table's rows of a shard, sorted by run and epoch. Runs have the numbers of the whole sweep.

        Errors: UserError where a row is of no run of this shard.
        """
        path = part.folder / name
        own = {str(number): place for number, place in enumerate(self.shares[part.shard.number - 1], start=1)}
        table = TableRows(path)
        if not own.keys() >= set(table.numbers):
            raise UserError(f"{path}: a row is of no run of this shard; use bnbench resume or --fresh")
        runs = np.array([own[number] + 1 for number in table.numbers], int)[table.run]
        order = np.lexsort((table.epoch, runs))
        order = order[table.distinct()[order]]
        return ({**row, "run": str(run)} for run, row in zip(runs[order], table.read(order), strict=True))


def part_of(path: Path) -> Part | None:
    """What a shard's folder holds; None where it holds a whole sweep. Errors: UserError where there is no sweep."""
    file = folder.config_file(path)
    text = yaml_source.file_text(file, files.open_file)
    shard = resolved(text, str(file)).get("shard")
    if shard is None:
        return None
    values = {key: value for key, value in yaml_source.read(text, str(file)).values.items() if key != "shard"}
    if "plugins" in values:
        values["plugins"] = [os.path.realpath(path / plugin) for plugin in values["plugins"]]
    return Part(path, Shard(**shard), values)


def merge(paths: Sequence[Path]) -> Path:
    """Write the sweep of these shards beside the first of them. Returns its folder.

    A kill leaves no half of it: it is written aside and renamed. The shards stay as they are. If the folder is there
    already and holds the same tables, nothing is done.
    Errors: UserError where the shards do not fit together, where runs are missing, or where the folder holds anything
    else.
    """
    # This module imports pandas, which other commands that read this file do not need.
    from runner.storage import results

    found = fitting(paths)
    for part in found.parts:
        if folder.is_written(part.folder):
            raise UserError(f"{part.folder}: another process is writing this shard")
        # A damaged table is an error now, which names the shard.
        results.load(part.folder, whole=False)
    if missing := list(_missing(found)):
        raise UserError(*missing)
    to = found.parts[0].folder.with_name(found.whole["name"])
    aside = to.with_name(f".{to.name}.merging")
    with folder.sole_writer(aside):
        _empty(aside)
        _write(found, aside, to)
        if not files.exists(to):
            aside.rename(to)
            return to
        same = all(_same(aside / name, to / name) for name in (CONFIG, *TABLES))
        shutil.rmtree(aside)
        if not same:
            raise UserError(f"{to}: holds other results than these shards; rename or remove it, and merge again")
    return to


def fitting(paths: Sequence[Path]) -> Shards:
    """The shards of one sweep in these folders. Errors: UserError where a folder holds none, or another sweep's."""
    return _fitting([_shard(path) for path in _distinct(paths)])


@contextmanager
def together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The folders, with one folder in place of several shards of a sweep. Runs may be missing there.

    It is a temporary folder, for readers. A single shard stays as it is: a sweep of its own runs.
    """
    there = [path for path in _distinct(paths) if files.exists(path / CONFIG)]
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in map(part_of, there):
        if part:
            groups[part.config["name"]].append(part)
    merged = {part.folder: name for name, parts in groups.items() if len(parts) > 1 for part in parts}
    with TemporaryDirectory() as temporary:
        for name in set(merged.values()):
            (Path(temporary) / name).mkdir()
            _write(_fitting(groups[name]), Path(temporary) / name, Path(temporary) / name)
        yield list(
            dict.fromkeys(Path(temporary) / merged[path] if path in merged else path for path in _distinct(paths))
        )


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Each folder once, by a path that ends in its name."""
    found = {path.resolve(): path for path in reversed(paths)}
    return [path if path.name == real.name else real for real, path in reversed(found.items())]


def _shard(path: Path) -> Part:
    if part := part_of(path):
        return part
    raise UserError(f"{path}: a whole sweep, and no shard; allowed: folders that 'bnbench run --shard' wrote")


def _fitting(parts: Sequence[Part]) -> Shards:
    """Errors: UserError where these are not shards of one sweep, each once."""
    first, *others = ordered = sorted(parts, key=lambda part: part.shard.number)
    for before, part in zip(ordered, others, strict=False):
        names = [key for key in {**first.config, **part.config} if first.config.get(key) != part.config.get(key)]
        if names:
            raise UserError(
                f"{first.folder} and {part.folder}: shards of two configs; these differ: {', '.join(names)}"
            )
        if (part.shard.of, part.shard.stack) != (first.shard.of, first.shard.stack):
            one, other = (
                f"{of} shards, {f'--stack {n}' if n else 'no fixed stacks'}" for of, n in map(_how, (first, part))
            )
            raise UserError(f"{first.folder} and {part.folder}: not shared out in the same way: {one}; {other}")
        if before.shard.number == part.shard.number:
            raise UserError(f"{before.folder} and {part.folder}: the same shard twice; give one of them")
    return Shards(ordered)


def _how(part: Part) -> tuple[int, int | None]:
    return part.shard.of, part.shard.stack


def _missing(found: Shards) -> Iterator[str]:
    """A line for each shard of which runs have not ended, or which is not given."""
    points = list(grid.expand(found.whole))
    listed = found.whole.get("grids") or [found.whole.get("grid") or {}]
    keys = list(dict.fromkeys(key for each in listed for key in grid.keys(each)))
    given = {part.shard.number: part for part in found.parts}
    for number, share in enumerate(found.shares, start=1):
        part = given.get(number)
        rows = found.rows(RUNS, part) if part else ()
        ended = {int(row["run"]) for row in rows if row["status"] != "interrupted"}
        missing = [position + 1 for position in share if position + 1 not in ended]
        if missing:
            named = [f"run {run} ({grid.label([points[run - 1]], keys)})" for run in missing[:SHOWN]]
            more = [f"… and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
            shard = found.shard.model_copy(update={"number": number})
            where = part.folder if part else name_of(found.whole["name"], shard)
            remedy = f"bnbench resume {quoted(part.folder)} trains them" if part else "this shard is not given"
            yield f"{where}: missing: {', '.join([*named, *more])}; {remedy}"


def _write(found: Shards, to: Path, place: Path) -> None:
    """Write the folder of the whole sweep, with the runs that are there. `place` is where the folder will be."""
    folders = [part.folder for part in found.parts]
    texts = {ENVIRONMENT: environment_text(merged_records.environment(folders, place))}
    texts[LOG] = "".join(_log(found, part) for part in found.parts)
    if history := merged_records.contrast(folders, sum(map(len, found.shares))):
        texts[CONTRAST] = history
    number: dict[str, int] = {}
    for name in TABLES:
        if header := next(filter(None, (read_header(path / name) for path in folders)), None):
            parts = [found.rows(name, part) for part in found.parts]
            rows = heapq.merge(*parts, key=lambda row: (int(row["run"]), as_number(row.get("epoch", "0"))))
            files.write_atomically(to / name, csv_lines(_cells(header, rows, number)))
    order = [position + 1 for position in order_of_jobs(found.whole, found.shard)]
    stacks.write(to, merged_records.stacks(folders, number, order))
    for path in folders:
        _copy_files(path, to)
    # As in a sweep, the config is last.
    for name, text in (texts | {CONFIG: found.config}).items():
        files.write_atomically(to / name, text)


def _cells(header: Sequence[str], rows: Rows, number: dict[str, int]) -> Iterator[Sequence[str]]:
    """The header and the cells of the rows. `number` receives the number of each run, by its id."""
    yield header
    for row in rows:
        number[row["run_id"]] = int(row["run"])
        yield [row[column] for column in header]


def _copy_files(shard: Path, to: Path) -> None:
    """Copy the files of runs, and the sources of plugins."""
    for kind in RUN_FILES:
        for run_id in kind.saved(shard):
            kind.write(to, run_id, kind.read(shard, run_id))
    for name in plugin_sources.kept(shard):
        files.make_folder(to / PLUGINS, to)
        files.write_atomically(to / PLUGINS / name, files.read_bytes(shard / PLUGINS / name, shard), to)


def _log(found: Shards, part: Part) -> str:
    """The log of a shard. Runs have the numbers of the whole sweep."""
    share = found.shares[part.shard.number - 1]

    def renumbered(match: re.Match[str]) -> str:
        own = int(match[1])
        return f"run {share[own - 1] + 1} (" if 0 < own <= len(share) else match[0]

    text = files.read_text(part.folder / LOG) if files.exists(part.folder / LOG) else ""
    return re.sub(r"^run ([0-9]{1,9}) \(", renumbered, text, flags=re.MULTILINE)


def _empty(path: Path) -> None:
    """Remove what a merge that was killed has left."""
    for name in files.names(path):
        if (path / name).is_dir() and not (path / name).is_symlink():
            shutil.rmtree(path / name)
        elif name != folder.LOCK:
            files.delete(path / name)


def _same(one: Path, other: Path) -> bool:
    """Whether two files of results say the same, the times apart."""
    if one.suffix != ".csv":
        return files.exists(other) and files.read_text(one) == files.read_text(other)
    return all(row == its for row, its in zip_longest(_untimed(one), _untimed(other)))


def _untimed(table: Path) -> Iterator[dict[str, str]]:
    return ({key: value for key, value in row.items() if key not in TIMES} for row in each_row(table))
