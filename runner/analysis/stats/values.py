"""Checks that every statistic makes first: the values are finite, and there are enough of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
ALPHA = 0.05

Values = NDArray[np.float64]


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
