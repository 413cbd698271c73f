"""Which runs are pairs. Plans and comparisons use the same rule."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from runner.config.sweep import Sweep


def own_arguments(names: Iterable[str], axis: str) -> list[str]:
    """The arguments of the axis: `network.width` of `network`, `network.norm_args.eps` of `network.norm`."""
    return [name for name in names if name.startswith((f"{axis}.", f"{axis}_args."))]


def must_agree(names: Iterable[str], axis: str, arm: Collection[str], baseline: Collection[str]) -> list[str]:
    """The parameters of `names` in which an arm's run and a baseline's run must agree to be a pair.

    These are all but the axis, and but those arguments of the axis that one of the two does not have.

    arm, baseline: the parameters that the runs of the arm and of the baseline have.

    >>> must_agree(["lr", "network.norm", "network.norm_args.eps"], "network.norm", {"network.norm_args.eps"}, ())
    ['lr']
    """
    names = list(names)
    free = {axis, *(name for name in own_arguments(names, axis) if name not in arm or name not in baseline)}
    return [name for name in names if name not in free]


def pairs(sweep: Sweep) -> list[list[list[int]]]:
    """For each run of a sweep, the numbers (from 1) of the runs that it is paired with: a sorted list for each arm.

    Runs with the same partners share their lists, because there can be many more pairs than runs.
    """
    partners: list[list[list[int]]] = [[] for _ in sweep.runs]
    if sweep.axis is None:
        return partners
    # All parameters that are not in a grid have one value.
    keys = sorted(sweep.grid_keys)
    runs = [{key: values[key] for key in keys if key in values} for values in (run.parameters for run in sweep.runs)]
    arms: dict[str, list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        arms[repr(run.get(sweep.axis))].append(index)
    has = {arm: {name for index in arms[arm] for name in runs[index]} for arm in arms}
    baseline = next(arm for arm in arms if runs[arms[arm][0]].get(sweep.axis) == sweep.baseline)
    cells: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for arm in arms.keys() - {baseline}:
        names = tuple(must_agree(keys, sweep.axis, has[arm], has[baseline]))
        if names not in cells:
            cells[names] = _groups(runs, arms[baseline], names)
        for key, members in _groups(runs, arms[arm], names).items():
            others = cells[names].get(key, [])
            for these, those in ((members, others), (others, members)):
                numbers = [index + 1 for index in those]
                for index in these if numbers else ():
                    partners[index].append(numbers)
    return partners


def _groups(runs: Sequence[Mapping[str, Any]], indices: Iterable[int], names: Iterable[str]) -> dict[str, list[int]]:
    """The runs with these indices, grouped by their values of `names`."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        run = runs[index]
        groups[repr([(name, run[name]) for name in names if name in run])].append(index)
    return groups
