"""The verdict on a claim, by a rule that was fixed before the runs.

SUPPORTED: the effect has the claimed sign and the claimed size, or is equivalent where that is claimed. SUPPORTED, SIZE
OPEN: only the sign is shown. REFUTED: an effect of the claimed size is excluded; for a claim of equivalence, there is
an effect of the size of the margin or more. UNDECIDED: nothing is shown. WITHHELD: the mean and what holds for most
seeds disagree. NOT TESTED: the runs are not those of the claim's config, which has the document's budget.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from runner.analysis.claims.claim import Claim, family
from runner.analysis.claims.finding import Finding, per_seed
from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.rule import within_bound, word_of
from runner.analysis.claims.trained import departures
from runner.analysis.metrics import MEASURED, check, read_runs
from runner.analysis.pairing import Arms, pairs, unproven
from runner.analysis.stats.estimates import Estimate, MeanDifference, MedianDifference
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.robust import Robust, robust
from runner.analysis.stats.significance import equivalence_p
from runner.analysis.stats.values import ALPHA
from runner.analysis.stats.verdicts import seeds_needed
from runner.errors import UserError
from runner.storage.folder import METRICS, sweep_folder
from runner.storage.results import Results, load


def evaluate(chosen: Sequence[Claim], folder: Path) -> tuple[Finding, ...]:
    """Judge the claims by the sweeps in `folder`. The number of tests is that of each claim's whole family.

    Errors: UserError where tables cannot be compared.
    """
    return tuple(_of_folder(claim, folder) for claim in chosen)


def _of_folder(claim: Claim, folder: Path) -> Finding:
    place = sweep_folder(folder, claim.sweep_name)
    if not (place / METRICS).exists():
        return Finding(claim, notes=(f"no sweep in {place.name}",))
    results = load(place)
    counts = results.runs["status"].value_counts().drop("ok", errors="ignore")
    notes = [f"{count} of {len(results.runs)} runs {status}" for status, count in counts.items()]
    parameters, facts = read_runs([results], "valid_accuracy", "last")
    found = pairs(parameters, facts, Arms(parameters, results.axis, results.baseline))
    doubtful = unproven(found)
    if doubtful:
        notes.append(f"not proven to be pairs: {doubtful} of {len(found)}")
    tests = len(family(claim.name))
    if not results.runs["status"].isin(MEASURED).any():
        planned = len(set(results.runs["seed"]) - set(claim.selection_seeds))
        finding = Finding(claim, planned, word="UNDECIDED", tests=tests, differences=(None,) * planned)
    else:
        check([results], "valid_accuracy", "last")
        notes += claim.remarks(results) if claim.remarks else ()
        finding = judge(claim, _measured(claim, results), tests)
    if doubtful:
        finding = replace(finding, word="UNDECIDED")
    if others := departures(claim, results):
        finding = replace(finding, word="NOT TESTED", seeds_needed=None)
        notes.append(f"not tested as the claim's config says: {'; '.join(others)}")
    return replace(finding, notes=(*notes, *finding.notes))


def _measured(claim: Claim, results: Results) -> PairedValues:
    compared = claim.measure(results)
    if not isinstance(compared, PairedValues):
        raise UserError(
            f"claim '{claim.name}': its measure gives a {type(compared).__name__}, not a runner.PairedValues"
        )
    return compared


def judge(claim: Claim, compared: PairedValues, tests: int = 1) -> Finding:
    """The finding for what a measure gave, where `tests` claims are judged together.

    Errors: ValueError for several comparisons where no equivalence is claimed; UserError for a ratio to a mean that is
    not above 0.
    """
    parts = compared.parts()
    if len(parts) > 1 and claim.claimed != "equivalence":
        raise ValueError(f"claim '{claim.name}': {len(parts)} comparisons; only one can decide")
    # All must be equivalent, so the least equivalent one decides (Berger 1982).
    return max((_judged(claim, part, tests, len(parts)) for part in parts), key=_decides)


def _decides(finding: Finding) -> tuple[bool, bool, float]:
    """Sorts comparisons: one that refutes decides, else one that is not equivalent, else the farthest from 0."""
    interval, reach = finding.decisive, float("inf")
    if interval and interval.low is not None and interval.high is not None:
        reach = max(abs(interval.low), abs(interval.high))
    return finding.word == "REFUTED", finding.word != "SUPPORTED", reach


def _judged(claim: Claim, part: PairedValues, tests: int, parts: int) -> Finding:
    complete, differences = part.complete, part.differences
    n = len(complete.differences)
    finding = Finding(
        claim,
        planned=len(differences),
        n=n,
        word="UNDECIDED",
        tests=tests,
        bound=part.bound,
        censored=part.censored,
        differences=per_seed(differences),
        notes=_censored(part),
    )
    if not n:
        return finding
    unit = float(np.mean(complete.baseline)) if claim.effect == "ratio" else 1.0
    if unit <= 0:
        raise UserError(f"claim '{claim.name}': a ratio needs a baseline with a mean above 0")
    estimate, margin = complete.estimate(claim.effect), claim.smallest_effect / claim.scale
    word = word_of(estimate, margin, claim.claimed, tests, parts)
    beside = _beside(claim, complete, claim.scale / unit)
    if beside and beside.disagrees:
        # A few extreme seeds decide what the mean says.
        most: list[Estimate] = [MedianDifference(complete.differences / unit)]
        most += [MeanDifference(beside.rest / claim.scale)] if len(beside.rest) else []
        agreed = all(word_of(part, margin, claim.claimed, tests, parts) == word for part in most)
        word = word if agreed else "WITHHELD"
    word = within_bound(word, claim.claimed, part.bound)
    return _with_numbers(replace(finding, word=word, robust=beside), complete, estimate, parts)


def _beside(claim: Claim, complete: PairedValues, factor: float) -> Robust | None:
    """The robust estimates in the claim's unit. A rate has none: its values are 0 and 1."""
    if claim.effect == "rate":
        return None
    return robust(factor * complete.values, factor * complete.baseline, -1 if claim.claimed == -1 else 1)


def _with_numbers(finding: Finding, complete: PairedValues, estimate: Estimate, parts: int) -> Finding:
    """The finding with intervals and p. The interval of the verdict is the one that its test uses."""
    claim, tests = finding.claim, finding.tests
    equivalence, refuted = claim.claimed == "equivalence", finding.word == "REFUTED"
    level = ALPHA / tests
    if equivalence and refuted:
        level /= parts
    elif equivalence or refuted:
        level *= 2  # one-sided tests
    p, test, needed = estimate.p, estimate.test, None
    if claim.effect == "difference" and finding.n > 1:
        margin = claim.smallest_effect
        if equivalence and not refuted:
            p, test = equivalence_p(complete.differences, margin), "TOST"
        if finding.word == "UNDECIDED":
            needed = seeds_needed(complete.differences, margin, tests, equivalence=equivalence).seeds
    return replace(
        finding,
        interval=_scaled(estimate.interval(), claim.scale),
        decisive=_scaled(estimate.interval(level), claim.scale),
        level=level,
        p=p,
        test="" if p is None else test,
        p_adjusted=None if p is None else min(1.0, p * tests * (parts if refuted else 1)),
        seeds_needed=needed,
    )


def _scaled(interval: Interval, scale: float) -> Interval:
    ends = (None if value is None else scale * value for value in (interval.low, interval.high))
    return Interval(scale * interval.estimate, *ends)


def _censored(part: PairedValues) -> tuple[str, ...]:
    n = part.differences.shape[-1]
    sides = zip(("the arm", "the baseline"), part.censored, strict=True)
    return tuple(f"{count} of {n} runs of {side} did not reach the target" for side, count in sides if count)
