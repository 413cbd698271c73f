"""Verdicts as text: for a terminal, as CSV, JSON or Markdown."""

import json
from collections.abc import Sequence
from typing import Literal

from runner.analysis.calibration import Check
from runner.analysis.claims.claim import Finding
from runner.reporting.formats import NOTHING, interval_text, p_text
from runner.reporting.markup import markdown_table
from runner.reporting.tables import csv_text, plain_lines

Style = Literal["table", "csv", "json", "md"]

HEADINGS = ("claim", "n", "difference [95%]", "claimed", "p", "Holm", "verdict", "needs")


def render(findings: Sequence[Finding], style: Style) -> str:
    """The findings, one per line, in their order. `table` and `md` have notes below."""
    records = [finding.record for finding in findings]
    rows = [HEADINGS, *map(cells, findings)]
    match style:
        case "csv":
            return csv_text(records)
        case "json":
            return json.dumps(records, indent=2, ensure_ascii=False) + "\n"
        case "md":
            rows.insert(1, (":---",) * len(HEADINGS))
            paragraphs = [f"{note}\n" for note in notes(findings)]
            return "\n".join([markdown_table(rows), "", *paragraphs]) + "\n"
        case "table":
            return "\n".join([*plain_lines(rows), "", *notes(findings)]) + "\n"


def cells(finding: Finding) -> tuple[str, ...]:
    """The finding in the columns of `HEADINGS`."""
    claim, interval = finding.claim, finding.interval
    relation = {1: "≥ +", -1: "≤ −", "equivalence": "within ±"}[claim.claimed]
    return (
        claim.name,
        f"{finding.n}/{finding.planned}",
        interval_text(interval, "{:+.3g}".format) if interval else NOTHING,
        f"{relation}{claim.smallest_effect:g} {claim.unit}",
        p_text(finding.deciding_p),
        p_text(finding.p_adjusted),
        finding.word,
        str(finding.verdict.seeds) if finding.verdict and finding.verdict.seeds else "",
    )


def notes(findings: Sequence[Finding]) -> list[str]:
    """What the columns mean, and which runs have no result."""
    text = [
        "p comes from TOST where equivalence is claimed and not refuted, else from a sign-flip test.",
        "Holm is p adjusted over these claims.",
        "EQUIVALENT supports a claim of equivalence. needs: how many seeds would settle it.",
    ]
    if any(0 < finding.n < 6 for finding in findings):
        text.append("Fewer than 6 seeds can never give p < .05 in a sign-flip test: they decide nothing.")
    return text + [f"{f.claim.name}: {'; '.join(f.notes)}." for f in findings if f.notes]


def as_table(checks: Sequence[Check]) -> str:
    """The checks for a terminal, one per line."""
    records = [check.record for check in checks]
    rows = [list(records[0]), *(list(record.values()) for record in records)]
    return "\n".join(plain_lines(rows)) + "\n"
