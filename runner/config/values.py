"""The entries of `fixed:` and `grid:` as lists of checked values."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from runner import registry
from runner.config import grid as grids
from runner.config.faults import Faults, refusal, short
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import Config
from runner.config.yaml_source import Path
from runner.errors import unknown


def grids_of(config: Config, faults: Faults) -> Iterator[tuple[grids.Grid, Path]]:
    """Each grid with its path. Helpers are expanded, and faulty entries are left out."""
    entries: list[tuple[grids.Grid, Path]] = [(config.grid or {}, ("grid",))]
    if config.grids is not None:
        entries = [(grid, ("grids", index)) for index, grid in enumerate(config.grids)]
        if not entries:
            faults.add("an empty list of grids has no runs", ("grids",))
    for grid, path in entries:
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
    if isinstance(entry, dict):
        values = _helper(entry, path, faults)
        return values if all(check_value(key, value, path, faults) for value in values) else []
    if not isinstance(entry, list):
        faults.add(f"{key}: expected a list, {{range: …}} or {{logspace: …}}; got {short(entry)}", path)
        return []
    if not entry:
        faults.add(f"{key}: an empty list has no runs", path)
    first: dict[str, int] = {}
    for index, value in enumerate(entry):
        if first.setdefault(json.dumps(value), index) != index and grids.ZIP not in path:
            faults.add(f"{key}: {value!r} is listed twice", (*path, index))
    return [value for index, value in enumerate(entry) if check_value(key, value, (*path, index), faults)]


def _helper(entry: Mapping[str, Any], path: Path, faults: Faults) -> list[Any]:
    values = grids.helper_values(entry)
    if values is None:
        rule = "{range: n}, {range: [start, stop]} or {logspace: [first, last, n]}"
        faults.add(f"expected {rule} with 1 to {grids.MAX_RUNS:,} values; got {short(dict(entry))}", path)
    return values or []


def check_value(key: str, value: Any, path: Path, faults: Faults) -> bool:
    """Whether `key: value` can be a run's parameter. A network's arguments are checked later, with the network."""
    faults.remember(key, value, path)
    before = len(faults.found)
    if key.startswith("network."):
        if key == "network.norm_args" or isinstance(value, dict):
            faults.add(f"{key}: set its arguments one by one, such as 'network.norm_args.eps: 1e-3'", path)
    elif key not in PARAMETERS:
        hint = f"; '{key}' is a key of the top level" if key in Config.model_fields else ""
        path = path[:-1] if isinstance(path[-1], int) else path
        faults.add(unknown("run parameter", key, [*PARAMETERS, "network.<argument>"]) + hint, path, key=True)
    else:
        _check_parameter(key, value, path, faults)
    return len(faults.found) == before


def _check_parameter(key: str, value: Any, path: Path, faults: Faults) -> None:
    try:
        _adapter(key).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        choices = get_args(RunSpec.model_fields[key].annotation)
        is_choice = problem["type"] == "literal_error"
        faults.add(unknown(key, value, choices) if is_choice else refusal(key, problem), path)
        return
    names = {"network": registry.network, "dataset": registry.dataset}.get(key)
    if names is not None and value not in names:
        faults.add(unknown(names.kind, value, list(names)), path)


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    info = RunSpec.model_fields[key]
    annotated: Any = Annotated[info.annotation, info]
    return TypeAdapter(annotated, config=ConfigDict(strict=True))
