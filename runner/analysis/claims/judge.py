"""The verdict on a claim, by a rule that was fixed before the runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from runner.analysis.claims.claim import Claim, Finding
from runner.analysis.claims.rule import Verdict, seeds_needed, verdict
from runner.analysis.metrics import MEASURED, check, read_runs
from runner.analysis.pairing import Arms, pairs, unproven
from runner.analysis.stats.intervals import paired_interval
from runner.analysis.stats.significance import adjusted, equivalence_p, holm, sign_flip_p
from runner.analysis.stats.values import ALPHA, Values
from runner.storage.folder import METRICS, sweep_folder
from runner.storage.results import load


def evaluate(chosen: Sequence[Claim], folder: Path) -> tuple[Finding, ...]:
    """Judge the claims by the sweeps in `folder`. p is adjusted over all claims that were run.

    The verdicts are those of `stats.verdicts`. For a claim of equivalence, EQUIVALENT is what it claims, a difference
    of either sign is REFUTED, and SUPPORTED does not occur.
    Errors: UserError where tables cannot be compared.
    """
    return judge([_finding(claim, folder) for claim in chosen])


def judge(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings with adjusted p and verdicts.

    p is adjusted in two families: the sign-flip tests of all claims, and the TOSTs of the claims of equivalence.
    """
    flips = adjusted([finding.p for finding in findings], holm)
    tosts = adjusted([f.p_equivalence if f.claim.claimed == "equivalence" else None for f in findings], holm)
    return tuple(map(_judged, findings, flips, tosts))


def _judged(finding: Finding, flip: float | None, tost: float | None) -> Finding:
    """The finding with its verdict. `flip` and `tost` are the adjusted p of its two tests."""
    if not finding.planned:
        return finding
    claimed, margin = finding.claim.claimed, finding.claim.smallest_effect
    equivalence = claimed == "equivalence"
    finding = replace(finding, p_adjusted=tost if equivalence else flip)
    if flip is None or not finding.proven:
        return replace(finding, verdict=Verdict("INCONCLUSIVE"))
    differences = np.array([value for value in finding.differences if value is not None])
    found = verdict(differences, margin, 1 if claimed == "equivalence" else claimed, flip)
    if equivalence:
        found = _of_equivalence(found, tost, differences, margin)
    if found.word == "REFUTED":  # The test of a difference decides this, whatever was claimed.
        finding = replace(finding, p_adjusted=flip)
    return replace(finding, verdict=found)


def _of_equivalence(found: Verdict, tost: float | None, differences: Values, margin: float) -> Verdict:
    if found.word in ("SUPPORTED", "REFUTED"):
        return Verdict("REFUTED")
    if tost is not None and tost < ALPHA:
        return Verdict("EQUIVALENT")
    if found.word != "EQUIVALENT":
        return found
    # TOST rejects alone, but not after Holm's adjustment.
    needed = seeds_needed(margin, float(differences.std(ddof=1))) or 0
    return Verdict("INCONCLUSIVE", max(len(differences) + 1, needed))


def _finding(claim: Claim, folder: Path) -> Finding:
    place = sweep_folder(folder, claim.sweep_name)
    if not (place / METRICS).exists():
        return Finding(claim, notes=(f"no sweep in {place.name}",))
    results = load(place)
    counts = results.runs["status"].value_counts().drop("ok", errors="ignore")
    notes = [f"{count} of {len(results.runs)} runs {status}" for status, count in counts.items()]
    parameters, facts = read_runs([results], "valid_accuracy", "last")
    found = pairs(parameters, facts, Arms(parameters, results.axis, results.baseline))
    if doubtful := unproven(found):
        notes.append(f"not proven to be pairs: {doubtful} of {len(found)}")
    if not results.runs["status"].isin(MEASURED).any():
        planned = results.runs["seed"].nunique()
        return Finding(claim, planned, notes=tuple(notes), differences=(None,) * planned)
    check([results], "valid_accuracy", "last")
    if claim.remarks:
        notes += claim.remarks(results)
    return replace(finding(claim, claim.measure(results), notes), proven=not doubtful)


def finding(claim: Claim, measured: Values, notes: Sequence[str] = ()) -> Finding:
    """The finding for these differences [S] or [K, S], before p is adjusted over several claims.

    Errors: ValueError for several differences where no equivalence is claimed.
    """
    parts = np.atleast_2d(np.asarray(measured, dtype=np.float64))
    if len(parts) > 1 and claim.claimed != "equivalence":
        raise ValueError(f"claim '{claim.name}': {len(parts)} differences per seed; only one can decide")
    # All must be equivalent, so the least equivalent one decides (Berger 1982). Its sign-flip p pays for the choice.
    chosen = max(parts, key=lambda part: _tost(part, claim.smallest_effect))
    complete = chosen[np.isfinite(chosen)]
    found = Finding(
        claim,
        planned=len(chosen),
        n=len(complete),
        interval=paired_interval(complete) if len(complete) else None,
        notes=tuple(notes),
        differences=tuple(float(value) if np.isfinite(value) else None for value in chosen),
    )
    if len(complete) < 2:
        return found
    p = min(1.0, sign_flip_p(complete, np.random.default_rng(0)) * len(parts))
    return replace(found, p=p, p_equivalence=_tost(chosen, claim.smallest_effect))


def _tost(differences: Values, margin: float) -> float:
    finite = differences[np.isfinite(differences)]
    return equivalence_p(finite, margin) if len(finite) > 1 else 1.0
