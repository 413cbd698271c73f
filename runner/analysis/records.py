"""What a comparison is: plain records, which `runner.analysis.comparison` makes and `runner.reporting.tables` shows.

arm: one value of the contrast's axis. cell: the runs equal in everything but arm and seed. pair: two runs equal in
everything but the arm. variant: an arm under one value of a parameter that other arms do not have (batch norm's eps,
where the baseline has no norm layer); each variant is compared with the same baseline runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.analysis.metrics import At
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import Values
from runner.analysis.stats.verdicts import Verdict

NOT_OK = ("diverged", "failed", "oom", "timeout", "interrupted", "missing")


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, and whether its pairs are proven to be pairs."""

    pairs: int
    weights_differ: int  # pairs whose shared layers did not start from the same weights
    batches_differ: int  # pairs that did not see the same batches, over the epochs both trained
    # of the pairs' differences; of the difference of means (Welch) where not paired; None: no pair
    interval: Interval | None
    p: float | None = None  # of the sign-flip test; of Welch's where not paired; None: fewer than two pairs
    p_adjusted: float | None = None  # for all the table's rows
    dz: float | None = None  # this and what follows: of proven pairs only
    improvement: float | None = None
    verdict: Verdict | None = None  # where a smallest effect was fixed beforehand
    values: Values | None = field(default=None, compare=False, repr=False)  # the pairs' differences

    @property
    def paired(self) -> bool:
        return self.pairs > 0 and not self.weights_differ and not self.batches_differ


@dataclass(frozen=True)
class Divergence:
    """How many of the runs that ended, ended diverged."""

    share: Interval  # Wilson's
    p: float | None  # McNemar's, exact, of the proven pairs with the baseline


@dataclass(frozen=True)
class Time:
    """How long the target took: the mean of min(T, horizon), and how it differs from the baseline's."""

    mean: float
    difference: Interval | None
    ratio: Interval | None  # of geometric means


@dataclass(frozen=True)
class ToTarget:
    """A row's way to the target, on a horizon that all ok runs of its cell got to."""

    n: int  # runs that count: diverged ones do, as having never reached it
    reached: int
    steps: Time | None
    seconds: Time | None


@dataclass(frozen=True)
class ArmRow:
    """One arm (or variant of it) in one cell."""

    cell: Mapping[str, object]
    arm: object | None
    variant: Mapping[str, object]
    statuses: Mapping[str, int]  # of all planned runs
    n: int  # runs with a finite value
    mean: float | None
    sd: float | None
    difference: Difference | None  # None for the baseline, and where nothing is contrasted
    divergence: Divergence | None = None  # None where no run ended
    to_target: ToTarget | None = None
    own_best_lr: Literal["inner", "edge"] | None = None
    """Set where each arm is compared at its own best learning rate; edge: no lr of the grid lies beyond it."""

    @property
    def ok(self) -> int:
        return self.statuses.get("ok", 0)

    @property
    def planned(self) -> int:
        return sum(self.statuses.values())

    @property
    def block(self) -> tuple[object, ...]:
        """What the rows that are compared with each other have in common."""
        chosen = self.own_best_lr is not None
        return (chosen, *(value for name, value in self.cell.items() if not (chosen and name == "lr")))


@dataclass(frozen=True)
class Comparison:
    """What a table says; `runner.reporting.tables` says how it looks."""

    metric: str
    at: At
    axis: str | None
    baseline: object | None
    cell_columns: tuple[str, ...]
    variant_columns: tuple[str, ...]
    constant: Mapping[str, object]  # the run parameters that are the same in every run
    rows: tuple[ArmRow, ...]
    smallest_effect: float | None = None  # of this metric, where the config fixed one
    target: float | None = None

    @property
    def planned_rows(self) -> tuple[ArmRow, ...]:
        """The rows in which every planned run is once."""
        return tuple(row for row in self.rows if row.own_best_lr is None)

    @property
    def statuses(self) -> dict[str, int]:
        """How many planned runs ended how, over the whole table."""
        return {status: sum(row.statuses.get(status, 0) for row in self.planned_rows) for status in ("ok", *NOT_OK)}

    @property
    def adjustment(self) -> str:
        """How p is adjusted for the rows being many: an effect fixed beforehand is tested, any other explored."""
        return "Benjamini–Hochberg" if self.smallest_effect is None else "Holm"

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as flat records, full precision: the columns of CSV and JSON, and the names `sort` knows."""
        return [self._record(row) for row in self.rows]

    def _record(self, row: ArmRow) -> dict[str, Any]:
        arm = {self.axis: row.arm} if self.axis else {}
        own_best = any(other.own_best_lr for other in self.rows)
        return {
            **row.cell,
            **({"own_best_lr": row.own_best_lr} if own_best else {}),
            **arm,
            **row.variant,
            "metric": self.metric,
            "at": self.at,
            "n": row.n,
            "ok": row.ok,
            "planned": row.planned,
            "mean": row.mean,
            "sd": row.sd,
            **(self._difference_record(row.difference) if self.axis else {}),
            **({} if self.target is None else {"target": self.target, **_target_record(row.to_target, self.axis)}),
            **{status: row.statuses.get(status, 0) for status in NOT_OK},
            **_divergence_record(row.divergence, self.axis),
        }

    def _difference_record(self, difference: Difference | None) -> dict[str, Any]:
        found = difference or Difference(0, 0, 0, None)
        kind = "paired t" if found.paired else "Welch"
        judged = found.verdict
        verdict = {"verdict": judged and judged.word, "seeds_needed": judged and judged.seeds}
        return {
            "pairs": found.pairs if difference else None,
            **_interval_record("difference", found.interval, "low", "high"),
            "interval": kind if found.interval and found.interval.low is not None else None,
            "paired": ("yes" if found.paired else "no") if difference else None,
            "weights_differ": found.weights_differ if difference else None,
            "batches_differ": found.batches_differ if difference else None,
            "p": found.p,
            "p_adjusted": found.p_adjusted,
            "p_adjustment": self.adjustment if found.p_adjusted is not None else None,
            "dz": found.dz,
            "probability_of_improvement": found.improvement,
            **(verdict if self.smallest_effect is not None else {}),
        }


def _interval_record(name: str, interval: Interval | None, low: str = "", high: str = "") -> dict[str, float | None]:
    return {
        name: interval.estimate if interval else None,
        low or f"{name}_low": interval.low if interval else None,
        high or f"{name}_high": interval.high if interval else None,
    }


def _divergence_record(divergence: Divergence | None, axis: str | None) -> dict[str, Any]:
    record: dict[str, Any] = _interval_record("diverged_share", divergence.share if divergence else None)
    return {**record, "diverged_p": divergence.p if divergence else None} if axis else record


def _target_record(found: ToTarget | None, axis: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {"reached": found.reached if found else None, "followed": found.n if found else None}
    for unit in ("steps", "seconds"):
        time: Time | None = getattr(found, unit, None)
        record[f"{unit}_to_target"] = time.mean if time else None
        if axis:
            record |= _interval_record(f"{unit}_difference", time.difference if time else None)
            record |= _interval_record(f"{unit}_ratio", time.ratio if time else None)
    return record
