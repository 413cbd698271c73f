"""What a config file is, and what it becomes: a `Sweep`, with its runs in order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from runner.config.grid import MAX_RUNS
from runner.config.run_spec import PARAMETERS, Parameters, RunSpec, Strict
from runner.config.yaml_source import Path
from runner.errors import Place, UserError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"


class Contrast(Strict):
    """The comparison: a run parameter of the grid, and the value that the others are compared with."""

    axis: str
    """A grid key, such as network or network.norm."""
    baseline: Any
    """The value of the axis that the other values are compared with."""
    smallest_effect: float | None = Field(None, gt=0, lt=1)
    """The smallest difference in accuracy that matters; 0.005 is 0.5 pp."""


class Resources(Strict, frozen=True):
    """What a job needs on a node of a cluster."""

    num_cpus: float | None = Field(None, gt=0, le=1024)
    """CPUs of a job; default: its run's threads and num_workers."""
    num_gpus: float | None = Field(None, ge=0, le=1)
    """GPUs of a job: 1, or 0.25 if four jobs share a GPU; default: by device."""


class UntilDecided(Strict, frozen=True):
    """Seeds are added until the verdict is decided, in this order: the first ones, then the numbers after them."""

    max_seeds: int = Field(200, gt=0, le=MAX_RUNS // 2)
    """The most seeds that are trained."""
    first_seeds: tuple[int, ...] = Field((), strict=False)
    """The seeds that come first; default: those of the config."""


class Shard(Strict, frozen=True):
    """A part of a sweep that is trained apart: shard `number` (from 1) of `of`."""

    number: int = Field(gt=0)
    of: int = Field(gt=0, le=10_000)
    stack: int | None = Field(None, gt=0)
    """The size of the stacks, where it is fixed (`--stack N`). They are then the stacks of the whole sweep."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.number > self.of:
            raise ValueError(f"there is no shard {self.number} of {self.of}")
        return self


class Config(Strict):
    """The top level of a config file."""

    extends: str | None = None
    """A config that this one changes: its keys replace those of the other, under fixed and grid key by key."""
    name: Name | None = None
    """The sweep's folder below results/: 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit."""
    contrast: Contrast | None = None
    """Which runs are compared, and with what."""
    fixed: dict[str, Any] = Field({})
    """Run parameters with one value for every run."""
    grid: dict[str, Any] | None = None
    """Run parameters with lists of values; every combination is a run, the last key varies fastest."""
    grids: list[dict[str, Any]] | None = None
    """Several grids, one after the other."""
    exclude: list[dict[str, Any]] = Field([])
    """Rules; a run that matches one of them is dropped."""
    plugins: list[str] = Field([])
    """Python files that register networks, norms, data sets."""
    until_decided: UntilDecided | None = None
    """Add seeds until the verdict is decided; `bnbench run --until-decided` sets it."""
    shard: Shard | None = None
    """Train only this part of the sweep; `bnbench run --shard` sets it."""
    save_weights: bool = False
    """Keep each run's final weights, for `bnbench inspect`."""
    save_predictions: bool = False
    """Keep which test images each run classifies correctly, for `bnbench compare --over seeds,images`."""
    resources: Resources | None = None
    """What a job needs on a cluster (--executor ray)."""
    checkpoint_dir: str | None = Field(None, min_length=1)
    """Storage that all nodes of a cluster share: a path or an fsspec URL."""

    @property
    def listed(self) -> list[tuple[dict[str, Any], Path]]:
        """The grids, each with its path in the config."""
        if self.grids is None:
            return [(self.grid or {}, ("grid",))]
        return [(grid, ("grids", index)) for index, grid in enumerate(self.grids)]


@dataclass(frozen=True)
class Sweep:
    """Everything that one config describes."""

    name: str
    runs: tuple[RunSpec, ...]
    grid_keys: tuple[str, ...]
    axis: str | None = None
    baseline: Any = None
    smallest_effect: float | None = None
    until_decided: UntilDecided | None = None
    shard: Shard | None = None
    stacks: tuple[tuple[int, ...], ...] = ()
    """Of a shard: the stacks that the whole sweep has, as positions in `runs`, where their size is fixed."""
    plugins: tuple[str, ...] = ()
    save_weights: bool = False
    save_predictions: bool = False
    resources: Resources = field(default_factory=Resources)
    checkpoint_dir: str | None = None
    resolved: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict, repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The run parameters as table columns: grid keys in order, then the fixed ones."""
        fixed = [key for key in PARAMETERS if key not in self.grid_keys]
        arguments = [key for key in self.resolved["fixed"] if key.startswith("network.")]
        return (*self.grid_keys, *fixed, *arguments)

    @cached_property
    def parameters(self) -> Parameters:
        """Run id → the run's parameters."""
        return Parameters({run.run_id: run for run in self.runs})

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Run id → the run's number, from 1."""
        return {run.run_id: number for number, run in enumerate(self.runs, start=1)}

    def place(self, key: str, value: Any) -> Place | None:
        """Where the config sets `key` to `value`, or else where it sets `key`; None where it does neither."""
        return self.places.get((key, json.dumps(value))) or self.places.get((key, ""))

    def on_device(self, device: str) -> Self:
        """The same sweep with this device in place of `device: auto`.

        Errors: UserError where that makes two runs the same.
        """
        runs = tuple(run.changed(device=device) if run.device == "auto" else run for run in self.runs)
        if len({run.run_id for run in runs}) < len(runs):
            raise UserError(f"'device: auto' is {device} here, and the grid lists {device} as well")
        return replace(self, runs=runs, resolved=_replace_auto(self.resolved, device))


def _replace_auto(values: Any, device: str, key: str = "") -> Any:
    """The resolved config with `device` in place of each 'auto' below a key `device`. `key` is the nearest key."""
    if isinstance(values, Mapping):
        return {name: _replace_auto(value, device, name) for name, value in values.items()}
    if isinstance(values, list):
        return [_replace_auto(value, device, key) for value in values]
    return device if key == "device" and values == "auto" else values
