"""What a sweep will do, said before it does it: every run, its arm, and the runs it is paired with."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from runner.sweep import Sweep


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
    for number, values in enumerate(parameters, start=1):
        key = json.dumps(
            [(name, value) for name, value in sorted(values.items()) if name != axis and name not in partial]
        )
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


def describe(sweep: Sweep) -> Iterator[str]:
    """The plan as lines of text."""
    epochs = sum(run.epochs for run in sweep.runs)
    contrast = f", comparing {sweep.axis} with {sweep.baseline}" if sweep.axis else ""
    yield f"{sweep.name}: {len(sweep.runs)} runs, {epochs} epochs{contrast}"
    for number, (run, partners) in enumerate(zip(sweep.runs, pairs(sweep), strict=True), start=1):
        values = run.parameters
        grid = "  ".join(f"{key}={values[key]}" for key in sweep.grid_keys if key in values)
        arm = f"  arm {values.get(sweep.axis)}" if sweep.axis else ""
        paired = f"  paired with {', '.join(f'run {other}' for other in partners)}" if partners else ""
        alone = "  unpaired" if sweep.axis and not partners else ""
        yield f"run {number}  {grid}{arm}{paired}{alone}"
