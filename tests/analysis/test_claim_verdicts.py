"""How claims are judged, on values and tables written by hand; and that nothing is dropped in silence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from scipy import stats

from runner import registry
from runner.analysis.claims.claim import Claim, family
from runner.analysis.claims.finding import Finding
from runner.analysis.claims.judge import evaluate, judge
from runner.analysis.claims.paired_values import Effect, PairedValues
from runner.analysis.claims.rule import within_bound, word_of
from runner.analysis.stats.estimates import MeanDifference, RatioOfMeans
from runner.reporting.claim_table import render
from runner.storage.results import Results

REFERENCE = Path(__file__).parents[2] / "results/reference/claims"
NAN = float("nan")
CLEAR = [-3.0, -3.2, -2.9, -3.1, -3.0, -2.8, -3.3, -3.0, -3.1, -2.9]
WILD = [-9.0, 8.0, -7.0, 6.0, -5.0, 9.0, -3.0, 2.0]


def nothing(_: Results) -> PairedValues:
    raise AssertionError("not measured")


def a_claim(
    claimed: Literal[1, -1, "equivalence"] = -1,
    *,
    margin: float = 1.0,
    measure: Any = nothing,
    path: str = "s.yaml",
    effect: Effect = "difference",
) -> Claim:
    return Claim(
        name="mine",
        sentence="It is less.",
        source="somebody",
        config=Path(path),
        metric="a difference",
        unit="pp",
        smallest_effect=margin,
        claimed=claimed,
        measure=measure,
        budgets={},
        effect=effect,
    )


def judged(claim: Claim, differences: Sequence[Any], tests: int = 1) -> Finding:
    values = np.array(differences, dtype=float)
    return judge(claim, PairedValues(values, np.zeros_like(values)), tests)


@pytest.mark.parametrize(
    ("claimed", "differences", "word"),
    [
        (-1, CLEAR, "SUPPORTED"),
        (1, CLEAR, "REFUTED"),
        ("equivalence", CLEAR, "REFUTED"),
        ("equivalence", [-d for d in CLEAR], "REFUTED"),
        ("equivalence", [d / 100 for d in CLEAR], "SUPPORTED"),
        (-1, [d / 3 for d in CLEAR], "SUPPORTED, SIZE OPEN"),
        (-1, [d / 100 for d in CLEAR], "REFUTED"),  # it is less, but not by the smallest effect
        (-1, [0.0] * 10, "REFUTED"),
        (-1, WILD, "UNDECIDED"),
        ("equivalence", WILD, "UNDECIDED"),
        (-1, CLEAR[:5], "UNDECIDED"),  # five pairs can never show a sign
        (-1, CLEAR[:1], "UNDECIDED"),
        (1, CLEAR[:1], "UNDECIDED"),
    ],
)
def test_the_verdict_follows_the_rule(claimed: Any, differences: list[float], word: str) -> None:
    assert judged(a_claim(claimed), differences).word == word


@pytest.mark.parametrize(
    ("claimed", "true", "wrong"),
    [
        (1, 1.0, ("REFUTED",)),
        (1, 0.999, ("SUPPORTED",)),
        (1, 0.0, ("SUPPORTED", "SUPPORTED, SIZE OPEN")),
        ("equivalence", 1.0, ("SUPPORTED",)),
        ("equivalence", 0.999, ("REFUTED",)),
        ("equivalence", -1.0, ("SUPPORTED",)),
    ],
)
def test_a_wrong_word_comes_in_at_most_one_of_twenty_cases(claimed: Any, true: float, wrong: Sequence[str]) -> None:
    generator = np.random.default_rng(18)
    count, simulated = 0, 800
    for differences in generator.normal(true, 1, (simulated, 12)):
        count += word_of(MeanDifference(differences), 1.0, claimed) in wrong
    assert stats.binomtest(count, simulated, 0.05, alternative="greater").pvalue > 0.001, count / simulated


def test_a_ratio_at_the_smallest_effect_is_rarely_refuted_and_rarely_supported() -> None:
    generator = np.random.default_rng(20)
    simulated, words = 800, []
    for _ in range(simulated):
        baseline = generator.normal(100, 20, 12)
        arm = 0.8 * baseline + generator.normal(0, 10, 12)
        words.append(word_of(RatioOfMeans(arm, baseline), 0.2, -1))
    for wrong in ("REFUTED", "SUPPORTED"):
        count = words.count(wrong)
        assert stats.binomtest(count, simulated, 0.05, alternative="greater").pvalue > 0.001, (wrong, count)


def test_a_family_of_tests_widens_the_interval_and_multiplies_p() -> None:
    alone, among = judged(a_claim(), CLEAR), judged(a_claim(), CLEAR, tests=20)
    assert (alone.p, among.p) == (2 / 2**10, 2 / 2**10)
    assert among.p_adjusted == 20 * 2 / 2**10
    # The interval of a row is adjusted for the same number of tests as its p.
    oracle = stats.t.interval(1 - 0.05 / 20, 9, np.mean(CLEAR), stats.sem(CLEAR))
    assert among.decisive is not None
    assert (among.decisive.low, among.decisive.high) == pytest.approx(oracle)
    assert judged(a_claim(), CLEAR, tests=40).word == "UNDECIDED"  # 40 · 2/2^10 > .05
    assert alone.interval == among.interval  # the 95% interval of the effect alone


def test_the_worst_of_several_decides() -> None:
    small, large = np.array(CLEAR) / 100, np.array(CLEAR)
    assert judged(a_claim("equivalence"), [small, small]).word == "SUPPORTED"
    both = judged(a_claim("equivalence"), [small, large])
    assert both.word == "REFUTED"
    assert both.interval is not None
    assert both.interval.estimate == pytest.approx(-3.03)
    assert both.p_adjusted == pytest.approx(2 * 2 / 2**10)  # two were looked at
    undecided = judged(a_claim("equivalence"), [small[:8], np.array(WILD)])
    assert (undecided.word, undecided.differences) == ("UNDECIDED", tuple(WILD))
    with pytest.raises(ValueError, match="only one can decide"):
        judged(a_claim(), [small, large])


def test_a_ratio_has_fiellers_interval() -> None:
    generator = np.random.default_rng(1)
    baseline = generator.normal(100, 10, 20)
    arm = 0.5 * baseline + generator.normal(0, 3, 20)
    claim = a_claim(-1, margin=20, effect="ratio")
    found = judge(claim, PairedValues(arm, baseline))
    assert found.word == "SUPPORTED"
    assert found.decisive is not None
    trimmed = stats.trim_mean(arm - baseline, 0.2)
    assert found.record["trimmed_mean"] == pytest.approx(100 * trimmed / baseline.mean())  # in %, as the effect
    for end in (found.decisive.low, found.decisive.high):
        assert end is not None
        # Fieller's end is the ratio at which a t test of arm − ratio · baseline has p = .05.
        assert stats.ttest_1samp(arm - (1 + end / 100) * baseline, 0).pvalue == pytest.approx(0.05)


def test_a_censored_side_gives_a_bound_and_no_ratio() -> None:
    arm, baseline = np.full(12, 40.0) + np.linspace(0, 11, 12), np.full(12, 100.0)
    claim = a_claim(-1, margin=20, effect="ratio")
    found = judge(claim, PairedValues(arm, baseline, censored=(0, 12)))
    assert (found.word, found.bound) == ("SUPPORTED", "at most")
    shown = render([found], "table")
    assert "at most -54.5 [–, -52.2]" in shown
    assert "12 of 12 runs of the baseline did not reach the target" in shown
    # The baseline was cut off: its true time may be longer, so a small effect refutes nothing.
    small = judge(claim, PairedValues(baseline - 5 + np.linspace(0, 1, 12), baseline, censored=(0, 1)))
    assert small.word == "UNDECIDED"
    both = judge(claim, PairedValues(arm, baseline, censored=(1, 1)))
    assert both.word == "UNDECIDED"
    assert "open: runs of both did not reach the target" in render([both], "table")


def test_what_follows_from_a_bound() -> None:
    assert within_bound("SUPPORTED, SIZE OPEN", -1, "at most") == "SUPPORTED, SIZE OPEN"
    assert within_bound("SUPPORTED", -1, "at least") == "UNDECIDED"
    assert within_bound("REFUTED", -1, "at least") == "REFUTED"
    assert within_bound("REFUTED", 1, "at most") == "REFUTED"
    assert within_bound("SUPPORTED", 1, "at least") == "SUPPORTED"


def test_a_rate_is_never_known_exactly() -> None:
    found = judge(a_claim(-1, margin=0.1, effect="rate"), PairedValues(np.zeros(12), np.ones(12)))
    assert found.interval is not None
    assert found.interval.estimate == -1
    assert found.interval.high is not None
    assert -0.8 < found.interval.high < -0.1  # 12 of 12 do not show that it is always so
    assert (found.word, found.test, found.p) == ("SUPPORTED", "McNemar", 2 / 2**12)


def test_the_verdict_is_withheld_where_few_seeds_decide_the_mean() -> None:
    generator = np.random.default_rng(2)
    baseline = generator.normal(97, 0.1, 30)
    arm = baseline + generator.normal(0.5, 0.1, 30)
    arm[3] = 10.0  # one run collapsed
    found = judge(a_claim(1, margin=0.2), PairedValues(arm, baseline))
    assert found.word == "WITHHELD"
    shown = render([found], "table")
    assert "collapsed runs: 3% of the arm, 0% of the baseline; pairs without a collapse: +0.5" in shown
    assert "Hodges-Lehmann +0.5" in shown
    assert found.record["trimmed_mean"] == pytest.approx(stats.trim_mean(arm - baseline, 0.2))


def test_a_missing_seed_is_counted_as_missing() -> None:
    found = judged(a_claim(), [*CLEAR[:-1], NAN])
    assert (found.n, found.planned) == (9, 10)
    assert found.differences[-1] is None
    assert json.loads(found.record["differences"])[-1] is None


def test_no_seed_at_all_is_undecided_not_equivalent() -> None:
    for claimed in (1, -1, "equivalence"):
        found = judged(a_claim(claimed), [NAN] * 4)
        assert (found.word, found.n, found.planned) == ("UNDECIDED", 0, 4)
        assert found.p is None


def test_every_format_shows_every_finding() -> None:
    findings = [judged(a_claim(), CLEAR), judged(a_claim("equivalence"), [NAN] * 4), Finding(a_claim())]
    rows = list(csv.DictReader(io.StringIO(render(findings, "csv"))))
    assert [row["verdict"] for row in rows] == ["SUPPORTED", "UNDECIDED", "NOT RUN"]
    assert [row["claimed"] for row in rows] == ["-", "=", "-"]
    assert [row["n"] for row in rows] == ["10", "0", "0"]
    assert [row["verdict"] for row in json.loads(render(findings, "json"))] == [row["verdict"] for row in rows]
    for style in ("table", "md"):
        text = render(findings, style)
        assert text.count("mine") == 3
        assert "0/4" in text


def test_the_family_does_not_depend_on_the_claims_that_are_named(tmp_path: Path) -> None:
    registry.load_plugins()
    built_in = family("faster_notebook_mlp")
    assert built_in == family("eps_matters_little")
    # One claim is judged with as many tests as all of them.
    (alone,) = evaluate([registry.claim["eps_matters_little"]("eps_matters_little")], REFERENCE)
    assert alone.tests == len(built_in) > 30
    file = tmp_path / "own.py"
    file.write_text("from runner import claim\n@claim('own_one')\n@claim('own_two')\ndef own(name): ...\n")
    with registry.claim.temporary():
        registry.load_plugins((str(file),))
        assert family("own_one") == ("own_two", "own_one")
        assert family("faster_notebook_mlp") == built_in
