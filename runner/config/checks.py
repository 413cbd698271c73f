"""What the parts of a config must fulfil together: the networks' arguments, the contrast, the exclusions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from runner import registry
from runner.config import grid as grids
from runner.config.faults import Faults, lower_first, short
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import NAME_RULE, Config, Contrast, Name, Resources
from runner.config.yaml_source import Path
from runner.errors import unknown


def structure(faults: Faults, default_name: str) -> Config:
    """The top level of the config, without the entries that are faulty. Errors: UserError where it is no mapping."""
    values = faults.source.values
    if not isinstance(values, dict):
        faults.add(f"a config is a mapping with the keys {', '.join(Config.model_fields)}", ())
        faults.raise_all()
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            _structural(problem["type"], problem["msg"], problem["loc"], problem["input"], faults)
        broken = {problem["loc"][0] for problem in error.errors()}  # the rest is checked all the same
        config = Config.model_validate({key: value for key, value in values.items() if key not in broken})
    if config.grid is not None and config.grids is not None:
        faults.add("'grid' and 'grids' stand in one config; use one (--set: grids.0.seed=…)", ("grids",), key=True)
    if not config.name and not TypeAdapter(Name).validator.isinstance_python(default_name):
        faults.add(f"the file's name '{default_name}' cannot name a sweep; add 'name:' ({NAME_RULE})", ())
    return config


def _structural(kind: str, message: str, loc: Path, value: Any, faults: Faults) -> None:
    if kind == "extra_forbidden":
        models: dict[Any, type[BaseModel]] = {"contrast": Contrast, "resources": Resources}
        known = list(models.get(loc[0], Config).model_fields)
        is_parameter = f"; under 'fixed:' or 'grid:' it is one: '{loc[-1]}' is a run parameter"
        faults.add(unknown("key", loc[-1], known) + (is_parameter if loc[-1] in PARAMETERS else ""), loc, key=True)
    elif loc[0] == "name":
        faults.add(f"name: must be {NAME_RULE}; got {value!r}", loc)
    else:
        faults.add(f"{'.'.join(map(str, loc))}: {lower_first(message)}, got {short(value)}", loc)


def check_grid(fixed: Mapping[str, Any], grid: Mapping[str, Any], path: Path, faults: Faults) -> None:
    """One grid together with `fixed`: each key has one place, there is a network, and it takes its arguments."""
    keys = grids.keys(grid)
    for key in keys:
        if key in fixed:
            faults.add(f"'{key}' stands under 'fixed' as well; use one of the two", (*path, key), key=True)
        if keys.count(key) > 1:
            faults.add(f"'{key}' stands in the grid and in its zip; use one of the two", (*path, key), key=True)
    values = {**{key: [value] for key, value in fixed.items()}, **grids.flat(grid)}
    if "network" not in values and not _mentions("network", faults):
        faults.add(f"no network; allowed: {', '.join(sorted(registry.network))}", path)
    arguments = {key.removeprefix("network."): entry for key, entry in values.items() if key.startswith("network.")}
    for name in values.get("network", []):
        for key, entry in arguments.items():
            for value in entry:
                if fault := _argument_fault(name, key, value, arguments.get("norm")):
                    faults.add_for(fault, f"network.{key}", value)
        for key, (_, default) in registry.signature(registry.network[name]).items():
            if default is registry.REQUIRED and key not in arguments:
                faults.add_for(f"network '{name}' needs the argument 'network.{key}'", "network", name)


def _mentions(key: str, faults: Faults) -> bool:
    """Whether the config has the key at all. If so, another fault says what is wrong with it."""
    return any(path[-1] == key for path in faults.source.keys if path)


def _argument_fault(network: str, key: str, value: Any, norms: Sequence[str] | None) -> str | None:
    """What is wrong with an argument of a network, or of its norm layer (`norm_args.eps`)."""
    outer, _, inner = key.partition(".")
    factory = registry.network[network]
    if not inner:
        return registry.kwarg_fault("network", network, factory, key, value)
    if outer != "norm_args" or outer not in registry.signature(factory):
        return f"network '{network}' has no argument '{key}'; only norm_args has arguments of its own"
    for name in norms or [registry.signature(factory)["norm"][1]]:
        if isinstance(name, str) and name in registry.norm:
            fault = registry.kwarg_fault("norm layer", name, registry.norm[name], inner, value)
            if fault:
                return fault
    return None


def check_contrast(config: Config, listed: Sequence[tuple[Mapping[str, Any], Path]], faults: Faults) -> None:
    """The contrast's axis is a key of a grid, and its baseline one of the axis' values."""
    if config.contrast is None:
        return
    axis, baseline = config.contrast.axis, config.contrast.baseline
    arms = [value for grid, _ in listed for value in grids.flat(grid).get(axis, [])]
    if axis == grids.ZIP:
        faults.add("contrast: name one of the keys below zip", ("contrast", "axis"))
    elif not arms:
        if axis in (config.grid or {}):
            return  # another fault says what is wrong with its values
        known = [key for grid, _ in listed for key in grids.keys(grid)]
        faults.add(f"contrast: {unknown('grid key', axis, known)}", ("contrast", "axis"))
    elif axis == "seed":
        faults.add("contrast: runs are paired by seed, so it cannot be the axis", ("contrast", "axis"))
    elif baseline not in arms:
        known = list(map(str, arms))
        faults.add(f"contrast: {unknown(f'value of {axis}', baseline, known)}", ("contrast", "baseline"))


def check_arms(config: Config, runs: Sequence[RunSpec], faults: Faults) -> None:
    """The exclusions leave the baseline and another arm."""
    if config.contrast is None or faults.found:
        return
    arms = {json.dumps(run.parameters.get(config.contrast.axis)) for run in runs}
    if json.dumps(config.contrast.baseline) not in arms and config.contrast.baseline not in map(json.loads, arms):
        faults.add("contrast: every run of the baseline is excluded", ("contrast", "baseline"))
    elif len(arms) < 2:
        faults.add("contrast: the baseline is the only arm; nothing to compare it with", ("contrast", "axis"))


def check_exclude(config: Config, grid_keys: Sequence[str], faults: Faults) -> None:
    """Each rule of `exclude:` names keys of a grid."""
    for index, rule in enumerate(config.exclude):
        for key in rule:
            if key not in grid_keys:
                faults.add(f"exclude: {unknown('grid key', key, list(grid_keys))}", ("exclude", index, key), key=True)
