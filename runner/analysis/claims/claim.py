"""A sentence that can be put to the test: declared here, judged in `judge`.

A claim is a function `(name) -> Claim` under `@claim("name")` (`runner.registry`), in a module of `experiments/claims/`
or in a plugin. Its config is the `full` budget; the others are `--set` overrides of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import registry
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import Values
from runner.analysis.stats.verdicts import Verdict
from runner.config import reader as config
from runner.config.sweep import Sweep
from runner.errors import UserError, unknown
from runner.storage.results import Results

Budget = Literal["smoke", "small", "full"]

BUDGETS: tuple[Budget, ...] = ("smoke", "small", "full")

Measure = Callable[[Results], Values]
"""A sweep → one paired difference per planned seed [S], NaN where a run of that seed has no result; of a claim of
equivalence also [K, S], K differences all of which have to be small."""


@dataclass(frozen=True)
class Claim:
    """One sentence, the experiment that tests it, and the rule. Nothing here may depend on a result."""

    name: str
    sentence: str
    source: str
    """Who says it."""
    config: Path
    """The full budget; its name is the sweep's, and claims may share it."""
    metric: str
    """What one difference is, in words: arm minus baseline."""
    unit: str
    smallest_effect: float
    """The smallest difference of interest, in the unit; of an equivalence the margin."""
    claimed: Literal[1, -1, "equivalence"]
    """The sign of the difference that the sentence claims."""
    measure: Measure
    budgets: Mapping[str, Sequence[str]]
    """`smoke` and `small` as `--set` overrides."""
    table: str = "runs.csv"
    """Where the numbers lie, in the sweep's folder."""
    contradicts: str = ""
    """The document that says otherwise, where one does."""
    remarks: Callable[[Results], tuple[str, ...]] | None = None
    """What else a reader has to know of the runs, beside what is noted of every claim's."""

    def sweep(self, budget: Budget) -> Sweep:
        """What is trained for this budget. Errors: UserError where the config is wrong."""
        return config.load(self.config, tuple(self.budgets.get(budget, ())))

    @property
    def sweep_name(self) -> str:
        return self.config.stem


@dataclass(frozen=True)
class Finding:
    """What the runs say about a claim. `n` of `planned` seeds gave a difference."""

    claim: Claim
    planned: int = 0
    n: int = 0
    interval: Interval | None = None
    p: float | None = None
    """Of the sign-flip test that there is no difference."""
    p_equivalence: float | None = None
    """Of TOST that the difference is within the smallest effect; of several differences the largest p."""
    p_adjusted: float | None = None
    """The claim's own p, by Holm: of TOST where equivalence is claimed, else of the sign-flip test."""
    verdict: Verdict | None = None
    """None where nothing was run."""
    proven: bool = True
    """Whether every pair is proven to be one: equal starting weights in the shared layers, equal batches."""
    notes: tuple[str, ...] = ()
    differences: tuple[float | None, ...] = ()
    """One a seed; None where a run of it has no result. Of several, those that decide."""

    @property
    def deciding_p(self) -> float | None:
        """Of two one-sided tests where equivalence is claimed and not refuted, else of a sign-flip test."""
        equivalence = self.claim.claimed == "equivalence" and self.word != "REFUTED"
        return self.p_equivalence if equivalence else self.p

    @property
    def word(self) -> str:
        return self.verdict.word if self.verdict else "NOT RUN"

    @property
    def record(self) -> dict[str, Any]:
        """The finding as one row of verdicts.csv."""
        claim, interval = self.claim, self.interval or Interval(float("nan"))
        return {
            "claim": claim.name,
            "sweep": claim.sweep_name,
            "sentence": claim.sentence,
            "source": claim.source,
            "metric": claim.metric,
            "unit": claim.unit,
            "claimed": "=" if claim.claimed == "equivalence" else "+" if claim.claimed == 1 else "-",
            "smallest_effect": claim.smallest_effect,
            "n": self.n,
            "planned": self.planned,
            "difference": None if self.interval is None else interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "p": self.p,
            "p_equivalence": self.p_equivalence,
            "p_adjusted": self.p_adjusted,
            "verdict": self.word,
            "seeds_needed": self.verdict.seeds if self.verdict else None,
            "notes": "; ".join(self.notes),
            "table": claim.table,
            "differences": json.dumps([None if d is None else float(f"{d:.6g}") for d in self.differences]),
        }


def chosen_claims(names: Iterable[str] = ()) -> tuple[Claim, ...]:
    """The claims of these names, all where none is given, in the order of their declaration.

    Errors: UserError with every unknown name.
    """
    wanted = list(dict.fromkeys(names))
    if faults := [unknown("claim", name, list(registry.claim)) for name in wanted if name not in registry.claim]:
        raise UserError(*faults)
    return tuple(registry.claim[name](name) for name in registry.claim if not wanted or name in wanted)


def sweeps_of(chosen: Sequence[Claim], budget: Budget) -> list[Sweep]:
    """The sweeps that the claims need, each once.

    Errors: UserError where a config is wrong, or two claims want different runs of one sweep.
    """
    sweeps: dict[str, Sweep] = {}
    for claim in chosen:
        sweep = claim.sweep(budget)
        known = sweeps.setdefault(sweep.name, sweep)
        if [run.run_id for run in known.runs] != [run.run_id for run in sweep.runs]:
            raise UserError(f"claim '{claim.name}': other claims have another sweep '{sweep.name}'; rename its config")
    return list(sweeps.values())
