"""Grids → runs, in the order of the file; the last key varies fastest."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from runner.errors import printable

MAX_RUNS = 200_000

MAX_VALUES = 10 * MAX_RUNS
"""The most values of grid keys that the runs of a sweep have together."""

COUNTLESS = 10**15
"""Where counting ends."""

ZIP = "zip"
"""The entry of a grid whose lists advance together."""

Grid = Mapping[str, Any]
"""For each run parameter its values: a list, or a helper. Under `zip`, a mapping of such entries."""

Point = Mapping[str, Any]
"""For each run parameter a value."""


def points(grid: Grid) -> Iterator[dict[str, Any]]:
    """Every point of a grid as {key: value}, in the order of `itertools.product` over the grid's entries.

    The entry `zip` is a single axis: its keys take their i-th values together.

    >>> for point in points({"zip": {"lr": [0.1, 0.01], "batch_size": [64, 1000]}, "seed": {"range": 2}}):
    ...     print(point)
    {'lr': 0.1, 'batch_size': 64, 'seed': 0}
    {'lr': 0.1, 'batch_size': 64, 'seed': 1}
    {'lr': 0.01, 'batch_size': 1000, 'seed': 0}
    {'lr': 0.01, 'batch_size': 1000, 'seed': 1}
    """
    for combination in product(*_axes(grid)):
        yield {key: value for part in combination for key, value in part.items()}


def _axes(grid: Grid) -> Iterator[list[dict[str, Any]]]:
    for key, entry in grid.items():
        entries = entry if key == ZIP else {key: entry}
        lists = {name: values_of(each) or [] for name, each in entries.items()}
        yield [dict(zip(lists, together, strict=True)) for together in zip(*lists.values(), strict=True)]


def excess(grids: Sequence[Grid]) -> str | None:
    """Why a sweep of these grids is too large; None where it is not. Neither points nor the values of helpers are made.

    An entry that is wrong counts as one value.

    >>> excess([{"seed": {"range": 1000}, "lr": {"logspace": [0.1, 1, 1000]}}])
    '1,000,000 runs; at most 200,000 in one sweep'
    """
    runs = [_count(grid) for grid in grids]
    for what, count, most in (
        ("runs", sum(runs), MAX_RUNS),
        ("values of grid keys", sum(map(_values_of_runs, grids, runs)), MAX_VALUES),
    ):
        if count > most:
            counted = f"{count:,}" if count < COUNTLESS else f"more than {COUNTLESS:,}"
            return f"{counted} {what}; at most {most:,} in one sweep"
    return None


def _count(grid: Grid) -> int:
    """The number of a grid's points, counted to `COUNTLESS`."""
    count = 1
    for key, entry in grid.items():
        entries = list(entry.values()) if key == ZIP and isinstance(entry, Mapping) else [entry]
        count = min(COUNTLESS, count * max((size(each) or 1 for each in entries), default=1))
    return count


def _values_of_runs(grid: Grid, runs: int) -> int:
    return runs * sum(len(entry) if key == ZIP and isinstance(entry, Mapping) else 1 for key, entry in grid.items())


class Exclusions:
    """The rules of `exclude:`.

    A rule matches a point that has, for each key of the rule, the rule's value or one of its listed values.

    >>> exclusions = Exclusions([{"lr": [0.1, 0.2], "seed": 1}, {"lr": 0.1}])
    >>> [exclusions.first({"lr": lr, "seed": 1}) for lr in (0.1, 0.2, 0.3)], exclusions.first({"lr": 0.1})
    ([0, 0, None], 1)
    """

    def __init__(self, rules: Sequence[Point]) -> None:
        # A set of rules is an integer with a bit for each rule. So a point needs one operation for each key, and not
        # one for each rule.
        self._all = (1 << len(rules)) - 1
        naming: dict[str, int] = defaultdict(int)
        self._accepting: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
        for index, rule in enumerate(rules):
            for key, wanted in rule.items():
                naming[key] |= 1 << index
                listed = wanted if isinstance(wanted, list) else []
                for value in map(_hashable, [wanted, *listed]):
                    self._accepting[key][value] |= 1 << index
        self._not_naming = {key: self._all & ~named for key, named in naming.items()}

    def first(self, point: Point) -> int | None:
        """The index of the first rule that matches a point; None where no rule does."""
        matching = self._all
        for key, not_naming in self._not_naming.items():
            accepting = self._accepting[key].get(_hashable(point[key]), 0) if key in point else 0
            matching &= accepting | not_naming
        return (matching & -matching).bit_length() - 1 if matching else None


def _hashable(value: Any) -> Any:
    """A value that can be a key of a dictionary, in place of a list or a mapping."""
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return (dict, repr(value)) if isinstance(value, dict) else value


def expand(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every run of a resolved config as {parameter: value}, in order. Nothing is checked again."""
    exclusions = Exclusions(config.get("exclude") or [])
    for grid in config.get("grids") or [config.get("grid") or {}]:
        for point in points(grid):
            if exclusions.first(point) is None:
                yield {**config["fixed"], **point}


def flat(grid: Grid) -> dict[str, Any]:
    """The entries of a grid by run parameter, including the entries of its zip."""
    return {**{key: values for key, values in grid.items() if key != ZIP}, **grid.get(ZIP, {})}


def network_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the network among these parameters, without the prefix `network.`."""
    names = [name for name in values if name.startswith("network.")]
    return {name.removeprefix("network."): values[name] for name in names}


def keys(grid: Grid) -> list[str]:
    """The run parameters that a grid sets, in order."""
    return [name for key, values in grid.items() for name in (values if key == ZIP else [key])]


def varying(runs: Collection[Point], names: Sequence[str]) -> list[str]:
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


def size(entry: Any) -> int | None:
    """The number of a grid entry's values: of a list, or of a helper. None where the entry is neither.

    >>> size([0.1, 0.2]), size({"range": [5, 100_000]}), size({"rnge": 3})
    (2, 99995, None)
    """
    if isinstance(entry, list):
        return len(entry)
    made = _helper(entry)
    return made and made[0]


def values_of(entry: Any) -> list[Any] | None:
    """The values of a grid's entry, those that a helper makes, too. None where the entry is neither list nor helper.

    >>> values_of({"range": 3}), values_of({"logspace": [0.01, 1, 3]})
    ([0, 1, 2], [0.01, 0.1, 1.0])
    """
    if isinstance(entry, list):
        return entry
    made = _helper(entry)
    return made and list(map(made[1], range(made[0])))


Made = tuple[int, Callable[[int], Any]]
"""What a helper makes: the number of values, and the function that makes a value from its index."""


def _helper(entry: Any) -> Made | None:
    """What the helper in a grid's entry makes; None where there is no helper, or where its bounds are wrong."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return None
    ((name, bounds),) = entry.items()
    return _range(bounds) if name == "range" else _logspace(bounds) if name == "logspace" else None


def _range(bounds: Any) -> Made | None:
    """`{range: n}` or `{range: [start, stop]}`."""
    numbers = bounds if isinstance(bounds, list) else [0, bounds]
    if len(numbers) != 2 or not all(type(number) is int for number in numbers):
        return None
    start, stop = numbers
    return (stop - start, lambda index: start + index) if 0 < stop - start <= MAX_RUNS else None


def _logspace(bounds: Any) -> Made | None:
    """`{logspace: [first, last, n]}`: n values of constant ratio.

    They are rounded to 12 digits, so that a decade is exactly 0.01.
    """
    if not isinstance(bounds, list) or len(bounds) != 3 or type(bounds[2]) is not int:
        return None
    first, last, n = bounds
    if not all(type(x) in (int, float) and 0 < x < 1e300 for x in (first, last)) or not 2 <= n <= MAX_RUNS:
        return None
    return n, lambda index: float(f"{first * (last / first) ** (index / (n - 1)):.12g}")


def without_helpers(grid: Any) -> Any:
    """A grid with lists in place of its helpers. What is no helper stays as it is.

    >>> without_helpers({"seed": {"range": 3}, "zip": {"lr": [0.1, 1.0], "epochs": {"range": [1, 3]}}})
    {'seed': [0, 1, 2], 'zip': {'lr': [0.1, 1.0], 'epochs': [1, 2]}}
    """
    if not isinstance(grid, dict):
        return grid
    return {key: without_helpers(entry) if key == ZIP else values_of(entry) or entry for key, entry in grid.items()}
