"""Measures of claims about the statistics that a norm layer uses. Accuracies are in pp."""

import pandas as pd

from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.per_seed import PP, accuracies, by_seed, measured
from runner.storage.folder import CURVES, PROBES
from runner.storage.results import Results, readings

PRECISE = "precise_valid_accuracy"


def running_against_precise(results: Results, arm: object, epochs: int) -> PairedValues:
    """The arm's accuracy with its moving averages, and that with precise averages [S].

    Both are medians of the readings of the last `epochs` epochs.
    """
    precise = measured(results, _late(results, PRECISE, epochs))
    return _sides(results, arm, accuracies(results, epochs), precise)


def precise_against_running_at_first(results: Results, arm: object) -> PairedValues:
    """The arm's accuracy with precise averages, and that with moving averages [S].

    They are read at the first reading after training began.
    """
    first = readings(results, CURVES).sort_values("step").drop_duplicates("run")
    precise = _probe(results, PRECISE)[["run", "step", "value"]]
    both = first[["run", "step", "valid_accuracy"]].merge(precise, on=["run", "step"]).set_index("run")
    return _sides(results, arm, measured(results, both["value"]), measured(results, both["valid_accuracy"]))


def batch_against_moving(results: Results, arm: object, size: int, epochs: int) -> PairedValues:
    """The arm's accuracy with a batch's own statistics, and that with moving averages [S].

    They are medians of the readings of the last `epochs` epochs, on the samples of the probe `batch_statistics`. `size`
    is the batch size.
    """
    own = measured(results, _late(results, f"batch_valid_accuracy_{size}", epochs))
    return _sides(results, arm, own, measured(results, _late(results, "moving_valid_accuracy", epochs)))


def _sides(results: Results, arm: object, of_run: pd.Series, other: pd.Series) -> PairedValues:
    """Two accuracies of the same arm's runs."""
    return PairedValues(PP * by_seed(results, of_run, arm), PP * by_seed(results, other, arm))


def _probe(results: Results, measure: str) -> pd.DataFrame:
    probes = readings(results, PROBES)
    return probes[probes["measure"] == measure]


def _late(results: Results, measure: str, epochs: int) -> pd.Series:
    """The median of a probe's measure in the last `epochs` epochs, by run number."""
    probe = _probe(results, measure)
    planned = probe["run"].map(results.runs.set_index("run")["epochs"].astype(float))
    return probe[probe["epoch"] > planned - epochs].groupby("run")["value"].median()
