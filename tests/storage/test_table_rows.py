"""Tables that are larger than the memory: rows are found, sorted and copied on the disk."""

import csv
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from runner.errors import UserError
from runner.storage.rows import EpochRow, RunResult
from runner.storage.store import Store
from runner.storage.table_rows import TableRows

RUNS = {f"{number:012x}": {"tag": f'a "{number}", b'} for number in range(40)}


def table(folder: Path, seed: int) -> tuple[Path, list[list[str]]]:
    """A table with shuffled and doubled rows, an empty line and an incomplete last one, and its complete rows."""
    draw = random.Random(seed)
    rows = [[str(1 + run), str(epoch), f"text, of {run}", f"id{run}"] for run in range(20) for epoch in range(1, 6)]
    rows += draw.sample(rows, 15)
    draw.shuffle(rows)
    path = folder / "t.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "epoch", "text", "run_id"])
        writer.writerows(rows[:50])
        file.write("\n")
        writer.writerows(rows[50:])
        file.write("7,3,cut of")
    return path, rows


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_found_on_the_disk(tmp_path: Path, seed: int) -> None:
    path, rows = table(tmp_path, seed)
    found = TableRows(path)
    assert [list(row.values()) for row in found.read(range(len(found)))] == rows
    distinct = found.distinct()
    assert [rows[place] for place in np.flatnonzero(distinct)] == list(map(list, dict.fromkeys(map(tuple, rows))))
    assert found.counts(distinct) == {f"id{run}": 5 for run in range(20)}
    kept = found.until({"id3": 2, "id4": 4})
    wanted = [row for row in rows if (row[3] == "id3" and int(row[1]) <= 2) or (row[3] == "id4" and int(row[1]) <= 4)]
    assert [rows[place] for place in np.flatnonzero(kept)] == wanted
    assert sorted(found.epochs({"id5"})["id5"]) == sorted(float(row[1]) for row in rows if row[3] == "id5")


def test_an_epoch_that_is_no_number_matters_only_where_the_row_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("run,epoch,run_id\n1,1,a\n2,many,b\n")
    found = TableRows(tmp_path / "t.csv")
    assert found.until({"a": 3}).tolist() == [True, False]
    with pytest.raises(UserError, match="epoch of run 2 is 'many', not a number"):
        found.until({"b": 3})


def test_a_finished_table_has_the_lines_in_order_as_they_were_written(tmp_path: Path) -> None:
    store, draw = Store(tmp_path / "s", ("tag",), RUNS), random.Random(0)
    store.start({}, "name: s\n")
    events = [(run_id, epoch) for run_id in RUNS for epoch in range(1, 30)]
    draw.shuffle(events)
    for run_id, epoch in events:
        store.on_epoch(EpochRow(run_id, epoch, epoch, draw.random(), 0.5, 0.5, 0.5, draw.random(), 1.0))
    for run_id in draw.sample(sorted(RUNS), len(RUNS)):
        store.on_result(RunResult(run_id, "ok"))
    before = {name: (store.folder / name).read_text().splitlines() for name in ("metrics.csv", "runs.csv")}
    store.finish()
    for name, (header, *lines) in before.items():
        ordered = sorted(
            lines, key=lambda line: [float(cell) for cell in line.split(",")[: 1 + (name == "metrics.csv")]]
        )
        assert (store.folder / name).read_text().splitlines() == [header, *ordered]
        assert lines != ordered


def test_a_table_that_is_replaced_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """Its rows are at other places then."""
    path, _ = table(tmp_path, 0)
    rows = TableRows(path).read(range(115))
    next(rows)
    (tmp_path / "new").write_bytes(path.read_bytes())
    (tmp_path / "new").rename(path)
    with pytest.raises(UserError, match=r"t\.csv: replaced while it was read; repeat the command"):
        list(rows)


def test_a_row_takes_little_memory(tmp_path: Path) -> None:
    """A row as a dictionary takes a thousand bytes and more."""
    lines = (f"{1 + row // 10},{row % 10},{'x' * 500},id{row // 10}\n" for row in range(20_000))
    (tmp_path / "t.csv").write_text("run,epoch,text,run_id\n" + "".join(lines))
    tracemalloc.start()
    try:
        found = TableRows(tmp_path / "t.csv")
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 20_000
    assert peak < 100 * len(found)
    assert size < 60 * len(found)
