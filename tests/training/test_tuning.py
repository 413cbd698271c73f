"""Real stacks are timed on the CPU, and what was chosen is kept for the next sweep."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from runner.config.jobs import Form
from runner.config.run_spec import RunSpec
from runner.training.data.preprocessing import RunData, prepare
from runner.training.learners import choice_cache, tuning
from runner.training.learners.choice import Choice
from runner.training.learners.stack import Stack
from runner.training.learners.tuning import step_seconds, tune
from runner.training.networks import build_network

CPU = torch.device("cpu")
RUN = RunSpec(network="lenet", dataset="digits", device="cpu", batch_size=8, epochs=1000)
MLP = RUN.changed(network="notebook_mlp")
CHOICE = Choice("loop", 5, (), "made up")


def group(run: RunSpec, count: int = 12) -> list[RunSpec]:
    return [run.changed(seed=seed) for seed in range(count)]


def data() -> RunData:
    return prepare("digits", Path(), "normal", "held_out", None, CPU)


def tuned(run: RunSpec = MLP, count: int = 12, workers: int = 1, limit: int = 12) -> Choice:
    return tune(group(run, count), data(), CPU, workers, limit)


def test_real_stacks_of_a_network_with_convolutions_are_timed_in_every_form() -> None:
    chosen = tuned(RUN, limit=6)
    assert [(timing.form, timing.size) for timing in chosen.timings[:3]] == [
        ("grouped", 4),
        ("loop", 4),
        ("unfold", 4),
    ]
    assert all(timing.seconds is not None and 0 < timing.seconds < math.inf for timing in chosen.timings)
    assert max(timing.size for timing in chosen.timings) == 6
    assert (chosen.form, chosen.size) in {(timing.form, timing.size) for timing in chosen.timings}


def test_a_network_without_convolutions_has_one_form() -> None:
    assert {timing.form for timing in tuned(MLP).timings} == {"grouped"}


def test_a_small_group_is_neither_timed_nor_kept() -> None:
    assert not tuned(count=7).timings
    assert not choice_cache.path().exists()


class Watched:
    """A clock that only the steps of stacks move, and a record of what happened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Stack], float]) -> None:
        self.now, self.events = 0.0, [""]
        self.stacks: list[Stack] = []
        monkeypatch.setattr(tuning, "perf_counter", self.clock)
        monkeypatch.setattr(tuning, "synchronise", lambda _: self.events.append("wait"))
        original = Stack.step

        def step(stack: Stack, batch: Tensor) -> None:
            original(stack, batch)
            self.now += seconds(stack)
            self.events.append("step")
            self.stacks.append(stack)

        monkeypatch.setattr(Stack, "step", step)

    def clock(self) -> float:
        self.events.append("clock")
        return self.now


def test_a_step_is_timed_after_a_first_one_and_the_device_has_finished_when_the_clock_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = iter([7.0])  # compiling, recording: not a part of a step
    watched = Watched(monkeypatch, lambda _: next(first, 0.02))
    runs = group(MLP, 3)
    assert step_seconds(runs, build_network(MLP), data(), "grouped") == pytest.approx(0.02)
    assert watched.events[:6] == ["", "step", "wait", "clock", "step", "wait"]
    for before, event in zip(watched.events, watched.events[1:], strict=False):
        assert event != "clock" or before == "wait"


def test_the_disturbed_readings_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 0.03, 0.02, 0.04])
    Watched(monkeypatch, lambda _: next(times, 0.05))
    assert step_seconds(group(MLP, 2), build_network(MLP), data(), "grouped") == pytest.approx(0.02)


@pytest.mark.parametrize("fastest", ["grouped", "loop", "unfold"])
def test_the_form_that_is_timed_is_the_one_that_trains(fastest: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[int, Form] = {}
    original = Stack.__init__

    def init(self: Stack, runs: list[RunSpec], networks: list[torch.nn.Module], data: RunData, form: Form) -> None:
        made[id(self)] = form
        original(self, runs, networks, data, form)

    monkeypatch.setattr(Stack, "__init__", init)
    watched = Watched(monkeypatch, lambda stack: (0.01 if made[id(stack)] == fastest else 0.02) * len(stack.runs))
    chosen = tuned(RUN)
    assert chosen.form == fastest
    assert {len(stack.runs) for stack in watched.stacks} == {timing.size for timing in chosen.timings}


def test_shared_batches_are_timed_as_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[torch.Size] = []
    monkeypatch.setattr(Stack, "step", lambda _, index: shapes.append(index.shape))
    for share in (False, True):
        run = MLP.changed(share_batches=share)
        step_seconds(group(run, 3), build_network(run), data(), "grouped")
    assert set(shapes) == {(3, 8), (1, 8)}


def test_a_stack_for_which_memory_is_not_enough_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Stack.step

    def step(self: Stack, batch: Tensor) -> None:
        if len(self.runs) > 4:
            raise torch.OutOfMemoryError("no room")
        original(self, batch)

    monkeypatch.setattr(Stack, "step", step)
    chosen = tuned()
    assert chosen.size == 4
    assert chosen.timings[-1].error == "OutOfMemoryError: no room"


def test_the_memory_of_a_timed_stack_is_free_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks: list[weakref.ref[Stack]] = []
    original = Stack.step

    def step(self: Stack, batch: Tensor) -> None:
        stacks.append(weakref.ref(self))
        original(self, batch)

    monkeypatch.setattr(Stack, "step", step)
    gc.disable()  # it would free later what a cycle holds
    try:
        step_seconds(group(MLP, 2), build_network(MLP), data(), "grouped")
        assert stacks
        assert not any(stack() for stack in stacks)
    finally:
        gc.enable()


# The cache


def test_a_group_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tuned()
    monkeypatch.setattr(tuning, "step_seconds", lambda *_: pytest.fail("timed again"))
    assert tuned() == first
    assert tuned(MLP.changed(lr=0.5)) == first
    with pytest.raises(pytest.fail.Exception):
        tuned(MLP.changed(batch_size=9))


OTHERS: dict[str, Callable[[], Choice]] = {
    "batch": lambda: tuned(MLP.changed(batch_size=9)),
    "precision": lambda: tuned(MLP.changed(precision="bf16")),
    "optimizer": lambda: tuned(MLP.changed(optimizer="sgd")),
    "network": lambda: tuned(MLP.changed(network_args={"norm": "batch"})),
    "runs": lambda: tuned(count=24),
    "memory": lambda: tuned(limit=6),
    "workers": lambda: tuned(workers=2),
}


@pytest.mark.parametrize("other", [*OTHERS, "device", "torch"])
def test_what_changes_the_time_is_timed_again(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Form] = []

    def seconds(_: object, __: object, ___: object, form: Form) -> float:
        timed.append(form)
        return 0.01

    monkeypatch.setattr(tuning, "step_seconds", seconds)
    tuned()
    before = len(timed)
    if other == "device":
        monkeypatch.setattr(tuning, "machine", lambda: "another processor")
    if other == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    OTHERS.get(other, tuned)()
    assert len(timed) > before > 0
    assert len(choice_cache.read()) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": {"form": "spiral"}}', "\xff"])
def test_a_damaged_cache_is_written_anew(damage: str) -> None:
    choice_cache.add("key", CHOICE)
    assert choice_cache.read() == {"key": CHOICE}
    choice_cache.path().write_text(damage, encoding="latin-1")
    assert choice_cache.read() == {}
    choice_cache.add("other", CHOICE)
    assert choice_cache.read() == {"other": CHOICE}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BNBENCH_CACHE_DIR", str(tmp_path / "file"))
    assert tuned().timings


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("BNBENCH_CACHE_DIR", "/mine")
    assert choice_cache.path() == Path("/mine/choices.json")
    monkeypatch.delenv("BNBENCH_CACHE_DIR")
    assert choice_cache.path() == Path("/caches/bnbench/choices.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert choice_cache.path() == Path("/home/someone/.cache/bnbench/choices.json")
