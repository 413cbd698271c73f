"""Measures of claims about the statistics that a norm layer uses."""

import pandas as pd

from runner.analysis.claims.per_seed import PP, by_seed, measured, values
from runner.analysis.stats.values import Values
from runner.storage.folder import CURVES, PROBES
from runner.storage.results import Results, readings

PRECISE = "precise_valid_accuracy"


def running_against_precise(results: Results, arm: object) -> Values:
    """The arm's validation accuracy with its moving averages, minus that with precise averages [S], in pp."""
    gap = values(results, "valid_accuracy") - measured(results, _last(results, PRECISE))
    return PP * by_seed(results, gap, arm)


def precise_against_running_at_first(results: Results, arm: object) -> Values:
    """The arm's validation accuracy with precise averages, minus that with moving averages [S], in pp.

    It is read at the first reading after training began.
    """
    first = readings(results, CURVES).sort_values("step").drop_duplicates("run")
    precise = _probe(results, PRECISE)[["run", "step", "value"]]
    both = first[["run", "step", "valid_accuracy"]].merge(precise, on=["run", "step"]).set_index("run")
    return PP * by_seed(results, measured(results, both["value"] - both["valid_accuracy"]), arm)


def batch_against_moving(results: Results, arm: object, size: int) -> Values:
    """The arm's validation accuracy with a batch's own statistics, minus that with moving averages [S], in pp.

    It is read at the end, on the samples of the probe `batch_statistics`. `size` is the batch size.
    """
    gap = _last(results, f"batch_valid_accuracy_{size}") - _last(results, "moving_valid_accuracy")
    return PP * by_seed(results, measured(results, gap), arm)


def _probe(results: Results, measure: str) -> pd.DataFrame:
    probes = readings(results, PROBES)
    return probes[probes["measure"] == measure]


def _last(results: Results, measure: str) -> pd.Series:
    """The last value of a probe's measure, by run number."""
    probe = _probe(results, measure).sort_values("step")
    return probe.drop_duplicates("run", keep="last").set_index("run")["value"]
