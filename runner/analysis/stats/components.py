"""Variance components: how much each source of randomness adds to the variance of a result.

Normal random effects, without replication. The mean squares of an analysis of variance (Fisher 1925) are equated to
their expectations, which is the method of moments.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import ALPHA, Values, finite

DRAWS = 100_000
"""Draws of a generalised interval. The error of its ends is then below 1%."""

Effect = tuple[int, ...]
"""The axes of a table that an effect belongs to: (0,) is a main effect, (0, 1) an interaction."""


@dataclass(frozen=True)
class MeanSquare:
    """A mean square and its degrees of freedom."""

    value: float
    freedom: int


def mean_squares(table: NDArray[np.float64]) -> dict[Effect, MeanSquare]:
    """The mean square of each effect of a crossed table [n₁, …, n_k], which has one value per combination of levels.

    >>> squares = mean_squares(np.array([[1.0, 2.0], [3.0, 6.0]]))
    >>> {effect: (square.value, square.freedom) for effect, square in squares.items()}
    {(0,): (9.0, 1), (1,): (4.0, 1), (0, 1): (1.0, 1)}
    """
    axes = range(table.ndim)
    # The mean over all axes but those of the effect, without the effects inside it.
    pure: dict[Effect, NDArray[np.float64]] = {}
    for effect in _subsets(axes):
        means = table.mean(axis=tuple(axis for axis in axes if axis not in effect), keepdims=True)
        pure[effect] = means - sum(pure[inner] for inner in _subsets(effect) if inner != effect)
    squares = {}
    for effect in list(pure)[1:]:
        freedom = int(np.prod([table.shape[axis] - 1 for axis in effect]))
        repeats = table.size / pure[effect].size
        squares[effect] = MeanSquare(float((pure[effect] ** 2).sum() * repeats / freedom), freedom)
    return squares


def component(effect: Effect, shape: Sequence[int]) -> dict[Effect, float]:
    """The variance component of an effect as a sum of mean squares: effect → its factor.

    E[MS of S] = Σ σ²_T · Π n_i over the axes i outside T, for all T that include S. This is solved for σ²_S.

    >>> component((0,), (4, 5)) == {(0,): 1 / 5, (0, 1): -1 / 5}
    True
    """
    repeats = float(np.prod([n for axis, n in enumerate(shape) if axis not in effect]))
    including = [other for other in _subsets(range(len(shape))) if set(effect) <= set(other)]
    return {other: (-1) ** (len(other) - len(effect)) / repeats for other in including}


def added(parts: Sequence[Mapping[Effect, float]]) -> dict[Effect, float]:
    """The sum of several components, as one sum of mean squares."""
    effects = dict.fromkeys(chain.from_iterable(parts))
    return {effect: sum(part.get(effect, 0.0) for part in parts) for effect in effects}


def sd_interval(terms: Sequence[tuple[float, MeanSquare]]) -> Interval:
    """The standard deviation whose square is Σ factor · mean square, with its 95% interval.

    One term: the chi-square interval of a variance. Several terms: the generalised interval of Weerahandi 1993, in
    which each mean square is divided by a draw of χ²/df. A negative variance counts as 0.
    Errors: ValueError where there is no term.

    >>> found = sd_interval([(1.0, MeanSquare(4.0, 10))])
    >>> found.estimate, round(found.low, 3), round(found.high, 3)
    (2.0, 1.397, 3.51)
    """
    if not terms:
        raise ValueError("no mean square")
    variance = sum(factor * square.value for factor, square in terms)
    tails = ALPHA / 2, 1 - ALPHA / 2
    if len(terms) == 1:
        freedom = terms[0][1].freedom
        ends = [variance * freedom / float(chdtri(freedom, tail)) for tail in tails]
    else:
        # Each interval has its own generator, so it does not depend on the other ones.
        random = np.random.default_rng(0)
        drawn = sum(
            factor * square.value * square.freedom / random.chisquare(square.freedom, DRAWS) for factor, square in terms
        )
        ends = np.quantile(drawn, tails).tolist()
    return Interval(*(math.sqrt(max(0.0, value)) for value in (variance, *ends)))


def line(values: Values) -> MeanSquare:
    """The variance of the values of one source, all others being fixed. Errors: ValueError for fewer than two."""
    values = finite(values)
    if len(values) < 2:
        raise ValueError("one value has no variance")
    return MeanSquare(float(values.var(ddof=1)), len(values) - 1)


def _subsets(axes: Sequence[int]) -> list[Effect]:
    """All subsets, the smaller ones first."""
    return list(chain.from_iterable(combinations(axes, size) for size in range(len(axes) + 1)))
