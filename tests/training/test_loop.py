"""What the training loop does beside the steps: batch orders made in advance, and the current device."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every
from runner.storage.rows import EpochRow, RunResult
from runner.training import loop
from runner.training.data.batches import batch_order
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.loop import TrainingLoop, TrainingState
from runner.training.options import TrainingOptions
from runner.training.settings import settings_of

RUN = RunSpec(network="notebook_mlp", dataset="digits", device="cpu", batch_size=500, epochs=3)
PAIR = (RUN, RUN.changed(seed=1))


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with settings_of(RUN):
        yield


class Log:
    """The orders that are asked for, with their threads, and the indices that the steps get."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[int, int]] = []
        self.threads: set[threading.Thread] = set()
        self.visited: list[Tensor] = []
        self.coming: dict[int, threading.Event] = {epoch: threading.Event() for epoch in range(1, 10)}

        def order(run: RunSpec, n: int, epoch: int) -> Tensor:
            self.asked.append((run.seed, epoch))
            self.threads.add(threading.current_thread())
            self.coming[epoch].set()
            return batch_order(run, n, epoch)

        monkeypatch.setattr(loop, "batch_order", order)
        step = Stack.step

        def visit(stack: Stack, batch: Any) -> None:
            self.visited.append(batch.clone())
            step(stack, batch)

        monkeypatch.setattr(Stack, "step", visit)


def results(loop: TrainingLoop) -> tuple[list[RunResult], list[TrainingState]]:
    # A checkpoint is written before the loop goes on, and changes its lists.
    events = [copy.deepcopy(event) for event in loop.events()]
    states = [event for event in events if isinstance(event, dict)]
    for state in states:
        rows = [event for event in events if isinstance(event, EpochRow) and event.epoch <= state["epoch"]]
        state["rows"] = {run: [list(astuple(row)) for row in rows if row.run_id == run] for run in state["runs"]}
    return [event for event in events if isinstance(event, RunResult)], states


def expected(runs: Sequence[RunSpec], n: int) -> list[str]:
    """The digests of each run's orders, from batch_order itself."""
    orders = [[batch_order(run, n, epoch) for epoch in range(1, run.epochs + 1)] for run in runs]
    return [" ".join(hashlib.sha256(order.numpy().tobytes()).hexdigest()[:8] for order in own) for own in orders]


@pytest.mark.parametrize("shared", [False, True], ids=["own orders", "shared order"])
def test_steps_visit_the_orders_also_after_a_resume(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    log = Log(monkeypatch)
    pair = tuple(run.changed(share_batches=shared) for run in PAIR)
    training = TrainingLoop(Job(pair, "grouped"), TrainingOptions(checkpoint_every=Every(epochs=2)))
    n = len(training.data.train)
    found, (state,) = results(training)
    whole = log.visited[:]
    log.visited.clear()
    again, _ = results(TrainingLoop(Job(pair, "grouped"), TrainingOptions(), saved=state))
    rows = pair[:1] if shared else pair
    for epoch in (1, 2, 3):
        order = torch.stack([batch_order(run, n, epoch) for run in rows])
        steps = len(whole) // 3
        assert torch.equal(torch.cat(whole[(epoch - 1) * steps : epoch * steps], dim=1), order)
    assert torch.equal(torch.cat(log.visited, dim=1), order)
    for outcome in (found, again):
        assert [result.batches_hash for result in outcome] == expected(pair, n)
    # Nothing is made for an epoch after the last, nor again for one before the checkpoint.
    assert log.asked == [(run.seed, epoch) for epoch in (1, 2, 3, 3) for run in rows]


def test_the_next_orders_are_made_while_an_epoch_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second step on, an epoch waits here until the next epoch's orders are asked for."""
    log = Log(monkeypatch)
    step = Stack.step

    def wait(stack: Stack, batch: Any) -> None:
        epoch = len(log.visited) // 3 + 1
        if epoch < RUN.epochs and len(log.visited) % 3:
            assert log.coming[epoch + 1].wait(30)
        step(stack, batch)

    monkeypatch.setattr(Stack, "step", wait)
    found, _ = results(TrainingLoop(Job(PAIR, "grouped"), TrainingOptions()))
    assert [result.status for result in found] == ["ok", "ok"]
    assert len(log.threads) == 1
    assert threading.current_thread() not in log.threads


@pytest.mark.parametrize("end", ["whole", "failed", "closed"])
def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    log = Log(monkeypatch)
    events = TrainingLoop(Job(PAIR, "grouped"), TrainingOptions()).events()
    if end == "whole":
        list(events)
    elif end == "closed":
        next(events)
        events.close()  # type: ignore[attr-defined]
    else:

        def fail(*_: object) -> None:
            raise RuntimeError("no step")

        monkeypatch.setattr(Stack, "step", fail)
        with pytest.raises(RuntimeError, match="no step"):
            list(events)
    assert log.threads
    assert not any(thread.is_alive() for thread in log.threads)


def test_orders_that_cannot_be_made_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: RunSpec, n: int, epoch: int) -> Tensor:
        if epoch == 2:
            raise MemoryError(f"no room for {n}")
        return torch.arange(n)

    monkeypatch.setattr(loop, "batch_order", fail)
    with pytest.raises(MemoryError, match="no room"):
        list(TrainingLoop(Job(PAIR, "grouped"), TrainingOptions()).events())


def test_the_runs_device_is_the_current_one_while_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, evaluations and whatever takes the events."""
    current: list[torch.device] = []
    seen: list[torch.device | None] = []

    @contextmanager
    def on_device(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def watched(method: str) -> None:
        original = getattr(Solo, method)

        def watch(solo: Solo, *arguments: Any) -> Any:
            seen.append(current[-1] if current else None)
            return original(solo, *arguments)

        monkeypatch.setattr(Solo, method, watch)

    monkeypatch.setattr(loop, "on_device", on_device)
    watched("step")
    watched("evaluate")
    training = TrainingLoop(Job((RUN,)), TrainingOptions())
    training.device = torch.device("cuda:1")
    list(training.events())
    assert len(seen) > 2 * RUN.epochs
    assert set(seen) == {torch.device("cuda:1")}
    assert current == []
