"""The entries of `fixed:` and `grid:` as lists of checked values."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from runner import factories, registry
from runner.config import grid as grids
from runner.config.faults import Faults
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import Config
from runner.config.yaml_mistakes import without_colon
from runner.config.yaml_source import Path
from runner.errors import cut, short, unknown


def fixed_of(config: Config, faults: Faults) -> dict[str, Any]:
    """The valid entries of `fixed:`."""
    return {key: value for key, value in config.fixed.items() if check_value(key, value, ("fixed", key), faults)}


def grids_of(config: Config, faults: Faults) -> Iterator[tuple[grids.Grid, Path]]:
    """Each grid with its path. Helpers are expanded, and faulty entries are left out."""
    if config.grids == []:
        faults.add("an empty list of grids has no runs", ("grids",))
    for grid, path in config.listed:
        expanded: dict[str, Any] = {}
        for key, entry in grid.items():
            expand = _zip if key == grids.ZIP else _values
            expanded[key] = expand(key, entry, (*path, key), faults)
        yield {key: values for key, values in expanded.items() if values}, path


def _zip(key: str, entry: Any, path: Path, faults: Faults) -> dict[str, list[Any]]:
    """The lists of a zip; none where there is a fault."""
    if not isinstance(entry, dict) or not entry:
        faults.add(f"{key}: expected a mapping of equally long lists, got {short(entry)}", path)
        return {}
    before = len(faults.found)
    lists = {name: _values(name, values, (*path, name), faults) for name, values in entry.items()}
    if len(faults.found) == before and len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{name} has {len(values)}" for name, values in lists.items())
        faults.add(f"{key}: the lists must be equally long; {lengths}", path, key=True)
    return lists if len(faults.found) == before else {}


def _values(key: str, entry: Any, path: Path, faults: Faults) -> list[Any]:
    """The valid values of a grid's entry. In a zip, a value may be listed twice."""
    if key not in PARAMETERS and not key.startswith("network."):
        # One fault for all of the key's values.
        check_value(key, None, path, faults)
        return []
    if key == "network" and (fault := nested_arguments(entry)):
        faults.add(fault, path)
        return []
    if isinstance(entry, dict):
        return _helper(key, entry, path, faults)
    if not isinstance(entry, list):
        faults.add(f"{key}: expected a list, {{range: …}} or {{logspace: …}}; got {short(entry)}", path)
        return []
    if not entry:
        faults.add(f"{key}: an empty list has no runs", path)
    first: dict[str, int] = {}
    for index, value in enumerate(entry):
        if first.setdefault(json.dumps(value), index) != index and grids.ZIP not in path:
            faults.add(f"{key}: {short(value)} is listed twice", (*path, index))
    return [value for index, value in enumerate(entry) if check_value(key, value, (*path, index), faults)]


def _helper(key: str, entry: dict[str, Any], path: Path, faults: Faults) -> list[Any]:
    """The values that a helper makes; none where there is a fault."""
    values = grids.values_of(entry) or []
    if not values:
        rule = "{range: n}, {range: [start, stop]} or {logspace: [first, last, n]}"
        wrong = f"expected {rule} with 1 to {grids.MAX_RUNS:,} values; got {short(entry)}"
        faults.add(_exponents(entry) or wrong, path)
    # The values rise or fall, and the limits of a parameter are a range: if both ends are valid, all values are.
    ends = list({json.dumps(value): value for value in (values[0], values[-1])}.values()) if values else []
    valid = all(check_value(key, value, path, faults) for value in ends)
    faults.remember(key, values, path)
    return values if valid else []


def _exponents(entry: dict[str, Any]) -> str | None:
    """How to write a logspace that has exponents in place of values, as numpy's has; None where it has none."""
    bounds = entry.get("logspace")
    if not isinstance(bounds, list) or len(bounds) != 3 or not all(type(bound) is int for bound in bounds):
        return None
    first, last, n = bounds
    if min(first, last) > 0 or not -30 <= min(first, last) <= max(first, last) <= 30:
        return None
    values = f"{{logspace: [{10.0**first:g}, {10.0**last:g}, {n}]}}"
    return f"logspace takes the first and the last value, not their exponents; write {values}"


def nested_arguments(value: Any) -> str | None:
    """How to write arguments that stand in a mapping below `network:`; None where there is no such mapping."""
    if not isinstance(value, dict) or not value or set(value) & {"range", "logspace"}:
        return None
    names = []
    for key, inner in value.items():
        while isinstance(inner, dict) and len(inner) == 1 and not grids.size(inner):
            ((last, inner),) = inner.items()
            key = f"{key}.{last}"
        names.append(f"'network.{key}'")
    return f"network: expected a name, got a mapping; write each argument as a key beside it: {cut(', '.join(names))}"


def for_the_grid(key: str, value: Any, faults: Faults) -> str:
    """What a fault adds where `fixed:` has several values for a run parameter that takes one."""
    several = isinstance(value, list) or grids.size(value) is not None
    return "; several values go under 'grid:'" if several and faults.source.at(("fixed", key)) == value else ""


def check_value(key: str, value: Any, path: Path, faults: Faults) -> bool:
    """Whether `key: value` can be a run's parameter. A network's arguments are checked later, with the network."""
    faults.remember(key, [value], path)
    before = len(faults.found)
    if key.startswith("network."):
        if key == "network.norm_args" or isinstance(value, dict):
            rule = f"{key}: set its arguments one by one, such as 'network.norm_args.eps: 1e-3'"
            faults.add(rule + for_the_grid(key, value, faults), path)
    elif key not in PARAMETERS:
        path = path[:-1] if isinstance(path[-1], int) else path
        faults.add(unknown_parameter(key), path, key=True)
    elif key == "network" and (fault := nested_arguments(value)):
        faults.add(fault, path)
    else:
        _check_parameter(key, value, path, faults)
    return len(faults.found) == before


def unknown_parameter(key: str) -> str:
    """The message for a key of `fixed:` or a grid that is no run parameter."""
    if key in Config.model_fields:
        return f"unknown run parameter '{key}'; '{key}' is a key of the top level"
    if re.split("[: ]", key)[0] in PARAMETERS and (hint := without_colon(key)):
        return f"unknown run parameter '{cut(key)}'; {hint}"
    return unknown("run parameter", key, [*PARAMETERS, "network.norm", "network.<argument>"])


def _check_parameter(key: str, value: Any, path: Path, faults: Faults) -> None:
    try:
        _adapter(key).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        faults.add(_refusal(key, problem) + for_the_grid(key, value, faults), (*path, *problem["loc"]))
        return
    names = {"network": registry.network, "dataset": registry.dataset, "swap_norm": registry.norm}.get(key)
    if names is not None and faults.registered and value not in names and (key, value) != ("swap_norm", "keep"):
        faults.add(unknown(names.kind, value, ["keep", *names] if key == "swap_norm" else list(names)), path)


def _refusal(key: str, problem: ErrorDetails) -> str:
    """The message for a value that is wrong, or a value in a list that is."""
    if problem["type"] == "literal_error":
        return unknown(key, problem["input"], re.findall("'(.*?)'", problem["ctx"]["expected"]))
    if problem["type"] == "string_pattern_mismatch":
        return (
            f"{key}: allowed: {str(RunSpec.model_fields[key].description).rstrip('.')}; got {short(problem['input'])}"
        )
    return f"{key}: {factories.refusal(problem)}"


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    info = RunSpec.model_fields[key]
    annotated: Any = Annotated[info.annotation, info]
    return TypeAdapter(annotated, config=ConfigDict(strict=True))
