"""What a config file is, and what it becomes: a `Sweep`, its runs in order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from runner.config.run_spec import PARAMETERS, RunSpec
from runner.errors import Place, UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"


class Contrast(BaseModel):
    """What is compared: a run parameter of the grid, and the value the others are compared with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    axis: Annotated[str, Field(description="a grid key, such as network or network.norm")]
    baseline: Annotated[Any, Field(description="the value of the axis the other values are compared with")]
    smallest_effect: Annotated[
        float | None,
        Field(gt=0, lt=1, description="the smallest difference in accuracy of interest; 0.005 is 0.5 pp"),
    ] = None


class Resources(BaseModel):
    """What a job asks of a cluster's node; fractions share one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    num_cpus: Annotated[
        float | None, Field(gt=0, le=1024, description="CPUs of a job; default: a run's threads and num_workers")
    ] = None
    num_gpus: Annotated[
        float | None,
        Field(ge=0, le=1, description="GPUs of a job: 1, or 0.25 where four share one; default: by device"),
    ] = None


class Config(BaseModel):
    """The top level of a config file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[Name | None, Field(description=f"the sweep's folder below results/: {NAME_RULE}")] = None
    contrast: Annotated[Contrast | None, Field(description="which runs are compared, and with what")] = None
    fixed: Annotated[dict[str, Any], Field(description="one value for every run")] = {}
    grid: Annotated[dict[str, Any] | None, Field(description="lists; every combination, last key fastest")] = None
    grids: Annotated[list[dict[str, Any]] | None, Field(description="several grids, one after the other")] = None
    exclude: Annotated[list[dict[str, Any]], Field(description="drop the runs that match one of these")] = []
    plugins: Annotated[list[str], Field(description="Python files that register networks, norms, data sets")] = []
    save_weights: Annotated[bool, Field(description="keep each run's final weights, for `bnbench inspect`")] = False
    resources: Annotated[Resources | None, Field(description="what a job asks of a cluster (--executor ray)")] = None
    checkpoint_dir: Annotated[
        str | None,
        Field(min_length=1, description="storage that all of a cluster's nodes see: a path or an fsspec URL"),
    ] = None


@dataclass(frozen=True)
class Sweep:
    """Everything one config describes."""

    name: str
    runs: tuple[RunSpec, ...]
    grid_keys: tuple[str, ...]
    axis: str | None = None
    baseline: Any = None
    smallest_effect: float | None = None
    plugins: tuple[str, ...] = ()
    save_weights: bool = False
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

    def place(self, key: str, value: Any) -> Place | None:
        """Where the config says `key: value`, as far as it does."""
        return self.places.get((key, json.dumps(value))) or self.places.get((key, ""))

    def on_device(self, device: str) -> Sweep:
        """The same sweep with `device: auto` replaced by the device it means here.

        Errors: UserError where that makes two runs the same.
        """
        runs = tuple(run.changed(device=device) if run.device == "auto" else run for run in self.runs)
        if len({run.run_id for run in runs}) < len(runs):
            raise UserError(f"'device: auto' is {device} here, and the grid lists {device} as well")
        return replace(self, runs=runs, resolved=_replace_auto(self.resolved, device))


def _replace_auto(values: Any, device: str) -> Any:
    """The resolved config with the value of every `device` entry made definite."""
    if isinstance(values, Mapping):
        return {
            key: _definite(value, device) if key == "device" else _replace_auto(value, device)
            for key, value in values.items()
        }
    return [_replace_auto(value, device) for value in values] if isinstance(values, list) else values


def _definite(value: Any, device: str) -> Any:
    if isinstance(value, list):
        return [_definite(entry, device) for entry in value]
    return device if value == "auto" else value
