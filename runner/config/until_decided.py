"""`until_decided`: the seeds of a sweep that grows until its verdict is decided, and its config with other seeds."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from runner.config import grid as grids
from runner.config.contrast import own_arguments
from runner.config.faults import Faults
from runner.config.run_spec import RunSpec
from runner.config.sweep import Config, UntilDecided


def checked(config: Config, runs: Sequence[RunSpec], faults: Faults) -> UntilDecided | None:
    """The config's `until_decided` with its first seeds; None where it has none.

    Its sweep must be one cell with two arms, and have a smallest effect.
    """
    found = config.until_decided
    if found is None or faults.found:
        return None
    if fault := _fault(config, runs):
        faults.add(f"until_decided {fault}", ("until_decided",), key=True)
    # The seeds of both arms are the same.
    seeds = tuple(dict.fromkeys(run.seed for run in runs))
    return found if found.first_seeds else found.model_copy(update={"first_seeds": seeds})


def _fault(config: Config, runs: Sequence[RunSpec]) -> str | None:
    if config.contrast is None or config.contrast.smallest_effect is None:
        return "needs contrast.smallest_effect: the smallest difference in accuracy that matters"
    axis = config.contrast.axis
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        arms[json.dumps(run.parameters.get(axis))].append(run.parameters)
    if len(arms) != 2:
        return f"compares two arms; {axis} has {len(arms)}: {', '.join(arms)}"
    one, other = arms.values()
    own = own_arguments({**one[0], **other[0]}, axis)
    between = [name for name in grids.varying([one[0], other[0]], list({**one[0], **other[0]})) if name not in own]
    varying = dict.fromkeys([*grids.varying(one, list(one[0])), *grids.varying(other, list(other[0])), *between])
    if different := [name for name in varying if name not in ("seed", axis)]:
        return f"compares one cell, but these also vary: {', '.join(different)}"
    if [run["seed"] for run in one] != [run["seed"] for run in other]:
        return "needs the same seeds in both arms"
    if any("seed" in rule for rule in config.exclude):
        return "chooses the seeds itself: 'exclude' cannot name seed"
    return None


def order(plan: UntilDecided) -> list[int]:
    """All seeds that may be trained, in their order: the first ones, then the numbers after the largest of them.

    >>> order(UntilDecided(max_seeds=5, first_seeds=(7, 3, 4)))
    [7, 3, 4, 8, 9]
    """
    seeds = list(plan.first_seeds[: plan.max_seeds])
    last = max(plan.first_seeds)
    return [*seeds, *range(last + 1, last + 1 + plan.max_seeds - len(seeds))]


def with_seeds(resolved: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """A resolved config whose grids have these seeds, in place of their own.

    >>> with_seeds({"fixed": {"seed": 0, "lr": 0.1}, "grid": {"network": ["a", "b"]}}, [0, 1])
    {'fixed': {'lr': 0.1}, 'grid': {'network': ['a', 'b'], 'seed': [0, 1]}}
    """
    fixed = {name: value for name, value in resolved["fixed"].items() if name != "seed"}
    changed = {**resolved, "fixed": fixed}
    if "grids" in resolved:
        return {**changed, "grids": [_grid(grid, seeds) for grid in resolved["grids"]]}
    return {**changed, "grid": _grid(resolved["grid"], seeds)}


def _grid(grid: grids.Grid, seeds: Sequence[int]) -> dict[str, Any]:
    others = dict(grid)
    if together := {key: values for key, values in others.pop(grids.ZIP, {}).items() if key != "seed"}:
        others[grids.ZIP] = together
    # A key that is there already keeps its place in the order of the runs.
    return {**others, "seed": list(seeds)}
