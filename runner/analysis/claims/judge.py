"""A sentence that can be put to the test: declared, run, and judged by a rule fixed beforehand.

A claim is a function `(name) -> Claim` under `@claim("name")` (`runner.registry`), in a module of `experiments/claims/`
or in a plugin. Its config is the `full` budget; the others are `--set` overrides of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runner import registry
from runner.analysis.metrics import check, read_runs
from runner.analysis.pairing import Arms, pairs
from runner.analysis.stats import (
    Interval,
    Values,
    Verdict,
    equivalence_p,
    holm,
    paired_interval,
    seeds_needed,
    sign_flip_p,
    verdict,
)
from runner.config import reader as config
from runner.config.sweep import Sweep
from runner.errors import UserError, unknown
from runner.execution.driver import Options, run_sweep
from runner.storage.folder import sweep_folder
from runner.storage.results import Results, load
from runner.storage.store import METRICS

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


# Which


def claims(names: Iterable[str] = ()) -> tuple[Claim, ...]:
    """The claims of these names, all where none is given, in the order of their declaration.

    Errors: UserError with every unknown name.
    """
    wanted = list(dict.fromkeys(names))
    if faults := [unknown("claim", name, list(registry.claim)) for name in wanted if name not in registry.claim]:
        raise UserError(*faults)
    return tuple(registry.claim[name](name) for name in registry.claim if not wanted or name in wanted)


# Running


def run(chosen: Sequence[Claim], budget: Budget, options: Options, say: Callable[[str], None]) -> int:
    """Train what the claims need and is not trained yet, each config once; returns the driver's worst exit code.

    `options.out` is the budget's folder. Errors: UserError before anything is trained where a config is wrong, or two
    claims want different runs of one sweep.
    """
    sweeps: dict[str, Sweep] = {}
    for claim in chosen:
        sweep = claim.sweep(budget)
        known = sweeps.setdefault(sweep.name, sweep)
        if [run.run_id for run in known.runs] != [run.run_id for run in sweep.runs]:
            raise UserError(f"claim '{claim.name}': other claims have another sweep '{sweep.name}'; rename its config")
    worst = 0
    for number, sweep in enumerate(sweeps.values(), start=1):
        say(f"[{number}/{len(sweeps)}] {sweep.name}: {len(sweep.runs)} runs")
        code = run_sweep(sweep, replace(options, existing="resume"))
        if code > 1:
            return code  # interrupted; the same command goes on
        worst = max(worst, code)
    return worst


# Judging


def evaluate(chosen: Sequence[Claim], folder: Path) -> tuple[Finding, ...]:
    """What the sweeps in `folder` say about the claims, p adjusted over all of them that were run.

    SUPPORTED, REFUTED, EQUIVALENT and INCONCLUSIVE are `runner.analysis.stats.verdict`'s; a claim of equivalence is
    never SUPPORTED: EQUIVALENT is what it claims, and a difference of either sign is REFUTED.
    Errors: UserError where tables cannot be compared.
    """
    return judge([_finding(claim, folder) for claim in chosen])


def judge(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings with p adjusted, and with verdicts. Two families: no difference, and equivalence where claimed."""
    flips = _adjusted([finding.p for finding in findings])
    tosts = _adjusted([f.p_equivalence if f.claim.claimed == "equivalence" else None for f in findings])
    return tuple(_judged(*each) for each in zip(findings, flips, tosts, strict=True))


def _adjusted(p: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm(np.array([value for value in p if value is not None])).tolist())
    return [None if value is None else next(adjusted) for value in p]


def _judged(finding: Finding, flip: float | None, tost: float | None) -> Finding:
    if not finding.planned:
        return finding
    equivalence = finding.claim.claimed == "equivalence"
    finding = replace(finding, p_adjusted=tost if equivalence else flip)
    differences = np.array([d for d in finding.differences if d is not None])
    proven = not any(note.startswith("not proven") for note in finding.notes)
    if flip is None or not len(differences) or not proven:
        return replace(finding, verdict=Verdict("INCONCLUSIVE"))
    sign = 1 if finding.claim.claimed == "equivalence" else finding.claim.claimed
    found = verdict(differences, finding.claim.smallest_effect, sign, flip)
    if equivalence:
        found = _of_equivalence(found, tost, differences, finding.claim.smallest_effect)
    if found.word == "REFUTED":  # by the test of a difference, whatever was claimed
        finding = replace(finding, p_adjusted=flip)
    return replace(finding, verdict=found)


def _of_equivalence(found: Verdict, tost: float | None, differences: Values, margin: float) -> Verdict:
    if found.word in ("SUPPORTED", "REFUTED"):
        return Verdict("REFUTED")
    if tost is not None and tost < 0.05:
        return Verdict("EQUIVALENT")
    if found.word == "EQUIVALENT":  # but not after Holm
        sd = float(differences.std(ddof=1))
        return Verdict("INCONCLUSIVE", max(len(differences) + 1, seeds_needed(margin, sd) or 0))
    return found


def _finding(claim: Claim, folder: Path) -> Finding:
    place = sweep_folder(folder, claim.sweep_name)
    if not (place / METRICS).exists():
        return Finding(claim, notes=(f"no sweep in {place.name}",))
    results = load(place)
    if results.runs["status"].isin(["ok", "diverged"]).sum() == 0:
        planned = results.runs["seed"].nunique()
        return Finding(claim, planned, notes=_notes(results), differences=(None,) * planned)
    check([results], "valid_accuracy", "last")
    remarks = claim.remarks(results) if claim.remarks else ()
    return finding(claim, claim.measure(results), (*_notes(results), *remarks))


def finding(claim: Claim, measured: Values, notes: Sequence[str] = ()) -> Finding:
    """What these differences say, before the p of several claims are adjusted.

    Errors: ValueError for several differences where no equivalence is claimed.
    """
    parts = np.atleast_2d(np.asarray(measured, dtype=np.float64))
    if len(parts) > 1 and claim.claimed != "equivalence":
        raise ValueError(f"claim '{claim.name}': {len(parts)} differences a seed; one decides")
    # All have to be equivalent, so the one that is least so decides (Berger 1982); that it was chosen costs a factor.
    chosen = max(parts, key=lambda part: _equivalence(part, claim.smallest_effect))
    complete = chosen[np.isfinite(chosen)]
    base = Finding(
        claim,
        planned=len(chosen),
        n=len(complete),
        notes=tuple(notes),
        differences=tuple(float(value) if np.isfinite(value) else None for value in chosen),
    )
    if not len(complete):
        return base
    p = sign_flip_p(complete, np.random.default_rng(0)) if len(complete) > 1 else None
    return replace(
        base,
        interval=paired_interval(complete),
        p=None if p is None else min(1.0, p * len(parts)),
        p_equivalence=_equivalence(chosen, claim.smallest_effect) if len(complete) > 1 else None,
    )


def _equivalence(differences: Values, margin: float) -> float:
    finite = differences[np.isfinite(differences)]
    return equivalence_p(finite, margin) if len(finite) > 1 else 1.0


def _notes(results: Results) -> tuple[str, ...]:
    """What a reader has to know of the runs: those without a result, those diverged, pairs not proven."""
    counts = results.runs["status"].value_counts()
    notes = [f"{counts[status]} of {len(results.runs)} runs {status}" for status in counts.index if status != "ok"]
    parameters, facts = read_runs([results], "valid_accuracy", "last")
    found = pairs(parameters, facts, Arms(parameters, results.axis, results.baseline))
    unproven = int((found["weights"] | found["batches"]).sum()) if len(found) else 0
    if unproven:
        notes.append(f"not proven to be pairs: {unproven} of {len(found)}")
    return tuple(notes)
