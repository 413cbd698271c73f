"""Shards: parts of a sweep that are trained apart, each as a sweep of its own, and merged afterwards.

How the runs are shared out depends only on the resolved config. So every shard knows its runs, whatever the others do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner.config import grid as grids
from runner.config.contrast import pairs
from runner.config.jobs import expected_stacks, stack_key
from runner.config.run_spec import RunSpec
from runner.config.sweep import Shard, Sweep
from runner.errors import UserError


def name_of(sweep: str, shard: Shard) -> str:
    """The name of a shard, which is also that of its folder.

    >>> name_of("tutorial", Shard(number=3, of=16))
    'tutorial.shard-3-of-16'
    """
    return f"{sweep}.shard-{shard.number}-of-{shard.of}"


def narrowed(sweep: Sweep, shard: Shard) -> Sweep:
    """The part of a sweep that a shard trains. Its config is still that of the whole sweep.

    Errors: UserError where the sweep cannot be shared out like this.
    """
    if sweep.until_decided:
        raise UserError(f"{sweep.name}: seeds are added to it until its verdict is decided, so it has no shards")
    positions = shares(sweep.resolved, shard)[shard.number - 1]
    place = {position: index for index, position in enumerate(positions)}
    stacks = [stack for stack in _stacks(list(sweep.runs), shard) if stack[0] in place]
    return replace(
        sweep,
        name=name_of(sweep.name, shard),
        runs=tuple(sweep.runs[position] for position in positions),
        shard=shard,
        stacks=tuple(tuple(place[position] for position in stack) for stack in stacks),
    )


def narrowed_config(config: Mapping[str, Any], shard: Shard) -> dict[str, Any]:
    """A resolved config with the name and the runs of a shard only: each is a grid of its own."""
    points = list(_points(config))
    positions = shares(config, shard)[shard.number - 1]
    own = [{key: [value] for key, value in points[position].items()} for position in positions]
    kept = {key: value for key, value in config.items() if key not in ("grid", "exclude")}
    return {**kept, "name": name_of(config["name"], shard), "grids": own}


def shares(config: Mapping[str, Any], shard: Shard) -> list[list[int]]:
    """The runs of each shard, as positions in the whole sweep, from 0. Of `shard`, the number is not used.

    config: the resolved config of the whole sweep.

    Runs that are a pair, or that train as one stack of a fixed size, are in one shard. All shards get as many runs of
    each kind as possible, where runs of a kind take equally long, and as many epochs.
    Errors: UserError where there are more shards than parts that can be trained apart.

    >>> config = {"fixed": {"network": "lenet", "epochs": 2}, "contrast": {"axis": "lr", "baseline": 0.1}}
    >>> config["grid"] = {"lr": [0.1, 0.2], "seed": [0, 1, 2]}
    >>> shares(config, Shard(number=1, of=2))
    [[0, 2, 3, 5], [1, 4]]
    """
    runs = _runs(config)
    contrast = config.get("contrast") or {}
    keys = tuple(dict.fromkeys(key for grid in _grids(config) for key in grids.keys(grid)))
    sweep = Sweep("", tuple(runs), keys, contrast.get("axis"), contrast.get("baseline"))
    partners = [[position, *(arm[0] - 1 for arm in arms)] for position, arms in enumerate(pairs(sweep))]
    parts = _joined(len(runs), [*partners, *_stacks(runs, shard)])
    if len(parts) < shard.of:
        kept = "pairs and stacks" if shard.stack else "pairs"
        raise UserError(
            f"{shard.of} shards are too many: {kept} stay together, so there are {len(parts)} parts to share out; "
            f"allowed: at most {len(parts)}"
        )
    return list(map(sorted, _dealt(parts, runs, shard.of)))


def order_of_jobs(config: Mapping[str, Any], shard: Shard) -> list[int]:
    """The runs of the whole sweep, as positions, in the order in which one sweep lists its jobs."""
    runs = _runs(config)
    return [position for stack in _stacks(runs, shard) for position in stack] or list(range(len(runs)))


def _runs(config: Mapping[str, Any]) -> list[RunSpec]:
    return [_unchecked({**config["fixed"], **point}) for point in _points(config)]


def _grids(config: Mapping[str, Any]) -> Sequence[grids.Grid]:
    return config.get("grids") or [config.get("grid") or {}]


def _points(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the grids of a resolved config say of each run."""
    exclusions = grids.Exclusions(config.get("exclude") or [])
    for grid in _grids(config):
        yield from (point for point in grids.points(grid) if exclusions.first(point) is None)


def _unchecked(values: Mapping[str, Any]) -> RunSpec:
    """A run whose parameters are only compared: its network may be one of a plugin that is not here."""
    fields = {name: value for name, value in values.items() if not name.startswith("network.")}
    return RunSpec.model_construct(network_args=grids.network_arguments(values), **fields)


def _stacks(runs: Sequence[RunSpec], shard: Shard) -> list[list[int]]:
    """The stacks of the whole sweep, as positions, where their size is fixed."""
    if shard.stack is None:
        return []
    position = {id(run): index for index, run in enumerate(runs)}
    return [[position[id(run)] for run in stack] for stack in expected_stacks(runs, shard.stack, workers=1)]


def _joined(count: int, groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """The numbers below `count` in as many parts as possible that cut none of the groups.

    >>> _joined(5, [[0, 2], [2, 4]])
    [[0, 2, 4], [1], [3]]
    """
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for first, *others in groups:
        for other in others:
            one, another = sorted((root(first), root(other)))
            parent[another] = one
    parts: dict[int, list[int]] = defaultdict(list)
    for number in range(count):
        parts[root(number)].append(number)
    return list(parts.values())


def _dealt(parts: Sequence[Sequence[int]], runs: Sequence[RunSpec], of: int) -> list[list[int]]:
    """The runs of each shard, as positions."""
    keys = list(map(stack_key, runs))
    kinds = [tuple(sorted(keys[position] for position in part)) for part in parts]
    work = [sum(runs[position].epochs for position in part) for part in parts]
    shards: list[list[int]] = [[] for _ in range(of)]
    epochs = [0] * of
    dealt: Counter[tuple[int, tuple[str, ...]]] = Counter()
    # The largest parts come first, so that the small ones can even out what is left.
    for index in sorted(range(len(parts)), key=lambda index: (-work[index], kinds[index], index)):
        least = min(range(of), key=lambda shard: (dealt[shard, kinds[index]], epochs[shard], shard))
        shards[least] += parts[index]
        epochs[least] += work[index]
        dealt[least, kinds[index]] += 1
    return shards
