"""A comparison's differences for new seeds and new test images: `compare --over seeds,images`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.metrics import read_runs
from runner.analysis.pairing import Arms, group, pairs, plain
from runner.analysis.records import ArmRow, Comparison
from runner.analysis.stats.crossed import crossed_interval
from runner.analysis.stats.values import ALPHA
from runner.errors import UserError
from runner.storage.predictions import unpack
from runner.storage.results import Results
from runner.storage.run_files import PREDICTIONS

Bits = NDArray[np.bool_]


def metric_of(results: Sequence[Results]) -> str:
    """The accuracy on the test set, which runs that validate on it have as valid_accuracy.

    Errors: UserError where runs differ in this, and for a table of another tool.
    """
    if any(result.stated for result in results):
        raise UserError("--over seeds,images reads the folders of sweeps: a table of another tool has no predictions")
    where = {str(value) for result in results for value in result.runs.get("validate_on", ["held_out"])}
    if len(where) > 1:
        raise UserError("--over seeds,images: some runs validate on the test set, others do not; compare them apart")
    return "valid_accuracy" if where == {"test"} else "test_accuracy"


def over_images(comparison: Comparison, results: Sequence[Results]) -> Comparison:
    """The comparison of these results, with `Difference.over_images` in the rows whose pairs are proven.

    A row of arms at their own best learning rates has none, because its pairs are not runs of one learning rate.
    Errors: UserError where the metric is not the accuracy on the test set at the end, and where predictions are missing
    or damaged.
    """
    metric = metric_of(results)
    if (comparison.metric.name, comparison.at) != (metric, "last"):
        raise UserError(f"--over seeds,images is about the test set at the end: use --metric {metric} --at last")
    if comparison.interaction:
        raise UserError("--over seeds,images: an interaction has no interval over images")
    pairs_of = _Pairs(comparison, results)
    rows = tuple(_with_images(row, pairs_of) for row in comparison.rows)
    return replace(comparison, rows=rows)


def _with_images(row: ArmRow, pairs_of: "_Pairs") -> ArmRow:
    found = row.difference
    if not found or not found.paired or row.own_best_lr:
        return row
    table = pairs_of.differences(row)
    alpha = ALPHA / found.tests if found.simultaneous else ALPHA
    interval = crossed_interval(table, alpha) if min(table.shape) > 1 else None
    return replace(row, difference=replace(found, over_images=interval))


@dataclass(frozen=True)
class _Run:
    """A run whose predictions are read."""

    folder: Path
    run_id: str
    accuracy: float

    def bits(self) -> Bits:
        """Which test images it classifies correctly. Errors: UserError where the file does not agree with the run."""
        path = PREDICTIONS.path(self.folder, self.run_id)
        try:
            bits = unpack(PREDICTIONS.read(self.folder, self.run_id))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"{path}: damaged: {error}; use bnbench run --fresh") from None
        if not len(bits) or abs(bits.mean() - self.accuracy) > 1e-9:
            reason = "damaged, or of another run: runs.csv has another accuracy"
            raise UserError(f"{path}: {reason}; use bnbench run --fresh")
        return bits


class _Pairs:
    """The pairs of a comparison, and the predictions of their runs."""

    def __init__(self, comparison: Comparison, results: Sequence[Results]) -> None:
        self.parameters, facts = read_runs(results, comparison.metric.name, "last")
        axis = [comparison.axis] if comparison.axis else []
        self.columns = [*comparison.cell_columns, *axis, *comparison.variant_columns]
        self.code = group(self.parameters, self.columns)
        known = [name for name in results[0].repeats if name in self.parameters]
        self.repeat = group(self.parameters, known) if known else np.arange(len(self.parameters))
        self.pairs = pairs(self.parameters, facts, Arms(self.parameters, comparison.axis, comparison.baseline))
        runs = [(result.folder, str(run_id)) for result in results for run_id in result.runs["run_id"]]
        self.runs = [_Run(*run, float(value)) for run, value in zip(runs, facts["value"], strict=True)]
        _check_saved(results, [self.runs[run] for run in {*self.pairs.index, *self.pairs["run_base"]}])

    def differences(self, row: ArmRow) -> NDArray[np.float64]:
        """Of each seed and each image [S, I], whether the arm is right, minus whether the baseline is.

        The pairs of a seed that the row pools are averaged.
        """
        wanted = [*row.cell.values(), row.arm, *row.variant.values()]
        first = self.parameters[self.columns].drop_duplicates()
        [position] = [at for at, values in enumerate(first.to_numpy(object)) if list(map(plain, values)) == wanted]
        found = self.pairs[self.code[self.pairs.index.astype(int)] == position]
        if self.parameters.loc[found.index].get("dataset", pd.Series(dtype=object)).nunique() > 1:
            raise UserError("--over seeds,images: a row pools several data sets; name 'dataset' in --group-by")
        sums: dict[int, list[NDArray[np.float64]]] = {}
        for arm, base, mean in zip(found.index, found["run_base"], found["value_base"], strict=True):
            ours, theirs = self.runs[arm], self.runs[base]
            if abs(theirs.accuracy - mean) > 1e-9:
                raise UserError("--over seeds,images: a run has several partners in the baseline; compare them apart")
            sums.setdefault(int(self.repeat[arm]), []).append(ours.bits().astype(float) - theirs.bits())
        return np.stack([np.mean(each, axis=0) for each in sums.values()])


def _check_saved(results: Sequence[Results], runs: Sequence[_Run]) -> None:
    """Errors: UserError where a run has no predictions. It says how to get them."""
    saved = {result.folder: PREDICTIONS.saved(result.folder) for result in results}
    missing = [run for run in runs if run.run_id not in saved[run.folder]]
    if missing:
        folder = missing[0].folder
        command = f"bnbench run {folder / 'config.yaml'} --out {folder.resolve().parent} --resume"
        raise UserError(
            f"{folder}: {len(missing)} of {len(runs)} runs have no predictions; --over seeds,images needs"
            f" save_predictions: true in the config; this trains them again:\n  {command} --set save_predictions=true"
        )
