"""What the simulated verdicts and intervals promise, by the committed counts, and that these come out again."""

from __future__ import annotations

from dataclasses import astuple

import pandas as pd
import pytest
from scipy.stats import binomtest

from docs import calibration, simulations

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


def test_the_counts_come_out_again() -> None:
    rows = [astuple(count) for count in simulations.boundaries(sizes=(6,))]
    assert rows == list(cases("boundaries", n=6).itertuples(index=False, name=None))


@pytest.mark.parametrize("n", [6, 12, 30])
@pytest.mark.parametrize("tests", [1, 10])
def test_words_at_the_boundaries_are_wrong_at_most_5_percent_of_the_time(n: int, tests: int) -> None:
    for case, wrong in calibration.WRONG.items():
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
