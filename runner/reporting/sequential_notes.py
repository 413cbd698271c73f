"""What a table and a page say of a sweep to which seeds were added until its verdict was decided."""

from collections.abc import Iterator

from runner.analysis import sequential
from runner.analysis.records import ArmRow, Comparison
from runner.reporting.formats import FIXED, difference_text, shown


def notes(comparison: Comparison) -> Iterator[str]:
    """Why the sweep ended, and by which test."""
    for name, found in comparison.sequential.items():
        where = f" ({name})" if len(comparison.sequential) > 1 else ""
        yield f"Sequential{where}: {found.conclusion}."
    if comparison.sequential:
        yield (
            "The sequential verdict is that of a sign test of the median of the pairs' differences in validation "
            f"accuracy at the last epoch{_valid(comparison)}."
        )


def _valid(comparison: Comparison) -> str:
    # A smallest effect that was chosen with a look at the pairs is not that of the test (`result_warnings`).
    changed = comparison.fixed == "changed"
    return "" if changed else ". It is valid at every look (an e-process, by Ville's inequality)"


def sentence(row: ArmRow, comparison: Comparison) -> str:
    """The answer about an arm."""
    metric = comparison.metric
    text = f"{shown(row.arm)} against {shown(comparison.baseline)}: "
    if metric != sequential.METRIC or comparison.at != "last":
        value = difference_text(row.difference, metric) if row.difference else ""
        when = f"{sequential.METRIC.words} at the last epoch"
        return f"{text}{metric.words} {value}. No test of it is valid, because the sweep ended by a test of {when}."
    text += "; ".join(found.conclusion for found in comparison.sequential.values()) + "."
    if row.difference and row.difference.verdict:
        text += f" Sequential verdict on the smallest effect ({FIXED[comparison.fixed]}): {row.difference.verdict}."
    return text
