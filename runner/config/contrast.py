"""Which runs of a sweep are pairs: the rule for plans and for tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from runner.config.sweep import Sweep


def own_arguments(names: Iterable[str], axis: str) -> list[str]:
    """The arguments of the axis: `network.width` of `network`, `network.norm_args.eps` of `network.norm`."""
    return [name for name in names if name.startswith((f"{axis}.", f"{axis}_args."))]


def must_agree(names: Iterable[str], axis: str, arm: Collection[str], baseline: Collection[str]) -> list[str]:
    """The parameters of `names` in which an arm's run and a baseline's run must agree to be a pair.

    These are all but the axis, and but arguments of the axis that one of the two does not have. `arm` and `baseline`
    are the parameters that the two have.

    >>> must_agree(["lr", "network.norm", "network.norm_args.eps"], "network.norm", {"network.norm_args.eps"}, ())
    ['lr']
    """
    names = list(names)
    free = {name for name in own_arguments(names, axis) if name not in arm or name not in baseline}
    return [name for name in names if name != axis and name not in free]


def pairs(sweep: Sweep) -> list[list[int]]:
    """For each run of a sweep, the numbers of the runs that it is paired with."""
    partners: list[list[int]] = [[] for _ in sweep.runs]
    if (axis := sweep.axis) is None:
        return partners
    parameters = [run.parameters for run in sweep.runs]
    arms: dict[str, list[int]] = defaultdict(list)
    has: dict[str, set[str]] = defaultdict(set)
    for index, values in enumerate(parameters):
        arms[json.dumps(values.get(axis))].append(index)
        has[json.dumps(values.get(axis))] |= values.keys()
    baseline = next(arm for arm, runs in arms.items() if parameters[runs[0]].get(axis) == sweep.baseline)
    for arm in arms.keys() - {baseline}:
        names = must_agree(sorted(sweep.grid_keys), axis, has[arm], has[baseline])  # All others are fixed.
        of_baseline: dict[str, list[int]] = defaultdict(list)
        for index in arms[baseline]:
            of_baseline[_key(parameters[index], names)].append(index)
        for index in arms[arm]:
            for other in of_baseline[_key(parameters[index], names)]:
                partners[index].append(other + 1)
                partners[other].append(index + 1)
    return [sorted(numbers) for numbers in partners]


def _key(parameters: Mapping[str, Any], names: Iterable[str]) -> str:
    return json.dumps([(name, parameters[name]) for name in names if name in parameters])
