"""What a table and a page say of a sweep to which seeds were added until its verdict was decided."""

from collections.abc import Iterator

from runner.analysis import sequential
from runner.analysis.records import ArmRow, Comparison
from runner.reporting.formats import difference_text, shown


def notes(comparison: Comparison) -> Iterator[str]:
    """Why the sweep ended, by which test, and which numbers of the table are not valid after such an end."""
    for name, found in comparison.sequential.items():
        where = f" ({name})" if len(comparison.sequential) > 1 else ""
        yield f"Sequential{where}: {found.conclusion}."
    if comparison.sequential:
        yield (
            "The sequential verdict is that of a sign test of the median of the pairs' differences in validation "
            "accuracy at the last epoch. It is valid at every look (an e-process, by Ville's inequality). The other "
            "intervals and p of this table are not valid: they take no account of when the sweep ended."
        )


def sentence(row: ArmRow, comparison: Comparison) -> str:
    """The answer about an arm."""
    metric = comparison.metric
    text = f"{shown(row.arm)} against {shown(comparison.baseline)}: "
    if metric != sequential.METRIC or comparison.at != "last":
        value = difference_text(row.difference, metric) if row.difference else ""
        when = f"{sequential.METRIC.words} at the last epoch"
        return f"{text}{metric.words} {value}. No test of it is valid, because the sweep ended by a test of {when}."
    return text + "; ".join(found.conclusion for found in comparison.sequential.values()) + "."
