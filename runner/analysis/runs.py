"""All runs of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from runner.analysis.metrics import Curve
from runner.analysis.pairing import DOUBTS, Arms, Codes, pairs
from runner.storage.results import Metric


@dataclass(frozen=True)
class Runs:
    """All runs of a comparison. Every table has one row per run, in the same order."""

    parameters: pd.DataFrame
    facts: pd.DataFrame
    arms: Arms
    repeat: Codes
    """The repeat of each run: runs of a repeat have the same seed, so they are not independent."""
    metric: Metric
    target: float | None = None
    curves: Sequence[Curve] = ()
    """The curves of the metric, where there is a target."""
    best_lr: pd.DataFrame | None = None
    """`lr` and `edge`, where these are the runs of each arm at its own best learning rate."""

    def by_repeat(self, values: pd.Series, code: Codes) -> pd.DataFrame:
        """One row per repeat of each row of the comparison: `row` and `value`, the mean over the repeat's runs.

        A repeat that lacks values is left out if other repeats have more: its mean would be one of fewer settings.
        """
        table = pd.DataFrame({"row": code, "repeat": self.repeat, "value": values.to_numpy()})
        found = table.groupby(["row", "repeat"])["value"].agg(["mean", "count"]).reset_index()
        return _complete(found).rename(columns={"mean": "value"})


def pairs_by_row(runs: Runs, values: pd.Series, code: Codes) -> dict[int, pd.DataFrame]:
    """Each row's pairs, where both runs of a pair have a value. `code` is the row that each run belongs to.

    A row may pool several pairs of a seed, such as those at other learning rates. They are not independent, so their
    mean is the seed's one pair. A seed that lacks some of them is left out, if other seeds have them.
    """
    found = pairs(runs.parameters, runs.facts.assign(value=values), runs.arms)
    arm_runs = found.index.astype(int)
    found["row"], found["repeat"] = code[arm_runs], runs.repeat[arm_runs]
    if found["code_hash"].nunique() > 1:  # Runs that two versions of the code trained do not measure one difference.
        usual = found.groupby("row")["code_hash"].transform(lambda hashes: hashes.value_counts().index[0])
        found["code"] |= found["code_hash"] != usual
    how = {"value": "mean", "value_base": "mean", **dict.fromkeys(DOUBTS, "any"), "code_hash": "first", "count": "sum"}
    found = _complete(found.assign(count=1).groupby(["row", "repeat"]).agg(how).reset_index())
    return dict(iter(found.groupby("row")))  # type: ignore[arg-type]


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """The repeats with as many values as any repeat of their row. `count` is the number of values."""
    return table[table["count"] == table.groupby("row")["count"].transform("max")]
