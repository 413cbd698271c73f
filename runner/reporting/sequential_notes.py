"""What a table and a page say of a sweep to which seeds were added until its verdict was decided."""

from collections.abc import Iterator

from runner.analysis import sequential
from runner.analysis.records import ArmRow, Comparison, Difference
from runner.analysis.stats.intervals import Interval
from runner.reporting.formats import FIXED, difference_text, effect_text, shown


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
        mean = row.difference and row.difference.interval
        value = effect_text(Interval(mean.estimate), metric) if mean else ""
        when = f"{sequential.METRIC.words} at the last epoch"
        return f"{text}{metric.words} {value}. No test of it is valid, because the sweep ended by a test of {when}."
    text += "; ".join(found.conclusion for found in comparison.sequential.values()) + "."
    if row.difference and row.difference.verdict:
        text += f" Sequential verdict on the smallest effect ({FIXED[comparison.fixed]}): {row.difference.verdict}."
    return text


def drawn(difference: Difference, comparison: Comparison) -> tuple[Interval | None, str]:
    """The interval that a figure draws, and its text.

    The t interval of the mean is not valid in a sweep that grew until its verdict was decided. There it is that of the
    median, by which the verdict was decided, or none.
    """
    found = comparison.grown
    if not comparison.sequential:
        return difference.shown_interval, difference_text(difference, comparison.metric)
    if found and found.seeds and difference.verdict:
        last = found.standings[-1]
        text = f"sequential median {effect_text(last.median, comparison.metric)}"
        return last.median, f"{text} ({last.confidence:.0%})" if last.median.low is not None else text
    mean = [effect_text(Interval(difference.interval.estimate), comparison.metric)] if difference.interval else []
    return None, ", ".join([*mean, "no interval is valid after a stop by another test"])


def drawn_words(comparison: Comparison) -> str:
    """What a figure of the differences draws beside the pairs of a sweep that grew until its verdict was decided."""
    valid = any(row.difference and drawn(row.difference, comparison)[0] for row in comparison.rows)
    return "median with its sequential interval" if valid else "no interval is valid after a stop by another test"
