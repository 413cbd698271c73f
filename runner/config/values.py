"""The entries of `fixed:` and `grid:` as lists of checked values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from runner import registry
from runner.config.faults import Faults, lower_first, short
from runner.config.grid import MAX_RUNS, ZIP, logspace_values, range_values
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import Config
from runner.config.yaml_source import Path
from runner.errors import unknown

Grid = dict[str, Any]


def fixed_values(values: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """The entries of `fixed:` that a run can have."""
    return {key: value for key, value in values.items() if check_value(key, value, ("fixed", key), faults)}


def grids_of(config: Config, faults: Faults) -> Iterator[tuple[Grid, Path]]:
    """Each grid with its path: helpers expanded, faulty entries left out."""
    listed: list[tuple[Grid, Path]] = [(config.grid or {}, ("grid",))]
    if config.grids is not None:
        listed = [(grid, ("grids", index)) for index, grid in enumerate(config.grids)]
        if not listed:
            faults.add("an empty list of grids has no runs", ("grids",))
    for grid, path in listed:
        expanded: Grid = {}
        for key, entry in grid.items():
            if key == ZIP:
                expanded[key] = _zip(entry, (*path, key), faults)
            else:
                expanded[key] = _values(key, entry, (*path, key), faults)
        yield {key: values for key, values in expanded.items() if values}, path


def _zip(entry: Any, path: Path, faults: Faults) -> dict[str, list[Any]]:
    before = len(faults.found)
    if not isinstance(entry, dict) or not entry:
        faults.add(f"zip: a mapping of lists of equal length, got {short(entry)}", path)
        return {}
    lists = {key: _values(key, values, (*path, key), faults, distinct=False) for key, values in entry.items()}
    if len(faults.found) == before and len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
        faults.add(f"zip: the lists must be equally long; {lengths}", path, key=True)
        return {}
    return lists if len(faults.found) == before else {}


def _values(key: str, entry: Any, path: Path, faults: Faults, *, distinct: bool = True) -> list[Any]:
    """The valid values of a grid's entry. In a zip a value may come twice."""
    if key not in PARAMETERS and not key.startswith("network."):
        check_value(key, None, path, faults)  # one fault for all of its values
        return []
    if isinstance(entry, dict):
        values = _helper(entry, path, faults)
        return values if all(check_value(key, value, path, faults) for value in values) else []
    if not isinstance(entry, list):
        expected = "expected a list, or {range: …} or {logspace: …}"
        faults.add(f"grid key '{key}': {expected}; got {short(entry)}", path)
        return []
    if not entry:
        faults.add(f"grid key '{key}': an empty list has no runs", path)
    seen: dict[str, int] = {}
    for index, value in enumerate(entry):
        if seen.setdefault(json.dumps(value), index) != index and distinct:
            faults.add(f"grid key '{key}': {value!r} is listed twice", (*path, index))
    return [value for index, value in enumerate(entry) if check_value(key, value, (*path, index), faults)]


def _helper(entry: Mapping[str, Any], path: Path, faults: Faults) -> list[Any]:
    values: Sequence[Any] | None = None
    if list(entry) == ["range"]:
        values = range_values(entry["range"])
    elif list(entry) == ["logspace"]:
        values = logspace_values(entry["logspace"])
    if values is not None:
        return list(values)
    rule = f"{{range: n}}, {{range: [start, stop]}} or {{logspace: [first, last, n]}} with 1 to {MAX_RUNS:,} values"
    faults.add(f"expected {rule}; got {short(dict(entry))}", path)
    return []


def check_value(key: str, value: Any, path: Path, faults: Faults) -> bool:
    """Whether `key: value` can be a run's parameter. Arguments of a network are checked later, with their network."""
    faults.remember(key, value, path)
    if key.startswith("network."):
        if key == "network.norm_args" or isinstance(value, dict):
            faults.add(f"{key}: set its arguments one by one, such as 'network.norm_args.eps: 1e-3'", path)
            return False
        return True
    if key not in PARAMETERS:
        names = [*PARAMETERS, "network.<argument>"]
        hint = f"; '{key}' is a key of the top level" if key in Config.model_fields else ""
        place_of = path[:-1] if isinstance(path[-1], int) else path
        faults.add(unknown("run parameter", key, names) + hint, place_of, key=True)
        return False
    try:
        _adapter(key).validate_python(value)
    except ValidationError as error:
        problem, choices = error.errors()[0], get_args(RunSpec.model_fields[key].annotation)
        if problem["type"] == "literal_error":
            faults.add(unknown(key, value, choices), path)
        else:
            faults.add(f"{key}: {lower_first(problem['msg'])}, got {short(value)}", path)
        return False
    names_of = {"network": registry.network, "dataset": registry.dataset}
    if key in names_of and value not in names_of[key]:
        faults.add(unknown(names_of[key].kind, value, list(names_of[key])), path)
        return False
    return True


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    info = RunSpec.model_fields[key]
    annotated: Any = Annotated[info.annotation, info]
    return TypeAdapter(annotated, config=ConfigDict(strict=True))
