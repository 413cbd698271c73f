"""CSV and Parquet files of other tools: what is read, and one clear line for what is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from runner.analysis.comparison import compare
from runner.errors import UserError
from runner.storage.foreign import sources, table
from runner.storage.foreign.question import Question

Write = Callable[[str, str], Path]

ASKED = Question("m", (), "A", ("seed",), "acc")


def values(path: Path, asked: Question = ASKED) -> dict[tuple[Any, ...], float]:
    """Arm and pair keys → the metric."""
    result = table.load(path, asked)
    return {tuple(row[:-1]): row[-1] for row in result.runs[[*result.parameters, asked.metric]].itertuples(index=False)}


SIMPLE = {("A", 1): 0.5, ("B", 1): 0.25}


@pytest.mark.parametrize(
    "text",
    [
        "m,seed,acc\nA,1,0.5\nB,1,0.25\n",
        "\ufeffm,seed,acc\nA,1,0.5\nB,1,0.25\n",
        "m;seed;acc\nA;1;0.5\nB;1;0.25\n",
        "seed\tother\tm\tacc\n1\t,;\tA\t0.5\n1\t\tB\t.25\n",
        "m,seed,acc\r\n\r\nA,1,0.5\r\n\r\nB,1.0, 0.25\r\n",
        'm,seed,"acc"\n"A",1,0.5\n"B","1",2.5e-1',
        'note,m,seed,acc\n"two\nlines; ""quoted""",A,1,0.5\n-,B,1,0.25\n',
        "m,seed,acc,epoch\nA,1,0.1,1\nA,1,0.5,10\nA,1,0.2,9\nB,1,0.25,1\nB,1,,2\n",
        "m,seed,acc,epoch,step\nA,1,0.1,0,7\nA,1,0.5,0,8\nB,1,0.25,0,1\n",
        "m,seed,acc,step\nA,1,0.1,7\nA,1,0.5,8\nB,1,0.25,1\n",
    ],
)
def test_forms_of_one_table(write: Write, text: str) -> None:
    assert values(write("t.csv", text)) == SIMPLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; allowed: a CSV file with a header"),
        ("\n\n", "is empty; allowed: a CSV file with a header"),
        ("m,seed,acc\n", "holds no run"),
        ("m,seed,acc\n,1,1\nA,,1\n", "holds no run: 2 rows without m or seed (line 2, line 3)"),
        (
            'm,seed,"valid\nacc"\nA,1,1\n',
            "line 1: a column name is quoted and does not end; column names must be on one line",
        ),
        ("m,sed,acc\nA,1,1\n", "unknown column 'seed'; did you mean 'sed'? allowed: acc, m, sed"),
        ("m,seed,acc,acc\nA,1,1,1\n", "more than one column is named 'acc'"),
        ("m,seed,acc\nA,1,1\nB,1\n", "line 3 has 2 cells, and the header has 3"),
        ("m,seed,acc\nA,1,1\nB,1,2,3\n", "line 3 has 4 cells, and the header has 3"),
        ("m,seed,acc\nA,1,1\n\nB,1,good\n", "line 4: acc is 'good': not a number"),
        ("m,seed,acc\nA,1,1_0\n", "line 2: acc is '1_0': not a number"),
        ("m;seed;acc\nA;1;0,9\n", "line 2: acc is '0,9': not a number; write a decimal point, and no comma"),
        ("m,seed,acc\nA,1,1\nB,1,-1e200\n", "line 3: acc is '-1e200': too large; allowed: from -1e+150 to 1e+150"),
        ("m,seed,acc\nA,1,1e400\n", "line 2: acc is '1e400': too large; allowed: from -1e+150 to 1e+150"),
        ("m,seed,acc,epoch\nA,1,1,\n", "line 2: epoch is '': not a number"),
        (
            "m,seed,acc\nA,1,1\nB,1,1\nA,1.0,2\n",
            "line 2 and line 4 have the same m A, seed 1; name all that tells runs apart in --pair",
        ),
        (
            "m,seed,acc,epoch\nA,1,1,1\nA,1,2,1\nA,1,3,2\n",
            "line 2 and line 3 have the same m A, seed 1, epoch 1; name all that tells runs apart in --pair",
        ),
        ("m,seed,acc\nB,1,1\n", "--baseline names the arm that others are compared with: unknown arm 'A'; allowed: B"),
        ("m,seed,acc\nA,1,1\n", "only one arm, A: there is nothing to compare it with"),
        ("m,seed,acc\nA,1,\nB,1,inf\n", "no row has a number for acc"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write: Write, text: str, message: str) -> None:
    path = write("t.csv", text)
    with pytest.raises(UserError) as error:
        table.load(path, ASKED)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Question(), "name the column of the arms (--axis), or a column for each arm (--wide A,B)"),
        (Question("m", ("A", "B")), "name the column of the arms (--axis), or a column for each arm (--wide A,B)"),
        (Question("m", pair=("seed",)), "--metric is missing: the column whose numbers are compared"),
        (
            Question("m", metric="acc"),
            "--pair is missing: the columns in which the runs of a pair are equal, such as seed",
        ),
        (
            Question("m", (), "", ("seed",), "acc"),
            "--baseline names the arm that others are compared with: allowed: A, B",
        ),
        (
            Question("m", (), "A", ("m",), "acc"),
            "column 'm' has two roles; the axis, the pair keys and the metric must differ",
        ),
        (Question("m", (), "A", ("run",), "acc"), "rename column 'run': bnbench's own tables use this name"),
        (Question("", ("A", "seed"), "A", (), "acc"), "unknown column 'A'; allowed: acc, m, run, seed"),
        (
            Question("m", (), "A", ("seed",), "acc", share=True),
            "line 3: acc is '1.5': a share (--share) lies from 0 to 1",
        ),
    ],
)
def test_a_wrong_question_gets_one_line(write: Write, asked: Question, message: str) -> None:
    path = write("t.csv", "m,seed,acc,run\nA,1,1,1\nB,1,1.5,2\n")
    with pytest.raises(UserError) as error:
        table.load(path, asked)
    assert str(error.value) == f"{path}: {message}"


def test_missing_values_and_rows_without_keys_are_counted(write: Write) -> None:
    path = write("t.csv", "m,seed,acc\nA,1,0.5\nB,1,0.25\nA,2,\nB,2,NaN\nA,3,n/a\nB,3,-inf\n,4,1\n")
    result = table.load(path, ASKED)
    assert list(result.runs["status"]) == ["ok", "ok", *["missing"] * 4]
    assert result.stated
    assert "Not counted: 1 row without m or seed (line 8)." in result.stated.notes


def test_a_run_that_ended_in_nan_has_no_earlier_value(write: Write) -> None:
    path = write("t.csv", "m,seed,acc,epoch\nA,1,0.5,1\nA,1,nan,2\nB,1,0.25,1\n")
    assert list(table.load(path, ASKED).runs["status"]) == ["missing", "ok"]


def test_arms_are_texts(write: Write) -> None:
    path = write("t.csv", "m,seed,acc\n1.1,1,1\n 1.10 ,1.0,2\n1,1,3\n1.0,1,4\n1e5,1,5\n100000,1,6\n")
    asked = Question("m", (), "1.10", ("seed",), "acc")
    arms = ("1.1", "1.10", "1", "1.0", "1e5", "100000")
    assert values(path, asked) == {(arm, 1): number for number, arm in enumerate(arms, 1)}
    result = compare([table.load(path, asked)])
    assert [(row.arm, row.n) for row in result.rows] == [(arm, 1) for arm in (arms[1], arms[0], *arms[2:])]
    with pytest.raises(UserError, match=r"unknown arm '1\.100'; did you mean '1\.10'"):
        table.load(path, Question("m", (), "1.100", ("seed",), "acc"))


def test_the_largest_numbers_that_are_read_can_be_compared(write: Write) -> None:
    rows = "".join(f"{m},{seed},{sign}{seed}e149\n" for seed in range(1, 10) for m, sign in (("A", "-"), ("B", "")))
    result = table.load(write("t.csv", "m,seed,acc\n" + rows), replace(ASKED, smallest_effect=1e100))
    (_, row) = compare([result]).rows
    assert row.difference
    assert row.difference.interval
    assert row.difference.verdict
    assert row.difference.verdict == "SUPERIOR"
    assert (row.difference.interval.low, row.difference.interval.high) == pytest.approx(
        tuple(scipy_stats.t.interval(0.95, 8, 1e150, 2e149 * np.std(range(1, 10), ddof=1) / 3)), rel=1e-9
    )


def test_pair_keys_are_numbers_only_where_they_look_like_it(write: Write) -> None:
    path = write("t.csv", "m,seed,acc\nA,01,1\nA,1,2\nA,12e45678,3\nA,1e-3,4\nA,0.001,5\nB,1.50,6\n")
    with pytest.raises(UserError, match="line 5 and line 6 have the same m A, seed 0"):
        table.load(path, ASKED)
    path.write_text(path.read_text().replace("A,0.001,5\n", ""))
    assert [key[1] for key in values(path)] == ["01", 1, "12e45678", 0.001, 1.5]


def test_an_export_of_wandb_says_how_a_run_ended(write: Write) -> None:
    """The columns of the runs table as W&B exports it: https://docs.wandb.ai/models/app/features/runs-table"""
    text = (
        '"Name","State","Notes","User","Tags","Created","Runtime","Sweep","norm","seed","val/loss"\n'
        '"fast-sun-1","finished","-","ann","","2025-01-01T10:00:00.000Z","61","","none","0","0.5"\n'
        '"dry-leaf-2","finished","-","ann","","2025-01-01T10:00:00.000Z","60","","batch","0","0.25"\n'
        '"old-cat-3","crashed","-","ann","","2025-01-01T10:00:00.000Z","12","","batch","1","0.75"\n'
        '"new-dog-4","running","-","ann","","2025-01-01T10:00:00.000Z","12","","none","1","0.125"\n'
        '"far-sea-5","killed","-","ann","","2025-01-01T10:00:00.000Z","12","","none","2",""\n'
    )
    asked = Question("norm", (), "none", ("seed",), "val/loss")
    assert list(table.load(write("w.csv", text), asked).runs["status"]) == [
        *("ok", "ok", "failed", "missing", "interrupted"),
    ]
    states = "Name,State,seed,acc\nx,Ohio,1,0.5\ny,Utah,1,0.25\n"  # another table with these two columns
    asked = Question("State", (), "Ohio", ("seed",), "acc")
    found = table.load(write("s.csv", states), asked)
    assert list(found.runs["status"]) == ["ok", "ok"]
    assert found.stated
    assert "State does not say how a run ended: neither W&B nor MLflow writes 'ohio'." in found.stated.notes


def test_not_utf8_a_pipe_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"m,seed,acc\nA,1,\xff\n")
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        ("latin.csv", "cannot be read: not UTF-8"),
        ("pipe", "cannot be read: not a regular file"),
        ("none.csv", "cannot be read: No such file or directory"),
    ]:
        with pytest.raises(UserError, match=message):
            table.load(tmp_path / name, ASKED)


def test_bytes_that_are_not_utf8_far_below(tmp_path: Path) -> None:
    rows = "".join(f"A,{seed},1\n" for seed in range(20_000))
    (tmp_path / "t.csv").write_bytes(f"m,seed,acc\n{rows}".encode() + b"B,\xff,1\n")
    with pytest.raises(UserError, match=r"cannot be read after line \d+: not UTF-8"):
        table.load(tmp_path / "t.csv", ASKED)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(sources.MOST_BYTES + 1)
    with pytest.raises(UserError, match="GiB; allowed: up to 1 GiB"):
        table.load(tmp_path / "t.csv", ASKED)


def test_a_parquet_file_without_pyarrow_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"a Parquet file needs pyarrow: pip install 'bnbench\[parquet\]'"):
        table.load(tmp_path / "t.parquet", ASKED)


def test_a_parquet_file_is_the_csv_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"m": ["A", "B"], "seed": [1.0, 1.0], "acc": [0.1 + 0.2, None], "more": [[1], [2]]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = values(tmp_path / "t.parquet")
    assert found["A", 1] == 0.1 + 0.2
    assert pd.isna(found["B", 1])
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        table.load(tmp_path / "broken.parquet", ASKED)
