"""The records that `runner.analysis.comparison` makes and `runner.reporting.tables` shows.

A variant is an arm at one value of a parameter that other arms do not have, such as batch norm's eps where the baseline
has no norm layer. Each variant is compared with the same baseline runs. `docs/architecture.md` defines arm, cell and
pair.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.analysis.metrics import At
from runner.analysis.sequential import Sequential
from runner.analysis.stats.intervals import Interval, interval_record
from runner.analysis.stats.robust import Robust, robust_record
from runner.analysis.stats.values import Values
from runner.analysis.stats.verdicts import Needed, Verdict, fewest_pairs
from runner.storage.contrast_history import Fixed
from runner.storage.results import Metric, Stated

NOT_OK = ("diverged", "failed", "oom", "timeout", "interrupted", "missing")


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, and whether its pairs are proven to be pairs."""

    pairs: int
    """Pairs of seeds. The runs of a seed that a row pools are averaged first."""
    weights_differ: int
    """Pairs whose shared layers did not start from the same weights."""
    batches_differ: int
    """Pairs that did not see the same batches, over the epochs that both trained."""
    interval: Interval | None
    """The paired t interval at 95%; Welch's where not all pairs are proven; None where there is no pair."""
    p: float | None = None
    """None for fewer than two pairs."""
    test: str | None = None
    """The test that gives p: sign-flip, or Welch's where not all pairs are proven."""
    p_adjusted: float | None = None
    """p, adjusted for the number of rows in the table."""
    tests: int = 1
    """The number of rows that p is adjusted for."""
    simultaneous: Interval | None = None
    """The interval at .05 / `tests`: all rows together cover at 95%. Set with the verdict."""
    dz: float | None = None
    """Cohen's dz. This field and those below are set only where all pairs are proven."""
    improvement: float | None = None
    """The share of pairs in which the arm is better."""
    robust: Robust | None = None
    verdict: Verdict | None = None
    """Set where the config has a smallest effect."""
    needed: Needed | None = None
    """Set where the verdict is UNDECIDED."""
    values: Values | None = field(default=None, compare=False, repr=False)
    """The pairs' differences."""
    over_images: Interval | None = None
    """The interval for new test images, too (`images.over_images`), with the adjustment of `shown_interval`."""
    code_differs: int = 0
    """Pairs with a run that another version of the code trained than its partner, or than most pairs of the row."""

    @property
    def shown_interval(self) -> Interval | None:
        """The interval that has the same adjustment as the verdict."""
        return self.simultaneous or self.interval

    @property
    def paired(self) -> bool:
        return self.pairs > 0 and not (self.weights_differ or self.batches_differ or self.code_differs)


@dataclass(frozen=True)
class Divergence:
    """How many of the runs that ended have diverged."""

    share: Interval
    """With Wilson's interval."""
    p: float | None
    """The p of McNemar's exact test against the baseline; None where the pairs are not proven."""


Bound = Literal["exact", "at most", "at least", "unknown"]


@dataclass(frozen=True)
class Time:
    """How long the target took, and how that differs from the baseline. T is limited to the horizon."""

    mean: float
    """The mean of min(T, horizon)."""
    difference: Interval | None
    ratio: Interval | None
    """Of the means, with Fieller's interval."""
    bound: Bound | None = None
    """How `ratio` bounds the ratio of the times without the horizon. At most: all runs of the arm reached the target,
    but not all of the baseline. At least: the other way round. Unknown: runs of both did not reach it."""


@dataclass(frozen=True)
class ToTarget:
    """A row's times to the target. The horizon is the last step that all ok runs of the cell trained."""

    n: int
    """Runs that count. A diverged run counts, and never reaches the target."""
    reached: int
    steps: Time | None
    seconds: Time | None


@dataclass(frozen=True)
class ArmRow:
    """One arm, or one variant of it, in one cell."""

    cell: Mapping[str, object]
    arm: object | None
    variant: Mapping[str, object]
    statuses: Mapping[str, int]
    """How many of the planned runs ended with each status."""
    n: int
    """Seeds with a finite value. Where a row pools several runs of a seed, their mean is the seed's value."""
    mean: float | None
    sd: float | None
    difference: Difference | None
    """None for the baseline, and where the config has no contrast."""
    divergence: Divergence | None = None
    """None where no run ended."""
    to_target: ToTarget | None = None
    own_best_lr: Literal["inner", "edge"] | None = None
    """Set where each arm is compared at its own best learning rate, which other seeds chose. "edge": the grid ends at
    this learning rate."""
    planned_n: int = 0
    """Planned seeds."""

    @property
    def ok(self) -> int:
        return self.statuses.get("ok", 0)

    @property
    def planned(self) -> int:
        return sum(self.statuses.values())

    @property
    def pooled(self) -> bool:
        """Whether the row averages several runs of a seed."""
        return self.planned > self.planned_n > 0

    @property
    def block(self) -> tuple[object, ...]:
        """A key that is equal for the rows that are compared with each other."""
        chosen = self.own_best_lr is not None
        return (chosen, *(value for name, value in self.cell.items() if not (chosen and name == "lr")))


@dataclass(frozen=True)
class Comparison:
    """The content of a comparison's table. `runner.reporting.tables` decides how it looks."""

    metric: Metric
    at: At | Literal["last step", ""]
    """The epoch; of a table of another tool, also the last step, or the only row of a run."""
    axis: str | None
    baseline: object | None
    cell_columns: tuple[str, ...]
    variant_columns: tuple[str, ...]
    constant: Mapping[str, object]
    """The run parameters that are the same in every run."""
    rows: tuple[ArmRow, ...]
    smallest_effect: float | None = None
    """The smallest effect of this metric, where the config fixed one."""
    interaction: tuple[str, object] | None = None
    """A parameter and its reference value, where the rows are differences of differences."""
    target: float | None = None
    warnings: tuple[str, ...] = ()
    """What must stand beside the numbers wherever they are shown (`runner.storage.result_warnings`)."""
    fixed: Fixed = "beforehand"
    """When the contrast and its smallest effect were fixed."""
    stated: Stated | None = None
    """Set where the table is another tool's."""
    shared_seeds: str = ""
    """Says that pairs with different seeds share the seed of a stream; empty where they do not."""
    norm_changes: tuple[str, ...] = ()
    """What was done to the networks' norm layers: a sentence for each network and norm layer."""
    grown: Sequential | None = None
    """Set where the table is that of one sweep that grew until its verdict was decided."""
    sequential: Mapping[str, Sequential] = field(default_factory=dict)
    """Sweep → its pairs, where seeds were added until its verdict was decided."""

    @property
    def planned_rows(self) -> tuple[ArmRow, ...]:
        """The rows that hold every planned run exactly once."""
        return tuple(row for row in self.rows if row.own_best_lr is None)

    @property
    def statuses(self) -> dict[str, int]:
        """How many planned runs of the whole table ended with each status."""
        counts = [row.statuses for row in self.planned_rows]
        return {status: sum(count.get(status, 0) for count in counts) for status in ("ok", *NOT_OK)}

    @property
    def paired_text(self) -> str:
        """Why runs are pairs: "yes" means that their hashes prove it."""
        return self.stated.pairing if self.stated else "yes"

    @property
    def adjustment(self) -> str:
        """How p is adjusted for the number of rows: Bonferroni where verdicts are given."""
        return "Benjamini–Hochberg" if self.smallest_effect is None else "Bonferroni"

    def too_few(self, difference: Difference) -> int | None:
        """The smallest number of pairs with which p can fall below .05, where a difference has fewer."""
        # Benjamini–Hochberg leaves p as it is where all rows reject.
        fewest = fewest_pairs(1 if self.smallest_effect is None else difference.tests)
        return fewest if difference.paired and difference.pairs < fewest else None

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as flat records with full precision: the columns of CSV and JSON, and of `sort`."""
        return [self._record(row) for row in self.rows]

    def _record(self, row: ArmRow) -> dict[str, Any]:
        record: dict[str, Any] = dict(row.cell)
        if len(self.planned_rows) < len(self.rows):
            record["own_best_lr"] = row.own_best_lr
        if self.axis:
            record[self.axis] = row.arm
        record |= {**row.variant, "metric": self.metric.name, "at": self.at}
        if self.stated:
            record["better"] = "higher" if self.metric.better > 0 else "lower"
        if self.interaction:
            record |= {"interaction": self.interaction[0], "reference": self.interaction[1]}
        record |= {"n": row.n, "ok": row.ok, "planned": row.planned, "mean": row.mean, "sd": row.sd}
        if self.axis:
            record |= self._difference_record(row.difference)
        if self.grown:
            record |= self.grown.record if row.difference else dict.fromkeys(self.grown.record)
        if self.target is not None:
            record |= {"target": self.target, **self._target_record(row.to_target)}
        record |= {status: row.statuses.get(status, 0) for status in NOT_OK}
        divergence = row.divergence
        record |= interval_record("diverged_share", divergence.share if divergence else None)
        if self.axis:
            record["diverged_p"] = divergence.p if divergence else None
        record["warnings"] = " ".join(self.warnings) or None
        return record

    def _difference_record(self, difference: Difference | None) -> dict[str, Any]:
        found = difference or Difference(0, 0, 0, None)
        record = {
            "pairs": found.pairs,
            **interval_record("difference", found.interval, prefix=""),
            "interval": None
            if not found.interval or found.interval.low is None
            else "paired t"
            if found.paired
            else "Welch",
            "paired": self.paired_text if found.paired else "no",
            "weights_differ": None if self.stated else found.weights_differ,
            "batches_differ": None if self.stated else found.batches_differ,
            "code_differs": None if self.stated else found.code_differs,
            "p": found.p,
            "test": found.test,
            "p_adjusted": found.p_adjusted,
            "p_adjustment": None if found.p_adjusted is None else self.adjustment,
            "tests": found.tests,
            "dz": found.dz,
            "probability_of_improvement": found.improvement,
            **robust_record(found.robust),
        }
        if any(row.difference and row.difference.over_images for row in self.rows):
            record |= interval_record("difference_over_images", found.over_images)
        if self.smallest_effect is not None:
            needed = found.needed or Needed(None, None, None)
            record |= interval_record("simultaneous", found.simultaneous)
            record |= {"verdict": found.verdict, "seeds_needed": needed.seeds}
            record |= {"seeds_needed_low": needed.low, "seeds_needed_high": needed.high}
            record["smallest_effect_fixed"] = self.fixed
        return record if difference else dict.fromkeys(record)

    def _target_record(self, found: ToTarget | None) -> dict[str, Any]:
        reach = found or ToTarget(0, 0, None, None)
        record: dict[str, Any] = {"reached": reach.reached, "followed": reach.n}
        for unit, time in (("steps", reach.steps), ("seconds", reach.seconds)):
            record[f"{unit}_to_target"] = time.mean if time else None
            if self.axis:
                record |= interval_record(f"{unit}_difference", time.difference if time else None)
                record |= interval_record(f"{unit}_ratio", time.ratio if time else None)
                record[f"{unit}_ratio_is"] = time.bound if time else None
        return record if found else dict.fromkeys(record)
