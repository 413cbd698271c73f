"""From an estimate to the word about a claim. The words are explained in `judge`."""

from runner.analysis.claims.finding import Word
from runner.analysis.claims.paired_values import Bound
from runner.analysis.stats.estimates import Estimate
from runner.analysis.stats.values import ALPHA
from runner.analysis.stats.verdicts import decide


def word_of(estimate: Estimate, smallest_effect: float, claimed: object, tests: int = 1, parts: int = 1) -> Word:
    """What is shown about a claim, where `tests` claims are judged together.

    For a claim of equivalence, `parts` is the number of comparisons that must all be equivalent. Each of them may
    refute the claim, so a refutation is adjusted for all of them. At each true effect a wrong word comes in at most 5%
    of the cases: see `stats.verdicts.decide`. REFUTED is one more one-sided t test, that the effect is as large as
    claimed. It is wrong only where SUPPORTED is right, so it adds nothing to the error.

    >>> import numpy as np
    >>> from runner.analysis.stats.estimates import MeanDifference
    >>> small = MeanDifference(np.array([0.02, 0.03, 0.02, 0.03, 0.02, 0.03]))
    >>> word_of(small, 0.01, claimed=1), word_of(small, 0.1, claimed=1), word_of(small, 0.1, claimed="equivalence")
    ('SUPPORTED', 'REFUTED', 'SUPPORTED')
    """
    if claimed == "equivalence":
        if decide(estimate, smallest_effect, 1, tests) == "EQUIVALENT":
            return "SUPPORTED"
        refuted = decide(estimate, smallest_effect, 1, tests * parts) in ("SUPERIOR", "INFERIOR")
        return "REFUTED" if refuted else "UNDECIDED"
    sign = 1 if claimed == 1 else -1
    word = decide(estimate, smallest_effect, sign, tests)
    if word == "SUPERIOR":
        return "SUPPORTED"
    interval = estimate.interval(2 * ALPHA / tests)
    end = interval.high if sign == 1 else interval.low
    if estimate.p is not None and end is not None and sign * end < smallest_effect:
        return "REFUTED"
    return "SUPPORTED, SIZE OPEN" if word == "BETTER" else "UNDECIDED"


def within_bound(word: Word, claimed: object, bound: Bound) -> Word:
    """The word, where only a bound of the effect is known: UNDECIDED if it does not follow from the bound.

    >>> within_bound("SUPPORTED", -1, "at most"), within_bound("REFUTED", -1, "at most")
    ('SUPPORTED', 'UNDECIDED')
    """
    if not bound:
        return word
    follows = ("SUPPORTED", "SUPPORTED, SIZE OPEN") if (bound, claimed) in _TOWARDS else ("REFUTED",)
    return word if word in follows and bound != "open" and claimed in (1, -1) else "UNDECIDED"


_TOWARDS = (("at most", -1), ("at least", 1))
"""The bounds that lie on the claimed side."""
