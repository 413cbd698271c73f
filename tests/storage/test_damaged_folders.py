"""What is damaged, missing or no file at all in a results folder: one clear line, and nothing hangs."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from runner.errors import UserError
from runner.storage.rows import EpochRow
from runner.storage.store import Store
from runner.storage.tables import CompleteLines, cell, cells_of, csv_text, read_rows
from tests.storage.conftest import tables

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]
INLINE = ("--executor", "inline", "-q")


def with_status(text: str) -> str:
    return text.replace(",ok,", ",okay,", 1)


ROWS: dict[str, Callable[[str], str]] = {
    "a row of garbage": lambda text: text + "garbage\n",
    "a row of other cells": lambda text: text + ",".join("x" * text.partition("\n")[0].count(",")) + ",x\n",
    "a cell too many": lambda text: text.replace("1,ok,", "1,ok,,", 1),
    "an unknown status": with_status,
    "epochs without end": lambda text: text.replace("1,ok,2,", "1,ok,inf,", 1),
    "a field of 2 MB": lambda text: text + "x" * 2**21 + "\n",
    "no columns": lambda text: text.partition("\n")[2],
}


@pytest.mark.parametrize("damage", ROWS)
def test_a_damaged_row_in_runs_csv_is_one_line(bnbench: Bnbench, folder: Path, damage: str) -> None:
    path = folder / "runs.csv"
    path.write_text(ROWS[damage](path.read_text()))
    before = tables_of(folder)
    for command in (("compare", folder), ("watch", folder, "--once"), ("resume", folder, *INLINE)):
        done = bnbench(*command)
        assert done.exit_code == 2, command
        (line,) = done.stderr.splitlines()
        assert "runs.csv" in line
        assert len(line) < 2000
    assert tables_of(folder) == before


def tables_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def test_a_long_cell_is_read(bnbench: Bnbench, folder: Path) -> None:
    """A run of 20,000 epochs has as many digests of batch orders."""
    path = folder / "runs.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    cells["batches_hash"] = " ".join(["01234567"] * 20_000)
    path.write_text("\n".join([header, ",".join(cells.values()), *rest]) + "\n")
    for command in (("compare", folder), ("watch", folder, "--once"), ("resume", folder, *INLINE)):
        assert bnbench(*command).exit_code == 0, command
    assert len(read_rows(path)[0]["batches_hash"]) == 20_000 * 9 - 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"changed": ' + "[" * 500 + "]" * 500 + "}", "5"])
def test_an_environment_that_is_none_is_damaged(bnbench: Bnbench, folder: Path, text: str) -> None:
    (folder / "environment.json").write_text(text)
    for command in (("compare", folder), ("watch", folder, "--once")):
        assert bnbench(*command).exit_code == 0, command
    refused = bnbench("resume", folder, *INLINE)
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert "environment.json: whole then, missing or damaged now" in line
    allowed = bnbench("resume", folder, "--allow-changed", *INLINE)
    assert allowed.exit_code == 0, allowed.stderr


def test_a_deep_stacks_json_is_one_line(bnbench: Bnbench, folder: Path) -> None:
    (folder / "stacks.json").write_text("[" * 100_000)
    for command in (("watch", folder, "--once"), ("resume", folder, *INLINE)):
        done = bnbench(*command)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1
        assert "stacks.json: damaged" in done.stderr


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.csv", "runs.csv", "curves.csv", "probes.csv", "stacks.json", "contrast.json"]
)
def test_a_pipe_in_place_of_a_file_is_one_line(bnbench: Bnbench, folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    done = bnbench("resume", folder, *INLINE)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{folder / name}: ")
    assert "not a regular file" in line
    if name in ("config.yaml", "metrics.csv", "runs.csv"):
        for command in (("compare", folder), ("watch", folder, "--once")):
            done = bnbench(*command)
            assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), command


@pytest.mark.usefixtures("in_time")
def test_a_pipe_in_place_of_a_checkpoint_or_the_log(bnbench: Bnbench, unfinished: Path) -> None:
    (unfinished / "checkpoints").mkdir()
    name = "0123456789ab.000001.ckpt"
    os.mkfifo(unfinished / "checkpoints" / name)
    assert bnbench("resume", unfinished, *INLINE).exit_code == 0
    assert f"{name}: damaged checkpoint, not used" in (unfinished / "run.log").read_text()
    (unfinished / "run.log").unlink()
    os.mkfifo(unfinished / "run.log")
    done = bnbench("resume", unfinished, *INLINE)
    assert (done.exit_code, done.stderr) == (2, f"{unfinished / 'run.log'}: not a regular file\n")


@pytest.mark.usefixtures("in_time")
def test_a_config_must_be_a_file(bnbench: Bnbench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "zero.yaml", "folder.yaml", "missing.yaml"):
        for command in (("plan", tmp_path / name), ("run", tmp_path / name, "--out", tmp_path / "out", *INLINE)):
            done = bnbench(*command)
            assert done.exit_code == 2
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"{tmp_path / name}: cannot read the config: ")
    assert not (tmp_path / "out").exists()


def test_a_config_may_be_a_link(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("c.yaml", "fixed: {network: batch_norm, dataset: digits}\n")
    (tmp_path / "linked.yaml").symlink_to(tmp_path / "c.yaml")
    assert bnbench("plan", tmp_path / "linked.yaml").exit_code == 0


TAGS = ["\ufeff", "quote\"'", "\\r", "=1", "a, b", "# no", " x ", "e\u0301", "\U0001f600", "~"]


def test_any_text_survives_the_tables_and_the_config(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write(
        "tag.py",
        "from runner import network\nfrom torch import nn\n@network('tag')\n"
        "def tag(*, tag: str):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n",
    )
    escaped = ", ".join('"' + "".join(f"\\U{ord(character):08x}" for character in tag) + '"' for tag in TAGS)
    config = write(
        "t.yaml",
        'plugins: [tag.py]\ncontrast: {axis: network.tag, baseline: "\\\\r"}\n'
        "fixed: {network: tag, dataset: digits, epochs: 1, batch_size: 1250, evaluations_per_epoch: 2, device: cpu}\n"
        f"grid: {{network.tag: [{escaped}]}}\n",
    )
    assert bnbench("run", config, "--out", tmp_path, *INLINE).exit_code == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "t").glob("*.csv")}
    for path, content in whole.items():
        assert content.count(b"\n") == len(read_rows(path)) + 1  # a row is one line
        assert b"\r" not in content
    assert len({row["network.tag"] for row in read_rows(tmp_path / "t/runs.csv")}) == len(TAGS)
    done = bnbench("resume", tmp_path / "t", "--executor", "inline")
    assert f"{len(TAGS)} of {len(TAGS)} runs are there already" in done.stderr
    assert {path: path.read_bytes() for path in whole} == whole
    for command in (("compare", tmp_path / "t"), ("watch", tmp_path / "t", "--once")):
        assert bnbench(*command).exit_code == 0


@pytest.mark.parametrize("tag", [*TAGS, "\udcff", "a,b", "", "[1]"])
def test_a_cell_is_one_line_of_utf_8(tag: str) -> None:
    text = csv_text([["tag", "other"], [cell(tag), "x"]])
    assert len(text.encode().splitlines()) == 2
    assert list(cells_of(CompleteLines(io.BytesIO(text.encode())), Path("t.csv"))) == [
        ["tag", "other"],
        [cell(tag), "x"],
    ]


def test_a_table_that_is_removed_while_it_is_written_is_not_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", ("lr",), {"a": {"lr": 0.1}})
    store.start({}, "name: s\n")
    path = tmp_path / "s/metrics.csv"
    path.unlink()
    with pytest.raises(OSError, match="removed while bnbench wrote it") as caught, store.together():
        store.on_epoch(EpochRow("a", 1, 1, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1))
    assert caught.value.filename == str(path)
    assert not path.exists()
    store.log("said")
    (tmp_path / "s/run.log").unlink()
    store.log("said again")  # the log has no header
    assert (tmp_path / "s/run.log").read_text() == "said again\n"


def test_a_sweep_whose_table_was_removed_is_finished_by_a_resume(bnbench: Bnbench, folder: Path) -> None:
    whole = tables(folder)
    (folder / "metrics.csv").unlink()
    for command in (("compare", folder), ("watch", folder, "--once")):
        done = bnbench(*command)
        assert done.exit_code == 2
        assert "no sweep here (no metrics.csv)" in done.stderr
    assert bnbench("resume", folder, *INLINE).exit_code == 0
    assert tables(folder) == whole


def test_the_line_of_a_damaged_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(UserError, match=r"t.csv: the table is damaged: line 3 has 1 cells, not 2; remove the damaged"):
        read_rows(tmp_path / "t.csv")
