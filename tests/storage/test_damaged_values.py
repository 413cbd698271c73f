"""Tables whose values are not what bnbench writes, or whose lines are doubled: what the fuzzer of folders found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from runner.errors import UserError
from runner.storage.checkpoints import Found
from runner.storage.folder import METRICS
from runner.storage.resume import continuable
from runner.storage.table_rows import TableRows
from runner.storage.tables import COUNTS, number_in
from tests.storage.conftest import tables

Bnbench = Callable[..., Result]
INLINE = ("--executor", "inline", "-q")


def change(path: Path, column: str, text: str) -> None:
    """Put a text into every cell of a column."""
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    at = header.index(column)
    for row in rows:
        row[at] = text
    path.write_text("\n".join(map(",".join, [header, *rows])) + "\n")


@pytest.mark.parametrize("text", ["1" + "0" * 30, "1e30"])
@pytest.mark.parametrize("name", ["train_accuracy", "valid_loss"])
def test_a_number_of_many_digits_is_a_number(bnbench: Bnbench, folder: Path, name: str, text: str) -> None:
    """pandas leaves such a column as texts."""
    for table in ("metrics.csv", "runs.csv"):
        change(folder / table, name, text)
    done = bnbench("compare", folder, "--metric", name, "--format", "json")
    assert done.exit_code == 0
    means = {row["mean"] for row in json.loads(done.stdout)}
    assert means == {1e30}


@pytest.mark.parametrize("text", ["True", "text", "1.5", "inf"])
@pytest.mark.parametrize("command", [("compare",), ("plot", "accuracy"), ("export", "--format", "tensorboard")])
def test_a_run_that_has_no_number_is_one_line(
    bnbench: Bnbench, folder: Path, command: tuple[str, ...], text: str
) -> None:
    pytest.importorskip("tensorboard")
    change(folder / "runs.csv", "run", text)
    done = bnbench(command[0], folder, *command[1:])
    assert done.exit_code == 2
    assert done.stderr == f"{folder / 'runs.csv'}: run is '{text}', not a number: the table is damaged\n"


@pytest.mark.parametrize("text", ["text", "True"])
def test_a_reading_that_is_no_number_is_one_line(bnbench: Bnbench, folder: Path, text: str) -> None:
    change(folder / "probes.csv", "value", text)
    done = bnbench("plot", folder, "gradients")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert f"probes.csv: value is '{text}', not a number" in done.stderr


@pytest.mark.parametrize(
    ("name", "command"),
    [("probes.csv", ("plot", "gradients")), ("runs.csv", ("inspect", "1")), ("metrics.csv", ("watch", "--once"))],
)
def test_a_table_with_other_columns_is_one_line(
    bnbench: Bnbench, folder: Path, name: str, command: tuple[str, ...]
) -> None:
    path = folder / name
    path.write_text(path.read_text().replace("status", "state", 1).replace("step", "steps", 1))
    done = bnbench(command[0], folder, *command[1:])
    assert done.exit_code == 2
    missing = "status" if name == "runs.csv" else "step"
    assert done.stderr == f"{path}: not a table of bnbench: it has no {missing}\n"


@pytest.mark.parametrize(("column", "text"), [("valid_loss", "text"), ("test_accuracy", "٣x"), ("status", "\x85")])
def test_inspect_of_a_damaged_row_is_one_line(bnbench: Bnbench, folder: Path, column: str, text: str) -> None:
    change(folder / "runs.csv", column, text)
    done = bnbench("inspect", folder, "1", "--format", "json")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "runs.csv: the table is damaged" in done.stderr


def test_inspect_counts_runs_as_the_config_does(bnbench: Bnbench, folder: Path) -> None:
    change(folder / "runs.csv", "run", "one")
    assert json.loads(bnbench("inspect", folder, "2", "--format", "json").stdout)["run"] == 2


@pytest.mark.parametrize("text", ["1e308", "-1", "1e16"])
def test_watch_of_epochs_without_end_is_one_line(bnbench: Bnbench, folder: Path, text: str) -> None:
    change(folder / "metrics.csv", "run_duration", text)
    lines = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(lines[:-1]))
    done = bnbench("watch", folder, "--once")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert f"run_duration of run 1 is '{text}', not a number" in done.stderr
    with pytest.raises(UserError):
        number_in({"run": "1", "epoch": text}, "epoch", folder / METRICS)


@pytest.mark.parametrize("name", ["metrics.csv", "runs.csv", "curves.csv", "probes.csv"])
def test_a_line_that_is_doubled_is_one_row(bnbench: Bnbench, folder: Path, name: str) -> None:
    before = tables(folder)
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join([*lines, lines[1]]))
    assert bnbench("compare", folder).exit_code in (0, 2)
    assert bnbench("resume", folder, *INLINE).exit_code == 0
    assert tables(folder) == before


@pytest.mark.parametrize("name", ["metrics.csv", "curves.csv", "probes.csv"])
def test_a_line_in_place_of_another_is_a_lost_line(bnbench: Bnbench, folder: Path, name: str) -> None:
    before = tables(folder)
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join([*lines[:2], lines[1], *lines[3:]]))
    assert bnbench("resume", folder, *INLINE).exit_code == 0
    assert tables(folder) == before
    assert f"{name} and runs.csv disagree on 1 finished runs" in (folder / "run.log").read_text()


def test_lost_stacks_are_told(bnbench: Bnbench, folder: Path) -> None:
    (folder / "stacks.json").unlink()
    assert bnbench("resume", folder, *INLINE).exit_code == 0
    assert "stacks.json is missing: which runs train together is decided anew" in (folder / "run.log").read_text()


def test_a_checkpoint_of_an_epoch_without_end_is_not_counted_out(folder: Path) -> None:
    """A list of its epochs would fill the memory."""
    run_id = (folder / "runs.csv").read_text().splitlines()[1].rpartition(",")[2]
    found = Found(folder / "checkpoints/0123456789ab.000001.ckpt", (run_id,), 10**15, {})
    tables = {name: TableRows(folder / name) for name in COUNTS}
    assert continuable(tables, [found], {run_id}) == {}
