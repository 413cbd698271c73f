"""The tutorial's result files, byte for byte, from our tables."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from runner.errors import UserError, unknown
from runner.storage.results import Results

# The tutorial tracks the training set only, so its loss and accuracy are the training ones.
COLUMNS = {
    "run": "run",
    "epoch": "epoch",
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "epoch duration": "epoch_duration",
    "run duration": "run_duration",
}


def tutorial(results: Results, keys: Sequence[str]) -> tuple[str, str]:
    """The texts of the CSV and the JSON file that the tutorial's `RunManager.save` writes.

    `keys`: the run parameters it lists, in order; the tutorial's are its grid's.
    """
    return files(_run_data(results, keys))


def files(run_data: Sequence[OrderedDict[str, Any]]) -> tuple[str, str]:
    """CSV and JSON of the tutorial's `run_data`, a record per epoch."""
    # The tutorial says DataFrame.from_dict(run_data, orient="columns"), which pandas has deprecated for a list.
    return pd.DataFrame(run_data).to_csv(), json.dumps(run_data, ensure_ascii=False, indent=4)


def _run_data(results: Results, keys: Sequence[str]) -> list[OrderedDict[str, Any]]:
    for key in keys:
        if key not in results.parameters:
            raise UserError(unknown("run parameter", key, results.parameters))
    columns = COLUMNS | {key: key for key in keys}
    rows = results.metrics.sort_values(["run", "epoch"])
    # tolist() turns NumPy's numbers into Python's, which json can write; an integer stays one.
    values = [rows[column].tolist() for column in columns.values()]
    records = [OrderedDict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    for record in records:
        record.update({key: None for key in keys if pd.isna(record[key])})  # a run without this parameter
    return records
