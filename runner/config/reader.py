"""A YAML config → a `Sweep`: checked, with every fault at once, each with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import registry
from runner.config import grid as grids
from runner.config.checks import check_arms, check_contrast, check_exclude, check_grid, structure
from runner.config.faults import Faults
from runner.config.run_spec import PARAMETERS, RunSpec, conflict
from runner.config.sweep import Config, Resources, Sweep
from runner.config.values import fixed_values, grids_of
from runner.config.yaml_source import Source, read
from runner.errors import UserError


def load(path: Path, overrides: Sequence[str] = (), device: str | None = None) -> Sweep:
    """Read and check a config file, and import the plugins that it names (relative to its folder).

    `overrides` are `key=value` assignments. `device`, where given, replaces every device of the file.
    Errors: UserError with every fault of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: cannot read the config: {reason}") from None
    source = read(text, str(path))
    if source.values is None:
        source.values = {}
    for assignment in overrides:
        source.override(assignment)
    if device is not None:
        _set_device(source, device)
    return _sweep(source, path.parent, default_name=path.stem)


def from_mapping(values: Mapping[str, Any], folder: Path = Path()) -> Sweep:
    """Check a config given as a mapping; plugins are relative to `folder`. Errors: UserError with every fault."""
    return _sweep(Source("config", dict(values)), folder, default_name="sweep")


def _set_device(source: Source, device: str) -> None:
    """Give every run this device: it replaces each list of devices in the file."""
    values = source.values if isinstance(source.values, dict) else {}
    listed = [values.get("grid"), *(values["grids"] if isinstance(values.get("grids"), list) else [])]
    plain = [grid for grid in listed if isinstance(grid, dict)]
    axes = [*plain, *(grid["zip"] for grid in plain if isinstance(grid.get("zip"), dict))]
    if not any("device" in axis for axis in axes):
        source.override(f"fixed.device={device}")
    for axis in axes:
        if "device" in axis:
            axis["device"] = [device] * (len(axis["device"]) if axis not in plain else 1)


def _sweep(source: Source, folder: Path, default_name: str) -> Sweep:
    faults = Faults(source)
    config = structure(faults, default_name)
    if config.checkpoint_dir and "://" not in config.checkpoint_dir:
        config.checkpoint_dir = str((folder / config.checkpoint_dir).resolve())
    plugins = _load_plugins(config, folder, faults)
    fixed = fixed_values(config.fixed, faults)
    listed = list(grids_of(config, faults))
    grid_keys = tuple(dict.fromkeys(key for grid, _ in listed for key in grids.keys(grid)))
    for grid, path in listed:
        check_grid(fixed, grid, path, faults)
    check_contrast(config, listed, faults)
    check_exclude(config, grid_keys, faults)
    total = sum(grids.count(grid) for grid, _ in listed)
    if total > grids.MAX_RUNS:
        path = listed[0][1] if len(listed) == 1 else ("grids",)
        faults.add(f"{total:,} runs; at most {grids.MAX_RUNS:,} in one sweep", path)
    faults.raise_all()
    runs = _runs(fixed, listed, config.exclude, faults)
    check_arms(config, runs, faults)
    faults.raise_all()
    name, contrast = config.name or default_name, config.contrast
    return Sweep(
        name=name,
        runs=tuple(runs),
        grid_keys=grid_keys,
        axis=contrast.axis if contrast else None,
        baseline=contrast.baseline if contrast else None,
        smallest_effect=contrast.smallest_effect if contrast else None,
        plugins=tuple(plugins),
        save_weights=config.save_weights,
        resources=config.resources or Resources(),
        checkpoint_dir=config.checkpoint_dir,
        resolved=_resolved(config, name, fixed, [grid for grid, _ in listed], grid_keys),
        places=faults.places,
    )


def _load_plugins(config: Config, folder: Path, faults: Faults) -> list[str]:
    files = [str((folder / file.replace("\0", "")).resolve()) for file in config.plugins]
    registry.load_plugins()
    for index, file in enumerate(files):
        try:
            registry.load_plugins((file,))
        except UserError as error:
            faults.add(str(error), ("plugins", index))
    return files


def _runs(fixed: Mapping[str, Any], listed: Any, exclude: Sequence[Mapping[str, Any]], faults: Faults) -> list[RunSpec]:
    runs: list[RunSpec] = []
    number: dict[str, int] = {}
    used: set[int] = set()
    for grid, path in listed:
        for point in grids.points(grid):
            if (rule := grids.excluding_rule(point, exclude)) is not None:
                used.add(rule)
                continue
            run = _run({**fixed, **point})
            if problem := conflict(run):
                name, message = problem
                faults.add_for(message, name, run.parameters[name])
            runs.append(run)
            if number.setdefault(run.run_id, len(runs)) != len(runs):
                faults.add(f"run {len(runs)} is run {number[run.run_id]} again: {point}", path, key=True)
    for index in set(range(len(exclude))) - used:
        faults.add("exclude: matches no run that an earlier rule leaves", ("exclude", index))
    if not runs and not faults.found:
        faults.add("every run is excluded", ("exclude",), key=True)
    return runs


def _run(values: Mapping[str, Any]) -> RunSpec:
    fields = {key: value for key, value in values.items() if not key.startswith("network.")}
    arguments = {key.removeprefix("network."): value for key, value in values.items() if key.startswith("network.")}
    factory = registry.network[fields["network"]]
    norm_name = arguments.get("norm") or registry.signature(factory).get("norm", ("", ""))[1]
    norm = registry.norm.get(norm_name)
    for key, value in arguments.items():
        _, _, inner = key.partition(".")
        if not inner:
            arguments[key] = registry.coerced(factory, key, value)
        elif norm is not None:
            arguments[key] = registry.coerced(norm, inner, value)
    for name in ("weight_decay", "momentum"):
        if fields.get(name) == 0:
            fields[name] = 0.0  # -0.0 would be another run
    return RunSpec(network_args=arguments, **fields)


def _resolved(
    config: Config, name: str, fixed: Mapping[str, Any], expanded: Sequence[Any], grid_keys: Sequence[str]
) -> Any:
    """The config with helpers expanded and every default written out, so that a later version trains the same runs."""
    in_some_grid = set(grid_keys)
    defaults = {key: RunSpec.model_fields[key].default for key in PARAMETERS if key != "network"}
    resolved: dict[str, Any] = {"name": name}
    if config.contrast:
        resolved["contrast"] = config.contrast.model_dump(exclude_unset=True)
    resolved["fixed"] = {**{key: value for key, value in defaults.items() if key not in in_some_grid}, **fixed}
    resolved |= {"grid": dict(expanded[0])} if config.grids is None else {"grids": [dict(grid) for grid in expanded]}
    if config.exclude:
        resolved["exclude"] = config.exclude
    if config.save_weights:
        resolved["save_weights"] = True
    if config.resources:
        resolved["resources"] = config.resources.model_dump(exclude_unset=True)
    if config.checkpoint_dir:
        resolved["checkpoint_dir"] = config.checkpoint_dir
    return resolved
