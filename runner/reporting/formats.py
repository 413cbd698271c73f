"""Numbers and parameters as text."""

from collections.abc import Callable
from typing import Literal

from runner.analysis.metrics import is_share
from runner.analysis.records import Difference
from runner.analysis.stats.intervals import Interval
from runner.errors import printable

NOTHING = "–"


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


def difference_text(difference: Difference, metric: str) -> str:
    """An arm's difference to the baseline, with its interval.

    >>> difference = Difference(10, weights_differ=0, batches_differ=0, interval=Interval(0.0152, 0.0131, 0.0173))
    >>> difference_text(difference, "valid_accuracy")
    '+1.52 [+1.31, +1.73] pp'
    >>> difference_text(difference, "valid_loss")
    '+0.0152 [+0.0131, +0.0173]'
    """
    interval = difference.interval
    if interval is None:
        return NOTHING
    number = number_format(metric, interval.estimate, interval.low or 0, interval.high or 0, sign="+")
    return interval_text(interval, number) + (" pp" if is_share(metric) else "")


def interval_text(interval: Interval, number: Callable[[float], str]) -> str:
    """`estimate [low, high]`, or only the estimate where it has no interval."""
    text = number(interval.estimate)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{number(interval.low)}, {number(interval.high)}]"


def number_format(metric: str, *values: float, sign: Literal["", "+"] = "") -> Callable[[float], str]:
    """How to write the numbers of one table cell. All of them get the same number of decimals."""
    if is_share(metric):
        return lambda value: f"{100 * value:{sign}.2f}"
    largest = max(map(abs, values))
    style = ".4f" if 1e-3 <= largest < 1e4 or not largest else ".3g"
    return lambda value: f"{value:{sign}{style}}"


def metric_name(metric: str) -> str:
    """A metric's column name in words: `valid_accuracy` → "validation accuracy"."""
    return metric.replace("_", " ").replace("valid", "validation").replace("train", "training")
