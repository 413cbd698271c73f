"""A YAML config → a checked `Sweep`. All faults are reported at once, each with its line."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import factories, registry
from runner.config import checkpoint_dir, checks
from runner.config import grid as grids
from runner.config.extends import with_bases
from runner.config.faults import Faults
from runner.config.plain_values import plain
from runner.config.run_spec import PARAMETERS, RunSpec, conflicts
from runner.config.shards import narrowed
from runner.config.sweep import Config, Resources, Sweep, UntilDecided
from runner.config.until_decided import checked as until_decided_of
from runner.config.values import fixed_of, grids_of
from runner.config.yaml_source import Source, dump, file_text, read
from runner.errors import Place, UserError


def load(path: Path, overrides: Sequence[str] = (), device: str | None = None) -> Sweep:
    """Read and check a config file and those that it extends, and import the plugins that they name.

    A plugin's path begins at the folder of the file that names it.

    overrides: `key=value` assignments that replace what the file says.
    device: replaces every device of the file.

    Errors: UserError with every fault of the file.

    >>> path = Path("study.yaml")
    >>> _ = path.write_text("fixed: {network: batch_norm}\\ngrid: {lr: [0.1, 0.01]}")
    >>> sweep = load(path, ["fixed.epochs=3"])
    >>> sweep.name, [(run.lr, run.epochs) for run in sweep.runs]
    ('study', [(0.1, 3), (0.01, 3)])
    """
    source = read(file_text(path), str(path))
    if source.values is None:
        source.values = {}
    return _changed(source, overrides, device, path.parent, default_name=path.stem)


def from_mapping(
    values: Mapping[str, Any],
    folder: Path = Path(),
    overrides: Sequence[str] = (),
    device: str | None = None,
    origin: str = "config",
) -> Sweep:
    """Check a config that is given as a mapping. `folder` is where relative paths of plugins begin.

    The values can be those of Python and numpy, too: ranges, tuples, arrays, paths.

    `overrides` and `device` are those of `load`. `origin` says in messages where the config comes from.

    Errors: UserError with every fault.

    >>> config = {"fixed": {"network": "lenet"}, "grid": {"network.norm": ["none", "batch"], "seed": {"range": 3}}}
    >>> sweep = from_mapping(config)
    >>> len(sweep.runs), sweep.grid_keys
    (6, ('network.norm', 'seed'))
    >>> from_mapping({"fixed": {"network": "lenet", "lr": -1}})
    Traceback (most recent call last):
    runner.errors.UserError: config: lr: must be greater than 0, got -1
    """
    return _changed(Source(origin, plain(values, origin)), overrides, device, folder, default_name="sweep")


def changed(sweep: Sweep, **values: Any) -> Sweep:
    """The sweep that a sweep's config describes with other values at its top level.

    Errors: UserError with every fault of the changed config.
    """
    plugins = {"plugins": list(sweep.plugins)} if sweep.plugins else {}
    # Through YAML, as the config in the sweep's folder: lists for tuples, for example.
    plain = read(dump({**sweep.resolved, **plugins, **values}), sweep.name).values
    return replace(from_mapping(plain, origin=sweep.name), places=sweep.places)


def _changed(source: Source, overrides: Sequence[str], device: str | None, folder: Path, default_name: str) -> Sweep:
    source = with_bases(source, folder)
    for assignment in overrides:
        source.override(assignment)
    if device is not None:
        _set_device(source, device)
    return _sweep(source, folder, default_name)


def _set_device(source: Source, device: str) -> None:
    """Give every run this device: it replaces each list of devices in the file."""
    place = Place(f"--device {device}")
    values = source.values if isinstance(source.values, dict) else {}
    several = values.get("grids")
    paths: list[tuple[str | int, ...]] = [("grid",)]
    paths += [("grids", index) for index in range(len(several) if isinstance(several, list) else 0)]
    listed = False
    for path in [each for grid in paths for each in ((*grid, "device"), (*grid, grids.ZIP, "device"))]:
        lists = source.at(path[:-1])
        if isinstance(lists, dict) and "device" in lists:
            listed = True
            length = grids.size(lists["device"]) if grids.ZIP in path else 1
            source.put(path, [device] * (length or 1), place)
    if not listed:
        source.put(("fixed", "device"), device, place)


def _sweep(source: Source, folder: Path, default_name: str) -> Sweep:
    faults = Faults(source)
    config = checks.structure(faults, default_name)
    plugins = _load_plugins(config, folder, faults)
    if config.checkpoint_dir:
        try:
            config.checkpoint_dir = checkpoint_dir.checked(config.checkpoint_dir, folder)
        except UserError as error:
            faults.add(str(error), ("checkpoint_dir",))
    fixed = fixed_of(config, faults)
    listed = list(grids_of(config, faults))
    grid_keys = tuple(dict.fromkeys(key for grid, _ in listed for key in grids.keys(grid)))
    for grid, path in listed:
        checks.check_grid(fixed, grid, path, faults)
    checks.check_contrast(config, listed, faults)
    checks.check_exclude(config, grid_keys, faults)
    faults.raise_all()
    runs = _runs(fixed, listed, config.exclude, faults)
    checks.check_arms(config, runs, faults)
    until_decided = until_decided_of(config, runs, faults)
    faults.raise_all()
    sweep = Sweep(
        name=config.name or default_name,
        runs=tuple(runs),
        grid_keys=grid_keys,
        **(config.contrast.model_dump() if config.contrast else {}),
        until_decided=until_decided,
        plugins=tuple(plugins),
        save_weights=config.save_weights,
        save_predictions=config.save_predictions,
        resources=config.resources or Resources(),
        checkpoint_dir=config.checkpoint_dir,
        resolved=_resolved(config, fixed, grid_keys, until_decided),
        places=faults.places,
    )
    return narrowed(sweep, config.shard) if config.shard else sweep


def _load_plugins(config: Config, folder: Path, faults: Faults) -> list[str]:
    files = [os.path.realpath(folder / file) for file in config.plugins]
    registry.load_plugins()
    missing = Faults(faults.source)
    for index, file in enumerate(files):
        try:
            registry.load_plugins((file,))
        except UserError as error:
            missing.add(str(error), ("plugins", index))
    # They are told alone: the names that a plugin registers would all seem to be unknown.
    missing.raise_all()
    return files


def _runs(fixed: grids.Point, listed: Any, exclude: Sequence[grids.Point], faults: Faults) -> list[RunSpec]:
    runs: list[RunSpec] = []
    number: dict[str, int] = {}
    unused = set(range(len(exclude)))
    exclusions = grids.Exclusions(exclude)
    for grid, path in listed:
        for point in grids.points(grid):
            if (rule := exclusions.first(point)) is not None:
                unused.discard(rule)
                continue
            run = _run({**fixed, **point})
            for name, message in conflicts(run):
                faults.add_for(message, name, run.parameters[name])
            runs.append(run)
            if number.setdefault(run.run_id, len(runs)) != len(runs):
                faults.add(f"run {len(runs)} is run {number[run.run_id]} again: {point}", path, key=True)
    for index in unused:
        faults.add("exclude: matches no run that an earlier rule leaves", ("exclude", index))
    if not runs and not faults.found:
        faults.add("every run is excluded", ("exclude",), key=True)
    return runs


def _run(values: grids.Point) -> RunSpec:
    fields = {key: value for key, value in values.items() if not key.startswith("network.")}
    arguments = grids.network_arguments(values)
    factory = registry.network[fields["network"]]
    norm_name = arguments.get("norm") or factories.signature(factory).get("norm", ("", ""))[1]
    norm = registry.norm.get(norm_name) if isinstance(norm_name, str) else None
    for key, value in arguments.items():
        _, _, inner = key.partition(".")
        owner, name = (norm, inner) if inner else (factory, key)
        if owner is not None:
            arguments[key] = factories.coerced(owner, name, value)
    if swapped := registry.norm.get(fields.get("swap_norm", "")):
        given = fields.get("swap_norm_args", {})
        fields["swap_norm_args"] = {key: factories.coerced(swapped, key, value) for key, value in given.items()}
    for name in ("weight_decay", "momentum"):
        if name in fields:
            fields[name] += 0.0  # -0.0 becomes 0.0
    return RunSpec(network_args=arguments, **fields)


def _resolved(config: Config, fixed: grids.Point, grid_keys: Sequence[str], until_decided: UntilDecided | None) -> Any:
    """The config with every default written out, so that a later version trains the same runs."""
    not_in_grid = [key for key in PARAMETERS if key not in ("network", *grid_keys)]
    defaults = {key: RunSpec.model_fields[key].default for key in not_in_grid}
    resolved = {
        "name": config.name,
        "contrast": config.contrast and config.contrast.model_dump(exclude_unset=True),
        "fixed": {**defaults, **fixed},
        "grid": (config.grid or {}) if config.grids is None else None,
        "grids": config.grids,
        "exclude": config.exclude,
        "until_decided": until_decided and until_decided.model_dump(mode="json"),
        "shard": config.shard and config.shard.model_dump(exclude_none=True),
        "save_weights": config.save_weights,
        "save_predictions": config.save_predictions,
        "resources": config.resources and config.resources.model_dump(exclude_unset=True),
        "checkpoint_dir": config.checkpoint_dir,
    }
    return {key: value for key, value in resolved.items() if value not in (None, False, [])}
