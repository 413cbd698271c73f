"""What a run has learned, from its saved weights: its layers, and of its norm layers every number."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runner.config.reader import load as load_config
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.storage.folder import CONFIG, ENVIRONMENT, LOG, RUNS
from runner.storage.resume import differences
from runner.storage.rows import FAILED
from runner.storage.tables import read_rows
from runner.storage.weights import weights_file
from runner.training import environment
from runner.training.data.batches import batch_order
from runner.training.data.preprocessing import prepare
from runner.training.networks import build_network, is_norm, parameter_count
from runner.training.probes.layers import outputs_of
from runner.training.probes.norms import NORM_NAMES, norm_states
from runner.training.settings import autocast

CPU = torch.device("cpu")

ARRAYS = ("running_mean", "batch_mean", "running_var", "batch_var", "gamma", "beta")
"""What may be known of a norm layer, feature by feature."""


@dataclass(frozen=True)
class Layer:
    """One layer: `shape` of its output for one sample (None: not known), `parameters` its own trainable numbers."""

    name: str
    type: str
    shape: tuple[int, ...] | None
    parameters: int


@dataclass(frozen=True)
class Norm:
    """One norm layer. `arrays` has those of `ARRAYS` that it has, each a number per feature, exactly as saved.

    `settings` is what torch prints of it in brackets: ε, momentum. The batch's variance is divided by the number of
    values; the gaps are those of `probes.norms`.
    """

    name: str
    type: str
    settings: str
    arrays: Mapping[str, tuple[float, ...]]
    mean_gap: float | None = None
    var_gap: float | None = None


@dataclass(frozen=True)
class Inspection:
    """A run as it ended. `outcome` is its row of runs.csv, `samples` how many its batch here has, None without one.

    `remarks` is what a reader must know: code that has changed since, data that are not here.
    """

    folder: Path
    run: int
    run_id: str
    parameters: Mapping[str, Any]
    grid_keys: tuple[str, ...]
    outcome: Mapping[str, str]
    trainable: int
    layers: tuple[Layer, ...]
    norms: tuple[Norm, ...]
    samples: int | None
    remarks: tuple[str, ...]


def inspect(folder: Path, run: str, root: Path) -> Inspection:
    """A run of the sweep in `folder`, by its number or its id; on the CPU, wherever it was trained.

    The batch is the first one the run was trained on, from the data folder `root`; without its data there is none.
    Errors: UserError where there is no such run, or no weights of it that its network takes.
    """
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder}: no sweep here (no {CONFIG}); allowed: a folder that 'bnbench run' wrote")
    sweep = load_config(folder / CONFIG)
    row = _row(folder, sweep, run)
    spec = next(each for each in sweep.runs if each.run_id == row["run_id"])
    remarks = _changed_since(folder, sweep)
    network = _network(folder, sweep, spec, row)
    batch: Tensor | None = None
    try:
        data = prepare(spec.dataset, root, spec.trainset, spec.validate_on, spec.train_samples, CPU)
        batch = data.train.images[batch_order(spec, len(data.train), 1)[: spec.batch_size]]
    except UserError as error:
        remarks.append(f"no batch, and no output shapes: {error}")
    remarks += _not_saved(network)
    layers, norms = _look(network, spec, batch)
    return Inspection(
        folder=folder,
        run=int(row["run"]),
        run_id=spec.run_id,
        parameters=spec.parameters,
        grid_keys=sweep.grid_keys,
        outcome=row,
        trainable=parameter_count(network),
        layers=layers,
        norms=norms,
        samples=None if batch is None else len(batch),
        remarks=tuple(remarks),
    )


def _row(folder: Path, sweep: Sweep, run: str) -> dict[str, str]:
    """The run's row of runs.csv. Errors: UserError where there is none, or none of a run that ended with weights."""
    planned = {name: each.run_id for number, each in enumerate(sweep.runs, 1) for name in (each.run_id, str(number))}
    if run not in planned:
        raise UserError(f"{folder}: no run '{run}'; allowed: 1 to {len(sweep.runs)}, or a run_id of {RUNS}")
    rows = read_rows(folder / RUNS)
    row = next((row for row in rows if row["run_id"] == planned[run]), None)
    if row is None and any(run in (row["run"], row["run_id"]) for row in rows):
        raise UserError(
            f"{folder}: run {run} is of a bnbench that named runs otherwise; only that one can build its network"
        )
    if row is None or row["status"] == "interrupted":
        raise UserError(f"{folder}: run {run} has not ended; bnbench resume {folder} trains it to its end")
    if row["status"] in FAILED:
        raise UserError(
            f"{folder}: run {run} has no weights, its status is {row['status']}: {row['error']} "
            f"(more in {folder / LOG}; bnbench resume {folder} --retry trains it again)"
        )
    return row


def _network(folder: Path, sweep: Sweep, run: RunSpec, row: Mapping[str, str]) -> nn.Module:
    """The run's network with its saved weights. Errors: UserError where it cannot be had."""
    path = weights_file(folder, run.run_id)
    if not path.exists():
        if sweep.save_weights:
            raise UserError(f"{path}: run {row['run']}'s weights are gone; bnbench resume {folder} trains it again")
        parent = folder.resolve().parent
        raise UserError(
            f"{folder}: no weights were saved; 'save_weights: true' in a config keeps them, and here\n"
            f"  bnbench run {folder / CONFIG} --out {parent} --resume --set save_weights=true\n"
            f"trains the runs again and keeps them"
        )
    again = f"delete it, and bnbench resume {folder} trains run {row['run']} again"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's unpickler makes of bytes that are not its own
        raise UserError(f"{path}: damaged ({type(error).__name__}); {again}") from None
    try:
        network = build_network(run)
    except Exception as error:
        raise UserError(f"network '{run.network}' cannot be built: {type(error).__name__}: {error}") from None
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not the weights of this network as it is now ({first}); {again}") from None
    return network


def _changed_since(folder: Path, sweep: Sweep) -> list[str]:
    """What of the code differs from what the sweep was trained with, in words."""
    try:
        before = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [f"{folder / ENVIRONMENT} cannot be read: whether the code is that of the training is not known"]
    now = {"code": environment.code(), "plugins": environment.digests(sweep.plugins)}
    names = ["bnbench's code" if name == "code" else name for name in sorted(differences(before, now))]
    return [f"{', '.join(names)} changed since the training: the layers may compute something else"] if names else []


def _look(network: nn.Module, run: RunSpec, batch: Tensor | None) -> tuple[tuple[Layer, ...], tuple[Norm, ...]]:
    """Its layers and norm layers, from one pass in training mode on a copy."""
    copied = copy.deepcopy(network)
    with ExitStack() as stack:
        stack.enter_context(autocast(run, CPU))
        outputs = stack.enter_context(outputs_of(copied))
        states = norm_states(copied, batch)
    shapes = {name: tuple(output.shape[1:]) for name, output in outputs.items()}
    modules = dict(network.named_modules())
    own = {name: sum(p.numel() for p in m.parameters(recurse=False) if p.requires_grad) for name, m in modules.items()}
    layers = tuple(
        Layer(name, type(module).__name__, shapes.get(name), own[name])
        for name, module in modules.items()
        if own[name] or is_norm(module) or not list(module.children())
    )
    norms = []
    for name, state in states.items():
        lost = _lost(modules[name])
        state = replace(state, **dict.fromkeys([*lost, "batch_mean", "batch_var"] if lost else []))
        arrays = {array: tuple(values.tolist()) for array in ARRAYS if (values := getattr(state, array)) is not None}
        module = modules[name]
        norms.append(Norm(name, type(module).__name__, module.extra_repr(), arrays, *(state.gaps or (None, None))))
    return layers, tuple(norms)


def _lost(norm: nn.Module) -> list[str]:
    """What of a norm layer is a tensor and yet neither parameter nor buffer: saved with no weights."""
    saved = norm.state_dict()
    held = {
        part: [name for name in names if isinstance(getattr(norm, name, None), Tensor)]
        for part, names in NORM_NAMES.items()
    }
    return [part for part, names in held.items() if names and names[0] not in saved]


def _not_saved(network: nn.Module) -> list[str]:
    """What the layers keep where `state_dict` does not look, in words: it would be shown as it began."""
    lost = {name: _lost(module) for name, module in network.named_modules() if is_norm(module)}
    return [
        f"layer {name}: {', '.join(parts)} is no buffer (self.register_buffer), so it is in no weights: not shown"
        for name, parts in lost.items()
        if parts
    ]
