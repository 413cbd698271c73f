"""Checks that every statistic makes first: the values are finite, and there are enough of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
ALPHA = 0.05

Values = NDArray[np.float64]

Events = Sequence[bool] | NDArray[np.bool_]
"""Whether something happened, such as a divergence: one entry per pair."""


def finite(values: Values | Sequence[float], at_least: int = 1) -> Values:
    """`values` as a one-dimensional array of floats.

    Errors: ValueError for fewer than `at_least` values, and for NaN or infinity. The caller decides what a run without
    a number counts as.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one dimension, got {array.ndim}")
    if len(array) < at_least:
        raise ValueError(f"needs {at_least} or more values, got {len(array)}")
    if not np.isfinite(array).all():
        raise ValueError("some values are not finite")
    return array


def spread(values: Values) -> float:
    """The standard deviation (n − 1) of two values or more; 0 where it is only rounding.

    For example, .9 − .8 and .7 − .6 differ in the last bit only.
    """
    scale = float(np.abs(values).max())
    sd = float((values / scale).std(ddof=1)) if scale else 0.0
    return sd * scale if sd > 1e-9 else 0.0


def positive(name: str, value: float) -> float:
    """`value`. Errors: ValueError unless it is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return value


def event_arrays(events: Events, baseline: Events) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both arms' events as arrays. Errors: ValueError where there is no pair, or the arms have different lengths."""
    arm, other = np.asarray(events, dtype=bool), np.asarray(baseline, dtype=bool)
    if arm.shape != other.shape or arm.ndim != 1 or not len(arm):
        raise ValueError(f"needs one pair or more, got {arm.shape} and {other.shape}")
    return arm, other
