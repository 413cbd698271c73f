"""What the probes saw inside the networks, layer by layer, as the epochs pass."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator

from runner.analysis.stats.intervals import mean_band
from runner.analysis.stats.values import Values
from runner.reporting.figures.study import Study
from runner.reporting.figures.style import Draw, Panel
from runner.storage.folder import PROBES
from runner.storage.results import readings


@dataclass(frozen=True)
class Look:
    """A measure of a probe, and how it is shown."""

    measure: str
    title: str
    unit: str
    root: bool = False
    log: bool = False


GRADIENTS = (
    Look("weight_gradient_squared", "Gradient norm of the weights", "‖∂L/∂w‖", root=True, log=True),
    Look("output_gradient_squared", "Gradient norm of the outputs", "‖∂L/∂y‖", root=True, log=True),
)
ACTIVATIONS = (
    Look("sd", "Standard deviation of the outputs", "SD"),
    Look("mean", "Mean of the outputs", "mean"),
    Look("dead_share", "Units that are 0 on every sample", "share"),
)
NORMS = (
    Look("mean_gap", "Batch means off the running means", "running SDs, root mean square"),
    Look("var_gap", "Batch variances off the running ones", "log ratio, root mean square"),
    Look("gamma_mean", "γ, mean over features", "γ"),
    Look("gamma_sd", "γ, SD over features", "SD of γ"),
    Look("beta_mean", "β, mean over features", "β"),
    Look("beta_sd", "β, SD over features", "SD of β"),
    Look("running_mean_mean", "Running mean, mean over features", "running mean"),
    Look("running_var_mean", "Running variance, mean over features", "running variance", log=True),
)

FEW = 8
"""So many layers are named in the legend; of more, the first, the middle and the last."""


def gradients(study: Study) -> list[Panel]:
    """Gradient norms by layer (probes: [gradients])."""
    return _panels(study, GRADIENTS)


def activations(study: Study) -> list[Panel]:
    """Mean and SD of each layer's outputs, and dead units (probes: [activations])."""
    return _panels(study, ACTIVATIONS)


def norms(study: Study) -> list[Panel]:
    """Running against batch statistics, γ and β by norm layer (probes: [norms])."""
    return _panels(study, NORMS)


def _panels(study: Study, looks: tuple[Look, ...]) -> list[Panel]:
    if not (study.results.folder / PROBES).exists():
        return []
    table = readings(study.results, PROBES)
    table = table[table["measure"].isin([look.measure for look in looks])]
    position = pd.Series(range(len(study.results.runs)), index=study.results.runs["run"])
    table = table.assign(position=table["run"].map(position)).dropna(subset=["position"])
    run = table["position"].to_numpy(dtype=np.int64)
    table = table.assign(cell=study.cell[run], line=study.line[run])[study.measured[run]]
    found = []
    for (cell, code), of_line in table.groupby(["cell", "line"], sort=True):
        for look in looks:
            chosen = of_line[of_line["measure"] == look.measure]
            if len(chosen):
                found.append(_panel(study, int(cell), int(code), look, chosen))
    return found


def _panel(study: Study, cell: int, code: int, look: Look, table: pd.DataFrame) -> Panel:
    layers = list(dict.fromkeys(table["layer"].fillna("")))  # in the order of the forward pass, as the probe wrote it
    lines: list[tuple[str, Values, Values]] = []
    for layer in layers:
        wide = table[table["layer"].fillna("") == layer].pivot_table(index="run", columns="epoch", values="value")
        values = wide.to_numpy(dtype=float)
        lines.append((layer, wide.columns.to_numpy(dtype=float), np.sqrt(values) if look.root else values))
    n = table["run"].nunique()
    name = study.cells[cell]
    where = f"{study.lines[code].label}{', ' + name if name else ''} (n\u00a0= {n})"
    ends = (0, len(lines) - 1) if len(lines) > 1 else (0,)
    told = "; ".join(f"layer {lines[i][0]} ends at {mean_band(lines[i][2])[0][-1]:.3g}" for i in ends)
    heading = f"{look.title}: {where}"
    return Panel(heading, f"{heading}, by layer over the epochs: {told}.", _draw(lines, look))


def _draw(lines: list[tuple[str, Values, Values]], look: Look) -> Draw:
    depth = max(len(lines) - 1, 1)
    named = set(range(len(lines))) if len(lines) <= FEW else {0, depth // 2, depth}

    def draw(axes: Axes) -> None:
        map_ = matplotlib.colormaps["viridis"]
        for index, (layer, x, values) in enumerate(lines):
            # Neither end: a white page swallows the one, a dark page the other.
            color = map_(0.28 + 0.44 * index / depth)
            mean, low, high = mean_band(values)
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            label = f"layer {layer}" if index in named else None
            axes.plot(x, mean, color=color, marker="." if len(x) < 12 else "", label=label)
        if look.log and all((values > 0).any() for _, _, values in lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.set_xlabel("epoch")
        if all((x == x.round()).all() for _, x, _ in lines):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylabel(look.unit)

    return draw
