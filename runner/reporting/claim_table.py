"""Verdicts as text: for a terminal, as CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Literal

from runner.analysis.calibration import Check
from runner.analysis.claims.claim import Finding

Style = Literal["table", "csv", "json", "md"]

HEADINGS = ("claim", "n", "difference [95%]", "claimed", "p", "Holm", "verdict", "needs")


def render(findings: Sequence[Finding], style: Style) -> str:
    """The findings, one a line, in their order; then what a reader has to know of the runs."""
    match style:
        case "csv":
            return _csv(findings)
        case "json":
            return json.dumps([finding.record for finding in findings], indent=2, ensure_ascii=False) + "\n"
        case "md":
            return _md(findings)
        case "table":
            return _table(findings)


def cells(finding: Finding) -> tuple[str, ...]:
    """The finding in the columns of `HEADINGS`."""
    claim = finding.claim
    effect = f"{claim.smallest_effect:g} {claim.unit}"
    claimed = (
        f"within ±{effect}" if claim.claimed == "equivalence" else f"{'≥ +' if claim.claimed == 1 else '≤ −'}{effect}"
    )
    return (
        claim.name,
        f"{finding.n}/{finding.planned}",
        _difference(finding),
        claimed,
        _p(finding.deciding_p),
        _p(finding.p_adjusted),
        finding.word,
        str(finding.verdict.seeds) if finding.verdict and finding.verdict.seeds else "",
    )


def _difference(finding: Finding) -> str:
    interval = finding.interval
    if interval is None:
        return "–"
    text = f"{interval.estimate:+.3g}"
    if interval.low is not None and interval.high is not None:
        text += f" [{interval.low:+.3g}, {interval.high:+.3g}]"
    return text


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def _table(findings: Sequence[Finding]) -> str:
    rows = [HEADINGS, *map(cells, findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *notes(findings)]) + "\n"


def notes(findings: Sequence[Finding]) -> list[str]:
    """What the columns mean, and which runs have no result."""
    text = [
        "p: of TOST where equivalence is claimed and not refuted, else of a sign-flip test;",
        "Holm: adjusted over these claims.",
        "EQUIVALENT is what a claim of equivalence claims. needs: the seeds that would settle it.",
    ]
    if any(0 < finding.n < 6 for finding in findings):
        text.append("Fewer than 6 seeds can never give p < .05 in a sign-flip test: this budget decides nothing.")
    text += [f"{finding.claim.name}: {'; '.join(finding.notes)}." for finding in findings if finding.notes]
    return text


def _csv(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    records = [finding.record for finding in findings]
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _md(findings: Sequence[Finding]) -> str:
    lines = [HEADINGS, (":---",) * len(HEADINGS), *map(cells, findings)]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", *(f"{note}\n" for note in notes(findings))]) + "\n"


def as_table(checks: Sequence[Check]) -> str:
    """For a terminal, a line a check."""
    rows = [list(checks[0].record), *(list(check.record.values()) for check in checks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"
