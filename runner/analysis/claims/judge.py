"""What the runs say about a claim, by a rule fixed beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from runner.analysis.claims.claim import Claim, Finding
from runner.analysis.metrics import MEASURED, check, read_runs
from runner.analysis.pairing import Arms, pairs
from runner.analysis.stats.intervals import paired_interval
from runner.analysis.stats.significance import equivalence_p, holm, sign_flip_p
from runner.analysis.stats.values import Values
from runner.analysis.stats.verdicts import Verdict, seeds_needed, verdict
from runner.storage.folder import METRICS, sweep_folder
from runner.storage.results import Results, load


def evaluate(chosen: Sequence[Claim], folder: Path) -> tuple[Finding, ...]:
    """What the sweeps in `folder` say about the claims, p adjusted over all of them that were run.

    SUPPORTED, REFUTED, EQUIVALENT and INCONCLUSIVE are the words of `stats.verdicts`; a claim of equivalence is
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
    if flip is None or not len(differences) or not finding.proven:
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
    unproven, notes = _unproven_pairs(results), _notes(results)
    if unproven:
        notes = (*notes, f"not proven to be pairs: {unproven}")
    if not results.runs["status"].isin(MEASURED).any():
        planned = results.runs["seed"].nunique()
        return Finding(claim, planned, notes=notes, differences=(None,) * planned)
    check([results], "valid_accuracy", "last")
    remarks = claim.remarks(results) if claim.remarks else ()
    found = finding(claim, claim.measure(results), (*notes, *remarks))
    return replace(found, proven=not unproven)


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
    """Which runs have no result, and which diverged."""
    counts = results.runs["status"].value_counts()
    return tuple(f"{counts[status]} of {len(results.runs)} runs {status}" for status in counts.index if status != "ok")


def _unproven_pairs(results: Results) -> str:
    """How many pairs of how many are not proven to be pairs, in words; empty where all are."""
    parameters, facts = read_runs([results], "valid_accuracy", "last")
    found = pairs(parameters, facts, Arms(parameters, results.axis, results.baseline))
    unproven = int((found["weights"] | found["batches"]).sum()) if len(found) else 0
    return f"{unproven} of {len(found)}" if unproven else ""
