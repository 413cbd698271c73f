"""The checks of a config as a whole: texts, size, the arguments of networks, the contrast, the exclusions."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runner import factories, registry
from runner.config import grid as grids
from runner.config.faults import Faults
from runner.config.run_spec import PARAMETERS, SEEDS, SWAP, RunSpec
from runner.config.sweep import NAME_RULE, Config, Contrast, Resources, Shard, UntilDecided
from runner.config.values import for_the_grid
from runner.config.yaml_mistakes import without_colon
from runner.config.yaml_source import Path
from runner.errors import nearest, printable, short, unknown


def structure(faults: Faults, default_name: str) -> Config:
    """The top level of the config, without its faulty entries.

    Errors: UserError where it is not a mapping, where a text has a control character, or where there are too many runs.
    Nothing else can be checked then.
    """
    values = faults.source.values
    if not isinstance(values, dict):
        faults.add(f"a config is a mapping with the keys {', '.join(Config.model_fields)}", ())
        faults.raise_all()
    _check_texts(values, (), faults)
    faults.raise_all()
    if values.get("name") is None:
        values = {**values, "name": default_name}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            _structural(problem, faults)
        # The other entries are checked all the same.
        faulty = {problem["loc"][0] for problem in error.errors()}
        config = Config.model_validate({key: values[key] for key in values if key not in faulty})
    if config.extends is not None:
        faults.add("extends: only a config's file can extend another one", ("extends",))
    if config.grid is not None and config.grids is not None:
        faults.add("'grid' and 'grids' are both set; use one (--set: grids.0.seed=…)", ("grids",), key=True)
    if excess := grids.excess([grid for grid, _ in config.listed]):
        faults.add(excess, config.listed[0][1])
        faults.raise_all()
    return config


def _check_texts(value: Any, path: Path, faults: Faults) -> None:
    """Check that config.yaml, a cell of a table and a terminal can hold the config's texts: no text has a control
    character, such as a line break.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_text(key, (*path, key), faults, key=True)
            _check_texts(inner, (*path, key), faults)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_texts(inner, (*path, index), faults)
    else:
        _check_text(value, path, faults)


def _check_text(text: Any, path: Path, faults: Faults, *, key: bool = False) -> None:
    if isinstance(text, str) and printable(text, keep="") != text:
        faults.add(f"{short(text)} has a control character or a surrogate; remove it", path, key=key)


_PARTS: dict[Any, type[BaseModel]] = {
    "contrast": Contrast,
    "resources": Resources,
    "until_decided": UntilDecided,
    "shard": Shard,
}
"""The entries of the top level that have keys of their own."""


def _structural(problem: ErrorDetails, faults: Faults) -> None:
    path, value = problem["loc"], problem["input"]
    if problem["type"] == "extra_forbidden":
        faults.add(_unknown_key(path), path, key=True)
    elif problem["type"] == "missing":
        if not any(nearest(key, [str(path[-1])]) for key in value):
            # A misspelt key is a fault of its own.
            faults.add(f"{'.'.join(map(str, path))}: {factories.refusal(problem)}", path)
    elif path[0] == "name":
        fault = f"name: must be {NAME_RULE}; got {value!r}"
        if not faults.source.values.get("name"):
            fault += ", which is the file's name: add 'name:'"
        elif type(value) in (int, float):
            fault = f'name: must be a text, got {value!r}; quote it: name: "{value}"'
        faults.add(fault, path)
    else:
        hint = f" with the keys {', '.join(_PARTS[path[0]].model_fields)}" if problem["type"] == "model_type" else ""
        colon = without_colon(value) if hint == "" and isinstance(value, str) and path[0] in ("fixed", "grid") else None
        fault = factories.refusal(problem).replace("must be a mapping", "must be a mapping" + hint)
        faults.add(f"{'.'.join(map(str, path))}: {fault}" + (f"; {colon}" if colon else ""), path)


def _unknown_key(path: Path) -> str:
    """The message for a key of the top level, or of one of its entries, that does not exist."""
    key, known = str(path[-1]), list(_PARTS.get(path[0], Config).model_fields)
    meant = key if key in PARAMETERS else nearest(key, PARAMETERS)
    if meant and len(path) == 1 and not nearest(key, known):
        did_you_mean = "" if meant == key else f"did you mean '{meant}'? "
        return f"unknown key '{key}'; {did_you_mean}'{meant}' is a run parameter: put it under 'fixed:' or 'grid:'"
    return unknown("key", key, known)


def check_grid(fixed: grids.Point, grid: grids.Grid, path: Path, faults: Faults) -> None:
    """Check a grid together with `fixed`: each key is set once, there is a network, and its arguments are valid."""
    for key, count in Counter(grids.keys(grid)).items():
        if key in fixed:
            faults.add(f"'{key}' is under 'fixed' as well; use one", (*path, key), key=True)
        if count > 1:
            faults.add(f"'{key}' is in the grid and in its zip; use one", (*path, key), key=True)
    values = {**{key: [value] for key, value in fixed.items()}, **grids.flat(grid)}
    # Where the config sets a network that is not valid, another fault says what is wrong with it.
    places = (("fixed", "network"), (*path, "network"), (*path, grids.ZIP, "network"))
    if "network" not in values and not any(place in faults.source.keys for place in places):
        faults.add(f"no network; allowed: {', '.join(sorted(registry.network))}", path)
    # The lists of a zip repeat their values.
    arguments = {key: _distinct(listed) for key, listed in grids.network_arguments(values).items()}
    for name in _distinct(values.get("network", [])):
        _check_arguments(name, arguments, faults)
    _check_swap(values, faults)


def _check_swap(values: Mapping[str, Sequence[Any]], faults: Faults) -> None:
    """Check that a norm layer of swap_norm takes each argument, and that there is one if anything else is set."""
    norms = [name for name in _distinct(values.get("swap_norm", [])) if name in registry.norm]
    for key in SWAP[1:]:
        for value in _distinct(values.get(key, [])):
            if not norms and value != RunSpec.model_fields[key].default:
                faults.add_for(f"{key} needs a norm layer: set swap_norm, too", key, value)
    for arguments in _distinct(values.get("swap_norm_args", [])):
        for key, value in arguments.items():
            # An argument is for those norm layers that have it.
            taking = [name for name in norms if key in factories.signature(registry.norm[name])] or norms[-1:]
            found = (factories.kwarg_fault("norm layer", name, registry.norm[name], key, value) for name in taking)
            if fault := next(filter(None, found), None):
                faults.add_for(fault, "swap_norm_args", arguments)


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({json.dumps(value): value for value in values}.values())


def _check_arguments(name: str, arguments: Mapping[str, Sequence[Any]], faults: Faults) -> None:
    for key, values in arguments.items():
        last = None
        for value in values:
            fault = _argument_fault(name, key, value, arguments.get("norm"))
            if fault and fault == last:
                # It does not name the value: it is a fault of the key.
                break
            if fault:
                hint = for_the_grid(f"network.{key}", value, faults)
                faults.add_for(fault + hint, f"network.{key}", value)
            last = fault
    for key, (_, default) in factories.signature(registry.network[name]).items():
        if default is factories.REQUIRED and key not in arguments:
            faults.add_for(f"network '{name}' needs 'network.{key}'", "network", name)


def _argument_fault(network: str, key: str, value: Any, norms: Sequence[str] | None) -> str | None:
    """Why a network, or its norm layer (`norm_args.eps`), does not take an argument; None where it does."""
    outer, _, inner = key.partition(".")
    factory = registry.network[network]
    if not inner:
        return factories.kwarg_fault("network", network, factory, key, value)
    if outer != "norm_args" or outer not in factories.signature(factory):
        return f"network '{network}' has no argument '{key}'; only norm_args has arguments"
    names = norms or [factories.signature(factory).get("norm", ("", None))[1]]
    known = [name for name in names if isinstance(name, str) and name in registry.norm]
    faults = (factories.kwarg_fault("norm layer", name, registry.norm[name], inner, value) for name in known)
    return next(filter(None, faults), None)


def check_contrast(config: Config, listed: Sequence[tuple[grids.Grid, Path]], faults: Faults) -> None:
    """Check that the contrast's axis is a key of a grid, and its baseline a value of the axis."""
    if config.contrast is None:
        return
    axis, baseline = config.contrast.axis, config.contrast.baseline
    arms = [value for grid, _ in listed for value in grids.flat(grid).get(axis, [])]
    fault, key = None, "axis"
    if axis == grids.ZIP:
        fault = "name one of the keys below zip"
    elif axis in SEEDS:
        fault = f"runs are paired by seed, so {axis} cannot be the axis"
    elif axis in config.fixed:
        fault = f"{axis} has one value, under 'fixed'; an axis has several, under 'grid:'"
    elif not arms and axis not in (config.grid or {}):
        # An axis that is in the grid, but has no arms, has a fault already.
        keys = [key for grid, _ in listed for key in grids.keys(grid)]
        fault = None if _is_elsewhere(axis, keys, faults) else unknown("grid key", axis, keys)
    elif arms and baseline not in arms:
        fault, key = unknown(f"value of {axis}", baseline, list(map(str, arms))), "baseline"
    if fault:
        faults.add(f"contrast: {fault}", ("contrast", key))


def _is_elsewhere(axis: str, keys: Sequence[str], faults: Faults) -> bool:
    """Whether another fault says why no grid key is called like the axis: the key in the grid is the misspelt one."""
    blamed = {fault.place for fault in faults.found}
    meant = nearest(axis, keys)
    return bool(blamed) and (axis in PARAMETERS or (meant is not None and faults.places.get((meant, "")) in blamed))


def check_arms(config: Config, runs: Sequence[RunSpec], faults: Faults) -> None:
    """Check that the exclusions leave the baseline and another arm."""
    if config.contrast is None or faults.found:
        return
    arms = {json.dumps(run.parameters.get(config.contrast.axis)) for run in runs}
    if config.contrast.baseline not in map(json.loads, arms):
        faults.add("contrast: every run of the baseline is excluded", ("contrast", "baseline"))
    elif len(arms) < 2:
        faults.add("contrast: the baseline is the only arm", ("contrast", "axis"))


def check_exclude(config: Config, grid_keys: Sequence[str], faults: Faults) -> None:
    """Check that each rule of `exclude:` names keys of a grid."""
    known = set(grid_keys)
    for index, rule in enumerate(config.exclude):
        for key in rule:
            if key not in known:
                faults.add(f"exclude: {unknown('grid key', key, grid_keys)}", ("exclude", index, key), key=True)
