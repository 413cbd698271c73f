"""What a run has learned, from its saved weights: its layers, and every number of its norm layers."""

import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError, quoted, text_of
from runner.storage import resume, rows, tables
from runner.storage.folder import CONFIG, ENVIRONMENT, LOG, RUNS
from runner.storage.run_files import WEIGHTS
from runner.training import environment, networks, stored
from runner.training.data import batches, preprocessing
from runner.training.data.augmentation import Augmentation
from runner.training.norm_trace import is_norm
from runner.training.probes.layers import leaves, recorded
from runner.training.probes.norms import gaps, norm_states, tensor_names
from runner.training.settings import autocast

CPU = torch.device("cpu")

OUTCOMES = (*rows.MEASURES, "test_loss", "test_accuracy")
"""The numbers of a run's row that are shown."""

ARRAYS = ("running_mean", "batch_mean", "running_var", "batch_var", "gamma", "beta")
"""What can be known of a norm layer, feature by feature."""


@dataclass(frozen=True)
class Layer:
    """One layer. `shape` is its output's for one sample (None: not known), `parameters` its own trainable numbers."""

    name: str
    type: str
    shape: tuple[int, ...] | None
    parameters: int


@dataclass(frozen=True)
class Norm:
    """One norm layer. `arrays` has those of `ARRAYS` that the layer has: a number per feature, exactly as saved.

    `settings` is what torch prints of the layer in brackets: ε, momentum. The batch's variance is divided by the number
    of values. The gaps are those of `probes.norms.gaps`.
    """

    name: str
    type: str
    settings: str
    arrays: Mapping[str, tuple[float, ...]]
    mean_gap: float | None = None
    var_gap: float | None = None


@dataclass(frozen=True)
class Inspection:
    """A run at its end. `outcome` is its row of runs.csv.

    `samples` is the size of the batch that passed through the network, None where the data are missing. `remarks` are
    what a reader must know, such as that the code has changed since the training.
    """

    folder: Path
    run: int
    run_id: str
    parameters: Mapping[str, Any]
    grid_keys: tuple[str, ...]
    outcome: Mapping[str, str]
    trainable: int
    layers: Sequence[Layer]
    norms: Sequence[Norm]
    samples: int | None
    remarks: Sequence[str]


def inspect(folder: Path, run: str, root: Path) -> Inspection:
    """Inspect a run of the sweep in `folder`, given by its number or its id. This uses the CPU only.

    The batch is the first one that the run was trained on; its data are in the folder `root`.
    Errors: UserError where there is no such run, or no saved weights that fit its network.
    """
    sweep = stored.load(folder)
    row = _row(folder, sweep, run)
    number, spec = next(found for found in enumerate(sweep.runs, 1) if found[1].run_id == row["run_id"])
    remarks = _code_changes(folder, sweep)
    network = _network(folder, spec, number)
    batch: Tensor | None = None
    try:
        data = preprocessing.data_of([spec], root, CPU)
        index = data.positions(0, batches.batch_order(spec, data.samples, 1))[: spec.batch_size]
        augment = Augmentation([spec], data)
        augment.begin_epoch(1)
        batch = augment(data.train.images[index].unsqueeze(1), index.unsqueeze(0)).squeeze(1)
    except UserError as error:
        remarks.append(f"no batch, and no output shapes: {error}")
    layers, norms, unsaved = _look(network, spec, batch)
    return Inspection(
        folder=folder,
        run=number,
        run_id=spec.run_id,
        parameters=spec.parameters,
        grid_keys=sweep.grid_keys,
        outcome=row,
        trainable=networks.parameter_count(network),
        layers=layers,
        norms=norms,
        samples=None if batch is None else len(batch),
        remarks=remarks + unsaved,
    )


def _row(folder: Path, sweep: Sweep, run: str) -> dict[str, str]:
    """The run's row of runs.csv. Errors: UserError where there is none, or a damaged one, or no final weights."""
    run_ids = {str(number): spec.run_id for number, spec in enumerate(sweep.runs, 1)}
    run_id = run_ids.get(run, run)
    if run_id not in run_ids.values():
        raise UserError(f"{folder}: no run '{run}'; allowed: 1 to {len(run_ids)}, or a run_id of {RUNS}")
    here = f"{folder}: run {run}"
    command = f"bnbench resume {quoted(folder)}"
    table = tables.read_rows(folder / RUNS)
    row = next((row for row in table if row["run_id"] == run_id), None)
    if row is None and any(run in (row["run"], row["run_id"]) for row in table):
        raise UserError(f"{here} has another id in {RUNS}: another bnbench trained it")
    if row is None or row["status"] == "interrupted":
        raise UserError(f"{here} has not ended; {command} trains it to its end")
    if row["status"] in rows.FAILED:
        reason = f"its status is {row['status']}: {row['error']} (more in {folder / LOG})"
        raise UserError(f"{here} has no weights, {reason}; {command} --retry trains it again")
    tables.check_status(row["status"], folder / RUNS)
    for name in OUTCOMES:
        tables.measure_in(row, name, folder / RUNS)
    return row


def _network(folder: Path, spec: RunSpec, run: int) -> nn.Module:
    """The run's network with its saved weights. Errors: UserError where there is none, or the weights do not fit."""
    if spec.run_id not in WEIGHTS.saved(folder):
        options = f"--out {quoted(folder.resolve().parent)} --resume --set save_weights=true"
        command = f"bnbench run {quoted(folder / CONFIG)} {options}"
        raise UserError(f"{folder}: run {run} has no saved weights; this trains it again:\n  {command}")
    try:
        network = networks.build_network(spec)
    except Exception as error:
        raise UserError(f"network '{spec.network}' cannot be built: {type(error).__name__}: {error}") from None
    try:
        content = io.BytesIO(WEIGHTS.read(folder, spec.run_id))
        network.load_state_dict(torch.load(content, map_location="cpu", weights_only=True))
    except Exception as error:
        # torch raises many kinds of errors for a damaged file.
        reason = " ".join(text_of(error).split())[:300]
        fault = f"damaged, or not the weights of this network as it is now ({reason})"
        path = WEIGHTS.path(folder, spec.run_id)
        command = f"bnbench resume {quoted(folder)}"
        raise UserError(f"{path}: {fault}; delete it, and {command} trains run {run} again") from None
    return network


def _code_changes(folder: Path, sweep: Sweep) -> list[str]:
    """A remark where the code differs from the code that the sweep was trained with."""
    before = resume.read_environment(folder)
    if before is None:
        return [f"{folder / ENVIRONMENT} cannot be read: the code may have changed since the training"]
    now = {"code": environment.code(), "plugins": environment.digests(sweep.plugins, stored.names_from(folder))}
    if not (changed := resume.differences(before, now)):
        return []
    names = ", ".join(sorted(changed))
    return [f"{names} changed since the training: the layers may compute something else"]


def _look(network: nn.Module, spec: RunSpec, batch: Tensor | None) -> tuple[list[Layer], list[Norm], list[str]]:
    """(layers, norm layers, remarks), from one pass of the batch through a copy in training mode.

    An array that is neither parameter nor buffer is in no file of weights. It has its starting values here, not what
    the run learned, so a remark takes its place.
    """
    copied = copy.deepcopy(network)
    with autocast(spec, CPU), recorded(leaves(copied)) as (_, outputs):
        states = norm_states(copied, batch)
    layers, norms, remarks = [], [], []
    for name, module in network.named_modules():
        kind = type(module).__name__
        own = [p.numel() for p in module.parameters(recurse=False) if p.requires_grad]
        if own or is_norm(module) or not list(module.children()):
            shape = tuple(outputs[name].shape[1:]) if name in outputs else None
            layers.append(Layer(name, kind, shape, sum(own)))
        if name in states:
            state, saved = states[name], module.state_dict()
            unsaved = [key for key, attribute in tensor_names(module).items() if attribute not in saved]
            if unsaved:
                names = ", ".join(unsaved)
                remarks.append(f"layer {name}: {names} is not a buffer, so it is not saved and not shown")
                for key in (*unsaved, "batch_mean", "batch_var"):
                    state.pop(key, None)
            arrays = {key: tuple(state[key].tolist()) for key in ARRAYS if key in state}
            norms.append(Norm(name, kind, module.extra_repr(), arrays, *(gaps(state) or (None, None))))
    return layers, norms, remarks
