"""The readings of the probes: each layer of a network over the epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator

from runner.analysis.stats.intervals import mean_band
from runner.analysis.stats.values import Values
from runner.reporting.figures.study import Study, titled
from runner.reporting.figures.style import Panel, draw_mean
from runner.storage import results
from runner.storage.files import exists
from runner.storage.folder import PROBES


@dataclass(frozen=True)
class Reading:
    """A measure of a probe, and how it is shown. `root`: show the square root of what the probe wrote."""

    measure: str
    title: str
    unit: str
    root: bool = False
    log: bool = False


GRADIENTS = (
    Reading("weight_gradient_squared", "Gradient norm of the weights", "‖∂L/∂w‖", root=True, log=True),
    Reading("output_gradient_squared", "Gradient norm of the outputs", "‖∂L/∂y‖", root=True, log=True),
)
ACTIVATIONS = (
    Reading("sd", "Standard deviation of the outputs", "SD"),
    Reading("mean", "Mean of the outputs", "mean"),
    Reading("dead_share", "Units that are 0 on every sample", "share"),
)
NORMS = (
    Reading("mean_gap", "Batch means off the running means", "running SDs, root mean square"),
    Reading("var_gap", "Batch variances off the running ones", "log ratio, root mean square"),
    Reading("gamma_mean", "γ, mean over features", "γ"),
    Reading("gamma_sd", "γ, SD over features", "SD of γ"),
    Reading("beta_mean", "β, mean over features", "β"),
    Reading("beta_sd", "β, SD over features", "SD of β"),
    Reading("running_mean_mean", "Running mean, mean over features", "running mean"),
    Reading("running_var_mean", "Running variance, mean over features", "running variance", log=True),
)

FEW = 8
"""The legend names up to this many layers. Of more layers, it names the first, the middle and the last."""

Line = tuple[str, Values, Values]
"""A layer's name, its epochs, and its runs' readings [runs, epochs]."""


def by_layer(study: Study, readings: Sequence[Reading]) -> list[Panel]:
    """A panel for each cell, arm and reading, with a line for each layer."""
    if not exists(study.results.folder / PROBES):
        return []
    table = results.readings(study.results, PROBES)
    numbers = study.results.runs["run"].to_numpy()
    found = []
    for cell, name in enumerate(study.cells):
        for line, runs in study.groups(cell):
            of_line = table[table["run"].isin(numbers[runs])]
            for reading in readings:
                chosen = of_line[of_line["measure"] == reading.measure]
                if len(chosen):
                    found.append(_panel(titled(line.label, name), reading, chosen))
    return found


def _panel(runs: str, reading: Reading, table: pd.DataFrame) -> Panel:
    lines: list[Line] = []
    # Unsorted: the probe wrote the layers in the order of the forward pass.
    for layer, of_layer in table.fillna({"layer": ""}).groupby("layer", sort=False):
        wide = of_layer.pivot_table(index="run", columns="epoch", values="value")
        values = wide.to_numpy(dtype=float)
        epochs = wide.columns.to_numpy(dtype=float)
        lines.append((str(layer), epochs, np.sqrt(values) if reading.root else values))
    title = f"{reading.title}: {runs} (n\u00a0= {table['run'].nunique()})"
    ends = [f"layer {name} ends at {mean_band(values)[0][-1]:.3g}" for name, _, values in lines]
    ends = [ends[0], ends[-1]] if len(ends) > 1 else ends
    description = f"{title}, by layer over the epochs: {'; '.join(ends)}."
    return Panel(title, description, partial(_draw, lines, reading))


def _draw(lines: Sequence[Line], reading: Reading, axes: Axes) -> None:
    depth = max(len(lines) - 1, 1)
    named = set(range(len(lines))) if len(lines) <= FEW else {0, depth // 2, depth}
    colors = matplotlib.colormaps["viridis"]
    for index, (layer, x, values) in enumerate(lines):
        # Not the ends of the colour map: one is too pale for a white page, the other too dark for a dark one.
        color = colors(0.28 + 0.44 * index / depth)
        label = f"layer {layer}" if index in named else None
        marker = "." if len(x) < 12 else ""
        draw_mean(axes, x, values, 0.15, color=color, marker=marker, label=label)
    if reading.log and all((values > 0).any() for _, _, values in lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.set_xlabel("epoch")
    if all((x == x.round()).all() for _, x, _ in lines):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(reading.unit)
