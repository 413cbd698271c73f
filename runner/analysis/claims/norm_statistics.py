"""Measures of claims about the statistics that a norm layer uses."""

from __future__ import annotations

import pandas as pd

from runner.analysis.claims.per_seed import PP, by_seed, measured, per_run, values
from runner.analysis.stats.values import Values
from runner.storage.folder import CURVES, PROBES
from runner.storage.results import Results, readings


def running_against_precise(results: Results, arm: object) -> Values:
    """The arm's validation accuracy with its moving averages, minus that with precise averages [S], in pp."""
    assert results.axis is not None
    probes = readings(results, PROBES)
    of_measure = probes[probes["measure"] == "precise_valid_accuracy"].sort_values("step")
    precise = of_measure.drop_duplicates("run", keep="last").set_index("run")["value"]
    gap = values(results, "valid_accuracy") - measured(results, precise.reindex(per_run(results).index))
    return PP * by_seed(results, gap, {results.axis: arm})


def precise_against_running_at_first(results: Results, arm: object) -> Values:
    """The arm's validation accuracy with precise averages minus that with moving averages [S], in pp.

    At the first reading after training began.
    """
    assert results.axis is not None
    first = readings(results, CURVES).sort_values("step").drop_duplicates("run").set_index("run")
    probes = readings(results, PROBES)
    precise = probes[probes["measure"] == "precise_valid_accuracy"].set_index(["run", "step"])["value"]
    found = (
        precise.reindex(pd.MultiIndex.from_arrays([first.index, first["step"]])).to_numpy() - first["valid_accuracy"]
    )
    gap = measured(results, found.reindex(per_run(results).index))
    return PP * by_seed(results, gap, {results.axis: arm})


def batch_against_moving(results: Results, arm: object, size: int) -> Values:
    """The arm's validation accuracy with a batch's own statistics minus that with moving averages [S], in pp.

    At the end, on the samples of the probe `batch_statistics`.
    """
    assert results.axis is not None
    probes = readings(results, PROBES).sort_values("step")
    found = []
    for measure in (f"batch_valid_accuracy_{size}", "moving_valid_accuracy"):
        last = probes[probes["measure"] == measure].drop_duplicates("run", keep="last").set_index("run")["value"]
        found.append(last.reindex(per_run(results).index))
    return PP * by_seed(results, measured(results, found[0] - found[1]), {results.axis: arm})
