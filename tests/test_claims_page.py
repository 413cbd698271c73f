"""docs/claims.md: its verdicts, its first screen, and the earlier verdicts beside the new ones."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import Result

from docs import claims
from docs.claims_beside import Beside
from docs.claims_found import found
from runner.analysis.claims import judge
from runner.analysis.claims.finding import Finding
from tests.interfaces.test_printed import fits_the_terminal

Bnbench = Callable[..., Result]


@pytest.fixture(scope="module")
def findings() -> tuple[Finding, ...]:
    return claims.findings_of()


def test_the_claims_page_is_what_its_tables_give(findings: tuple[Finding, ...]) -> None:
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page(findings)


def test_the_first_screen_of_the_claims_is_not_made_of_other_verdicts(findings: tuple[Finding, ...]) -> None:
    beside, edits = Beside(claims.RESULTS, len(findings)), claims.edits_in(claims.plan_of())
    assert found(findings, beside, edits) in claims.PAGE.read_text(encoding="utf-8")
    other = replace(findings[0], word="UNDECIDED")
    with pytest.raises(AssertionError, match=other.claim.name):
        found([other, *findings[1:]], beside, edits)


def test_every_earlier_verdict_stands_beside_the_new_one() -> None:
    page = claims.PAGE.read_text(encoding="utf-8")
    table = page.partition("## Then and now")[2].partition("\n## ")[0]
    with (claims.RESULTS / "earlier_verdicts.csv").open(encoding="utf-8", newline="") as file:
        earlier = list(csv.DictReader(file))
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| [")]
    assert len(rows) == len(earlier) == 34
    with (claims.RESULTS / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        now = {row["claim"]: row for row in csv.DictReader(file)}
    for old, (name, then, again, new, why) in zip(earlier, rows, strict=True):
        assert name == f"[{old['claim']}](#{old['claim']})"
        difference, low, high = (f"{float(old[column]):+.3g}" for column in ("difference", "low", "high"))
        assert then == f"{difference} [{low}, {high}] {old['verdict']}"
        assert (again == "–") == (not old["measured_as_now"])
        assert new.endswith(f"] {now[old['claim']]['verdict']}")
        assert why


def test_the_verdicts_are_what_the_committed_sweeps_give(
    findings: tuple[Finding, ...], bnbench: Bnbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "evaluate", lambda *_: findings)  # the same, in several forms
    fits_the_terminal(bnbench, monkeypatch, "claims", "show", claims.RESULTS)
    shown = bnbench("claims", "show", claims.RESULTS, "--budget", "full", "--format", "csv")
    assert shown.stdout == (claims.RESULTS / "verdicts.csv").read_text(encoding="utf-8")
