"""Learning curves, and the share of runs that have reached a target."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from runner.analysis.metrics import is_share, of_sweep, reach, read_curves
from runner.analysis.stats.intervals import mean_band
from runner.analysis.stats.values import Values
from runner.reporting.figures.study import Study, at_own_best_lr, titled
from runner.reporting.figures.style import Panel, Series, draw_mean
from runner.reporting.formats import NOTHING

MANY = 60
"""With more runs than this, lines cannot be told apart: the range of the middle 90% is drawn instead."""

SAMPLE = 20
"""In a large sweep, at most so many runs are drawn beside their mean."""

NO_HORIZON = float(np.finfo(np.float64).max)

Line = tuple[Series, Values, Values]
"""A series, its x [readings], and its runs' values [runs, readings]."""


def curves(study: Study, quantity: Literal["accuracy", "loss"]) -> list[Panel]:
    """Training and validation curves against epochs and seconds, cell by cell."""
    columns = (f"valid_{quantity}", f"train_{quantity}")
    metrics = study.results.metrics
    known = [column for column in columns if column in metrics and metrics[column].notna().any()]
    if not known:
        return []
    tables = {column: study.by_epoch(column).to_numpy() for column in known}
    epochs = np.sort(study.results.metrics["epoch"].unique()).astype(float)
    seconds = study.by_epoch("run_duration").to_numpy()
    return [
        _curve_panel(study, cell, column, values, epochs, clock)
        for cell in range(len(study.cells))
        for column, values in tables.items()
        for clock in (None, seconds)
    ]


def best_lr_curves(study: Study) -> list[Panel]:
    """The curves of the accuracy, each arm at its own best learning rate."""
    best = at_own_best_lr(study)
    return [] if best is None else curves(best, "accuracy")


def _curve_panel(study: Study, cell: int, column: str, values: Values, epochs: Values, seconds: Values | None) -> Panel:
    """`values` [runs, epochs] against the epochs or, where they are given, against `seconds` [runs, epochs]."""
    values = np.where(np.isfinite(values), values, np.nan)
    values = 100 * values if is_share(column) else values
    by_epoch = seconds is None
    lines: list[Line] = []
    ends = []
    for number, (line, runs) in enumerate(study.groups(cell)):
        x = epochs if seconds is None else mean_band(seconds[runs])[0]
        if by_epoch and len(epochs) == 1:
            x = x + 0.1 * number  # dots side by side, so that they do not hide one another
        lines.append((line, x, values[runs]))
        mean = mean_band(values[runs])[0]
        known = mean[np.isfinite(mean)]
        first_to_last = f"{known[0]:.4g} to {known[-1]:.4g}" if len(known) else NOTHING
        ends.append(f"{line.label} {first_to_last} (mean of {len(runs)})")
    metric = of_sweep(column)
    name = metric.words.capitalize()
    title = titled(f"{name} {'by epoch' if by_epoch else 'over time'}", study.cells[cell])
    label = f"{metric.words} {'(%)' if metric.share else '(nats)'}"
    most = SAMPLE if study.large else MANY
    draw = partial(_draw_curves, lines, most, label, epochs if by_epoch else None)
    return Panel(title, f"{title}: {'; '.join(ends) or 'no run has ended'}", draw)


def _draw_curves(lines: Sequence[Line], most: int, label: str, epochs: Values | None, axes: Axes) -> None:
    for line in lines:
        _draw_line(axes, *line, most)
    axes.set_ylabel(label)
    axes.set_xlabel("seconds of the run, mean over runs" if epochs is None else "epoch")
    if epochs is not None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(epochs) == 1:
            middle = float(epochs[0]) + 0.05 * (len(lines) - 1)
            axes.set_xlim(middle - 0.05 * len(lines) - 0.2, middle + 0.05 * len(lines) + 0.2)
            axes.set_xticks([middle], [f"{epochs[0]:g}"])


def _draw_line(axes: Axes, line: Series, x: Values, table: Values, most: int) -> None:
    """Up to `most` runs as thin lines or dots (or the range of most of them), the mean of all, and its 95% band."""
    known = np.isfinite(x) & np.isfinite(table).any(axis=0)
    x, table = x[known], table[:, known]
    one_epoch = len(x) == 1
    if len(table) > MANY:
        low, high = np.nanpercentile(table, [5, 95], axis=0)
        axes.fill_between(x, low, high, color=line.color, alpha=0.12, linewidth=0)
    elif one_epoch:
        dots = table[:most, 0]
        axes.plot(np.repeat(x, len(dots)), dots, ".", color=line.color, alpha=0.4)
    elif len(table) > 1:
        paths = [np.column_stack([x, run]) for run in table[:most]]
        axes.add_collection(LineCollection(paths, colors=line.color, linewidths=0.6, alpha=0.3))
    marker = line.marker if one_epoch else ""
    draw_mean(axes, x, table, 0.2, marker=marker, **line.style(len(table)))
    axes.autoscale_view()


def target(study: Study) -> list[Panel]:
    """The share of runs that have reached the target, against steps and seconds."""
    goal = study.comparison.target
    if goal is None:
        return []
    curves = read_curves([study.results], study.metric.name)
    when = partial(reach, better=study.metric.better, target=goal, horizon=NO_HORIZON)
    steps, seconds = (np.full(len(curves), np.inf) for _ in range(2))
    for run, (curve, diverged) in enumerate(zip(curves, study.diverged, strict=True)):
        found = when(curve.steps, curve.values, diverged=bool(diverged))
        if found.reached:
            steps[run], seconds[run] = found.time, curve.seconds_at(found.time)
    title = f"Runs that have reached {100 * goal:.6g}% {study.metric.words}"
    by_step = (f"{title} by step", "optimizer steps", steps, [curve.steps for curve in curves])
    clocks = [curve.seconds for curve in curves]
    over_time = (f"{title} over time", "seconds of the run", seconds, clocks)
    cells = range(len(study.cells))
    return [_target_panel(study, cell, *how) for cell in cells for how in (by_step, over_time)]


def _target_panel(study: Study, cell: int, title: str, label: str, times: Values, clocks: Sequence[Values]) -> Panel:
    """`times`: when each run reached the target, or infinity. `clocks`: the times of each run's epochs."""
    lines, counts = [], []
    for line, runs in study.groups(cell):
        reached = np.sort(times[runs])
        lines.append((line, reached))
        half = reached[(len(reached) - 1) // 2]
        by_then = f", half of them by {half:.4g}" if half < np.inf else ""
        counts.append(f"{line.label} {np.isfinite(reached).sum()} of {len(reached)}{by_then}")
    of_cell = [clocks[run] for run in np.flatnonzero(study.cell == cell).tolist()]
    end = max((float(clock[-1]) for clock in of_cell if len(clock)), default=1.0)
    title = titled(title, study.cells[cell])
    description = f"{title}: {'; '.join(counts) or 'no run has ended'}"
    return Panel(title, description, partial(_draw_shares, lines, end, label))


def _draw_shares(lines: Sequence[tuple[Series, Values]], end: float, label: str, axes: Axes) -> None:
    for line, times in lines:
        reached = times[np.isfinite(times)]
        x = [0.0, *reached, end]
        counts = [*range(len(reached) + 1), len(reached)]
        y = np.array(counts, dtype=float) * 100 / len(times)
        axes.step(x, y, where="post", **line.style(len(times)))
    axes.set_ylim(-3, 103)
    axes.set_xlabel(label)
    axes.set_ylabel("runs (%)")
