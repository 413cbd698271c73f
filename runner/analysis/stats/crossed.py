"""The mean of values that have two sources of error: seeds × images."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from runner.analysis.stats.components import mean_squares
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import ALPHA


def crossed_interval(values: NDArray[np.float64], alpha: float = ALPHA) -> Interval:
    """The mean of `values` [S, I], for new seeds and new images, with its interval at level 1 − alpha.

    Random effects of S seeds, of I images, and of their combinations. The variance of the mean is
    σ²_seed/S + σ²_image/I + σ²_both/(S·I). It is estimated by (MS_seed + MS_image − MS_both)/(S·I), from the mean
    squares of the two-way table, which equals the U-statistics of Gallas, Bandos, Samuelson & Wagner 2009, "A framework
    for random-effects ROC analysis". t has Satterthwaite's (1946) degrees of freedom. MS_image − MS_both below 0 counts
    as 0. The interval is never narrower than the paired one of the seeds alone, whose t has S − 1 degrees of freedom:
    for 3 or 4 seeds, Satterthwaite's are too many, and the coverage would be below 93%.
    Errors: ValueError unless there are two seeds and two images or more, and all values are finite.

    >>> found = crossed_interval(np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]))
    >>> found.estimate, round(found.low, 2), round(found.high, 2)
    (0.625, -0.96, 2.21)
    """
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError(f"needs finite values of 2 seeds and 2 images or more, got {values.shape}")
    squares = mean_squares(values)
    seed, both = squares[0,], squares[0, 1]
    images = max(squares[1,].value - both.value, 0.0)
    mean, total = float(values.mean()), seed.value + images
    if total == 0:
        return Interval(mean, mean, mean)
    used = [seed, squares[1,], both] if images else [seed]
    freedom = total**2 / sum(square.value**2 / square.freedom for square in used)
    ways = (freedom, total), (seed.freedom, seed.value)
    half = max(float(stdtrit(df, 1 - alpha / 2)) * math.sqrt(variance / values.size) for df, variance in ways)
    return Interval(mean, mean - half, mean + half)
