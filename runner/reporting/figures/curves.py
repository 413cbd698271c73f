"""Learning curves, and how soon a target is reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from runner.analysis.metrics import is_share, reach
from runner.analysis.stats.intervals import mean_band
from runner.analysis.stats.values import Values
from runner.reporting.figures.study import Study, percent
from runner.reporting.figures.style import Draw, Panel, Series
from runner.reporting.formats import NOTHING

MANY = 60
"""Of more runs than this the lines would be a blot: the range of the middle 90% is drawn instead."""

Clock = Literal["epochs", "seconds"]


def accuracy(study: Study) -> list[Panel]:
    """Training and validation accuracy against epochs and seconds."""
    return _curves(study, "accuracy")


def loss(study: Study) -> list[Panel]:
    """Training and validation loss against epochs and seconds."""
    return _curves(study, "loss")


def _curves(study: Study, what: Literal["accuracy", "loss"]) -> list[Panel]:
    found = []
    for column in (f"valid_{what}", f"train_{what}"):
        if study.results.metrics[column].isna().all():
            continue  # the tutorial's loop does not validate
        values = study.by_epoch(column).to_numpy()
        values = percent(values) if what == "accuracy" else np.where(np.isfinite(values), values, np.nan)
        for clock in ("epochs", "seconds"):
            found += [_curve_panel(study, cell, column, values, clock) for cell in range(len(study.cells))]
    return _cell_by_cell(found, len(study.cells))


def _cell_by_cell(panels: list[Panel], cells: int) -> list[Panel]:
    return [panels[index] for cell in range(cells) for index in range(cell, len(panels), cells)]


def _curve_panel(study: Study, cell: int, column: str, values: Values, clock: Clock) -> Panel:
    epochs = np.sort(study.results.metrics["epoch"].unique()).astype(float)
    seconds = study.by_epoch("run_duration").to_numpy() if clock == "seconds" else None
    lines: list[tuple[Series, Values, Values]] = []
    for number, (line, chosen) in enumerate(study.groups(cell)):
        x = epochs if seconds is None else mean_band(seconds[chosen])[0]
        if seconds is None and len(epochs) == 1:
            x = x + 0.1 * number  # dots side by side, not upon one another
        lines.append((line, x, values[chosen]))

    def draw(axes: Axes) -> None:
        for line, x, table in lines:
            _draw_line(axes, line, x, table)
        axes.set_xlabel("epoch" if clock == "epochs" else "seconds of the run, mean over runs")
        axes.set_ylabel(_label(column))
        if clock == "epochs":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if len(epochs) == 1:
                middle = float(epochs[0]) + 0.05 * (len(lines) - 1)
                axes.set_xlim(middle - 0.05 * len(lines) - 0.2, middle + 0.05 * len(lines) + 0.2)
                axes.set_xticks([middle], [f"{epochs[0]:g}"])

    name = _name(column)
    heading = _heading(f"{name} {'by epoch' if clock == 'epochs' else 'over time'}", study.cells[cell])
    return Panel(heading, f"{heading}: {_told(lines)}", draw)


def _draw_line(axes: Axes, line: Series, x: Values, table: Values) -> None:
    """The runs, thin, or the range of most of them; their mean; and its 95% band."""
    known = np.isfinite(x) & np.isfinite(table).any(axis=0)
    x, table = x[known], table[:, known]
    alone = len(x) == 1
    if len(table) > MANY:
        low, high = np.nanpercentile(table, [5, 95], axis=0)
        axes.fill_between(x, low, high, color=line.color, alpha=0.12, linewidth=0)
    elif alone:
        axes.plot(np.repeat(x, len(table)), table[:, 0], ".", color=line.color, alpha=0.4)
    elif len(table) > 1:
        paths = [np.column_stack([x, run]) for run in table]
        axes.add_collection(LineCollection(paths, colors=line.color, linewidths=0.6, alpha=0.3))
    mean, low, high = mean_band(table)
    axes.fill_between(x, low, high, color=line.color, alpha=0.2, linewidth=0)
    marker = line.marker if alone else ""
    label = f"{line.label} (n = {len(table)})"
    axes.plot(x, mean, color=line.color, linestyle=line.dash, marker=marker, label=label)
    axes.autoscale_view()


def _told(lines: list[tuple[Series, Values, Values]]) -> str:
    said = []
    for line, _, table in lines:
        mean = mean_band(table)[0]
        known = mean[np.isfinite(mean)]
        ends = f"{known[0]:.4g} to {known[-1]:.4g}" if len(known) else NOTHING
        said.append(f"{line.label} {ends} (mean of {len(table)})")
    return "; ".join(said) or "no run has ended"


def _name(column: str) -> str:
    return column.replace("valid", "validation").replace("train", "training").replace("_", " ").capitalize()


def _label(column: str) -> str:
    return f"{_name(column).lower()} {'(%)' if is_share(column) else '(nats)'}"


def _heading(what: str, cell: str) -> str:
    return f"{what}, {cell}" if cell else what


def target(study: Study) -> list[Panel]:
    """The share of runs that have reached a target, against steps and seconds."""
    return list(_targets(study)) if study.comparison.target is not None else []


def _targets(study: Study) -> Iterator[Panel]:
    goal = study.comparison.target or 0.0
    share = is_share(study.metric)
    text = f"{100 * goal:.6g}% {_name(study.metric).lower()}" if share else f"{study.metric} {goal:.6g}"
    for cell, name in enumerate(study.cells):
        for clock in ("steps", "seconds"):
            lines = [(line, _times(study, chosen, goal, clock)) for line, chosen in study.groups(cell)]
            heading = _heading(f"Runs that have reached {text} {'by step' if clock == 'steps' else 'over time'}", name)
            told = "; ".join(
                f"{line.label} {np.isfinite(times).sum()} of {len(times)}"
                + (f", half of them by {np.sort(times)[(len(times) - 1) // 2]:.4g}" if _half(times) else "")
                for line, times in lines
            )
            yield Panel(heading, f"{heading}: {told or 'no run has ended'}", _draw_shares(study, cell, lines, clock))


def _half(times: Values) -> bool:
    return bool(np.isfinite(np.sort(times)[(len(times) - 1) // 2]))


def _times(study: Study, chosen: NDArray[np.int64], goal: float, clock: str) -> Values:
    """When each run reached the target, infinite where it did not, or diverged."""
    found = []
    for run in chosen.tolist():
        curve, diverged = study.curves[run], str(study.facts["status"].iat[run]) == "diverged"
        last = float(curve.steps[-1]) if len(curve.steps) else 1.0
        when = reach(curve.steps, curve.values, metric=study.metric, target=goal, horizon=last, diverged=diverged)
        step = when.time if when.reached else np.inf
        found.append(step if clock == "steps" or not when.reached else curve.seconds_at(step))
    return np.array(found)


def _draw_shares(study: Study, cell: int, lines: list[tuple[Series, Values]], clock: str) -> Draw:
    inside = study.cell == cell
    ends = [
        float((curve.steps if clock == "steps" else curve.seconds)[-1])
        for curve, here in zip(study.curves, inside, strict=True)
        if here and len(curve.steps)
    ]

    def draw(axes: Axes) -> None:
        end = max(ends, default=1.0)
        for line, times in lines:
            reached = np.sort(times[np.isfinite(times)])
            x = np.concatenate([[0.0], reached, [end]])
            y = np.concatenate([[0.0], np.arange(1, len(reached) + 1), [len(reached)]]) * 100 / len(times)
            label = f"{line.label} (n = {len(times)})"
            axes.step(x, y, where="post", color=line.color, linestyle=line.dash, label=label)
        axes.set_ylim(-3, 103)
        axes.set_xlabel("optimizer steps" if clock == "steps" else "seconds of the run")
        axes.set_ylabel("runs (%)")

    return draw
