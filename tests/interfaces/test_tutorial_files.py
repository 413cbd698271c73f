"""The tutorial's files, byte for byte: against its own calls, and against text typed in by hand."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner.errors import UserError
from runner.interfaces.tutorial_files import tutorial
from runner.storage.results import Results

KEYS = ("lr", "batch_size", "num_workers", "device", "trainset", "network")
HEADER = ",run,epoch,loss,accuracy,epoch duration,run duration,lr,batch_size,num_workers,device,trainset,network"


def results(rows: list[tuple[int, int, float, float]]) -> Results:
    parameters = (*KEYS, "optimizer", "seed")
    point = (0.01, 1000, 1, "cpu", "нормальный", "batch_norm", "adam", 50)
    metrics = pd.DataFrame(
        [
            (run, epoch, 60 * epoch, loss, accuracy, 9.0, 0.99, 0.5, 0.5 * epoch, *point, f"id{run}")
            for run, epoch, loss, accuracy in rows
        ],
        columns=[
            *("run", "epoch", "step", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"),
            *("epoch_duration", "run_duration", *parameters, "run_id"),
        ],
    )
    return Results(Path("results/x"), "x", None, None, parameters, KEYS, metrics, pd.DataFrame())


def as_the_tutorial_saves(rows: list[tuple[int, int, float, float]], folder: Path) -> tuple[bytes, bytes]:
    run_data = []
    for run, epoch, loss, accuracy in rows:
        row: OrderedDict[str, Any] = OrderedDict()
        row["run"], row["epoch"], row["loss"], row["accuracy"] = run, epoch, loss, accuracy
        row["epoch duration"], row["run duration"] = 0.5, 0.5 * epoch
        row["lr"], row["batch_size"], row["num_workers"], row["device"] = 0.01, 1000, 1, "cpu"
        row["trainset"], row["network"] = "нормальный", "batch_norm"
        run_data.append(row)
    pd.DataFrame.from_dict(run_data, orient="columns").to_csv(folder / "results.csv")  # type: ignore[call-overload]
    with (folder / "results.json").open("w", encoding="utf-8") as f:
        json.dump(run_data, f, ensure_ascii=False, indent=4)
    return (folder / "results.csv").read_bytes(), (folder / "results.json").read_bytes()


ROWS = [(1, 1, 0.9011, 0.666), (1, 2, 0.3231123456789, 0.88), (2, 1, 1e-05, 1.0), (2, 2, float("nan"), 0.1)]


@pytest.mark.filterwarnings("ignore:Passing a list to DataFrame.from_dict is deprecated")
def test_both_files_are_the_tutorials_byte_for_byte(tmp_path: Path) -> None:
    csv, text = tutorial(results(ROWS), KEYS)
    assert (csv.encode(), text.encode()) == as_the_tutorial_saves(ROWS, tmp_path)


def test_the_files_as_text() -> None:
    csv, text = tutorial(results(ROWS[:1]), KEYS)
    assert csv == f"{HEADER}\n0,1,1,0.9011,0.666,0.5,0.5,0.01,1000,1,cpu,нормальный,batch_norm\n"
    assert text.startswith('[\n    {\n        "run": 1,\n        "epoch": 1,\n        "loss": 0.9011,\n')
    assert text.endswith('        "trainset": "нормальный",\n        "network": "batch_norm"\n    }\n]')


def test_rows_are_sorted_by_run_and_epoch() -> None:
    assert tutorial(results(ROWS[::-1]), KEYS)[0] == tutorial(results(ROWS), KEYS)[0]


def test_the_keys_are_the_columns_in_their_order() -> None:
    csv, text = tutorial(results(ROWS), ["seed", "lr"])
    assert csv.splitlines()[0] == ",run,epoch,loss,accuracy,epoch duration,run duration,seed,lr"
    assert list(json.loads(text)[0])[-2:] == ["seed", "lr"]


def test_whole_numbers_stay_whole() -> None:
    first = json.loads(tutorial(results(ROWS), KEYS)[1])[0]
    assert [type(first[key]) for key in ("run", "epoch", "batch_size", "lr", "device")] == [int, int, int, float, str]


def test_an_unknown_key_is_the_users_error() -> None:
    with pytest.raises(UserError, match="unknown run parameter 'batchsize'; did you mean 'batch_size'"):
        tutorial(results(ROWS), ["batchsize"])
