"""The arms against the baseline: by pair, by row of the comparison, and by learning rate."""

from collections.abc import Sequence
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from runner.analysis import pairing
from runner.analysis.records import Difference
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import Values
from runner.reporting.figures.curves import MANY
from runner.reporting.figures.study import Study, labels, titled
from runner.reporting.figures.style import BASELINE, INK, RULE, Panel, Series, draw_mean
from runner.reporting.formats import axis_label, percent, shown
from runner.reporting.notes import moment, row_name
from runner.reporting.sequential_notes import drawn, drawn_words
from runner.storage.results import Metric


def pairs(study: Study) -> list[Panel]:
    """For each arm: a line per pair from the baseline's run to the arm's, and the differences beside them."""
    table = pairing.pairs(study.parameters, study.facts, study.arms)
    runs = table.index.to_numpy(dtype=np.int64)
    found = []
    for cell, name in enumerate(study.cells):
        for code, line in enumerate(study.lines):
            chosen = (study.cell[runs] == cell) & (study.line[runs] == code)
            row = study.row(int(runs[chosen][0])) if chosen.any() else None
            if row and row.difference:
                title = titled(f"{line.label} against {study.lines[0].label}", name)
                title += f": {drawn(row.difference, study.comparison)[1]}"
                title += f", {row.difference.pairs} pair{'s' if row.difference.pairs != 1 else ''}"
                title += "" if row.difference.paired else ", not proven pairs"
                title += _pairing(study, " ")
                draw = partial(_draw_pairs, study, line, table[chosen], row.difference)
                found.append(Panel(title, f"{title}.", draw))
    return found


def _draw_pairs(study: Study, line: Series, pairs: pd.DataFrame, difference: Difference, axes: Axes) -> None:
    many = len(pairs) > MANY
    values = percent(study.metric) * pairs[["value_base", "value"]].to_numpy(dtype=float)
    baseline, arm = values.T
    gains, middle = arm - baseline, float(baseline.mean())
    for better, color in ((True, line.color), (False, BASELINE)):
        paths = [np.column_stack([[0, 1], pair]) for pair in values[(study.metric.better * gains >= 0) == better]]
        style = {"linewidths": 0.9, "alpha": 0.6, "rasterized": many}
        axes.add_collection(LineCollection(paths, colors=color, **style))
    axes.plot(0 * baseline, baseline, "o", ms=3, color=BASELINE, rasterized=many)
    axes.plot(0 * arm + 1, arm, line.marker, ms=3, color=line.color, rasterized=many)
    x = 1.56 + 0.04 * _rank_among_equals(gains)
    axes.plot(x, middle + gains, ".", ms=4, color=line.color, alpha=0.5)
    axes.hlines(middle, 1.35, 2.1, color=INK, linewidth=0.8, linestyle=":")
    interval, _ = drawn(difference, study.comparison)
    if interval is not None:
        low, mean, high = _as_shown(interval, study.metric)
        axes.vlines(1.85, middle + low, middle + high, color=INK, linewidth=2)
        axes.plot([1.85], [middle + mean], "D", ms=5, color=INK)
    axes.set_xlim(-0.25, 2.1)
    names = [fill(series.label, 16) for series in (study.lines[0], line)]
    axes.set_xticks([0, 1, 1.74], [*names, "difference"])
    axes.set_ylabel(axis_label(study.metric))
    axes.grid(axis="x", visible=False)
    to_difference = (lambda y: np.subtract(y, middle), lambda y: np.add(y, middle))
    axes.secondary_yaxis("right", functions=to_difference).set_ylabel(_difference_label(study.metric))


def _pairing(study: Study, before: str) -> str:
    """How the runs of another tool's table are paired, and which direction of its metric is better."""
    stated = study.comparison.stated
    better = "higher" if study.metric.better > 0 else "lower"
    return f"{before}{stated.pairing}; {better} is better" if stated else ""


def _difference_label(metric: Metric) -> str:
    return "difference (pp)" if metric.share else "difference"


def _as_shown(interval: Interval, metric: Metric) -> tuple[float, float, float]:
    """Low end, estimate and high end; all the same where only the estimate is known."""
    estimate = interval.estimate
    low, high = (estimate if end is None else end for end in (interval.low, interval.high))
    factor = percent(metric)
    return factor * low, factor * estimate, factor * high


def _rank_among_equals(values: Values) -> Values:
    """0 for the first of equal values, 1 for the second, … up to 4: their dots are drawn side by side."""
    rounded = pd.Series(values.round(9))
    return np.minimum(rounded.groupby(rounded).cumcount().to_numpy(dtype=float), 4)


def differences(study: Study) -> list[Panel]:
    """Every row of the comparison: the differences of its pairs, their mean and its 95% interval."""
    comparison = study.comparison
    colors = {line.label: line.color for line in study.lines}
    rows: list[tuple[str, str, Difference]] = []  # label, colour, difference
    for row in comparison.rows:
        if row.difference and row.difference.interval:
            best = " (own best lr)" if row.own_best_lr else ""
            label = f"{row_name(row, comparison)}{best}, n\u00a0=\u00a0{row.difference.pairs}"
            rows.append((label, colors.get(shown(row.arm), INK), row.difference))
    if not rows:
        return []
    title = f"Difference to {shown(comparison.baseline)} in {study.metric.words}{moment(comparison)}"
    title += " (pp)" if study.metric.share else ""
    title += _pairing(study, ", pairs ")
    if comparison.sequential:
        title += f", {drawn_words(comparison)}"
    texts = [f"{label} {drawn(difference, comparison)[1]}" for label, _, difference in rows]
    what = "" if comparison.sequential else ", mean with 95% interval"
    description = f"{title}{what}: {'; '.join(texts)}."
    lines = sum(fill(label, 30).count("\n") + 1 for label, _, _ in rows)
    return [Panel(title, description, partial(_draw_rows, study, rows), 1.3 + 0.2 * lines)]


def _draw_rows(study: Study, rows: Sequence[tuple[str, str, Difference]], axes: Axes) -> None:
    factor = percent(study.metric)
    if effect := study.comparison.smallest_effect:
        axes.axvspan(-factor * effect, factor * effect, color=RULE, alpha=0.5, linewidth=0, zorder=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for y, (_, color, difference) in enumerate(rows):
        values = difference.values
        if values is not None:
            places = y + 0.2 + 0.06 * _rank_among_equals(values)
            many = len(values) > MANY
            axes.plot(factor * values, places, ".", ms=3.5, color=color, alpha=0.45, rasterized=many)
        interval, _ = drawn(difference, study.comparison)
        if interval is not None:
            low, mean, high = _as_shown(interval, study.metric)
            axes.hlines(y, low, high, color=color, linewidth=2)
            axes.plot([mean], [y], "D", ms=4.5, color=color)
    axes.set_yticks(range(len(rows)), [fill(label, 30) for label, _, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(_difference_label(study.metric))
    axes.grid(axis="y", visible=False)


def learning_rate(study: Study) -> list[Panel]:
    """The metric against the learning rate: a dot for each run, a cross where it diverged."""
    if (
        "lr" not in study.parameters
        or not is_numeric_dtype(study.parameters["lr"])
        or study.parameters["lr"].nunique() < 2
    ):
        return []
    others = [name for name in study.comparison.cell_columns if name != "lr"]
    code = pairing.group(study.parameters, others)
    names = labels(study.parameters, code, others)
    return [_lr_panel(study, code == cell, name) for cell, name in enumerate(names)]


def _lr_panel(study: Study, inside: NDArray[np.bool_], name: str) -> Panel:
    contrast = study.comparison.axis is not None
    lines = study.lines if contrast else [Series("runs", study.lines[0].color, "-", "o")]
    table = pd.DataFrame(
        {
            "lr": study.parameters["lr"],
            "value": percent(study.metric) * study.facts["value"].fillna(study.facts["accuracy"]),
            "line": study.line if contrast else 0,
            "diverged": study.diverged,
        }
    )[inside & study.measured]
    tables = [(line, table[table["line"] == code]) for code, line in enumerate(lines)]
    texts = []
    for line, runs in tables:
        if len(runs):
            means = runs.groupby("lr")["value"].mean()
            best = means.idxmax() if study.metric.better > 0 else means.idxmin()
            diverged = f"{runs['diverged'].sum()} of {len(runs)} diverged"
            texts.append(f"{line.label} best at {best:g}, {diverged}")
    words = study.metric.words
    title = titled(f"{words[:1].upper()}{words[1:]}{moment(study.comparison)} by learning rate", name)
    description = f"{title}: {'; '.join(texts) or 'no run has ended'}."
    return Panel(title, description, partial(_draw_rates, tables, axis_label(study.metric)))


def _draw_rates(tables: Sequence[tuple[Series, pd.DataFrame]], label: str, axes: Axes) -> None:
    for code, (line, table) in enumerate(tables):
        if len(table):
            # The arms stand a little apart, so that their dots do not hide one another.
            shift = 1.05 ** (code - (len(tables) - 1) / 2)
            _draw_arm(axes, line, table.assign(x=table["lr"] * shift))
    rates = sorted({rate for _, table in tables for rate in table["lr"]})
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates], rotation=45 if len(rates) > 6 else 0)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel(label)


def _draw_arm(axes: Axes, line: Series, table: pd.DataFrame) -> None:
    many = len(table) > 10 * MANY
    style: dict[str, Any] = {"color": line.color, "linestyle": "", "rasterized": many}
    sound, diverged = table[~table["diverged"]], table[table["diverged"]]
    axes.plot(sound["x"], sound["value"], marker=line.marker, ms=3, alpha=0.5, **style)
    if len(diverged):
        style |= {"marker": "x", "ms": 5, "label": f"{line.label}: diverged"}
        axes.plot(diverged["x"], diverged["value"], **style)
    wide = table.assign(number=table.groupby("x").cumcount())
    wide = wide.pivot(index="number", columns="x", values="value")
    x, values = wide.columns.to_numpy(dtype=float), wide.to_numpy(dtype=float)
    # The legend counts the runs of a learning rate, not of all.
    draw_mean(axes, x, values, 0.15, marker=line.marker, ms=5, **line.style(len(wide)))
