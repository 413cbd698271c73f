"""The tables on the disk: what is written, when, and what a torn or foreign folder does."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner.errors import UserError
from runner.storage.files import write_atomically
from runner.storage.folder import sole_writer
from runner.storage.rows import Checkpoint, EpochRow, RunResult
from runner.storage.store import Store
from runner.storage.tables import cell, read_rows

COLUMNS = ("lr", "network", "seed")
RUNS: dict[str, dict[str, Any]] = {
    "a": {"network": "x", "lr": 0.1, "seed": 0},
    "b": {"network": "x", "lr": 0.1, "seed": 1},
    "c": {"network": "y", "lr": 1e-5, "seed": 0},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "sweep", COLUMNS, RUNS)
    store.start({"python": "3"}, "name: sweep\n")
    return store


def row(run_id: str, epoch: int, accuracy: float = 0.5) -> EpochRow:
    return EpochRow(run_id, epoch, 10 * epoch, 1 / 3, accuracy, 0.75, accuracy, 0.25, 0.5)


def result(run_id: str, *rows: EpochRow, status: Any = "ok", error: str = "") -> RunResult:
    return RunResult(run_id, status, rows, 7, 0.5, 0.75, "w", "b1 b2", error, "the traceback" if error else "")


def test_the_header_is_fixed_before_the_first_row(store: Store) -> None:
    assert (store.folder / "metrics.csv").read_text() == (
        "run,epoch,step,train_loss,train_accuracy,valid_loss,valid_accuracy,epoch_duration,run_duration,"
        "lr,network,seed,run_id\n"
    )


def test_a_row_is_on_the_disk_when_on_epoch_returns(store: Store) -> None:
    store.on_epoch(row("c", 1))
    last = (store.folder / "metrics.csv").read_text().splitlines()[-1]
    assert last == f"3,1,10,{1 / 3!r},0.5,0.75,0.5,0.25,0.5,1e-05,y,0,c"


def test_the_tables_are_sorted_once_the_sweep_is_done_and_then_left_alone(store: Store) -> None:
    for run_id in ("c", "a", "b"):
        rows = (row(run_id, 1), row(run_id, 2, 0.6))
        for each in rows:
            store.on_epoch(each)
        store.on_result(result(run_id, *rows))
    store.finish()
    table = pd.read_csv(store.folder / "metrics.csv")
    assert list(zip(table.run, table.epoch, strict=True)) == [(n, e) for n in (1, 2, 3) for e in (1, 2)]
    runs = pd.read_csv(store.folder / "runs.csv")
    assert list(runs.run) == [1, 2, 3]
    assert list(runs.best_epoch) == [2, 2, 2]
    assert list(runs.test_accuracy) == [0.75] * 3
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    store.finish()
    assert {path: path.stat().st_mtime_ns for path in store.folder.iterdir()} == before


def test_resume_keeps_finished_runs_and_drops_what_an_unfinished_one_left(store: Store) -> None:
    store.on_epoch(row("b", 1))
    store.on_epoch(row("a", 1))
    store.on_result(result("b", row("b", 1)))
    store.on_epoch(row("c", 1))
    store.on_result(result("c", row("c", 1), status="interrupted"))
    with (store.folder / "metrics.csv").open("a") as file:
        file.write("1,2,20,0.3")  # torn by a kill
    # The grid has grown at its front: numbers move, ids do not.
    grown = Store(store.folder, COLUMNS, {"z": {"network": "z", "lr": 1.0, "seed": 0}, **RUNS})
    assert grown.resume("name: sweep\n") == ({"b"}, {})
    assert [(r["run"], r["run_id"]) for r in read_rows(grown.folder / "metrics.csv")] == [("3", "b")]
    assert [(r["run"], r["status"]) for r in read_rows(grown.folder / "runs.csv")] == [("3", "ok")]
    assert (grown.folder / "metrics.csv").read_text().endswith("\n")


def test_resume_refuses_a_table_of_other_columns_or_runs(store: Store) -> None:
    store.on_result(result("a"))
    before = (store.folder / "runs.csv").read_bytes()
    for columns, runs, message in (
        (("lr", "network", "epochs"), RUNS, "other columns: epochs, seed"),
        (COLUMNS, {"b": RUNS["b"]}, "1 finished runs that this config does not have .*run 1"),
    ):
        other = Store(store.folder, columns, runs)
        with pytest.raises(UserError, match=message):
            other.resume("name: sweep\n")
    assert (store.folder / "runs.csv").read_bytes() == before


def test_one_writer_at_a_time(store: Store) -> None:
    with sole_writer(store.folder):
        before = sorted(store.folder.iterdir())
        with pytest.raises(UserError, match="another process is writing"), sole_writer(store.folder):
            pass
        assert sorted(store.folder.iterdir()) == before
    with sole_writer(store.folder):
        pass


def test_a_lock_that_nothing_came_of_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="before the first file"), sole_writer(tmp_path / "new"):
        raise ValueError("before the first file")
    assert not (tmp_path / "new").exists()


def test_a_failed_run_has_its_error_in_the_table_and_its_traceback_in_the_log(store: Store) -> None:
    store.on_result(result("a", status="failed", error="ValueError: two\nlines"))
    (only,) = read_rows(store.folder / "runs.csv")
    assert (only["status"], only["error"], only["epochs_trained"], only["train_loss"]) == (
        *("failed", "ValueError: two lines", "0", ""),
    )
    log = (store.folder / "run.log").read_text()
    assert "run 1 (a) failed: ValueError: two" in log
    assert "the traceback" in log


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        ([100, 100], "[100, 100]"),
        ("=cmd()", "'=cmd()"),
        ("@x", "'@x"),
        ("plain", "plain"),
        (-3, "-3"),
        (-0.5, "-0.5"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize("cut", range(0, 24, 3))
def test_a_table_cut_anywhere_reads_as_its_whole_rows(tmp_path: Path, cut: int) -> None:
    whole = 'a,b\n1,"x, y"\n22,"z"\n'
    (tmp_path / "t.csv").write_text(whole[:cut])
    kept = whole[:cut]
    kept = kept[: kept.rfind("\n") + 1]
    assert read_rows(tmp_path / "t.csv") == list(csv.DictReader(io.StringIO(kept)))


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_atomically(path, "old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    write_atomically(path, "new")  # what the failed one left aside is not in the way
    assert path.read_text() == "new"


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:5]))
    write_atomically(tmp_path / "x", "more than five bytes")
    assert (tmp_path / "x").read_text() == "more than five bytes"


def test_what_is_told_together_is_written_once_and_results_after_their_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = os.write

    def watched(descriptor: int, data: Any) -> int:
        written.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        return real(descriptor, data)

    rows = (row("a", 1), row("a", 2))
    monkeypatch.setattr(os, "write", watched)
    with store.together():
        store.on_epoch(rows[0])
        store.on_result(result("b"))
        store.on_epoch(rows[1])
        store.on_result(result("a", *rows))
        assert written == []
    assert written == ["metrics.csv", "runs.csv"]
    assert [each["epoch"] for each in read_rows(store.folder / "metrics.csv")] == ["1", "2"]
    assert [each["run"] for each in read_rows(store.folder / "runs.csv")] == ["2", "1"]


def test_a_checkpoint_told_together_follows_its_rows_and_goes_after_its_result(store: Store) -> None:
    with store.together():
        store.on_epoch(row("a", 1))
        store.on_checkpoint(Checkpoint(("a",), 1, b"state"))
        assert len(read_rows(store.folder / "metrics.csv")) == 1
        assert len(list(store.checkpoints.folder.iterdir())) == 1
        store.on_result(result("a", row("a", 1)))
        assert len(list(store.checkpoints.folder.iterdir())) == 1
    assert list(store.checkpoints.folder.iterdir()) == []


def test_a_disk_that_fails_under_rows_keeps_their_results_from_being_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    def tell() -> None:
        with store.together(), monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            store.on_epoch(row("a", 1))
            store.on_result(result("a", row("a", 1)))
            store._flush()

    with pytest.raises(OSError, match="No space"):
        tell()
    assert read_rows(store.folder / "metrics.csv") == []
    assert read_rows(store.folder / "runs.csv") == []
