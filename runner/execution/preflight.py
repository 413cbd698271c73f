"""What can be known to be wrong before the first step: devices, data files, a last batch of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import Fault, UserError
from runner.training.data.datasets import load
from runner.training.data.preprocessing import train_size
from runner.training.networks import build_network, resolve_device


def check(sweep: Sweep, root: Path, resolve: Callable[[str], torch.device] = resolve_device) -> Sweep:
    """The sweep on its real devices, its data on the disk. `resolve` says which devices there are, where not these.

    Errors: UserError with every fault: a device that is not there, data files missing or corrupted, a last training
    batch of one that a normalization layer refuses.
    """
    faults: list[Fault] = []

    def attempt(key: str, value: str) -> bool:
        try:
            resolve(value) if key == "device" else load(value, root)
        except UserError as error:
            faults.extend(Fault(fault.message, sweep.place(key, value)) for fault in error.faults)
            return False
        return True

    for device in dict.fromkeys(run.device for run in sweep.runs):
        attempt("device", device)
    if not faults:
        faults += _tf32_without_cuda(sweep, resolve)
    datasets = dict.fromkeys(run.dataset for run in sweep.runs)
    readable = [attempt("dataset", name) for name in datasets]  # a list: every data set is tried
    if all(readable):
        faults += _single_sample_batches(sweep, root)
    if faults:
        raise UserError(*faults)
    return sweep.on_device(str(resolve("auto")))


def _tf32_without_cuda(sweep: Sweep, resolve: Callable[[str], torch.device]) -> list[Fault]:
    wrong = [run for run in sweep.runs if run.precision == "tf32" and resolve(run.device).type == "cpu"]
    message = "precision 'tf32' is CUDA's, and this run is on the CPU; allowed there: fp32, bf16"
    return [Fault(message, sweep.place("precision", "tf32"))] if wrong else []


def _single_sample_batches(sweep: Sweep, root: Path) -> list[Fault]:
    """Faults for runs whose last training batch has one sample, where their network cannot train on one."""
    faults: dict[Fault, None] = {}
    refuses: dict[str, bool] = {}
    for run in sweep.runs:
        n = train_size(run, root)
        if run.drop_last and n < run.batch_size:
            message = f"batch_size {run.batch_size} with drop_last leaves no batch of {n:,} samples"
            faults[Fault(message, sweep.place("batch_size", run.batch_size))] = None
        if (n % run.batch_size != 1 or run.drop_last) and run.batch_size != 1:
            continue
        network = f"{run.network} {run.network_args}"
        if network not in refuses:
            refuses[network] = _refuses_one_sample(run, root)
        if refuses[network]:
            message = (
                f"batch_size {run.batch_size} leaves a last batch of one sample of {n:,}, and network '{run.network}' "
                f"has batch norm that cannot be trained on one; choose another batch_size, or drop_last: true"
                if run.batch_size > 1
                else f"batch_size 1: network '{run.network}' has batch norm that cannot be trained on one sample"
            )
            faults[Fault(message, sweep.place("batch_size", run.batch_size))] = None
    return list(faults)


def _refuses_one_sample(run: RunSpec, root: Path) -> bool:
    sample = load(run.dataset, root).train.images[:1].float()
    try:
        with torch.no_grad():
            build_network(run).train()(sample)
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    except Exception:
        return False  # another fault of the network: its run will fail with it, and say so
    return False
