"""Training: a job's runs in, their rows out. Nothing here writes a file or knows who is listening."""

from __future__ import annotations

import hashlib
import math
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from runner.config.jobs import Job, even_parts
from runner.config.run_spec import RunSpec
from runner.storage import checkpoints
from runner.storage.checkpoints import NEVER, Every
from runner.storage.rows import Checkpoint, CurveRow, EpochRow, Event, ProbeRow, RunResult, Status
from runner.training.data.datasets import Batches, RunData, batch_order, prepare
from runner.training.evaluation import means
from runner.training.learners.selection import CannotStackError, Learner, learner_for
from runner.training.learners.stack import State
from runner.training.networks import build_network, learning_rate, parameter_count, resolve_device, weights_hash
from runner.training.probes.probe import Look, measure


@dataclass(frozen=True)
class Checkpointing:
    """How often to yield a `Checkpoint`, the file that each run goes on from, where it has one, and whether a run's
    result carries its final weights.
    """

    every: Every = NEVER
    files: Mapping[str, Path] = field(default_factory=dict)
    final: bool = False


def train(job: Sequence[RunSpec], root: Path, checkpointing: Checkpointing | None = None) -> Iterator[Event]:
    """Train a job's runs; yields an `EpochRow` per run per epoch and a `RunResult` at the end of each run.

    A stack that raises or runs out of memory is halved until what fails is one run, whose result says so; what was told
    of the others is not told again. `root` is the data folder. The runs of a job go on from the same checkpoint, or
    all from the start.
    """
    checkpointing = checkpointing or Checkpointing()
    file = checkpointing.files.get(job[0].run_id)
    saved = checkpoints.load(file) if file else None
    rows: dict[str, list[EpochRow]] = {run.run_id: checkpoints.rows(saved, run.run_id) if saved else [] for run in job}
    told: Counter[str] = Counter()
    finished: set[str] = set()
    waiting: list[tuple[Job, str]] = [(tuple(job), "")]
    while waiting:
        part, note = waiting.pop()
        part = tuple(run for run in part if run.run_id not in finished)
        again = told.copy()  # what these runs said before they were taken out of a larger stack
        try:
            use_settings(part[0])
            for event in _train(part, root, note, checkpointing, saved):
                if isinstance(event, Unpacked):
                    if not any(again.values()):
                        yield event.checkpoint(rows)
                    continue
                if again[event.run_id]:
                    again[event.run_id] -= 1
                    continue
                told[event.run_id] += 1
                if isinstance(event, EpochRow):
                    rows[event.run_id].append(event)
                elif isinstance(event, RunResult):
                    finished.add(event.run_id)
                    event = replace(event, rows=tuple(rows[event.run_id]))
                yield event
        except CannotStackError as cannot:
            waiting += [(smaller, cannot.note) for smaller in reversed(cannot.parts)]
        except (Exception, SystemExit) as error:  # a network that calls sys.exit() is a failed run too
            if len(part) > 1:
                waiting += [(half, "") for half in reversed(even_parts(part, 2))]
            else:
                yield _failure(part[0], error, rows[part[0].run_id])
        finally:
            torch.set_flush_denormal(False)  # scipy's noncentral t, and with it "seeds needed", changes under it


def _failure(run: RunSpec, error: BaseException, rows: Sequence[EpochRow]) -> RunResult:
    of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
    status: Status = "oom" if of_memory else "failed"  # torch's CPU allocator raises a plain RuntimeError
    message = f"{type(error).__name__}: {error}"
    return RunResult(run.run_id, status, tuple(rows), error=message, traceback=traceback.format_exc())


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


@dataclass(frozen=True)
class Unpacked:
    """A checkpoint before it is bytes."""

    job: Job
    epoch: int
    step: int
    trained: float
    elapsed: float
    hashes: Sequence[Sequence[str]]
    state: State

    def checkpoint(self, rows: Mapping[str, Sequence[EpochRow]]) -> Checkpoint:
        """With the rows told so far, which a run's result looks back on."""
        run_ids = tuple(run.run_id for run in self.job)
        values = {
            "runs": list(run_ids),
            "epoch": self.epoch,
            "step": self.step,
            "trained": self.trained,
            "elapsed": self.elapsed,
            "hashes": [list(of_run) for of_run in self.hashes],
            "rows": {run_id: [list(astuple(row)) for row in rows[run_id]] for run_id in run_ids},
            "tensors": self.state.tensors,
            "averages": self.state.averages,
            "steps": self.state.steps,
        }
        return Checkpoint(run_ids, self.epoch, checkpoints.pack(values))


Told = EpochRow | CurveRow | ProbeRow | RunResult | Unpacked


def _probe(live: dict[int, RunSpec], learner: Learner, data: RunData, epoch: float, step: int) -> Iterator[ProbeRow]:
    for number, run in live.items():
        if run.probes:
            look = Look(data, learning_rate(run, max(1, math.ceil(epoch))))
            for (layer, name), value in measure(learner.member(number), look, run.probes).items():
                yield ProbeRow(run.run_id, epoch, step, layer, name, value)


def _digest(order: Tensor) -> str:
    return hashlib.sha256(order.numpy().tobytes()).hexdigest()[:8]


def reading_steps(batches: int, readings: int) -> set[int]:
    """After which batches of an epoch (from 1) to evaluate: evenly spread, the last one always."""
    return {math.ceil(batches * reading / readings) for reading in range(1, readings + 1)}


def use_settings(run: RunSpec) -> None:
    """Make the arithmetic the same on every visit: threads, denormals, and kernels that do not depend on timing."""
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)  # denormals slow a CPU's convolutions 20 to 50 times
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # A debugging aid, on by default with the above; it costs a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    products = "tf32" if run.precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = products
