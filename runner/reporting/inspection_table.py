"""The inspection of a trained run as text and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from runner.config.run_spec import RunSpec
from runner.reporting.as_json import json_text
from runner.reporting.text_table import TextColumn, filled, table_lines, terminal_width
from runner.training.inspection import OUTCOMES, Inspection, Layer, Norm

FIRST = 10
"""How many features are shown one by one, as in the notebook."""

HEADINGS = {"batch_mean": "batch mean", "batch_var": "batch var", "gamma": "γ", "beta": "β"}
"""Array → its heading; others are called by their own names."""
LEAVES = {"batch_var": 1, "batch_mean": 2, "running_var": 3, "running_mean": 4}
"""Array → when its column leaves, where the table is too wide. The gaps below the table sum up the first two."""

BARS = " ▁▂▃▄▅▆▇█"
BINS = 8
NOTHING = "–"
ALWAYS = ("network", "dataset", "optimizer", "lr", "batch_size", "epochs", "seed")
"""The parameters that are always shown; others are shown where they differ from their defaults."""


def render(inspection: Inspection, style: Literal["table", "json"], *, width: int | None = None) -> str:
    """The inspection as text. `width` (default: COLUMNS, or the terminal's) concerns `table` only."""
    if style == "table":
        return _page(inspection, width or terminal_width())
    return json_text(_record(inspection))


def _record(inspection: Inspection) -> dict[str, Any]:
    norms = [{**asdict(norm), **norm.arrays} for norm in inspection.norms]
    return {
        "results": str(inspection.folder),
        "run": inspection.run,
        "run_id": inspection.run_id,
        "status": inspection.outcome["status"],
        "parameters": dict(inspection.parameters),
        "trainable": inspection.trainable,
        "metrics": dict.fromkeys(OUTCOMES) | _metrics(inspection.outcome),
        "batch_samples": inspection.samples,
        "layers": [asdict(layer) for layer in inspection.layers],
        "norms": [{key: value for key, value in norm.items() if key != "arrays"} for norm in norms],
    }


def _metrics(outcome: Mapping[str, str]) -> dict[str, float]:
    return {name: float(outcome[name]) for name in OUTCOMES if outcome[name]}


def _page(inspection: Inspection, width: int | None) -> str:
    blocks = [_heading(inspection, width), _layer_table(inspection.layers, width)]
    blocks += [_norm_block(norm, width) for norm in inspection.norms]
    if any("running_mean" in norm.arrays for norm in inspection.norms):
        blocks.append(_filled(_legend(inspection.samples), width))
    if not inspection.norms:
        blocks.append("It has no norm layer.")
    return "\n\n".join(blocks) + "\n"


def _filled(text: str, width: int | None) -> str:
    return filled(text, width or 80)


def _heading(inspection: Inspection, width: int | None) -> str:
    shown = (*ALWAYS, *inspection.grid_keys)
    parameters = [
        f"{name} {_value(value)}"
        for name, value in inspection.parameters.items()
        if name in shown or name.startswith("network.") or value != RunSpec.model_fields[name].default
    ]
    outcome = inspection.outcome
    epochs = f"{outcome['epochs_trained']} of {inspection.parameters['epochs']} epochs"
    metrics = [f"{name} {_value(value)}" for name, value in _metrics(outcome).items()]
    lines = (
        f"Run {inspection.run} ({inspection.run_id}) of {inspection.folder}: {', '.join(parameters)}.",
        f"{outcome['status']} after {epochs}: {', '.join(metrics)}.",
        f"{inspection.trainable:,} trainable parameters:",
    )
    return "\n".join(_filled(line, width) for line in lines)


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _layer_table(layers: Sequence[Layer], width: int | None) -> str:
    shapes = [NOTHING if layer.shape is None else "×".join(map(str, layer.shape)) or "1" for layer in layers]
    columns = [
        TextColumn("layer", [layer.name or "(whole)" for layer in layers]),
        TextColumn("type", [layer.type for layer in layers]),
        TextColumn("output", shapes, leaves=1),
        TextColumn(
            "parameters", [f"{layer.parameters:,}" if layer.parameters else "" for layer in layers], number=True
        ),
    ]
    lines, left = table_lines(columns, width)
    return "\n".join([*lines, *left])


def _norm_block(norm: Norm, width: int | None) -> str:
    title = f"Layer {norm.name}, {norm.type}({norm.settings})"
    features = max(map(len, norm.arrays.values()), default=0)
    if not features:
        return _filled(f"{title}: it keeps no numbers.", width)
    table, left = _norm_table(norm, min(FIRST, features), width)
    shown = f"{features} features" if features <= FIRST else f"the first {FIRST} of {features} features"
    statistics = "" if "running_mean" in norm.arrays else ", no running statistics"
    lines = [_filled(f"{title}: {shown}{statistics}", width), "", *table, *left]
    if norm.mean_gap is not None and norm.var_gap is not None:
        gaps = f"gap of the means {norm.mean_gap:.3g}, of the variances {norm.var_gap:.3g}"
        lines += ["", _filled(gaps, width)]
    return "\n".join(lines)


def _norm_table(norm: Norm, rows: int, width: int | None) -> tuple[list[str], list[str]]:
    """A column for each array. Its rows: the first features, then minimum, mean, maximum and histogram."""
    labels = [*map(str, range(rows)), "min", "mean", "max", "histogram"]
    columns = [TextColumn("feature", labels)]
    for name, values in norm.arrays.items():
        cells = _cells(values, rows)
        columns.append(TextColumn(HEADINGS.get(name, name), cells, number=True, leaves=LEAVES.get(name, 0)))
    return table_lines(columns, width, sections=[rows - 1])


def _cells(values: Sequence[float], rows: int) -> list[str]:
    """The first values in `rows` cells; then minimum, mean and maximum (NaN if a value is NaN) and a histogram."""
    finite = [value for value in values if math.isfinite(value)]
    largest = max(map(abs, finite), default=0.0)
    style = ".4f" if 1e-2 <= largest < 1e5 or not largest else ".3e"
    first = [format(value, style) for value in values[:rows]]
    summary = [format(value, style) for value in (np.min(values), sum(values) / len(values), np.max(values))]
    return [*first, *[""] * (rows - len(first)), *summary, histogram(finite)]


def histogram(values: Sequence[float]) -> str:
    """A bar for each of `BINS` bins of equal width from the minimum to the maximum; an empty bin is a blank.

    >>> histogram([0, 0, 0, 1, 2])
    '█   ▃  ▃'
    """
    if not values:
        return NOTHING
    low, high = min(values), max(values)
    shares = [(value - low) / (high - low) if high > low else 0.5 for value in values]
    counts = np.bincount([min(int(share * BINS), BINS - 1) for share in shares], minlength=BINS)
    return "".join(BARS[math.ceil(count / max(counts) * (len(BARS) - 1))] for count in counts)


def _legend(samples: int | None) -> str:
    running = "running_mean and running_var: moving averages over the batches; evaluation normalises with them."
    if samples is None:
        return running
    return (
        f"{running} batch: statistics of the first {samples} training samples, in training mode, final weights; "
        "the variance is divided by the number of values. Each gap is a root mean square over features: "
        "of (batch mean - running_mean) / √running_var, and of log(batch var / running_var)."
    )
