"""The form and the size of stacks are chosen by timing: with made-up times, and with real ones on the CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import pytest
import torch

from runner.config.jobs import Form, even_parts
from runner.training.learners import choice as choices
from runner.training.learners.choice import Candidate, Choice, Group, choose

HUNDRED = Group(runs=100, limit=100, steps=100_000)
LINEAR = replace(HUNDRED, forms=("grouped",))


class Device:
    """A made-up device with a clock. A step of a stack takes `step(candidate)` seconds, building one `building`."""

    def __init__(self, step: Callable[[Candidate], float], building: float = 0.01) -> None:
        self.step, self.building = step, building
        self.now = 1000.0
        self.timed: list[Candidate] = []

    def seconds(self, candidate: Candidate) -> float:
        self.timed.append(candidate)
        step = self.step(candidate)
        self.now += self.building + 20 * step
        return step

    def choose(self, group: Group) -> Choice:
        return choose(self.seconds, group, lambda: self.now)

    @property
    def spent(self) -> float:
        return self.now - 1000

    def training(self, group: Group, candidate: Candidate) -> float:
        """Seconds that the group trains when it is cut into even stacks, longest first, on equal workers."""
        workers = [0.0] * group.workers
        for job in even_parts(range(group.runs), math.ceil(group.runs / candidate.size)):  # type: ignore[arg-type]
            workers[workers.index(min(workers))] += self.building + group.steps * self.step(
                replace(candidate, size=len(job))
            )
        return max(workers)


def curve(best: int, forms: Mapping[Form, float] | None = None) -> Callable[[Candidate], float]:
    """A step whose seconds per run are smallest in stacks of `best` runs, and multiplied by its form's factor."""
    factors = forms or {"grouped": 1.0, "loop": 1.5, "unfold": 2.0}
    return lambda candidate: (
        factors[candidate.form] * 1e-5 * candidate.size * (1 + math.log(candidate.size / best) ** 2)
    )


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("best", [1, 4, 8, 10, 16, 30, 50, 100, 1000])
def test_on_a_convex_curve_the_choice_is_near_the_best_size(best: int, workers: int) -> None:
    group = replace(HUNDRED, workers=workers)
    device = Device(curve(best))
    chosen = device.choose(group)
    assert chosen.form == "grouped"
    largest = math.ceil(100 / workers)
    fastest = min(device.training(group, Candidate("grouped", size)) for size in range(4, largest + 1))
    assert device.training(group, Candidate("grouped", chosen.size)) <= 1.1 * fastest
    assert len(device.timed) <= 8


@pytest.mark.parametrize("best", [6, 11, 22, 45])
def test_sizes_between_the_doubled_ones_are_found(best: int) -> None:
    device = Device(lambda candidate: 1e-5 * candidate.size * (1 + 5 * math.log(candidate.size / best) ** 2))
    group = replace(LINEAR, runs=1000, limit=1000)
    chosen = device.choose(group)
    fastest = device.training(group, Candidate("grouped", best))
    assert device.training(group, Candidate("grouped", chosen.size)) <= 1.1 * fastest
    doubled = min(abs(math.log(4 * 2**power / best)) for power in range(6))
    assert abs(math.log(chosen.size / best)) < doubled


@pytest.mark.parametrize("form", ["grouped", "loop", "unfold"])
def test_the_fastest_form_is_chosen_at_four_runs_and_only_it_is_timed_at_other_sizes(form: Form) -> None:
    factors: dict[Form, float] = {"grouped": 2.0, "loop": 2.0, "unfold": 2.0, form: 1.0}
    device = Device(curve(16, factors))
    chosen = device.choose(HUNDRED)
    assert chosen.form == form
    assert device.timed[:3] == [Candidate(name, 4) for name in ("grouped", "loop", "unfold")]
    assert {candidate.form for candidate in device.timed[3:]} == {form}


def test_at_most_eight_candidates_are_timed_and_none_twice() -> None:
    device = Device(lambda candidate: curve(10**6)(candidate) / 100)
    chosen = device.choose(replace(HUNDRED, runs=10_000, limit=10_000))
    assert len(device.timed) == len(set(device.timed)) == len(chosen.timings) == 8
    assert chosen.size == max(candidate.size for candidate in device.timed)
    assert chosen.reason == "8 candidates were timed"


def test_a_score_is_the_training_time_per_run_and_step() -> None:
    group = replace(HUNDRED, workers=2)
    device = Device(lambda candidate: 1e-5 * candidate.size)
    timings = device.choose(group).timings
    assert {4, 8} <= {timing.size for timing in timings}  # 100 runs are 25 stacks of 4, or 13 of 7 and 8
    for timing in timings:
        expected = device.training(group, Candidate(timing.form, timing.size)) / (100 * group.steps)
        assert timing.seconds == pytest.approx(expected, rel=0.05)


# The limits


@pytest.mark.parametrize("forms", [("grouped",), ("grouped", "loop", "unfold")])
@pytest.mark.parametrize("step", [1e-5, 1e-3, 0.01, 0.02, 0.03, 0.2])
@pytest.mark.parametrize("steps", [10, 1000, 10**6])
def test_the_time_for_measuring_is_kept(step: float, steps: int, forms: tuple[Form, ...]) -> None:
    group = replace(HUNDRED, steps=steps, forms=forms)
    device = Device(lambda candidate: step * candidate.size * (1 + (candidate.form == "unfold")))
    device.choose(group)
    first = 0.01 + 20 * 4 * step
    estimate = 25 * (first + steps * 4 * step)
    assert device.spent <= max(first, min(5.0, 0.05 * estimate)) * (1 + 1e-9)


def test_enough_time_is_used() -> None:
    assert len(Device(curve(16)).choose(HUNDRED).timings) > 5


@pytest.mark.parametrize("steps", [10, 100])
def test_without_time_for_a_second_size_it_is_the_largest_in_the_fastest_form(steps: int) -> None:
    device = Device(curve(1, {"grouped": 9.0, "loop": 1.0, "unfold": 1.0}), building=0.5)
    chosen = device.choose(replace(HUNDRED, steps=steps, limit=60))
    assert 1 <= len(device.timed) <= 2
    assert (chosen.form, chosen.size) == ("loop" if len(device.timed) == 2 else "grouped", 50)
    assert chosen.reason == "the time for measuring ended before a second size was timed"


def test_where_all_runs_fit_into_the_first_size_the_forms_alone_are_compared() -> None:
    device = Device(curve(1, {"grouped": 9.0, "loop": 1.0, "unfold": 2.0}), building=0.4)
    chosen = device.choose(replace(HUNDRED, limit=3, steps=650))
    assert len(device.timed) == 2
    assert (chosen.form, chosen.size) == ("loop", 3)


@pytest.mark.parametrize("runs", range(1, 8))
def test_fewer_than_eight_runs_are_not_timed(runs: int) -> None:
    device = Device(curve(4))
    chosen = device.choose(replace(HUNDRED, runs=runs, limit=5))
    assert not device.timed
    assert chosen == Choice("grouped", runs if runs <= 5 else math.ceil(runs / 2), (), chosen.reason)
    assert "fewer than 8 runs" in chosen.reason


def test_nothing_to_choose_is_not_timed() -> None:
    device = Device(curve(4))
    assert device.choose(replace(LINEAR, runs=8, limit=4)).size == 4
    assert device.choose(replace(LINEAR, runs=8, workers=8)).size == 1
    assert not device.timed


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 20, 1000])
@pytest.mark.parametrize("workers", [1, 2, 7, 40, 1000])
def test_no_stack_is_larger_than_the_memory_or_than_a_workers_share(limit: int, workers: int) -> None:
    device = Device(curve(1000))
    chosen = device.choose(replace(HUNDRED, limit=limit, workers=workers))
    largest = min(max(1, limit), math.ceil(100 / workers))
    assert all(1 <= candidate.size <= largest for candidate in device.timed)
    assert 1 <= chosen.size <= largest


def test_an_idle_worker_counts() -> None:
    """Four stacks on three workers take as long as six."""
    group = replace(LINEAR, runs=24, limit=24, workers=3)
    assert group.stacks_in_a_row(6) * 6 == pytest.approx(12)
    assert group.stacks_in_a_row(8) * 8 == pytest.approx(8)


# Failures and noise


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room\nmore"), RuntimeError("no room"), MemoryError()])
def test_a_candidate_that_fails_is_out_and_its_reason_is_kept(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNBENCH_STRICT", "0")

    def step(candidate: Candidate) -> float:
        if candidate.form == "loop" or candidate.size > 20:
            raise error
        return curve(1000)(candidate)

    device = Device(step)
    chosen = device.choose(HUNDRED)
    assert chosen.form == "grouped"
    assert 15 <= chosen.size <= 20
    failed = [timing for timing in chosen.timings if timing.seconds is None]
    assert {timing.form for timing in failed} == {"grouped", "loop"}
    assert {timing.error for timing in failed} == {f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    assert [(timing.form, timing.size) for timing in chosen.timings] == [
        (candidate.form, candidate.size) for candidate in device.timed
    ]


def test_in_strict_mode_only_a_lack_of_memory_is_no_error() -> None:
    def step(candidate: Candidate) -> float:
        raise RuntimeError("no room") if candidate.form == "loop" else torch.OutOfMemoryError("no room")

    device = Device(step)
    with pytest.raises(RuntimeError, match="no room"):
        device.choose(HUNDRED)
    assert [candidate.form for candidate in device.timed] == ["grouped", "loop"]


def test_where_every_candidate_fails_the_choice_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNBENCH_STRICT", "0")

    def step(_: Candidate) -> float:
        raise RuntimeError("broken")

    device = Device(step)
    chosen = device.choose(HUNDRED)
    assert (chosen.form, chosen.size, chosen.reason) == ("grouped", 100, "every candidate failed")
    assert len(device.timed) == 3


def test_a_fault_of_another_kind_is_not_hidden() -> None:
    def step(_: Candidate) -> float:
        raise AssertionError("a mistake")

    with pytest.raises(AssertionError):
        Device(step).choose(HUNDRED)


def test_a_gain_within_the_noise_is_none() -> None:
    factors: dict[Form, float] = {"grouped": 1.0, "loop": 0.98, "unfold": 0.98}
    flat = Device(lambda candidate: factors[candidate.form] * candidate.size * 1e-5, building=0.0)
    assert (flat.choose(HUNDRED).form, flat.choose(HUNDRED).size) == ("grouped", 4)
    factors["unfold"] = 0.96
    assert flat.choose(HUNDRED).form == "unfold"


def test_a_short_training_prefers_few_stacks() -> None:
    """Each stack must be built: that counts."""
    device = Device(lambda candidate: candidate.size * 1e-3, building=0.05)
    assert device.choose(replace(LINEAR, steps=100)).size > device.choose(LINEAR).size == 4


def test_a_choice_can_be_written_as_json() -> None:
    chosen = Device(curve(16)).choose(HUNDRED)
    assert json.loads(json.dumps(asdict(chosen)))["timings"][0]["form"] == "grouped"
    assert choices.MOST_CANDIDATES == 8
