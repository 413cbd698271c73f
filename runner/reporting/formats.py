"""Numbers and parameters as text."""

from __future__ import annotations

from collections.abc import Callable

from runner.analysis.metrics import is_share
from runner.analysis.records import Difference

NOTHING = "–"


def p_text(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def shown(value: object) -> str:
    """A parameter's value as a person reads it."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()  # as the config writes it
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def difference_text(difference: Difference | None, metric: str) -> str:
    if difference is None:
        return ""
    interval = difference.interval
    if interval is None:
        return NOTHING
    number = number_format(metric, interval.estimate, interval.low or 0, interval.high or 0)
    text = _signed(number(interval.estimate))
    if interval.low is not None and interval.high is not None:
        text += f" [{_signed(number(interval.low))}, {_signed(number(interval.high))}]"
    return f"{text} pp" if is_share(metric) else text


def number_format(metric: str, *together: float) -> Callable[[float], str]:
    """How the numbers of one cell are written, all with the same decimals."""
    if is_share(metric):
        return lambda value: f"{100 * value:.2f}"
    if 1e-3 <= max(map(abs, together)) < 1e4 or not any(together):
        return lambda value: f"{value:.4f}"
    return lambda value: f"{value:.3g}"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"
