"""The arms against the baseline: pair by pair, row by row, and over learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from runner.analysis.metrics import is_share
from runner.analysis.pairing import group
from runner.analysis.records import ArmRow
from runner.analysis.stats.intervals import mean_band
from runner.analysis.stats.values import Values
from runner.reporting.figures.curves import MANY
from runner.reporting.figures.study import Study, percent
from runner.reporting.figures.style import BASELINE, INK, RULE, Draw, Panel, Series, wrapped
from runner.reporting.formats import difference_text, shown
from runner.reporting.notes import who


def pairs(study: Study) -> list[Panel]:
    """A line per pair from the baseline's run to the arm's, and the differences beside them."""
    return list(_pair_panels(study)) if study.comparison.axis else []


def _pair_panels(study: Study) -> Iterator[Panel]:
    table = study.pairs
    runs = table.index.to_numpy(dtype=np.int64)
    for cell, name in enumerate(study.cells):
        for code, line in enumerate(study.lines):
            chosen = (study.cell[runs] == cell) & (study.line[runs] == code)
            row = study.row(int(runs[chosen][0])) if chosen.any() else None
            if row is None or row.difference is None:
                continue
            ends = table.loc[chosen, ["value_base", "value"]].to_numpy(dtype=float)
            heading = f"{line.label} against {study.lines[0].label}" + (f", {name}" if name else "")
            n = row.difference.pairs
            told = f"{difference_text(row.difference, study.metric)}, {n} pair{'s' if n != 1 else ''}"
            if not row.difference.paired:
                told += ", not proven pairs"
            yield Panel(f"{heading}: {told}", f"{heading}: {told}.", _draw_pairs(study, line, ends, row))


def _draw_pairs(study: Study, line: Series, ends: Values, row: ArmRow) -> Draw:
    scale = 100.0 if is_share(study.metric) else 1.0
    ends = scale * ends
    base = float(ends[:, 0].mean())
    interval = row.difference.interval if row.difference else None

    def draw(axes: Axes) -> None:
        many = len(ends) > MANY
        for better, color in ((True, line.color), (False, BASELINE)):
            some = ends[(ends[:, 1] >= ends[:, 0]) == better]
            paths = [np.column_stack([[0, 1], pair]) for pair in some]
            axes.add_collection(LineCollection(paths, colors=color, linewidths=0.9, alpha=0.6, rasterized=many))
        axes.plot(np.zeros(len(ends)), ends[:, 0], "o", ms=3, color=BASELINE, rasterized=many)
        axes.plot(np.ones(len(ends)), ends[:, 1], line.marker, ms=3, color=line.color, rasterized=many)
        gains = ends[:, 1] - ends[:, 0]
        axes.plot(1.56 + 0.04 * _among_equals(gains), base + gains, ".", ms=4, color=line.color, alpha=0.5)
        axes.hlines(base, 1.35, 2.1, color=INK, linewidth=0.8, linestyle=":")
        if interval is not None:
            low, high = (interval.estimate if end is None else end for end in (interval.low, interval.high))
            axes.vlines(1.85, base + scale * low, base + scale * high, color=INK, linewidth=2)
            axes.plot([1.85], [base + scale * interval.estimate], "D", ms=5, color=INK)
        axes.set_xlim(-0.25, 2.1)
        axes.set_xticks([0, 1, 1.74])
        axes.set_xticklabels([wrapped(study.lines[0].label, 16), wrapped(line.label, 16), "difference"])
        axes.set_ylabel(_axis_label(study))
        axes.grid(axis="x", visible=False)
        right = axes.secondary_yaxis(
            "right", functions=(lambda y: np.asarray(y) - base, lambda d: np.asarray(d) + base)
        )
        right.set_ylabel("difference (pp)" if is_share(study.metric) else "difference")

    return draw


def _among_equals(values: Values) -> Values:
    """0 for the first of equal values, 1 for the second, … up to 4: dots beside, not upon one another."""
    return np.minimum(pd.Series(values.round(9)).groupby(values.round(9)).cumcount().to_numpy(dtype=float), 4)


def differences(study: Study) -> list[Panel]:
    """Every row of the comparison: its pairs' differences, their mean and its 95% interval."""
    rows = [row for row in study.comparison.rows if row.difference and row.difference.interval]
    if not rows:
        return []
    unit = "pp" if is_share(study.metric) else study.metric
    heading = f"Difference to {shown(study.comparison.baseline)} in {_metric_name(study)} at the last epoch ({unit})"
    labels = [_row_label(row, study) for row in rows]
    told = "; ".join(
        f"{label} {difference_text(row.difference, study.metric)}" for label, row in zip(labels, rows, strict=True)
    )
    lines = sum(wrapped(label, 30).count("\n") + 1 for label in labels)
    return [
        Panel(
            heading, f"{heading}, mean with 95% interval: {told}.", _draw_rows(study, rows, labels), 1.3 + 0.2 * lines
        )
    ]


def _row_label(row: ArmRow, study: Study) -> str:
    best = " (own best lr)" if row.own_best_lr else ""
    return f"{who(row, study.comparison)}{best}, n\u00a0=\u00a0{row.difference.pairs if row.difference else 0}"


def _draw_rows(study: Study, rows: list[ArmRow], labels: list[str]) -> Draw:
    scale = 100.0 if is_share(study.metric) else 1.0
    colors = {line.label: line.color for line in study.lines}

    def draw(axes: Axes) -> None:
        if effect := study.comparison.smallest_effect:
            axes.axvspan(-scale * effect, scale * effect, color=RULE, alpha=0.5, linewidth=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for y, row in enumerate(rows):
            if row.difference is None or row.difference.interval is None:
                continue
            interval, values = row.difference.interval, row.difference.values
            color = colors.get(shown(row.arm), INK)
            if values is not None:
                places, many = y + 0.2 + 0.06 * _among_equals(values), len(values) > MANY
                axes.plot(scale * values, places, ".", ms=3.5, color=color, alpha=0.45, rasterized=many)
            low, high = (interval.estimate if end is None else end for end in (interval.low, interval.high))
            axes.hlines(y, scale * low, scale * high, color=color, linewidth=2)
            axes.plot([scale * interval.estimate], [y], "D", ms=4.5, color=color)
        axes.set_yticks(range(len(rows)), [wrapped(label, 30) for label in labels], fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("difference (pp)" if is_share(study.metric) else "difference")
        axes.grid(axis="y", visible=False)

    return draw


def learning_rate(study: Study) -> list[Panel]:
    """The metric against the learning rate, a dot a run; a cross where a run diverged."""
    if "lr" not in study.parameters or study.parameters["lr"].nunique() < 2:
        return []
    others = [name for name in study.comparison.cell_columns if name != "lr"]
    code = group(study.parameters, others)
    found = []
    for cell in range(int(code.max()) + 1):
        first = study.parameters.iloc[int(np.flatnonzero(code == cell)[0])]
        name = ", ".join(f"{other} {shown(first[other])}" for other in others)
        found.append(_lr_panel(study, code == cell, name))
    return found


def _lr_panel(study: Study, inside: NDArray[np.bool_], name: str) -> Panel:
    share = is_share(study.metric)
    values = study.facts["value"].fillna(study.facts["accuracy"]) if share else study.facts["value"]
    table = pd.DataFrame(
        {
            "lr": study.parameters["lr"],
            "value": percent(values) if share else values,
            "line": study.line if study.comparison.axis else 0,
            "diverged": study.facts["status"] == "diverged",
        }
    )[inside & study.measured]
    rates = np.sort(table["lr"].unique())
    heading = f"{_metric_name(study).capitalize()} at the last epoch by learning rate"
    heading += f", {name}" if name else ""
    lines = study.lines if study.comparison.axis else (study.lines[0],)
    told = []
    for code, line in enumerate(lines):
        of_line = table[table["line"] == code]
        if len(of_line):
            means = of_line.groupby("lr")["value"].mean()
            told.append(
                f"{line.label} best at {means.idxmax() if share else means.idxmin():g}, "
                f"{int(of_line['diverged'].sum())} of {len(of_line)} diverged"
            )

    def draw(axes: Axes) -> None:
        for code, line in enumerate(lines):
            of_line = table[table["line"] == code]
            if len(of_line):
                _draw_rates(axes, line if study.comparison.axis else _plain(line), of_line, code - (len(lines) - 1) / 2)
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates], rotation=45 if len(rates) > 6 else 0)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("learning rate")
        axes.set_ylabel(_axis_label(study))

    return Panel(heading, f"{heading}: {'; '.join(told) or 'no run has ended'}.", draw)


def _plain(line: Series) -> Series:
    return Series("runs", line.color, "-", "o")


def _draw_rates(axes: Axes, line: Series, table: pd.DataFrame, place: float) -> None:
    """`place` sets the arms a little apart, so that their dots do not hide one another."""
    aside = 1.05**place
    rasterized = len(table) > 10 * MANY
    sound, broken = table[~table["diverged"]], table[table["diverged"]]
    style: dict[str, Any] = {"color": line.color, "linestyle": "", "rasterized": rasterized}
    axes.plot(sound["lr"] * aside, sound["value"], marker=line.marker, ms=3, alpha=0.5, **style)
    if len(broken):
        axes.plot(broken["lr"] * aside, broken["value"], marker="x", ms=5, label=f"{line.label}: diverged", **style)
    rates = table.pivot_table(index=table.groupby("lr").cumcount(), columns="lr", values="value", dropna=False)
    mean, low, high = mean_band(rates.to_numpy(dtype=float))
    x = rates.columns.to_numpy(dtype=float) * aside
    axes.fill_between(x, low, high, color=line.color, alpha=0.15, linewidth=0)
    label = f"{line.label} (n = {len(table)})"
    axes.plot(x, mean, color=line.color, linestyle=line.dash, marker=line.marker, ms=5, label=label)


def _axis_label(study: Study) -> str:
    name = _metric_name(study)
    return f"{name} (%)" if is_share(study.metric) else name


def _metric_name(study: Study) -> str:
    return study.metric.replace("_", " ").replace("valid", "validation").replace("train", "training")
