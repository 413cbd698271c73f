"""What goes into every statistic: finite numbers, enough of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
ALPHA = 0.05

Values = NDArray[np.float64]


def finite(values: Values | Sequence[float], at_least: int = 1) -> Values:
    """`values` as a one-dimensional array of floats.

    Errors: ValueError for fewer than `at_least`, and for NaN or infinity: what a run without a number counts as is for
    the caller to say.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one dimension, got {array.ndim}")
    if len(array) < at_least:
        raise ValueError(f"needs {at_least} or more values, got {len(array)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(array))} of {len(array)} values are not finite")
    return array


def spread(values: Values) -> float:
    """The standard deviation (n − 1); 0 where it is no more than rounding: .9 − .8 and .7 − .6 differ in the last bit.

    Needs two values or more.
    """
    scale = float(np.abs(values).max())
    sd = float((values / scale).std(ddof=1)) if scale else 0.0
    return sd * scale if sd > 1e-9 else 0.0


def positive(name: str, value: float) -> float:
    """`value`. Errors: ValueError unless it is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return value
