"""Grids → runs, in the file's order, last key fastest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

MAX_RUNS = 200_000

ZIP = "zip"
"""The entry of a grid whose lists advance together: `zip: {lr: [.1, .01], batch_size: [64, 1000]}` is two points."""


def points(grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every point of a grid as {key: value}: `itertools.product` in the mapping's order.

    An entry called `zip` is one axis whose keys take their i-th values together.
    """
    axes = [_axis(key, values) for key, values in grid.items()]
    for combination in product(*axes):
        yield {key: value for part in combination for key, value in part.items()}


def excluding_rule(point: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> int | None:
    """The index of the first `exclude` rule that drops a point; None where none does.

    A rule matches when the point has, for each of its keys, its value or one of its listed values.
    """
    for index, rule in enumerate(rules):
        if all(
            key in point and (point[key] == wanted or (isinstance(wanted, list) and point[key] in wanted))
            for key, wanted in rule.items()
        ):
            return index
    return None


def expand(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every run of a resolved config as {parameter: value}, in order; nothing is checked again."""
    for grid in config.get("grids") or [config.get("grid") or {}]:
        for point in points(grid):
            if excluding_rule(point, config.get("exclude") or []) is None:
                yield {**config["fixed"], **point}


def count(grid: Mapping[str, Any]) -> int:
    """How many points a grid has, without making them."""
    return math.prod(_length(key, values) for key, values in grid.items())


def flat(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of a grid by run parameter, those of its zip too."""
    return {**{key: values for key, values in grid.items() if key != ZIP}, **grid.get(ZIP, {})}


def keys(grid: Mapping[str, Any]) -> list[str]:
    """The run parameters a grid sets, in order."""
    return [name for key, values in grid.items() for name in (values if key == ZIP else [key])]


def varying(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The parameters in which runs differ: a grid's list may have one value."""
    return [name for name in names if len({repr(run.get(name)) for run in runs}) > 1]


def label(runs: Sequence[Mapping[str, Any]], names: Sequence[str], *, short: bool = False) -> str:
    """What these parameters are: 'network.norm=batch seed=3'; of several runs together, 'network.norm=batch seed=0…19'.

    Short, for a terminal's line: 'batch seed=3'.
    """
    parts = []
    for name in names:
        values = list(dict.fromkeys(_written(run[name]) for run in runs if name in run))
        if values:
            text = values[0] + (f"…{values[-1]}" if len(values) > 1 else "")
            worded = short and any(isinstance(run.get(name), str) for run in runs)  # a number needs its name
            parts.append(text if worded else f"{name.rpartition('.')[2] if short else name}={text}")
    return " ".join(parts)


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)  # as the config has it


def _axis(key: str, values: Any) -> list[dict[str, Any]]:
    if key == ZIP:
        return [dict(zip(values, together, strict=True)) for together in zip(*values.values(), strict=True)]
    return [{key: value} for value in values]


def _length(key: str, values: Any) -> int:
    return len(next(iter(values.values()), ())) if key == ZIP else len(values)


def range_values(bounds: Any) -> list[int] | None:
    """The values of `{range: n}` or `{range: [start, stop]}`; None where the bounds are wrong."""
    numbers = bounds if isinstance(bounds, list) else [0, bounds]
    if len(numbers) != 2 or not all(type(number) is int for number in numbers):
        return None
    start, stop = numbers
    return list(range(start, stop)) if 0 < stop - start <= MAX_RUNS else None


def logspace_values(bounds: Any) -> list[float] | None:
    """`{logspace: [first, last, n]}` → n values of constant ratio; None where the bounds are wrong.

    They are rounded to 12 digits, so that a decade is 0.01 and not 0.01…02.
    """
    if not isinstance(bounds, list) or len(bounds) != 3 or type(bounds[2]) is not int:
        return None
    first, last, n = bounds
    if not all(type(x) in (int, float) and 0 < x < 1e300 for x in (first, last)) or not 2 <= n <= MAX_RUNS:
        return None
    return [float(f"{first * (last / first) ** (index / (n - 1)):.12g}") for index in range(n)]
