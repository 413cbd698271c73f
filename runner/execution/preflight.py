"""Checks before anything is trained: devices, data files, shapes, batches of one sample, operations on CUDA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import Fault, UserError, described
from runner.execution import cuda_checks, shape_checks
from runner.storage import small_batches as small
from runner.storage.norm_changes import sentence
from runner.training.data.datasets import load
from runner.training.data.preprocessing import train_size
from runner.training.isolation import isolated
from runner.training.networks import build_network, change_norms, resolve_device


def check(sweep: Sweep, root: Path, resolve: Callable[[str], torch.device] | None = None) -> Sweep:
    """Check that the sweep can be trained. Returns the sweep with `device: auto` replaced by the device that it means.

    `root` is the data folder. `resolve` turns a device's name into a device; the default is a device of this
    machine.
    Errors: UserError with every fault: a device that does not exist, data files that are missing or damaged, networks
    that do not fit their data set, batches that a network cannot be trained on, layers that are not deterministic on
    CUDA.
    """
    resolve = resolve or resolve_device
    faults = _faults(sweep, "device", resolve)
    devices = {} if faults else {name: resolve(name).type for name in {run.device for run in sweep.runs}}
    if any(run.precision == "tf32" and devices.get(run.device) == "cpu" for run in sweep.runs):
        message = "precision 'tf32' needs CUDA; allowed on the CPU: fp32, bf16"
        faults.append(Fault(message, sweep.place("precision", "tf32")))
    data_faults = _faults(sweep, "dataset", lambda name: load(name, root))
    shape_faults = shape_checks.faults(sweep)
    faults += data_faults + shape_faults
    if not data_faults and not shape_faults:
        faults += _batch_faults(sweep, root)
        on_cuda = [run for run in sweep.runs if devices.get(run.device) == "cuda"]
        faults += cuda_checks.faults(sweep, on_cuda, lambda name: load(name, root))
    if faults:
        raise UserError(*faults)
    return sweep.on_device(str(resolve("auto")))


def norm_changes(sweep: Sweep) -> list[str]:
    """What `swap_norm` and `insert_norm` do to the sweep's networks: a sentence for each network and norm layer.

    Errors: UserError where a network has no norm layer that can be replaced, or does not work with the new one.
    """
    different = {shape_checks.network_key(run): run for run in sweep.runs if run.swap_norm != "keep"}
    lines, faults = [], []
    for run in different.values():
        network = shape_checks.title(run)
        try:
            with isolated():
                lines.append(sentence(network, run.swap_norm, str(change_norms(run))))
        except (Exception, SystemExit) as error:
            message = str(error) if isinstance(error, ValueError) else described(error)
            faults.append(Fault(sentence(network, run.swap_norm, message), sweep.place("swap_norm", run.swap_norm)))
    if faults:
        raise UserError(*faults)
    return lines


def batch_warnings(sweep: Sweep, root: Path) -> list[str]:
    """Warnings where the last batch of an epoch is very small, or a batch larger than the training set.

    `root` is the data folder.
    """
    runs = {(train_size(run, root), run.batch_size) for run in sweep.runs if not run.drop_last}
    found = {(samples % size, size) for samples, size in runs if small.is_small(samples, size)}
    large = [
        f"batch_size {size:,} is larger than the training set of {samples:,} samples: each epoch is one step"
        for samples, size in sorted(runs)
        if size > samples
    ]
    return [*([small.sentence(sorted(found))] if found else []), *large]


def _faults(sweep: Sweep, key: str, check_value: Callable[[str], Any]) -> list[Fault]:
    """The faults in the values that the sweep has for a run parameter."""
    faults = []
    for value in dict.fromkeys(getattr(run, key) for run in sweep.runs):
        try:
            check_value(value)
        except UserError as error:
            faults += [Fault(fault.message, sweep.place(key, value)) for fault in error.faults]
    return faults


def _batch_faults(sweep: Sweep, root: Path) -> list[Fault]:
    """Faults of runs that have no batch, and of runs with a batch of one sample whose network cannot train on one."""
    faults = []
    refuses: dict[str, bool] = {}
    for run in sweep.runs:
        samples, size = train_size(run, root), run.batch_size
        place = sweep.place("batch_size", size)
        if run.drop_last and samples < size:
            message = f"batch_size {size} with drop_last leaves no batch of {samples:,} samples"
            faults.append(Fault(message, place))
        if size != 1 and (samples % size != 1 or run.drop_last):
            continue
        network = shape_checks.network_key(run)
        if network not in refuses:
            refuses[network] = _refuses_one_sample(run, root)
        if refuses[network]:
            remedy = "another batch_size or drop_last: true" if size > 1 else "another batch_size"
            message = (
                f"batch_size {size} leaves a last batch of one sample of {samples:,}; "
                f"the batch norm of network '{run.network}' cannot train on one sample; choose {remedy}"
            )
            faults.append(Fault(message, place))
    return list(dict.fromkeys(faults))


def _refuses_one_sample(run: RunSpec, root: Path) -> bool:
    sample = load(run.dataset, root).train.images[:1].float()
    try:
        with isolated(), torch.no_grad():
            build_network(run).train()(sample)
    except ValueError as error:
        return "more than 1 value per channel" in described(error)
    except (Exception, SystemExit):
        # The network has another fault. Its run will fail and report it.
        pass
    return False
