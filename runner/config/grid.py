"""Grids → runs, in the order of the file; the last key varies fastest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from runner.errors import printable

MAX_RUNS = 200_000

ZIP = "zip"
"""The entry of a grid whose lists advance together."""

Grid = Mapping[str, Any]
"""For each run parameter a list of its values; under `zip` a mapping of such lists."""

Point = Mapping[str, Any]
"""For each run parameter a value."""


def points(grid: Grid) -> Iterator[dict[str, Any]]:
    """Every point of a grid as {key: value}, in the order of `itertools.product` over the grid's entries.

    The entry `zip` is a single axis: its keys take their i-th values together.

    >>> for point in points({"zip": {"lr": [0.1, 0.01], "batch_size": [64, 1000]}, "seed": [0, 1]}):
    ...     print(point)
    {'lr': 0.1, 'batch_size': 64, 'seed': 0}
    {'lr': 0.1, 'batch_size': 64, 'seed': 1}
    {'lr': 0.01, 'batch_size': 1000, 'seed': 0}
    {'lr': 0.01, 'batch_size': 1000, 'seed': 1}
    """
    for combination in product(*_axes(grid)):
        yield {key: value for part in combination for key, value in part.items()}


def _axes(grid: Grid) -> Iterator[list[dict[str, Any]]]:
    for key, values in grid.items():
        lists = values if key == ZIP else {key: values}
        yield [dict(zip(lists, together, strict=True)) for together in zip(*lists.values(), strict=True)]


def count(grid: Grid) -> int:
    """The number of a grid's points. It does not make them."""
    return math.prod(map(len, _axes(grid)))


def excluding_rule(point: Point, rules: Sequence[Point]) -> int | None:
    """The index of the first rule of `exclude:` that drops a point; None where no rule does.

    A rule matches a point that has, for each key of the rule, the rule's value or one of its listed values.
    """
    for index, rule in enumerate(rules):
        if all(key in point and _matches(point[key], wanted) for key, wanted in rule.items()):
            return index
    return None


def _matches(value: Any, wanted: Any) -> bool:
    return value == wanted or (isinstance(wanted, list) and value in wanted)


def expand(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every run of a resolved config as {parameter: value}, in order. Nothing is checked again."""
    for grid in config.get("grids") or [config.get("grid") or {}]:
        for point in points(grid):
            if excluding_rule(point, config.get("exclude") or []) is None:
                yield {**config["fixed"], **point}


def flat(grid: Grid) -> dict[str, list[Any]]:
    """The lists of a grid by run parameter, including the lists of its zip."""
    return {**{key: values for key, values in grid.items() if key != ZIP}, **grid.get(ZIP, {})}


def network_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the network among these parameters, without the prefix `network.`."""
    names = [name for name in values if name.startswith("network.")]
    return {name.removeprefix("network."): values[name] for name in names}


def keys(grid: Grid) -> list[str]:
    """The run parameters that a grid sets, in order."""
    return [name for key, values in grid.items() for name in (values if key == ZIP else [key])]


def varying(runs: Sequence[Point], names: Sequence[str]) -> list[str]:
    """The parameters in which the runs differ. A list of a grid can have a single value."""
    return [name for name in names if len({repr(run.get(name)) for run in runs}) > 1]


def label(runs: Sequence[Point], names: Sequence[str], *, short: bool = False) -> str:
    """The values of these parameters as text, such as 'network.norm=batch seed=3', or 'seed=0…19' for several runs.

    short: leave out the names of text values and the 'network.' of the others, as in 'batch seed=3'.
    """
    parts = []
    for name in names:
        values = list(dict.fromkeys(_as_yaml(run[name]) for run in runs if name in run))
        if values:
            text = values[0] if len(values) == 1 else f"{values[0]}…{values[-1]}"
            title = name.rpartition(".")[2] if short else name
            is_text = any(isinstance(run.get(name), str) for run in runs)
            parts.append(text if short and is_text else f"{title}={text}")
    return " ".join(parts)


def _as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else printable(str(value), keep="")


def range_values(bounds: Any) -> list[int] | None:
    """The values of `{range: n}` or `{range: [start, stop]}`; None where the bounds are wrong."""
    numbers = bounds if isinstance(bounds, list) else [0, bounds]
    if len(numbers) != 2 or not all(type(number) is int for number in numbers):
        return None
    start, stop = numbers
    return list(range(start, stop)) if 0 < stop - start <= MAX_RUNS else None


def logspace_values(bounds: Any) -> list[float] | None:
    """The n values of constant ratio of `{logspace: [first, last, n]}`; None where the bounds are wrong.

    They are rounded to 12 digits, so that a decade is exactly 0.01.
    """
    if not isinstance(bounds, list) or len(bounds) != 3 or type(bounds[2]) is not int:
        return None
    first, last, n = bounds
    if not all(type(x) in (int, float) and 0 < x < 1e300 for x in (first, last)) or not 2 <= n <= MAX_RUNS:
        return None
    return [float(f"{first * (last / first) ** (index / (n - 1)):.12g}") for index in range(n)]


def helper_values(entry: Any) -> list[Any] | None:
    """The values of `{range: …}` or `{logspace: …}`; None where the entry is neither, or its bounds are wrong."""
    if isinstance(entry, dict) and list(entry) == ["range"]:
        return range_values(entry["range"])
    if isinstance(entry, dict) and list(entry) == ["logspace"]:
        return logspace_values(entry["logspace"])
    return None


def without_helpers(grids: Sequence[Any]) -> list[Any]:
    """Grids with lists in place of their helpers. What is no helper stays as it is.

    Errors: ValueError where the helpers have more values than any sweep.

    >>> without_helpers([{"seed": {"range": 3}, "zip": {"lr": [0.1, 1.0], "epochs": {"range": [1, 3]}}}])
    [{'seed': [0, 1, 2], 'zip': {'lr': [0.1, 1.0], 'epochs': [1, 2]}}]
    """
    left = 10 * MAX_RUNS

    def expanded(entry: Any) -> Any:
        nonlocal left
        values = helper_values(entry)
        left -= len(values or ())
        if left < 0:
            raise ValueError(f"more than {10 * MAX_RUNS:,} values")
        return entry if values is None else values

    def lists(grid: Any) -> Any:
        if not isinstance(grid, dict):
            return grid
        return {key: lists(entry) if key == ZIP else expanded(entry) for key, entry in grid.items()}

    return list(map(lists, grids))
