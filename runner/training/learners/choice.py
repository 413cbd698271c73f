"""In which form and size the stacks of a group of runs train: chosen by timing a few steps of candidates.

Nothing here trains or reads a clock of its own, so that tests can make up all times. `tuning.py` does the real timing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from runner.config.jobs import Form
from runner.errors import described, strict
from runner.training.learners.learner import out_of_memory

FEWEST_RUNS = 8
"""A group of fewer runs is not timed."""

MOST_CANDIDATES = 8
SECONDS = 5.0
SHARE = 0.05
"""Timing ends after `SECONDS`, and after this share of the estimated training time."""

OTHER_FORM = 2
"""Another form is taken to cost at most this many times as much time as the form before it."""

SMALLEST = 4
"""The size of the first candidates: the forms already differ there, and a step is short."""

NOISE = 0.03
"""An earlier candidate is kept unless a later one is faster by more than this share."""


@dataclass(frozen=True)
class Candidate:
    """A form of convolution and the number of runs in a stack."""

    form: Form
    size: int


@dataclass(frozen=True)
class Timing:
    """A candidate's seconds per run and step, as its group would train; None where it failed, with the reason."""

    form: Form
    size: int
    seconds: float | None
    error: str = ""


@dataclass(frozen=True)
class Choice:
    """The form and the size of a group's stacks, the timings in their order, and why no more were made."""

    form: Form
    size: int
    timings: tuple[Timing, ...]
    reason: str


@dataclass(frozen=True)
class Group:
    """Runs that can train in one stack.

    runs: how many there are.
    limit: how many fit into the device's memory.
    steps: optimizer steps of a run's whole training.
    workers: how many stacks train at the same time.
    forms: the forms in which their network can differ.
    first: the size of the first candidates, at most.
    """

    runs: int
    limit: int
    steps: int
    workers: int = 1
    forms: Sequence[Form] = ("grouped", "loop", "unfold")
    first: int = SMALLEST

    @property
    def largest(self) -> int:
        """The size of the largest stacks: they fit into the memory, and hold at most a worker's share of the runs."""
        return self.even(max(1, self.limit))

    @property
    def smallest(self) -> int:
        """The size of the first candidates."""
        return self.even(min(self.first, self.largest))

    def stacks_in_a_row(self, size: int) -> float:
        """How many stacks of this size a worker trains one after the other. A smaller stack counts as a part of one.

        >>> Group(runs=100, limit=100, steps=1).stacks_in_a_row(40)
        2.5
        """
        stacks = math.ceil(self.runs / size)
        return math.ceil(stacks / self.workers) / stacks * self.runs / size

    def even(self, size: int) -> int:
        """The size of the stacks when a group that needs stacks of at most this size is cut into even parts.

        >>> Group(runs=100, limit=100, steps=1).even(64)
        50
        """
        return math.ceil(self.runs / (self.workers * math.ceil(self.runs / (size * self.workers))))


def choose(seconds: Callable[[Candidate], float], group: Group, clock: Callable[[], float]) -> Choice:
    """Time the forms at a small size, then larger sizes of the fastest form, then sizes between; keep the fastest.

    seconds: times a few steps of one stack and returns its seconds per step. A candidate for which it raises a
        RuntimeError or MemoryError is out. (`torch.OutOfMemoryError` is a RuntimeError.)
    clock: the time now, in seconds.

    A score is the training time of the whole group, divided by its runs and steps. Each stack also needs the time that
    its candidate took: it must be built and recorded. Where the time for measuring ends before a second size was timed,
    the choice is the fastest form so far, and the largest size.

    >>> group = Group(runs=100, limit=100, steps=6000)
    >>> seconds = lambda candidate: 0.01 * candidate.size * (1 + (candidate.form == "grouped"))
    >>> choice = choose(seconds, group, clock=lambda: 0.0)
    >>> choice.form, choice.size, len(choice.timings)
    ('loop', 4, 8)
    """
    search = _Search(seconds, group, clock)
    untimed = Candidate("grouped", group.largest)
    if group.runs < FEWEST_RUNS:
        return search.choice(untimed, f"fewer than {FEWEST_RUNS} runs are not timed")
    if len(group.forms) == 1 and group.largest == group.smallest:
        return search.choice(untimed, "there is one candidate only")
    reason = "every candidate of the search was timed"
    for candidate in _candidates(group, search.scores):
        if len(search.scores) == MOST_CANDIDATES:
            reason = f"{MOST_CANDIDATES} candidates were timed"
            break
        if search.is_too_long(candidate):
            if group.largest > group.smallest and {timed.size for timed in search.scores} == {group.smallest}:
                form = (_best(search.scores) or untimed).form
                reason = "the time for measuring ended before a second size was timed"
                return search.choice(Candidate(form, group.largest), reason)
            reason = "the time for measuring ended"
            break
        search.time(candidate)
    best = _best(search.scores)
    return search.choice(best, reason) if best else search.choice(untimed, "every candidate failed")


@dataclass
class _Search:
    """The timings so far."""

    seconds: Callable[[Candidate], float]
    group: Group
    clock: Callable[[], float]
    # A failed candidate's score is infinite.
    scores: dict[Candidate, float] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    allowed: float = SECONDS
    # The last candidate that did not fail, and the seconds that its timing took.
    last: tuple[Candidate, float] | None = None

    def __post_init__(self) -> None:
        self.began = self.clock()

    def is_too_long(self, candidate: Candidate) -> bool:
        """Whether it would take more time than is left, judging by the last candidate. A larger stack takes longer."""
        if self.last is None:
            return False
        last, cost = self.last
        factor = max(1, candidate.size / last.size) if candidate.form == last.form else OTHER_FORM
        return self.clock() - self.began + factor * cost > self.allowed

    def time(self, candidate: Candidate) -> None:
        began = self.clock()
        try:
            step = self.seconds(candidate)
        except (RuntimeError, MemoryError) as error:
            if strict() and not out_of_memory(error):
                raise
            reason = described(error).partition("\n")[0]
            self.scores[candidate] = math.inf
            self.timings.append(Timing(candidate.form, candidate.size, None, reason))
            return
        cost = self.clock() - began
        total = self.group.stacks_in_a_row(candidate.size) * (cost + step * self.group.steps)
        if self.last is None:
            self.allowed = min(SECONDS, SHARE * total)
        self.last = candidate, cost
        self.scores[candidate] = total / (self.group.runs * self.group.steps)
        self.timings.append(Timing(candidate.form, candidate.size, self.scores[candidate]))

    def choice(self, candidate: Candidate, reason: str) -> Choice:
        return Choice(candidate.form, candidate.size, tuple(self.timings), reason)


def _candidates(group: Group, scores: Mapping[Candidate, float]) -> Iterator[Candidate]:
    """What to time next. The caller adds each candidate's score before it asks for the next one."""
    size = group.smallest
    yield from (Candidate(form, size) for form in group.forms)
    if not (best := _best(scores)):
        return
    form, lowest = best.form, scores[best]
    while (larger := group.even(min(2 * size, group.largest))) > size:
        size = larger
        yield Candidate(form, size)
        lowest = min(lowest, score := scores[Candidate(form, size)])
        if score > lowest * (1 + NOISE):
            break
    while between := _between(group, form, scores):
        yield Candidate(form, between)


def _between(group: Group, form: Form, scores: Mapping[Candidate, float]) -> int | None:
    """A size between the best one and a neighbour that was timed; the wider gap comes first."""
    best = _best(scores)
    assert best is not None
    sizes = sorted(candidate.size for candidate in scores if candidate.form == form)
    gaps = [(low, high) for low, high in pairwise(sizes) if best.size in (low, high)]
    for low, high in sorted(gaps, key=lambda gap: gap[0] / gap[1]):
        middle = group.even(round(math.sqrt(low * high)))
        if low < middle < high:
            return middle
    return None


def _best(scores: Mapping[Candidate, float]) -> Candidate | None:
    """The fastest candidate; None where all failed."""
    best = None
    for candidate, score in scores.items():
        if score < (scores[best] * (1 - NOISE) if best else math.inf):
            best = candidate
    return best
