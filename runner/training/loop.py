"""The training loop of one job: one run, or a stack of R runs."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage import checkpoints
from runner.storage.predictions import pack
from runner.storage.rows import CurveRow, EpochRow, Note, ProbeRow, RunEvent, RunResult, Shortfall, Status
from runner.training.data.batches import Batches, batch_order
from runner.training.data.preprocessing import RunData, check_unchanged, data_of
from runner.training.data.seeding import seed_generators
from runner.training.evaluation import means
from runner.training.learners.cuda_graph import on_device
from runner.training.learners.learner import Learner, State
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.networks import build_network, parameter_count, resolve_device, weights_hash
from runner.training.optimizers import learning_rate
from runner.training.options import TrainingOptions
from runner.training.probes.probe import Look
from runner.training.probes.registry import probe_values
from runner.training.variables import differing, outside_checkpoints
from runner.training.warm_up import warm_up

TrainingState = dict[str, Any]
"""The state of a job's runs after an epoch, by the names that a checkpoint's file uses (`checkpoints.STATE`)."""

LoopEvent = RunEvent | Shortfall | Note | TrainingState


class TrainingLoop:
    """The runs of a job while they train.

    The runs differ only in the parameters that a stack allows (`config.jobs.STACKABLE`), so the first run stands for
    all of them in everything else. The loop continues after the epoch of `saved`, which may hold more runs than the
    job, or begins at the start.
    """

    def __init__(self, job: Job, options: TrainingOptions, saved: TrainingState | None = None) -> None:
        self.job, self.runs, self.options = job, job.runs, options
        self.run = run = job.runs[0]
        self.device = resolve_device(run.device)
        self.data = data_of(self.runs, options.data_dir, self.device)
        warm_up(self.device)
        # The clock starts now: the data are read, and torch is prepared, once for all runs of a process.
        self.began = perf_counter()
        self.networks = [_build(run) for run in self.runs]
        self.weights_hashes = [weights_hash(network) for network in self.networks]
        self.learner = self._make_learner()
        self.outside = outside_checkpoints(self.networks)
        self.batches = Batches(run, self.data, self.device)
        self.batch_digests: list[list[str]] = [[] for _ in self.runs]
        # position in the job → a run that has not ended
        self.live = dict(enumerate(self.runs))
        self.epoch = self.step = 0
        # The next epoch's orders, or that they are being made.
        self.orders: Future[tuple[Tensor, list[str]]]
        # seconds per run: of training alone, and of everything since the clock started
        self.trained = self.elapsed = 0.0
        if saved:
            index = [saved["runs"].index(run.run_id) for run in self.runs]
            self.learner.restore([State(**saved["states"][i]) for i in index])
            self.batch_digests = [list(saved["hashes"][i]) for i in index]
            self.epoch, self.step, self.trained = saved["epoch"], saved["step"], saved["trained"]
            self.began -= saved["elapsed"] * len(self.runs)
            going_on = [number for number, run in self.live.items() if checkpoints.goes_on(saved, run.run_id)]
            self.live = {number: self.live[number] for number in going_on}

    def _make_learner(self) -> Learner:
        if self.job.form is None:
            return Solo(self.run, self.networks[0], self.data, self.options.kernels)
        return Stack(self.runs, self.networks, self.data, self.job.form)

    def events(self) -> Iterator[LoopEvent]:
        """Train until every run has ended."""
        with on_device(self.device), ThreadPoolExecutor(1) as self.background:
            yield from self._epochs()

    def _epochs(self) -> Iterator[LoopEvent]:
        self._prepare_orders(self.epoch + 1)
        if self.epoch == 0:
            yield from self._probe(0)
        every, last_saved = self.options.checkpoint_every, perf_counter()
        while self.live:
            self.epoch += 1
            yield from self._train_epoch()
            yield from self._end_epoch()
            if self.live and every.due(self.epoch, perf_counter() - last_saved):
                state = self._state()
                yield state
                every, last_saved = checkpoints.NEVER if isinstance(state, Note) else every, perf_counter()

    def _train_epoch(self) -> Iterator[LoopEvent]:
        """Take an optimizer step per batch. Evaluate after some of the steps, always after the last one."""
        seed_generators(self.run.seed_of("dropout"), "dropout", self.epoch)
        # A network that has entered autocast, and not left it, would go on with the weights of an earlier epoch.
        torch.clear_autocast_cache()
        self.learner.begin_epoch(self.epoch)
        orders = self._batch_orders()
        steps = self.batches.count(self.data.samples)
        evaluated = reading_steps(steps, self.run.evaluations_per_epoch)
        self.sums = torch.zeros(len(self.runs), 3, dtype=torch.float64)
        trained_before, resumed = self.trained, perf_counter()
        for number, batch in enumerate(self.batches(orders), start=1):
            self.learner.step(batch)
            self.step += 1
            if number == 1:
                # Not earlier: a DataLoader has started its processes now, and a fork beside a busy thread can hang.
                self._prepare_orders(self.epoch + 1)
            if number in evaluated:
                # A reading waits for the device, so the clock is right only after it.
                sums = self.learner.reading()
                self.trained += (perf_counter() - resumed) / len(self.runs)
                yield from self._evaluate(sums, self.epoch - 1 + number / steps)
                resumed = perf_counter()
        self.epoch_seconds = self.trained - trained_before
        self.elapsed = (perf_counter() - self.began) / len(self.runs)

    def _prepare_orders(self, epoch: int) -> None:
        """Make an epoch's batch orders and their digests in the background, while the device trains the epoch before.

        The thread draws from generators of its own, so the numbers are the same as without it.
        """
        if epoch <= self.run.epochs:
            self.orders = self.background.submit(batch_orders, self.runs, self.data, epoch)

    def _batch_orders(self) -> Tensor:
        """The order [R, N] in which each run visits the training samples; [1, N] where they share it."""
        orders, digests = self.orders.result()
        for earlier, digest in zip(self.batch_digests, cycle(digests), strict=False):
            earlier.append(digest)
        return orders

    def _evaluate(self, sums: Tensor, epoch: float) -> Iterator[LoopEvent]:
        """Validate, and report the readings. `sums` [R, 3] is the training since the last reading."""
        self.sums += sums
        # Once for each reading: the test set is evaluated at the same weights.
        self.learner.reestimate()
        self.valid = self.learner.evaluate(self.data.valid, self.data.own_valid)
        if self.run.evaluations_per_epoch > 1:
            for number, run in self.live.items():
                readings = *means(sums[number]), *self.valid[number]
                yield CurveRow(run.run_id, epoch, self.step, *readings, self.trained)
        yield from self._probe(epoch)

    def _probe(self, epoch: float) -> Iterator[ProbeRow]:
        """Look inside the networks of the runs that ask for probes."""
        for number, run in self.live.items():
            if run.probes:
                look = Look(self.data.of(number), learning_rate(run, max(1, math.ceil(epoch))))
                values = probe_values(self.learner.member(number), look, run.probes)
                for (layer, name), value in values.items():
                    yield ProbeRow(run.run_id, epoch, self.step, layer, name, value)

    def _end_epoch(self) -> Iterator[LoopEvent]:
        """Report a row per run, and a result for each run that has ended."""
        if self.learner.shortfall:
            yield self.learner.shortfall
            self.learner.shortfall = None
        ended: dict[int, Status] = {}
        for number, run in self.live.items():
            readings = *means(self.sums[number]), *self.valid[number]
            row = EpochRow(run.run_id, self.epoch, self.step, *readings, self.epoch_seconds, self.elapsed)
            yield row
            # A run whose loss is not finite has diverged and ends. Its weights cannot recover.
            if self.epoch == run.epochs or not row.finite:
                ended[number] = "ok" if row.finite else "diverged"
        test = self.data.test if ended else None
        tested = self.learner.evaluate(test) if test else [(None, None)] * len(self.runs)
        if ended:
            check_unchanged(self.data)
            predictions = self._predictions()
        for number, status in ended.items():
            yield RunResult(
                run_id=self.live.pop(number).run_id,
                status=status,
                parameter_count=parameter_count(self.networks[number]),
                test_loss=tested[number][0],
                test_accuracy=tested[number][1],
                weights_hash=self.weights_hashes[number],
                batches_hash=" ".join(self.batch_digests[number]),
                trained_as=": ".join(filter(None, (self.learner.how, self.job.note))),
                weights=self._packed_weights(number),
                predictions=predictions[number],
            )

    def _predictions(self) -> Sequence[bytes | None]:
        """Which images of the test set each run classifies correctly, as bytes; None where this is not saved."""
        if not self.options.save_predictions:
            return [None] * len(self.runs)
        test = self.data.valid if self.data.test is None else self.data.test
        return [pack(hits) for hits in self.learner.hits(test).cpu().numpy()]

    def _packed_weights(self, number: int) -> bytes | None:
        """The `state_dict` of a run's network, on the CPU, as bytes; None where weights are not saved."""
        if not self.options.save_weights:
            return None
        state = self.learner.member(number).state_dict()
        for name, value in state.items():
            # torch saves a view with the whole tensor behind it. A clone is not a view.
            if isinstance(value, Tensor):
                state[name] = value.detach().cpu().clone()
        return checkpoints.pack(state)

    def _state(self) -> TrainingState | Note:
        """The state to save in a checkpoint. A note where a run that goes on from it could give other numbers."""
        if kept := differing(self.outside, outside_checkpoints(self.networks)):
            whose = f"the stack of run {self.run.run_id}" if len(self.runs) > 1 else f"run {self.run.run_id}"
            reason = f"because it changes what a checkpoint does not hold: {', '.join(kept)}"
            return Note(f"{whose} has no checkpoint, {reason}")
        return {
            "runs": [run.run_id for run in self.runs],
            "epoch": self.epoch,
            "step": self.step,
            "trained": self.trained,
            "elapsed": self.elapsed,
            "hashes": self.batch_digests,
            "states": [vars(state) for state in self.learner.states()],
        }


class CannotBuildError(Exception):
    """The network of one run cannot be built. The cause is the error of its factory."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__(f"the network of run {run.run_id} cannot be built")
        self.run = run


def _build(run: RunSpec) -> nn.Module:
    try:
        return build_network(run)
    except (Exception, SystemExit) as error:
        raise CannotBuildError(run) from error


def reading_steps(steps: int, readings: int) -> set[int]:
    """The steps of an epoch (from 1) after which to evaluate. They are evenly spread and include the last step.

    >>> sorted(reading_steps(steps=50, readings=4))
    [13, 25, 38, 50]
    """
    return {math.ceil(steps * reading / readings) for reading in range(1, readings + 1)}


def batch_orders(runs: Sequence[RunSpec], data: RunData, epoch: int) -> tuple[Tensor, list[str]]:
    """The orders [R, N] in which the runs visit the training samples, and a digest of each; one where they share it."""
    own = runs[:1] if runs[0].share_batches and data.own_train is None else runs
    orders = [data.positions(number, batch_order(run, data.samples, epoch)) for number, run in enumerate(own)]
    return torch.stack(orders), [hashlib.sha256(order.numpy().tobytes()).hexdigest()[:8] for order in orders]
