"""Verdicts as text: for a terminal, as CSV, JSON or Markdown."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from runner.analysis.calibration import Check
from runner.analysis.claims.finding import Finding
from runner.reporting.as_json import json_text
from runner.reporting.formats import NOTHING, p_text
from runner.reporting.markup import markdown_table
from runner.reporting.tables import csv_text
from runner.reporting.text_table import fitted, plain_table

Style = Literal["table", "csv", "json", "md"]

HEADINGS = ("claim", "n", "effect [interval]", "confidence", "claimed", "test", "p adjusted", "verdict", "needs")
LEAVE = ("needs", "test", "confidence", "p adjusted", "claimed", "n")
"""The columns that leave where the table is too wide, in their order."""


def render(findings: Sequence[Finding], style: Style, plan: Sequence[str] = ()) -> str:
    """The findings, one per line, in their order. `table` and `md` have notes below, and what is said of the plan."""
    records = [finding.record for finding in findings]
    rows = [HEADINGS, *map(cells, findings)]
    below = [*notes(findings), *plan]
    match style:
        case "csv":
            return csv_text(records)
        case "json":
            return json_text(records)
        case "md":
            rows.insert(1, (":---",) * len(HEADINGS))
            return "\n".join([markdown_table(rows), "", *(f"{note}\n" for note in below)]) + "\n"
        case "table":
            return "\n".join([*plain_table(rows, LEAVE), "", *map(fitted, below)]) + "\n"


def cells(finding: Finding) -> tuple[str, ...]:
    """The finding in the columns of `HEADINGS`."""
    claim = finding.claim
    return (
        claim.name,
        f"{finding.n}/{finding.planned}",
        effect_text(finding),
        "" if finding.level is None else f"{100 * (1 - finding.level):.4g}%",
        claim.claimed_effect,
        finding.test,
        p_text(finding.p_adjusted),
        finding.word,
        str(finding.seeds_needed or ""),
    )


def effect_text(finding: Finding) -> str:
    """The effect with the interval of the verdict. Where runs did not reach their target, only one side is known."""
    interval, number = finding.decisive, "{:+.3g}".format
    if interval is None:
        return NOTHING
    match finding.bound:
        case "at most":
            interval = replace(interval, low=None)
        case "at least":
            interval = replace(interval, high=None)
        case "open":
            return "open: runs of both did not reach the target"
    ends = [NOTHING if end is None else number(end) for end in (interval.low, interval.high)]
    text = f"{number(interval.estimate)} [{', '.join(ends)}]"
    return f"{finding.bound} {text}".strip()


def notes(findings: Sequence[Finding]) -> list[str]:
    """What the columns mean, and which runs have no result."""
    tests = sorted({finding.tests for finding in findings if finding.word != "NOT RUN"})
    counts = " or ".join(map(str, tests)) or "none"
    text = [
        f"Interval and p are adjusted for all tests of a claim's family (Bonferroni): {counts}.",
        "p is about the sign (TOST: about equivalence). The interval decides about the size: REFUTED needs no small p.",
        "SIZE OPEN: the sign is shown, but not that the effect is as large as claimed.",
        "needs: how many seeds would decide.",
    ]
    if any(finding.word == "NOT TESTED" for finding in findings):
        text.append("NOT TESTED: the runs are a preview, because they are not those of the claim's config.")
    if any(finding.word == "WITHHELD" for finding in findings):
        text.append("WITHHELD: a few extreme seeds decide what the mean says, and most seeds say something else.")
    # Claims about one sweep share its notes.
    by_note: dict[str, list[str]] = {}
    for finding in findings:
        for note in (*finding.notes, *_beside(finding)):
            by_note.setdefault(note, []).append(finding.claim.name)
    return text + [f"{', '.join(names)}: {note}." for note, names in by_note.items()]


def _beside(finding: Finding) -> list[str]:
    """The robust estimates, where they disagree with the mean."""
    robust = finding.robust
    if robust is None or not robust.disagrees:
        return []
    median, trimmed = (f"{value.estimate:+.3g}" for value in (robust.hodges_lehmann, robust.trimmed_mean))
    text = f"robust estimates of arm minus baseline: Hodges-Lehmann {median}, 20% trimmed mean {trimmed}"
    collapsed = [f"{100 * share.estimate:.0f}%" for share in (robust.collapsed, robust.collapsed_baseline)]
    rest = robust.without_collapse
    without = f"; pairs without a collapse: {rest.estimate:+.3g}" if rest else ""
    return [f"{text}; collapsed runs: {collapsed[0]} of the arm, {collapsed[1]} of the baseline{without}"]


def as_table(checks: Sequence[Check]) -> str:
    """The checks for a terminal, one per line."""
    records = [check.record for check in checks]
    rows = [list(records[0]), *(list(record.values()) for record in records)]
    return "\n".join(plain_table(rows)) + "\n"
