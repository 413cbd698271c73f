"""Training: a job's runs in, their rows out. Nothing here writes a file or knows who is listening."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage import checkpoints
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunResult, Status
from runner.training.checkpointing import Checkpointing, Unpacked
from runner.training.data.batches import Batches, batch_order
from runner.training.data.preprocessing import RunData, prepare
from runner.training.evaluation import means
from runner.training.learners.learner import Learner, State
from runner.training.learners.selection import learner_for
from runner.training.networks import build_network, parameter_count, resolve_device, weights_hash
from runner.training.optimizers import learning_rate
from runner.training.probes.probe import Look
from runner.training.probes.registry import probe_values


def _train(
    job: Job, root: Path, note: str, checkpointing: Checkpointing, saved: dict[str, Any] | None
) -> Iterator[Told]:
    shared = job[0]  # what the runs of a job do not differ in is read from the first
    device = resolve_device(shared.device)
    data = prepare(shared.dataset, root, shared.trainset, shared.validate_on, shared.train_samples, device)
    began = perf_counter()  # the data are read once for all of a process's runs
    networks = [build_network(run) for run in job]
    weights = [weights_hash(network) for network in networks]
    learner = learner_for(job, networks, data, device, note)
    batches = Batches(shared, data, device)
    hashes: list[list[str]] = [[] for _ in job]
    live = dict(enumerate(job))
    step, trained = 0, 0.0

    if saved:
        here = [saved["runs"].index(run.run_id) for run in job]
        learner.restore(State(saved["tensors"], saved["averages"], saved["steps"]).of(here))
        hashes = [list(saved["hashes"][index]) for index in here]
        step, trained = saved["step"], saved["trained"]
        began -= saved["elapsed"] * len(job)
    else:
        yield from _probe(live, learner, data, 0, 0)
    last_saved = perf_counter()
    for epoch in range(saved["epoch"] + 1 if saved else 1, shared.epochs + 1):
        learner.begin_epoch(epoch)
        orders = [batch_order(run, len(data.train), epoch) for run in (job[:1] if shared.share_batches else job)]
        for index, of_run in enumerate(hashes):
            of_run.append(_digest(orders[index % len(orders)]))
        readings = reading_steps(batches.count(len(data.train)), shared.evaluations_per_epoch)
        whole = torch.zeros(len(job), 3, dtype=torch.float64)
        before, resumed = trained, perf_counter()
        for index, batch in enumerate(batches(torch.stack(orders)), start=1):
            learner.step(batch)
            step += 1
            if index in readings:
                since = learner.reading()  # waits for the device
                whole += since
                trained += (perf_counter() - resumed) / len(job)
                valid = learner.evaluate(data.valid)
                now = epoch - 1 + index / max(readings)
                if shared.evaluations_per_epoch > 1:
                    for number, run in live.items():
                        yield CurveRow(run.run_id, now, step, *means(since[number]), *valid[number], trained)
                yield from _probe(live, learner, data, now, step)
                resumed = perf_counter()
        duration = trained - before, (perf_counter() - began) / len(job)
        ended: dict[int, Status] = {}
        for number, run in live.items():
            row = EpochRow(run.run_id, epoch, step, *means(whole[number]), *valid[number], *duration)
            yield row
            if epoch == shared.epochs or not row.finite:  # no later step can bring NaN weights back
                ended[number] = "ok" if row.finite else "diverged"
        tested = learner.evaluate(data.test) if data.test and ended else [(None, None)] * len(job)
        for number, status in ended.items():
            yield RunResult(
                run_id=live.pop(number).run_id,
                status=status,
                parameters=parameter_count(networks[number]),
                test_loss=tested[number][0],
                test_accuracy=tested[number][1],
                weights_hash=weights[number],
                batches_hash=" ".join(hashes[number]),
                trained_as=learner.how,
                weights=_final_weights(learner.member(number)) if checkpointing.final else None,
            )
        if not live:
            return
        if checkpointing.every.due(epoch, perf_counter() - last_saved):
            yield Unpacked(job, epoch, step, trained, duration[1], hashes, learner.state())
            last_saved = perf_counter()


def _final_weights(network: nn.Module) -> bytes:
    """The network's `state_dict`, on the CPU, as bytes."""
    state = network.state_dict()
    for name, value in state.items():
        if isinstance(value, Tensor):
            state[name] = value.detach().cpu().clone()  # of a view, its own numbers and not what it is a view of
    return checkpoints.pack(state)


Told = EpochRow | CurveRow | ProbeRow | RunResult | Unpacked


def _probe(live: dict[int, RunSpec], learner: Learner, data: RunData, epoch: float, step: int) -> Iterator[ProbeRow]:
    for number, run in live.items():
        if run.probes:
            look = Look(data, learning_rate(run, max(1, math.ceil(epoch))))
            for (layer, name), value in probe_values(learner.member(number), look, run.probes).items():
                yield ProbeRow(run.run_id, epoch, step, layer, name, value)


def _digest(order: Tensor) -> str:
    return hashlib.sha256(order.numpy().tobytes()).hexdigest()[:8]


def reading_steps(batches: int, readings: int) -> set[int]:
    """After which batches of an epoch (from 1) to evaluate: evenly spread, the last one always."""
    return {math.ceil(batches * reading / readings) for reading in range(1, readings + 1)}
