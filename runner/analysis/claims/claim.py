"""A claim is a sentence that an experiment can test. It is declared here, and judged in `judge`.

A claim is a function `(name) -> Claim` under `@claim("name")` (`runner.registry`), in a module of `experiments/claims/`
or in a plugin. Its config is the budget `full`. The other budgets are `--set` overrides of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from runner import registry
from runner.analysis.claims.rule import Verdict
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import Values
from runner.config import reader
from runner.config.sweep import Sweep
from runner.errors import UserError, unknown
from runner.storage.results import Results

Budget = Literal["smoke", "small", "full"]

BUDGETS: tuple[Budget, ...] = ("smoke", "small", "full")

Measure = Callable[[Results], Values]
"""A sweep → one paired difference per planned seed [S], NaN where a run of that seed has no result.

For a claim of equivalence also [K, S]: K differences that must all be small."""


@dataclass(frozen=True)
class Claim:
    """One sentence, the experiment that tests it, and the rule. No field may depend on a result.

    >>> claim = Claim(
    ...     name="higher_accuracy",
    ...     sentence="Batch norm raises accuracy.",
    ...     source="the tutorial",
    ...     config=Path("configs/mine.yaml"),
    ...     metric="test accuracy after the last epoch",
    ...     unit="pp",
    ...     smallest_effect=0.5,
    ...     claimed=1,
    ...     measure=lambda results: [0.7, 0.9],
    ...     budgets={"smoke": ["fixed.epochs=1"]},
    ... )
    >>> claim.sweep_name
    'mine'
    """

    name: str
    sentence: str
    source: str
    """The document that says so."""
    config: Path
    """The config of the budget `full`. Its file name is the sweep's name, and claims may share it."""
    metric: str
    """What one difference is, in words: arm minus baseline."""
    unit: str
    smallest_effect: float
    """The smallest difference of interest, in `unit`; for a claim of equivalence the margin."""
    claimed: Literal[1, -1, "equivalence"]
    """The sign of the difference that the sentence claims."""
    measure: Measure
    budgets: Mapping[str, Sequence[str]]
    """The `--set` overrides of `smoke` and `small`."""
    table: str = "runs.csv"
    """The file in the sweep's folder that holds the numbers."""
    contradicts: str = ""
    """A document that says the opposite, if there is one."""
    remarks: Callable[[Results], tuple[str, ...]] | None = None
    """What a reader must also know about the runs. Failed and diverged runs are noted for every claim."""

    def sweep(self, budget: Budget) -> Sweep:
        """The sweep that this budget trains. Errors: UserError where the config is wrong."""
        return reader.load(self.config, tuple(self.budgets.get(budget, ())))

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
    """The p of the sign-flip test that there is no difference."""
    p_equivalence: float | None = None
    """The p of TOST that the difference is within the smallest effect. Of several differences, the largest p."""
    p_adjusted: float | None = None
    """`deciding_p`, adjusted by Holm."""
    verdict: Verdict | None = None
    """None where nothing was run."""
    proven: bool = True
    """Whether the hashes prove every pair: equal starting weights in the shared layers, and equal batches."""
    notes: tuple[str, ...] = ()
    differences: tuple[float | None, ...] = ()
    """One per seed, None where one of its runs has no result. Of several differences, the deciding ones."""

    @property
    def deciding_p(self) -> float | None:
        """The p of TOST where equivalence is claimed and not refuted, else that of the sign-flip test."""
        equivalence = self.claim.claimed == "equivalence" and self.word != "REFUTED"
        return self.p_equivalence if equivalence else self.p

    @property
    def word(self) -> str:
        return self.verdict.word if self.verdict else "NOT RUN"

    @property
    def record(self) -> dict[str, Any]:
        """The finding as one row of verdicts.csv."""
        claim = self.claim
        difference, low, high = astuple(self.interval) if self.interval else (None, None, None)
        return {
            "claim": claim.name,
            "sweep": claim.sweep_name,
            "sentence": claim.sentence,
            "source": claim.source,
            "metric": claim.metric,
            "unit": claim.unit,
            "claimed": {1: "+", -1: "-", "equivalence": "="}[claim.claimed],
            "smallest_effect": claim.smallest_effect,
            "n": self.n,
            "planned": self.planned,
            "difference": difference,
            "low": low,
            "high": high,
            "p": self.p,
            "p_equivalence": self.p_equivalence,
            "p_adjusted": self.p_adjusted,
            "verdict": self.word,
            "seeds_needed": self.verdict.seeds if self.verdict else None,
            "notes": "; ".join(self.notes),
            "table": claim.table,
            "differences": json.dumps([d if d is None else float(f"{d:.6g}") for d in self.differences]),
        }


def chosen_claims(names: Iterable[str] = ()) -> tuple[Claim, ...]:
    """The claims of these names, or all claims where no name is given, in the order of their declaration.

    Errors: UserError that lists every unknown name.
    """
    known = list(registry.claim)
    wanted = list(dict.fromkeys(names)) or known
    if faults := [unknown("claim", name, known) for name in wanted if name not in known]:
        raise UserError(*faults)
    return tuple(registry.claim[name](name) for name in known if name in wanted)


def sweeps_of(chosen: Sequence[Claim], budget: Budget) -> list[Sweep]:
    """The sweeps that the claims need, each once.

    Errors: UserError where a config is wrong, and where two claims need different runs of one sweep.
    """
    sweeps: dict[str, Sweep] = {}
    for claim in chosen:
        sweep = claim.sweep(budget)
        first = sweeps.setdefault(sweep.name, sweep)
        if [run.run_id for run in first.runs] != [run.run_id for run in sweep.runs]:
            fault = f"other claims have another sweep '{sweep.name}'; rename its config"
            raise UserError(f"claim '{claim.name}': {fault}")
    return list(sweeps.values())
