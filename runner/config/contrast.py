"""Which runs of a sweep are pairs."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from runner.config.sweep import Sweep


def pairs(sweep: Sweep) -> list[list[int]]:
    """For each run, the numbers of the runs it is paired with: equal in everything but the contrast's axis.

    A run of the baseline is paired with those of every other arm, and each of those with the baseline's. An
    argument of the axis that one of the arms does not have does not part them.
    """
    axis = sweep.axis
    if axis is None:
        return [[] for _ in sweep.runs]
    parameters = [run.parameters for run in sweep.runs]
    partial = _arguments_of_some_arms(parameters, axis)
    groups: dict[str, list[int]] = defaultdict(list)
    keys = []
    names = [name for name in sorted(sweep.grid_keys) if name != axis and name not in partial]  # all others are fixed
    for number, values in enumerate(parameters, start=1):
        key = json.dumps([(name, values[name]) for name in names if name in values])
        keys.append(key)
        groups[key].append(number)
    baseline = [values.get(axis) == sweep.baseline for values in parameters]
    return [
        [n for n in groups[key] if baseline[n - 1] != is_baseline]
        for key, is_baseline in zip(keys, baseline, strict=True)
    ]


def _arguments_of_some_arms(parameters: list[dict[str, Any]], axis: str) -> set[str]:
    """The arguments below the axis (network.width below network, network.norm_args.eps below network.norm) that at
    least one arm does not have: the rule of `pairing.Arms`, on runs instead of tables.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for values in parameters:
        below = {name for name in values if name.startswith((f"{axis}.", f"{axis}_args."))}
        names[json.dumps(values.get(axis))] |= below
    every = list(names.values())
    return set().union(*every) - every[0].intersection(*every)
