"""What the simulated verdicts and intervals promise, by the committed counts, and that these come out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple

import pandas as pd
import pytest
from scipy.stats import binomtest

from docs import calibration, simulations
from runner.analysis.stats.crossed import crossed_interval
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import Values

COUNTS = pd.read_csv(simulations.TABLE, keep_default_na=False)


def cases(table: str, **values: object) -> pd.DataFrame:
    found = COUNTS[COUNTS["table"] == table]
    for name, value in values.items():
        found = found[found[name] == value]
    assert len(found), (table, values)
    return found


def at_most_5_percent(found: pd.DataFrame, count: int) -> bool:
    """Whether so many errors in the trials of these rows do not prove a rate above 5%."""
    return bool(binomtest(count, int(found["trials"].iloc[0]), 0.05, alternative="greater").pvalue > 0.005)


def test_the_page_is_what_the_counts_give() -> None:
    assert calibration.PAGE.read_text(encoding="utf-8") == calibration.page()


SHARES = {"boundaries": 0.04, "recorded": 0.04, "clustering": 0.12}
"""Table → which share of its trials is made again. Of the other tables, it is a tenth."""

KEYS = ["case", "differences", "n", "tests"]


def frame(counts: Iterator[simulations.Count]) -> pd.DataFrame:
    return pd.DataFrame(list(map(asdict, counts)))


def far_from(committed: pd.DataFrame, again: pd.DataFrame) -> list[str]:
    """The counts of a table that chance does not explain: one-sided binomial tests at .001, in both directions."""
    before, now = (made.set_index([*KEYS, "what"])["count"] for made in (committed, again))
    trials = [made.groupby(KEYS)["trials"].first() for made in (committed, again)]
    found = []
    counts = pd.concat([before, now], axis=1).fillna(0).astype(int)
    for index, count, count_now in counts.itertuples(name=None):
        of, of_now = (int(made[index[:-1]]) for made in trials)
        # A word that never came may come once in so many trials.
        share = (count + 1) / (of + 2)
        p = min(binomtest(count_now, of_now, share, alternative=side).pvalue for side in ("less", "greater"))
        if p < 0.001:
            found.append(f"{index}: {count} of {of}, now {count_now} of {of_now}")
    return found


@pytest.mark.parametrize("table", simulations.TABLES)
def test_a_part_of_the_trials_gives_the_committed_shares(table: Callable[..., Iterator[simulations.Count]]) -> None:
    name = table.__name__
    assert far_from(cases(name), frame(table(share=SHARES.get(name, 0.1)))) == []


def test_a_broken_interval_is_far_from_the_committed_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(table: Values) -> Interval:
        right = crossed_interval(table)
        assert right.low is not None
        assert right.high is not None
        return Interval(right.estimate, (right.estimate + right.low) / 2, (right.estimate + right.high) / 2)

    monkeypatch.setattr(simulations, "crossed_interval", half)
    broken = frame(simulations._coverage_of_images(12, 200))
    committed = cases("coverage", n=12)
    (line,) = far_from(committed[committed["case"].isin(broken["case"])], broken)
    assert "seeds × images" in line


def test_a_case_can_be_repeated_alone() -> None:
    rows = [astuple(count) for n in (6, 12, 30) for count in simulations._coverage_of_shares(n, 4000)]
    found = cases("coverage", differences="events")
    assert rows == list(found.itertuples(index=False, name=None))


def test_each_p_comes_out_again() -> None:
    committed = pd.read_csv(simulations.P_VALUES)
    assert len(committed) == 4000
    pd.testing.assert_frame_equal(simulations.p_values(0.01), committed.head(40), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [6, 12, 30])
@pytest.mark.parametrize("tests", [1, 10])
def test_words_at_the_boundaries_are_wrong_at_most_5_percent_of_the_time(n: int, tests: int) -> None:
    for case, wrong in simulations.WRONG.items():
        found = cases("boundaries", differences="normal", n=n, tests=tests, case=case)
        for words in (wrong, (calibration.MORE.get(case),)):
            assert at_most_5_percent(found, int(found["count"][found["what"].isin(words)].sum())), (case, words)


def test_intervals_cover_under_normal_differences() -> None:
    found = cases("coverage")
    found = found[found["differences"] != "skewed"].assign(share=found["count"] / found["trials"])
    seeds_alone = found["case"].str.startswith("paired t of the same seeds")
    assert (found.loc[seeds_alone, "share"] < 0.92).all()  # why there is an interval over images
    found = found[~seeds_alone]
    assert (found["share"] >= 0.93).all()
    # The others promise at least 95%.
    two_sided = found[found["differences"].eq("normal") & ~found["case"].str.startswith("sign process")]
    assert len(two_sided) == 6 * 3
    # Six pairs have a Hodges–Lehmann interval at 96.9%.
    assert (two_sided["share"] < 0.97 + 2 * (0.97 * 0.03 / two_sided["trials"]) ** 0.5).all()


def test_ten_rows_are_wrong_together_as_rarely_as_one() -> None:
    for case, found in cases("families", tests=10).groupby("case"):
        assert at_most_5_percent(found, int(found["count"].iloc[0])), case
    assert (cases("families", tests=1)["count"] > 150).all()  # of 1000: the adjustment is needed


def test_one_seed_in_several_cells_counts_once() -> None:
    now, before = (cases("clustering", what=what) for what in ("compare rejects", "30 pairs reject"))
    assert at_most_5_percent(now, int(now["count"].iloc[0]))
    assert before["count"].iloc[0] > 100  # of 400


def test_the_seeds_that_choose_a_learning_rate_are_not_compared() -> None:
    half, others = (cases("own_best_lr", what=f"{who} choose") for who in ("half of the seeds", "all other seeds"))
    assert at_most_5_percent(half, int(half["count"].iloc[0]))
    assert not at_most_5_percent(others, int(others["count"].iloc[0]))


def test_a_collapse_withholds_the_verdict_about_the_mean() -> None:
    seen = cases("collapses", case="with a collapse").set_index("what")["count"]
    assert seen["WITHHELD"] / seen.filter(regex="^[A-Z]+$").sum() > 0.95


def test_looking_after_every_pair_is_wrong_at_most_5_percent_of_the_time() -> None:
    for kind in simulations.MEDIAN_0:
        for case in ("no difference, δ = 0.1 SD", "no difference, δ = 1 SD", "−δ", "δ"):
            found = cases("sequential", differences=kind, case=case)
            counts = found.set_index("what")["count"]
            assert at_most_5_percent(found, int(counts["a wrong word at any look"])), (kind, case)
            beyond = calibration.MORE.get(case)
            assert beyond is None or at_most_5_percent(found, int(counts[beyond])), (kind, case)
    assert cases("sequential", n=100)["count"].iloc[0] > 200  # of 1000: an ordinary test
