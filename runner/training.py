"""Training: a job's runs in, their rows out. Nothing here writes a file or knows who is listening."""

from __future__ import annotations

import hashlib
import math
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.data import Batches, RunData, batch_order, prepare
from runner.evaluation import evaluate, means, sums
from runner.model import build_network, learning_rate, make_optimizer, parameter_count, resolve_device, weights_hash
from runner.probes import Look, measure
from runner.randomness import stream
from runner.rows import CurveRow, EpochRow, Event, ProbeRow, RunResult, Status
from runner.spec import RunSpec


def train(job: Sequence[RunSpec], root: Path) -> Iterator[Event]:
    """Train a job's runs; yields an `EpochRow` per run per epoch and a `RunResult` at the end of each run.

    A run that raises ends as a result with its error, and the others go on. `root` is the data folder.
    """
    for run in job:
        rows: list[EpochRow] = []
        try:
            use_settings(run)
            yield from _train(run, root, rows)
        except (Exception, SystemExit) as error:  # a network that calls sys.exit() is a failed run too
            status: Status = "oom" if isinstance(error, torch.OutOfMemoryError | MemoryError) else "failed"
            message = f"{type(error).__name__}: {error}"
            yield RunResult(run.run_id, status, tuple(rows), error=message, traceback=traceback.format_exc())
        finally:
            torch.set_flush_denormal(False)  # scipy's noncentral t, and with it "seeds needed", changes under it


def _train(run: RunSpec, root: Path, rows: list[EpochRow]) -> Iterator[Event]:
    device = resolve_device(run.device)
    data = prepare(run.dataset, root, run.trainset, run.validate_on, run.train_samples, device)
    began = perf_counter()  # the data are read once for all of a process's runs
    network = build_network(run)
    weights = weights_hash(network)
    network.to(device)
    optimizer = make_optimizer(run, network)
    batches = Batches(run, data, device)
    orders: list[str] = []
    step, trained = 0, 0.0

    yield from _probe(run, network, data, 0, 0)
    for epoch in range(1, run.epochs + 1):
        network.train()
        torch.manual_seed(stream(run.seed, "dropout", epoch))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run, epoch)
        order = batch_order(run, len(data.train), epoch)
        orders.append(hashlib.sha256(order.numpy().tobytes()).hexdigest()[:8])
        readings = reading_steps(batches.count(len(order)), run.evaluations_per_epoch)
        whole, since = torch.zeros(2, 3, dtype=torch.float64, device=device)  # loss, correct, samples: no .item() here
        before, resumed = trained, perf_counter()
        for index, (images, labels) in enumerate(batches(order), start=1):
            optimizer.zero_grad()
            logits = network(images)
            _check_shape(logits, len(labels), data.classes)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            step += 1
            since += sums(loss, logits, labels)
            if index in readings:
                whole += since
                train_loss, train_accuracy = means(since)  # waits for the device
                trained += perf_counter() - resumed
                valid_loss, valid_accuracy = evaluate(network, data.valid)
                now = epoch - 1 + index / max(readings)
                if run.evaluations_per_epoch > 1:
                    reading = (train_loss, train_accuracy, valid_loss, valid_accuracy)
                    yield CurveRow(run.run_id, now, step, *reading, trained)
                yield from _probe(run, network, data, now, step)
                network.train()
                since.zero_()
                resumed = perf_counter()
        train_loss, train_accuracy = means(whole)
        row = EpochRow(
            run_id=run.run_id,
            epoch=epoch,
            step=step,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            valid_loss=valid_loss,
            valid_accuracy=valid_accuracy,
            epoch_duration=trained - before,
            run_duration=perf_counter() - began,
        )
        rows.append(row)
        yield row
        if not row.finite:
            break  # no later step can bring NaN weights back

    diverged = not rows[-1].finite
    test_loss, test_accuracy = evaluate(network, data.test) if data.test else (None, None)
    yield RunResult(
        run_id=run.run_id,
        status="diverged" if diverged else "ok",
        rows=tuple(rows),
        parameters=parameter_count(network),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        weights_hash=weights,
        batches_hash=" ".join(orders),
    )


def _probe(run: RunSpec, network: nn.Module, data: RunData, epoch: float, step: int) -> Iterator[ProbeRow]:
    look = Look(data, learning_rate(run, max(1, math.ceil(epoch))))
    for (layer, name), value in measure(network, look, run.probes).items():
        yield ProbeRow(run.run_id, epoch, step, layer, name, value)


def reading_steps(batches: int, readings: int) -> set[int]:
    """After which batches of an epoch (from 1) to evaluate: evenly spread, the last one always."""
    return {math.ceil(batches * reading / readings) for reading in range(1, readings + 1)}


def _check_shape(logits: Tensor, batch: int, classes: int) -> None:
    # Cross-entropy is content with more logits than classes; a table of such a network would look like any other.
    if not isinstance(logits, Tensor) or logits.shape != (batch, classes):
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network returned {found} for a batch of {batch}; it must return [{batch}, {classes}] logits"
        )


def use_settings(run: RunSpec) -> None:
    """Make the arithmetic the same on every visit: threads, denormals, and kernels that do not depend on timing."""
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)  # denormals slow a CPU's convolutions 20 to 50 times
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # A debugging aid, on by default with the above; it costs a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
