"""What the runs say about a claim, as a record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np

from runner.analysis.claims.claim import Claim
from runner.analysis.claims.paired_values import Bound
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.robust import Robust
from runner.analysis.stats.values import Values

Word = Literal["SUPPORTED", "SUPPORTED, SIZE OPEN", "REFUTED", "UNDECIDED", "WITHHELD", "NOT TESTED", "NOT RUN"]


@dataclass(frozen=True)
class Finding:
    """What the runs say about a claim. `n` of `planned` seeds gave a pair. Effects are in the claim's unit."""

    claim: Claim
    planned: int = 0
    n: int = 0
    word: Word = "NOT RUN"
    tests: int = 1
    """How many tests the claim's family has. Intervals of the verdict and `p_adjusted` are adjusted for them."""
    interval: Interval | None = None
    """The effect with its 95% interval."""
    decisive: Interval | None = None
    """The effect with the interval that the verdict comes from."""
    level: float | None = None
    """1 − the confidence of `decisive`."""
    p: float | None = None
    test: str = ""
    """The name of the test that gives `p`."""
    p_adjusted: float | None = None
    """`p` times the number of tests (Bonferroni)."""
    bound: Bound = ""
    censored: tuple[int, int] = (0, 0)
    """How many runs of the arm and of the baseline did not reach the target."""
    robust: Robust | None = None
    seeds_needed: int | None = None
    """How many seeds would decide, where the runs do not."""
    differences: tuple[float | None, ...] = ()
    """One per tested seed, None where one of its runs has no result. Of several comparisons, the deciding one."""
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """The finding as one row of verdicts.csv."""
        claim, robust = self.claim, self.robust
        effect, low, high = _ends(self.interval)
        _, low_verdict, high_verdict = _ends(self.decisive)
        return {
            "claim": claim.name,
            "sweep": claim.sweep_name,
            "sentence": claim.sentence,
            "source": claim.source,
            "metric": claim.metric,
            "unit": claim.unit,
            "claimed": {1: "+", -1: "-", "equivalence": "="}[claim.claimed],
            "smallest_effect": claim.smallest_effect,
            "effect_is": claim.effect,
            "n": self.n,
            "planned": self.planned,
            "effect": effect,
            "low": low,
            "high": high,
            "test": self.test,
            "p": self.p,
            "tests": self.tests,
            "p_adjusted": self.p_adjusted,
            "confidence_of_verdict": None if self.level is None else 1 - self.level,
            "low_of_verdict": low_verdict,
            "high_of_verdict": high_verdict,
            "bound": self.bound,
            "censored": self.censored[0],
            "censored_baseline": self.censored[1],
            "hodges_lehmann": robust.hodges_lehmann.estimate if robust else None,
            "trimmed_mean": robust.trimmed_mean.estimate if robust else None,
            "verdict": self.word,
            "seeds_needed": self.seeds_needed,
            "notes": "; ".join(self.notes),
            "table": claim.table,
            "differences": json.dumps([d if d is None else float(f"{d:.6g}") for d in self.differences]),
        }


def _ends(interval: Interval | None) -> tuple[float | None, ...]:
    return astuple(interval) if interval else (None, None, None)


def per_seed(differences: Values | Sequence[float]) -> tuple[float | None, ...]:
    """Differences with None in place of NaN."""
    return tuple(float(value) if np.isfinite(value) else None for value in differences)
