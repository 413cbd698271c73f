"""Numbers and parameters as text."""

from collections.abc import Callable
from dataclasses import astuple
from typing import Literal

from runner.analysis.records import Difference
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.verdicts import MOST, Needed
from runner.errors import printable
from runner.storage.results import Metric

NOTHING = "–"

FIXED = {
    "beforehand": "fixed beforehand",
    "stated": "it is not known whether this was fixed beforehand",
    "unknown": "it is not known when this was fixed",
    "changed": "not fixed beforehand",
}
"""When the smallest effect was fixed, as a note says it."""


def p_text(p: float | None) -> str:
    """A p-value with three decimals.

    >>> p_text(0.04), p_text(0.0001), p_text(None)
    ('0.040', '<0.001', '–')
    """
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def shown(value: object) -> str:
    """A parameter's value as a person reads it.

    >>> shown(0.1 + 0.2), shown(True), shown(None), shown("batch_norm")
    ('0.3', 'true', '–', 'batch_norm')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value), keep="")


def difference_text(difference: Difference, metric: Metric) -> str:
    """An arm's difference to the baseline, with its interval.

    >>> from runner.analysis.metrics import of_sweep
    >>> difference = Difference(10, weights_differ=0, batches_differ=0, interval=Interval(0.0152, 0.0131, 0.0173))
    >>> difference_text(difference, of_sweep("valid_accuracy"))
    '+1.52 [+1.31, +1.73] pp'
    >>> difference_text(difference, of_sweep("valid_loss"))
    '+0.0152 [+0.0131, +0.0173]'
    """
    interval = difference.shown_interval
    return NOTHING if interval is None else effect_text(interval, metric)


def effect_text(interval: Interval, metric: Metric) -> str:
    """A difference in a metric with its interval, its signs and its unit."""
    number = number_format(metric, interval.estimate, interval.low or 0, interval.high or 0, sign="+")
    return interval_text(interval, number) + (" pp" if metric.share else "")


def interval_text(interval: Interval, number: Callable[[float], str]) -> str:
    """`estimate [low, high]`, or only the estimate where it has no interval."""
    text = number(interval.estimate)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{number(interval.low)}, {number(interval.high)}]"


def needed_text(needed: Needed) -> str:
    """How many seeds would give a verdict, with the range that follows from the uncertain SD.

    >>> needed_text(Needed(40, 24, 83)), needed_text(Needed(9, 9, 9)), needed_text(Needed(None, 20_000, None))
    ('40 (24 to 83)', '9', 'over 100000')
    """
    seeds, low, high = (f"over {MOST}" if number is None else str(number) for number in astuple(needed))
    return seeds if low == high or needed.seeds is None else f"{seeds} ({low} to {high})"


def percents_text(share: Interval) -> str:
    """A share and its interval in whole percent: "17% [5, 45]"."""
    estimate, low, high = (f"{100 * (number or 0):.0f}" for number in astuple(share))
    return f"{estimate}% [{low}, {high}]"


def number_format(metric: Metric, *values: float, sign: Literal["", "+"] = "") -> Callable[[float], str]:
    """How to write the numbers of one table cell. All of them get the same number of decimals."""
    if metric.share:
        return lambda value: f"{100 * value:{sign}.2f}"
    largest = max(map(abs, values))
    style = ".4f" if 1e-3 <= largest < 1e4 or not largest else ".3g"
    return lambda value: f"{value:{sign}{style}}"


def percent(metric: Metric) -> float:
    """The factor between a metric's value and what is shown: 100 for a share, else 1."""
    return 100.0 if metric.share else 1.0


def axis_label(metric: Metric) -> str:
    """A metric's name in a figure, with its unit."""
    return f"{metric.words} (%)" if metric.share else metric.words
