"""The tutorial's result files, byte for byte, from our tables."""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from runner.errors import UserError, unknown
from runner.storage.files import write_atomically
from runner.storage.results import Results

COLUMNS = {
    "run": "run",
    "epoch": "epoch",
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "epoch duration": "epoch_duration",
    "run duration": "run_duration",
}
"""The tutorial's column → ours. The tutorial measures on the training set only."""


def tutorial(results: Results, keys: Sequence[str]) -> tuple[str, str]:
    """The texts of the CSV and the JSON file that the tutorial's `RunManager.save` writes for a sweep.

    `keys` are the run parameters to list, in order; the tutorial lists those of its grid.
    Errors: UserError for a parameter that the sweep does not have.
    """
    for key in keys:
        if key not in results.parameters:
            raise UserError(unknown("run parameter", key, results.parameters))
    columns = COLUMNS | {key: key for key in keys}
    rows = results.metrics.sort_values(["run", "epoch"])
    # tolist() makes Python's numbers, which json can write, and keeps whole numbers whole.
    values = [rows[column].tolist() for column in columns.values()]
    records = [OrderedDict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    for record in records:
        # A run without a parameter has null there.
        record.update({key: None for key in keys if pd.isna(record[key])})
    return files(records)


def files(run_data: Sequence[OrderedDict[str, Any]]) -> tuple[str, str]:
    """The texts of the CSV and the JSON file for the tutorial's `run_data`, which has one record per epoch.

    >>> csv, json_text = files([OrderedDict(run=1, epoch=1, loss=0.5)])
    >>> print(csv, end="")
    ,run,epoch,loss
    0,1,1,0.5
    >>> json.loads(json_text)
    [{'run': 1, 'epoch': 1, 'loss': 0.5}]
    """
    # The tutorial calls DataFrame.from_dict(run_data, orient="columns"), which pandas has deprecated for lists.
    return pd.DataFrame(run_data).to_csv(), json.dumps(run_data, ensure_ascii=False, indent=4)


def write(base: str | Path, texts: tuple[str, str]) -> Iterator[Path]:
    """Write the two texts to `base`.csv and `base`.json, and yield each path after writing."""
    for suffix, text in zip((".csv", ".json"), texts, strict=True):
        path = Path(f"{base}{suffix}")
        write_atomically(path, text)
        yield path
