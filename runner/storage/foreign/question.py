"""What to compare in a table that another tool wrote."""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.errors import UserError
from runner.storage.results import Metric

ARM = "arm"
"""The axis of a table in wide form: the names of the arms' columns are its values."""

LINE = "line"
"""What pairs the runs of a table in wide form, where nothing else is named: they stand in the same line."""

LESS_IS_BETTER = (
    *("loss", "error", "err", "mse", "rmse", "mae", "mape", "perplexity"),
    *("time", "seconds", "duration", "latency"),
)
"""The last words of a metric's name for which less is better, if nothing else is said."""


@dataclass(frozen=True)
class Question:
    """What to compare, as the options of the command line say it.

    A table has the long form (`axis` names the column that holds the arm) or the wide form (`wide` names a column for
    each arm). `smallest_effect` has the metric's unit.
    """

    axis: str = ""
    wide: tuple[str, ...] = ()
    baseline: str = ""
    pair: tuple[str, ...] = ()
    metric: str = ""
    better: Literal["higher", "lower"] | None = None
    share: bool = False
    smallest_effect: float | None = None

    def checked(self, path: Path) -> "Question":
        """The question with everything that follows from its form.

        Errors: UserError where something is missing, or contradicts something else.
        """
        if bool(self.axis) == bool(self.wide):
            raise UserError(f"{path}: name the column of the arms (--axis), or a column for each arm (--wide A,B)")
        axis, pair = (ARM if self.wide else self.axis), tuple(dict.fromkeys(self.pair))
        metric = self.metric or ("value" if self.wide else "")
        pair = pair or ((LINE,) if self.wide else ())
        if not metric:
            raise UserError(f"{path}: --metric is missing: the column whose numbers are compared")
        if not pair:
            raise UserError(
                f"{path}: --pair is missing: the columns in which the runs of a pair are equal, such as seed"
            )
        roles = [axis, metric, *pair, *self.wide]
        if twice := [name for name in roles if roles.count(name) > 1]:
            raise UserError(
                f"{path}: column '{twice[0]}' has two roles; the axis, the pair keys and the metric must differ"
            )
        effect = self.smallest_effect
        if effect is not None and not 0 < effect < math.inf:
            raise UserError(
                f"--smallest-effect: {effect} is no effect; allowed: a number above 0, in the metric's unit"
            )
        return Question(axis, self.wide, self.baseline, pair, metric, self.better, self.share, effect)

    @property
    def measure(self) -> Metric:
        """The metric, and which direction is better."""
        lower = self.better == "lower" or (self.better is None and _less_is_better(self.metric))
        return Metric(self.metric, self.metric, self.share, -1 if lower else 1)

    @property
    def direction(self) -> str:
        """Which direction is better, and who says so."""
        word, other = ("Lower", "higher") if self.measure.better < 0 else ("Higher", "lower")
        if self.better:
            return f"{word} {self.metric} is better, as stated."
        why = "judged by its name" if word == "Lower" else "the default"
        return f"{word} {self.metric} is better: {why} (--better {other} says otherwise)."

    def arguments(self, path: Path) -> str:
        """The arguments of the commands that read the table."""
        form = ["--wide", ",".join(self.wide)] if self.wide else ["--axis", self.axis]
        words = [path.name, *form, "--baseline", self.baseline]
        words += ["--pair", ",".join(self.pair)] if self.pair != (LINE,) else []
        words += ["--metric", self.metric, *(["--better", self.better] if self.better else [])]
        words += ["--share"] if self.share else []
        words += ["--smallest-effect", f"{self.smallest_effect:g}"] if self.smallest_effect else []
        return shlex.join(words)


def _less_is_better(metric: str) -> bool:
    """Whether a word of the metric's name says it.

    >>> [_less_is_better(name) for name in ("val/loss", "RMSE", "epoch_time_s", "accuracy", "lossless_share")]
    [True, True, True, False, False]
    """
    return any(word.endswith(LESS_IS_BETTER) for word in re.split(r"[^a-z]+", metric.lower()))
