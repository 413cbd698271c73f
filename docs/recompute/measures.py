"""What each claim compares: the sentence after "Metric" in docs/claims.md, as a function of the tables."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from .statistics import Values
from .tables import SELECTION, Sweep


@dataclass(frozen=True)
class Measured:
    """The values of arm and baseline, by seed, and how many of their runs did not reach a target."""

    arm: Values
    baseline: Values
    missed: tuple[int, int] = (0, 0)
    chosen: dict[str, float] = field(default_factory=dict)
    """Arm → the learning rate that other seeds have chosen."""


def compared(side: Callable[[str], Values], arm: str = "batch", baseline: str = "none") -> list[Measured]:
    """One comparison: the values of two norm layers."""
    return [Measured(side(arm), side(baseline))]


Measure = Callable[[Sweep], list[Measured]]
"""A sweep → what is compared. Of several comparisons, the one whose interval reaches farthest from 0 counts."""


def accuracy(sweep: Sweep, epochs: int = 1) -> pd.Series:
    """In pp, by run: the median of the readings of the last epochs. A diverged run has its last reading."""
    medians = sweep.late(sweep.readings, epochs).groupby("run")["valid_accuracy"].median()
    last = sweep.runs["valid_accuracy"].where(sweep.runs["status"] == "diverged")
    return 100 * last.combine_first(medians)


def final(arm: object, baseline: object, axis: str = "network__norm", epochs: int = 1) -> Measure:
    def measure(sweep: Sweep) -> list[Measured]:
        values = accuracy(sweep, epochs)
        return [Measured(sweep.of_arm(values, **{axis: arm}), sweep.of_arm(values, **{axis: baseline}))]

    return measure


def every_other(axis: str, baseline: object) -> Measure:
    """Each arm but the baseline."""

    def measure(sweep: Sweep) -> list[Measured]:
        arms = [arm for arm in sweep.runs[axis.replace("__", ".")].unique() if arm != baseline]
        return [final(arm, baseline, axis)(sweep)[0] for arm in arms]

    return measure


def slope(other: str) -> Measure:
    """The slope of accuracy against log2 of the batch size, with batch norm and with another norm layer."""

    def measure(sweep: Sweep) -> list[Measured]:
        values, sizes = accuracy(sweep, 10), sorted(sweep.runs["batch_size"].unique())

        def slopes(norm: str) -> Values:
            table = [sweep.of_arm(values, network__norm=norm, batch_size=size) for size in sizes]
            return np.asarray(np.polyfit(np.log2(sizes), np.array(table), 1)[0])

        return compared(slopes, "batch", other)

    return measure


def times(sweep: Sweep, target: float, clock: str = "step") -> tuple[pd.Series, pd.Series]:
    """By run: when a target was reached first, and whether it was not. Then the run counts with the horizon."""
    table, ok = sweep.readings, sweep.runs["status"] == "ok"
    horizon = table["step"].max()
    if clock == "duration":
        horizon = table.groupby("run")["duration"].max()[ok].min()
    hits = table[(table["valid_accuracy"] >= target) & (table[clock] <= horizon) & table["run"].map(ok)]
    first = hits.groupby("run")[clock].min().reindex(sweep.runs["run"])
    return first.fillna(horizon), first.isna().astype(float)


def time_to(target: float, arm: str, baseline: str, axis: str = "network__norm", clock: str = "step") -> Measure:
    def measure(sweep: Sweep) -> list[Measured]:
        found, missed = times(sweep, target, clock)
        sides = [{axis: name} for name in (arm, baseline)]
        values, counts = ([sweep.of_arm(each, **side) for side in sides] for each in (found, missed))
        return [Measured(values[0], values[1], (int(counts[0].sum()), int(counts[1].sum())))]

    return measure


def at_best_lr(target: float | None) -> Measure:
    """Steps to a target, or the mean accuracy over all readings, at each arm's learning rate of the other seeds."""

    def measure(sweep: Sweep) -> list[Measured]:
        ends = accuracy(sweep)
        # A diverged run keeps the accuracy of its last reading.
        readings = sweep.readings.groupby("run")["valid_accuracy"].agg(["sum", "size", "last"])
        most = readings["size"].max()
        values = 100 * (readings["sum"] + (most - readings["size"]) * readings["last"]) / most
        missed = 0 * values
        if target is not None:
            values, missed = times(sweep, target)
        sides, counts, chosen = [], [], {}
        for norm in ("batch", "none"):
            runs = sweep.chosen(network__norm=norm)
            choosing = runs[runs["seed"].isin(SELECTION)]
            if choosing.empty:
                return nothing(sweep)
            means = ends[choosing["run"]].groupby(choosing["lr"]).mean()
            chosen[norm] = float(means.index[int(means.argmax())])
            sides.append(sweep.of_arm(values, network__norm=norm, lr=chosen[norm]))
            counts.append(int(sweep.of_arm(missed, network__norm=norm, lr=chosen[norm]).sum()))
        return [Measured(sides[0], sides[1], (counts[0], counts[1]), chosen)]

    return measure


def nothing(sweep: Sweep) -> list[Measured]:
    """No seeds have chosen a learning rate, so no run can be compared."""
    return compared(lambda _: np.full(len(sweep.seeds), np.nan))


def largest_lr(sweep: Sweep) -> list[Measured]:
    values, rates = accuracy(sweep, 3), sorted(sweep.runs["lr"].unique())
    sides = []
    for norm in ("batch", "none"):
        runs = sweep.chosen(network__norm=norm)
        choosing = runs[runs["seed"].isin(SELECTION)]
        if choosing.empty:
            return nothing(sweep)
        best = values[choosing["run"]].groupby(choosing["lr"]).mean().max()
        found = np.full(len(sweep.seeds), np.log10(rates[0]))
        for rate in rates:
            found = np.where(sweep.of_arm(values, network__norm=norm, lr=rate) >= best - 1, np.log10(rate), found)
        sides.append(found)
    return [Measured(sides[0], sides[1])]


def matched_loss(sweep: Sweep) -> list[Measured]:
    """Accuracy (the median of three epochs) when the training loss first fell to what both runs of a seed reach."""
    probes = sweep.probes[sweep.probes["measure"] == "eval_train_loss"]
    table = sweep.metrics.merge(probes[["run", "step", "value"]], on=["run", "step"])
    lowest = table.groupby("run")["value"].min()
    (both,) = compared(lambda norm: sweep.of_arm(lowest, network__norm=norm))
    target = dict(zip(sweep.seeds, np.maximum(both.arm, both.baseline), strict=True))
    aims = sweep.runs["seed"].map(target)
    found = {}
    for run, rows in table.groupby("run"):
        losses, aim = rows["value"].to_numpy(), aims[run]
        smooth = rows["valid_accuracy"].to_numpy()
        smooth = np.array([np.median(smooth[max(i - 1, 0) : i + 2]) for i in range(len(smooth))])
        at = int(np.argmax(losses <= aim))
        if losses[at] <= aim:
            share = 1.0 if at == 0 else (losses[at - 1] - aim) / (losses[at - 1] - losses[at])
            found[run] = 100 * (smooth[at] if at == 0 else smooth[at - 1] + share * (smooth[at] - smooth[at - 1]))
    values = pd.Series(found, dtype=float)
    return compared(lambda norm: sweep.of_arm(values, network__norm=norm))


def gradients(activation: str, sign: int) -> Measure:
    """How much gradients shrink (sign 1) or grow (sign −1) per layer towards the input, before step 1, or 0."""

    def measure(sweep: Sweep) -> list[Measured]:
        probes = sweep.probes
        start = probes[(probes["step"] == 0) & (probes["measure"] == "output_gradient_squared")]
        start = start.assign(layer=pd.to_numeric(start["layer"], errors="coerce")).dropna(subset="layer")
        # A hidden layer is three modules: linear, norm, activation.
        start = start[(start["layer"] > 0) & (start["layer"] % 3 == 0)]
        slopes = {
            run: max(0.0, sign * stats.linregress(rows["layer"] / 3, np.log(rows["value"])).slope)
            for run, rows in start.groupby("run")
        }
        values = pd.Series(slopes)
        return compared(lambda norm: sweep.of_arm(values, network__norm=norm, network__activation=activation))

    return measure


def initialisation(sweep: Sweep) -> list[Measured]:
    values = accuracy(sweep)

    def loss(norm: str) -> Values:
        at = {std: sweep.of_arm(values, network__norm=norm, network__std=std) for std in (0.005, 0.05, 0.5, 5)}
        return (at[0.005] + at[0.5] + at[5]) / 3 - at[0.05]

    return compared(loss)


def divergences(sweep: Sweep) -> list[Measured]:
    diverged = (sweep.runs["status"] == "diverged").astype(float)
    return compared(lambda norm: sweep.of_arm(diverged, network__norm=norm))


def spread(sweep: Sweep) -> list[Measured]:
    (sides,) = final("batch", "none")(sweep)
    return [
        Measured(np.abs(sides.arm - np.nanmedian(sides.arm)), np.abs(sides.baseline - np.nanmedian(sides.baseline)))
    ]


def steadier(sweep: Sweep) -> list[Measured]:
    """Nine of ten changes from a reading to the next, in the second half of the epochs, are smaller than this."""
    table = sweep.readings[sweep.readings["epoch"] >= sweep.readings["run"].map(sweep.runs["epochs"]) / 2]
    changes = {
        run: 100 * np.quantile(np.abs(np.diff(rows["valid_accuracy"])), 0.9) for run, rows in table.groupby("run")
    }
    values = pd.Series(changes)
    return compared(lambda norm: sweep.of_arm(values, network__norm=norm))


def of_probe(sweep: Sweep, measure: str, epochs: int) -> Values:
    """Of the arm with batch norm: the median of a probe's values in the last epochs, in pp."""
    rows = sweep.late(sweep.probes[sweep.probes["measure"] == measure], epochs)
    return sweep.of_arm(100 * rows.groupby("run")["value"].median(), network__norm="batch")


def running(sweep: Sweep) -> list[Measured]:
    own = sweep.of_arm(accuracy(sweep, 5), network__norm="batch")
    return [Measured(own, of_probe(sweep, "precise_valid_accuracy", 5))]


def early(sweep: Sweep) -> list[Measured]:
    """At the first reading, after eight steps."""
    probes = sweep.probes[sweep.probes["measure"] == "precise_valid_accuracy"]
    both = sweep.readings.drop_duplicates("run").merge(probes, on=["run", "step"]).set_index("run")
    precise, moving = (sweep.of_arm(100 * both[name], network__norm="batch") for name in ("value", "valid_accuracy"))
    return [Measured(precise, moving)]


def batch_statistics(size: int) -> Measure:
    def measure(sweep: Sweep) -> list[Measured]:
        own, moving = (of_probe(sweep, name, 5) for name in (f"batch_valid_accuracy_{size}", "moving_valid_accuracy"))
        return [Measured(own, moving)]

    return measure


def loss_gaps(sweep: Sweep) -> list[Measured]:
    """The largest difference in an epoch's training loss, for each momentum but 0.1."""
    name = "network__norm_args__momentum"
    losses = [rows.set_index("run")["train_loss"] for _, rows in sweep.metrics.groupby("epoch")]
    found = []
    for momentum in sorted(set(sweep.runs[name.replace("__", ".")]) - {0.1}):
        gaps = [np.abs(sweep.of_arm(e, **{name: momentum}) - sweep.of_arm(e, **{name: 0.1})) for e in losses]
        found.append(Measured(np.max(gaps, axis=0), np.zeros(len(sweep.seeds))))
    return found
