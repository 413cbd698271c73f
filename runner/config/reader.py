"""A YAML config → a `Sweep`: validated, every fault at once, each with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from runner import registry
from runner.config import grid as builder
from runner.config.run_spec import PARAMETERS, RunSpec, conflict
from runner.config.sweep import NAME_RULE, Config, Contrast, Name, Resources, Sweep
from runner.config.yaml_source import Path as YamlPath
from runner.config.yaml_source import Source, read
from runner.errors import Fault, Place, UserError, unknown

MAX_RUNS = 200_000


def load(path: Path, overrides: Sequence[str] = (), device: str | None = None) -> Sweep:
    """Read and check a config file; import the plugins it names (relative to its folder).

    `overrides` are `key=value` assignments; `device`, where given, is every run's, whatever the file says.
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
    return _Reader(source, path.parent, default_name=path.stem).sweep()


def _set_device(source: Source, device: str) -> None:
    """Make `device` every run's: wherever the file has a list of devices, it becomes this one."""
    values = source.values if isinstance(source.values, dict) else {}
    listed = [values.get("grid"), *(values["grids"] if isinstance(values.get("grids"), list) else [])]
    grids = [grid for grid in listed if isinstance(grid, dict)]
    axes = [*grids, *(grid["zip"] for grid in grids if isinstance(grid.get("zip"), dict))]
    if not any("device" in axis for axis in axes):
        source.override(f"fixed.device={device}")
    for axis in axes:
        if "device" in axis:
            axis["device"] = [device] * (len(axis["device"]) if axis not in grids else 1)


def from_mapping(values: Mapping[str, Any], folder: Path = Path()) -> Sweep:
    """The same for a config given as a mapping. Errors: UserError with every fault."""
    return _Reader(Source("config", dict(values)), folder, default_name="sweep").sweep()


class _Reader:
    """Collects faults while it walks the config; `sweep()` raises them together."""

    def __init__(self, source: Source, folder: Path, default_name: str) -> None:
        self.source, self.folder, self.default_name = source, folder, default_name
        self.faults: list[Fault] = []
        self.places: dict[tuple[str, str], Place] = {}

    def fault(self, message: str, path: YamlPath, *, key: bool = False) -> None:
        self.faults.append(Fault(message, self.source.place(path, key=key)))

    def raise_faults(self) -> None:
        if self.faults:
            distinct = dict.fromkeys(self.faults)  # one wrong value can break several grids
            raise UserError(*sorted(distinct, key=lambda fault: fault.place.line if fault.place else 0))

    def sweep(self) -> Sweep:
        config = self._structure()
        if config.checkpoint_dir and "://" not in config.checkpoint_dir:
            config.checkpoint_dir = str((self.folder / config.checkpoint_dir).resolve())
        plugins = self._plugins(config)
        fixed = self._fixed(config.fixed)
        grids = list(self._grids(config))
        for grid, path in grids:
            self._check_grid(fixed, grid, path)
        grid_keys = tuple(dict.fromkeys(key for grid, _ in grids for key in builder.keys(grid)))
        self._check_contrast(config, grids)
        self._check_exclude(config, grid_keys)
        total = sum(builder.count(grid) for grid, _ in grids)
        if total > MAX_RUNS:
            self.fault(
                f"{total:,} runs; at most {MAX_RUNS:,} in one sweep", grids[0][1] if len(grids) == 1 else ("grids",)
            )
        self.raise_faults()
        runs = self._runs(fixed, grids, config.exclude)
        self._check_arms(config, runs)
        self.raise_faults()
        name = config.name or self.default_name
        contrast = config.contrast
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
            resolved=_resolved(config, name, fixed, [grid for grid, _ in grids], grid_keys),
            places=self.places,
        )

    def _structure(self) -> Config:
        values = self.source.values
        if not isinstance(values, dict):
            self.fault(f"a config is a mapping with the keys {', '.join(Config.model_fields)}", ())
            self.raise_faults()
        try:
            config = Config.model_validate(values)
        except ValidationError as error:
            for problem in error.errors():
                self._structural(problem["type"], problem["msg"], problem["loc"], problem["input"])
            broken = {problem["loc"][0] for problem in error.errors()}  # the rest is checked all the same
            config = Config.model_validate({key: value for key, value in values.items() if key not in broken})
        if config.grid is not None and config.grids is not None:
            self.fault(
                "'grid' and 'grids' stand in one config; use one (--set: grids.0.seed=…)",
                ("grids",),
                key=True,
            )
        if not config.name and not TypeAdapter(Name).validator.isinstance_python(self.default_name):
            self.fault(f"the file's name '{self.default_name}' cannot name a sweep; add 'name:' ({NAME_RULE})", ())
        return config

    def _structural(self, kind: str, message: str, loc: YamlPath, value: Any) -> None:
        if kind == "extra_forbidden":
            models: dict[Any, type[BaseModel]] = {"contrast": Contrast, "resources": Resources}
            known = list(models.get(loc[0], Config).model_fields)
            hint = (
                f"; under 'fixed:' or 'grid:' it is one: '{loc[-1]}' is a run parameter"
                if loc[-1] in PARAMETERS
                else ""
            )
            self.fault(unknown("key", loc[-1], known) + hint, loc, key=True)
        elif loc[0] == "name":
            self.fault(f"name: must be {NAME_RULE}; got {value!r}", loc)
        else:
            self.fault(f"{'.'.join(map(str, loc))}: {_lower(message)}, got {_short(value)}", loc)

    def _plugins(self, config: Config) -> list[str]:
        files = [str((self.folder / file.replace("\0", "")).resolve()) for file in config.plugins]
        registry.load_plugins()
        for index, file in enumerate(files):
            try:
                registry.load_plugins((file,))
            except UserError as error:
                self.fault(str(error), ("plugins", index))
        return files

    def _fixed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if self._check_value(key, value, ("fixed", key))}

    def _grids(self, config: Config) -> Iterator[tuple[dict[str, Any], YamlPath]]:
        """Each grid with helpers expanded and faulty entries left out, and its path."""
        listed: list[tuple[dict[str, Any], YamlPath]] = [(config.grid or {}, ("grid",))]
        if config.grids is not None:
            listed = [(grid, ("grids", index)) for index, grid in enumerate(config.grids)]
            if not listed:
                self.fault("an empty list of grids has no runs", ("grids",))
        for grid, path in listed:
            expanded: dict[str, Any] = {}
            for key, entry in grid.items():
                if key == builder.ZIP:
                    expanded[key] = self._zip(entry, (*path, key))
                else:
                    expanded[key] = self._values(key, entry, (*path, key))
            yield {key: values for key, values in expanded.items() if values}, path

    def _zip(self, entry: Any, path: YamlPath) -> dict[str, list[Any]]:
        before = len(self.faults)
        if not isinstance(entry, dict) or not entry:
            self.fault(f"zip: a mapping of lists of equal length, got {_short(entry)}", path)
            return {}
        lists = {key: self._values(key, values, (*path, key), distinct=False) for key, values in entry.items()}
        if len(self.faults) == before and len({len(values) for values in lists.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
            self.fault(f"zip: the lists must be equally long; {lengths}", path, key=True)
            return {}
        return lists if len(self.faults) == before else {}

    def _values(self, key: str, entry: Any, path: YamlPath, *, distinct: bool = True) -> list[Any]:
        """A grid entry as the list of its valid values; in a zip one may come twice."""
        if key not in PARAMETERS and not key.startswith("network."):
            self._check_value(key, None, path)  # once for all of its values
            return []
        if isinstance(entry, dict):
            values = self._helper(entry, path)
            return values if all(self._check_value(key, value, path) for value in values) else []
        if not isinstance(entry, list):
            self.fault(
                f"grid key '{key}': expected a list, or {{range: …}} or {{logspace: …}}; got {_short(entry)}", path
            )
            return []
        if not entry:
            self.fault(f"grid key '{key}': an empty list has no runs", path)
        seen: dict[str, int] = {}
        for index, value in enumerate(entry):
            if seen.setdefault(json.dumps(value), index) != index and distinct:
                self.fault(f"grid key '{key}': {value!r} is listed twice", (*path, index))
        return [value for index, value in enumerate(entry) if self._check_value(key, value, (*path, index))]

    def _helper(self, entry: Mapping[str, Any], path: YamlPath) -> list[Any]:
        values: Sequence[Any] | None = None
        if list(entry) == ["range"]:
            values = _range(entry["range"])
        elif list(entry) == ["logspace"]:
            values = _logspace(entry["logspace"])
        if values is not None:
            return list(values)
        rule = f"{{range: n}}, {{range: [start, stop]}} or {{logspace: [first, last, n]}} with 1 to {MAX_RUNS:,} values"
        self.fault(f"expected {rule}; got {_short(dict(entry))}", path)
        return []

    def _check_value(self, key: str, value: Any, path: YamlPath) -> bool:
        """Whether `key: value` can be one run's parameter; network arguments are checked once the network is known."""
        place = self.source.place(path)
        self.places.setdefault((key, json.dumps(value)), place)
        self.places.setdefault((key, ""), place)
        if key.startswith("network."):
            if key == "network.norm_args" or isinstance(value, dict):
                self.fault(f"{key}: set its arguments one by one, such as 'network.norm_args.eps: 1e-3'", path)
                return False
            return True
        if key not in PARAMETERS:
            names = [*PARAMETERS, "network.<argument>"]
            hint = f"; '{key}' is a key of the top level" if key in Config.model_fields else ""
            place_of = path[:-1] if isinstance(path[-1], int) else path
            self.fault(unknown("run parameter", key, names) + hint, place_of, key=True)
            return False
        try:
            _adapter(key).validate_python(value)
        except ValidationError as error:
            problem, choices = error.errors()[0], get_args(RunSpec.model_fields[key].annotation)
            if problem["type"] == "literal_error":
                self.fault(unknown(key, value, choices), path)
            else:
                self.fault(f"{key}: {_lower(problem['msg'])}, got {_short(value)}", path)
            return False
        names_of = {"network": registry.network, "dataset": registry.dataset}
        if key in names_of and value not in names_of[key]:
            self.fault(unknown(names_of[key].kind, value, list(names_of[key])), path)
            return False
        return True

    def _check_grid(self, fixed: Mapping[str, Any], grid: Mapping[str, Any], path: YamlPath) -> None:
        """What one grid together with `fixed` must fulfil: one value a key, a network, arguments its factory takes."""
        for key in builder.keys(grid):
            if key in fixed:
                self.fault(f"'{key}' stands under 'fixed' as well; use one of the two", (*path, key), key=True)
            if builder.keys(grid).count(key) > 1:
                self.fault(f"'{key}' stands in the grid and in its zip; use one of the two", (*path, key), key=True)
        values = {**{key: [value] for key, value in fixed.items()}, **_flat(grid)}
        if "network" not in values and not self._mentions("network"):
            self.fault(f"no network; allowed: {', '.join(sorted(registry.network))}", path)
        arguments = {key.removeprefix("network."): entry for key, entry in values.items() if key.startswith("network.")}
        for name in values.get("network", []):
            factory = registry.network[name]
            for key, entry in arguments.items():
                for value in entry:
                    self._check_argument(name, key, value, arguments.get("norm"))
            for key, (_, default) in registry.signature(factory).items():
                if default is registry.REQUIRED and key not in arguments:
                    place = self.places.get(("network", json.dumps(name)))
                    self.faults.append(Fault(f"network '{name}' needs the argument 'network.{key}'", place))

    def _mentions(self, key: str) -> bool:
        """Whether the config names `key` at all; if so, its own fault says what is wrong with it."""
        return any(path[-1] == key for path in self.source.keys if path)

    def _check_argument(self, network: str, key: str, value: Any, norms: Sequence[str] | None) -> None:
        outer, _, inner = key.partition(".")
        factory = registry.network[network]
        place = self.places.get((f"network.{key}", json.dumps(value)))
        if not inner:
            fault = registry.kwarg_fault("network", network, factory, key, value)
        elif outer != "norm_args" or outer not in registry.signature(factory):
            fault = f"network '{network}' has no argument '{key}'; only norm_args has arguments of its own"
        else:
            chosen = norms or [registry.signature(factory)["norm"][1]]
            faults = [
                registry.kwarg_fault("norm layer", name, registry.norm[name], inner, value)
                for name in chosen
                if isinstance(name, str) and name in registry.norm
            ]
            fault = next((fault for fault in faults if fault), None)
        if fault:
            self.faults.append(Fault(fault, place))

    def _check_contrast(self, config: Config, grids: Sequence[tuple[Mapping[str, Any], YamlPath]]) -> None:
        if config.contrast is None:
            return
        axis, baseline = config.contrast.axis, config.contrast.baseline
        arms = [value for grid, _ in grids for value in _flat(grid).get(axis, [])]
        if axis == builder.ZIP:
            self.fault("contrast: name one of the keys below zip", ("contrast", "axis"))
        elif not arms:
            grid_keys = [key for grid, _ in grids for key in builder.keys(grid)]
            if axis in (config.grid or {}):
                return  # its values are faulty, and that has been said
            self.fault(f"contrast: {unknown('grid key', axis, grid_keys)}", ("contrast", "axis"))
        elif axis == "seed":
            self.fault("contrast: runs are paired by seed, so it cannot be the axis", ("contrast", "axis"))
        elif baseline not in arms:
            self.fault(
                f"contrast: {unknown(f'value of {axis}', baseline, list(map(str, arms)))}", ("contrast", "baseline")
            )

    def _check_arms(self, config: Config, runs: Sequence[RunSpec]) -> None:
        """Whether the exclusions leave the baseline and something to compare with it."""
        if config.contrast is None or self.faults:
            return
        arms = {json.dumps(run.parameters.get(config.contrast.axis)) for run in runs}
        if json.dumps(config.contrast.baseline) not in arms and config.contrast.baseline not in map(json.loads, arms):
            self.fault("contrast: every run of the baseline is excluded", ("contrast", "baseline"))
        elif len(arms) < 2:
            self.fault("contrast: the baseline is the only arm; nothing to compare it with", ("contrast", "axis"))

    def _check_exclude(self, config: Config, grid_keys: Sequence[str]) -> None:
        for index, rule in enumerate(config.exclude):
            for key in rule:
                if key not in grid_keys:
                    self.fault(
                        f"exclude: {unknown('grid key', key, list(grid_keys))}", ("exclude", index, key), key=True
                    )

    def _runs(self, fixed: Mapping[str, Any], grids: Any, exclude: Sequence[Mapping[str, Any]]) -> list[RunSpec]:
        runs: list[RunSpec] = []
        number: dict[str, int] = {}
        used: set[int] = set()
        for grid, path in grids:
            for point in builder.points(grid):
                if (rule := builder.excluding_rule(point, exclude)) is not None:
                    used.add(rule)
                    continue
                run = _run({**fixed, **point})
                if problem := conflict(run):
                    name, message = problem
                    self.faults.append(Fault(message, self.places.get((name, json.dumps(run.parameters[name])))))
                runs.append(run)
                if number.setdefault(run.run_id, len(runs)) != len(runs):
                    self.fault(f"run {len(runs)} is run {number[run.run_id]} again: {point}", path, key=True)
        for index in set(range(len(exclude))) - used:
            self.fault("exclude: matches no run that an earlier rule leaves", ("exclude", index))
        if not runs and not self.faults:
            self.fault("every run is excluded", ("exclude",), key=True)
        return runs


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    info = RunSpec.model_fields[key]
    annotated: Any = Annotated[info.annotation, info]
    return TypeAdapter(annotated, config=ConfigDict(strict=True))


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
            fields[name] = 0.0  # and not -0.0, which would be another run
    return RunSpec(network_args=arguments, **fields)


def _flat(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {**{key: values for key, values in grid.items() if key != builder.ZIP}, **grid.get(builder.ZIP, {})}


def _resolved(
    config: Config, name: str, fixed: Mapping[str, Any], grids: Sequence[Any], grid_keys: Sequence[str]
) -> Any:
    """The config with helpers expanded and every default written out, so that a later version trains the same runs."""
    in_some_grid = set(grid_keys)
    defaults = {key: RunSpec.model_fields[key].default for key in PARAMETERS if key != "network"}
    resolved: dict[str, Any] = {"name": name}
    if config.contrast:
        resolved["contrast"] = config.contrast.model_dump(exclude_unset=True)
    resolved["fixed"] = {**{key: value for key, value in defaults.items() if key not in in_some_grid}, **fixed}
    resolved |= {"grid": dict(grids[0])} if config.grids is None else {"grids": [dict(grid) for grid in grids]}
    if config.exclude:
        resolved["exclude"] = config.exclude
    if config.save_weights:
        resolved["save_weights"] = True
    if config.resources:
        resolved["resources"] = config.resources.model_dump(exclude_unset=True)
    if config.checkpoint_dir:
        resolved["checkpoint_dir"] = config.checkpoint_dir
    return resolved


def _range(bounds: Any) -> list[int] | None:
    numbers = bounds if isinstance(bounds, list) else [0, bounds]
    if len(numbers) != 2 or not all(type(number) is int for number in numbers):
        return None
    start, stop = numbers
    return list(range(start, stop)) if 0 < stop - start <= MAX_RUNS else None


def _logspace(bounds: Any) -> list[float] | None:
    """`[first, last, n]` → n values of constant ratio, rounded to 12 digits: a decade is 0.01, not 0.01…02."""
    if not isinstance(bounds, list) or len(bounds) != 3 or type(bounds[2]) is not int:
        return None
    first, last, n = bounds
    if not all(type(x) in (int, float) and 0 < x < 1e300 for x in (first, last)) or not 2 <= n <= MAX_RUNS:
        return None
    return [float(f"{first * (last / first) ** (index / (n - 1)):.12g}") for index in range(n)]


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
