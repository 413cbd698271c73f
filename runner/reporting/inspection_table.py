"""How an inspection looks: to a person, and as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from runner.config.run_spec import RunSpec
from runner.reporting.tables import empty_table, lines_of, terminal_width, width_of
from runner.training.inspection import Inspection, Layer, Norm

FIRST = 10
"""As many values as the notebook prints."""

HEADINGS = {
    "running_mean": "running_mean",
    "batch_mean": "batch mean",
    "running_var": "running_var",
    "batch_var": "batch var",
    "gamma": "γ",
    "beta": "β",
}
BARS = " ▁▂▃▄▅▆▇█"
BINS = 8
NOTHING = "–"
ALWAYS = ("network", "dataset", "optimizer", "lr", "batch_size", "epochs", "seed")
"""The parameters a reader asks for first; others are named where they are not the default."""


def render(found: Inspection, style: Literal["table", "json"], *, width: int | None = None) -> str:
    """The inspection as text; `width` (default: the terminal's, or COLUMNS) concerns `table` only."""
    if style == "json":
        return json.dumps(_finite(_record(found)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _page(found, width or terminal_width())


def _record(found: Inspection) -> dict[str, Any]:
    norms = [{**asdict(norm), **norm.arrays} for norm in found.norms]
    for norm in norms:
        del norm["arrays"]
    return {
        "results": str(found.folder),
        "run": found.run,
        "run_id": found.run_id,
        "status": found.outcome["status"],
        "parameters": dict(found.parameters),
        "trainable": found.trainable,
        "metrics": {name: _number(found.outcome[name]) for name in METRICS},
        "batch_samples": found.samples,
        "layers": [asdict(layer) for layer in found.layers],
        "norms": norms,
    }


METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")


def _number(text: str) -> float | None:
    return float(text) if text else None


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def _page(found: Inspection, width: int | None) -> str:
    blocks = [_heading(found, width), "\n".join(lines_of(_layer_table(found.layers)))]
    blocks += [_norm_block(norm, width) for norm in found.norms]
    if any("running_mean" in norm.arrays for norm in found.norms):
        blocks.append(_filled(_legend(found), width))
    if not found.norms:
        blocks.append("It has no norm layer.")
    return "\n\n".join(blocks) + "\n"


def _filled(text: str, width: int | None) -> str:
    return textwrap.fill(text, max(width or 80, 40), break_long_words=False, break_on_hyphens=False)


def _heading(found: Inspection, width: int | None) -> str:
    said = [
        f"{name} {_value(value)}"
        for name, value in found.parameters.items()
        if name in (*ALWAYS, *found.grid_keys) or name.startswith("network.") or value != _default(name)
    ]
    outcome = found.outcome
    epochs = f"{outcome['epochs_trained']} of {found.parameters['epochs']} epochs"
    readings = [f"{name} {_value(value)}" for name in METRICS if (value := _number(outcome[name])) is not None]
    lines = [
        f"Run {found.run} ({found.run_id}) of {found.folder}: {', '.join(said)}.",
        f"{outcome['status']} after {epochs}: {', '.join(readings)}.",
        f"{found.trainable:,} trainable parameters:",
    ]
    return "\n".join(_filled(line, width) for line in lines)


def _default(name: str) -> Any:
    return RunSpec.model_fields[name].default


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _layer_table(layers: Sequence[Layer]) -> Table:
    table = empty_table(2)
    for heading in ("layer", "type", "output"):
        table.add_column(heading, no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    for layer in layers:
        shape = NOTHING if layer.shape is None else "×".join(map(str, layer.shape)) or "1"
        cells = (layer.name or "(whole)", layer.type, shape, f"{layer.parameters:,}" if layer.parameters else "")
        table.add_row(*map(Text, cells))
    return table


def _norm_block(norm: Norm, width: int | None) -> str:
    features = max(map(len, norm.arrays.values()), default=0)
    title = f"Layer {norm.name}, {norm.type}({norm.settings})"
    if not features:
        return _filled(f"{title}: it keeps no numbers.", width)
    tables = [_norm_table(norm, features, gap) for gap in (2, 1)]
    table = tables[0] if width is None or width_of(tables[0]) <= width else tables[1]
    shown = f"{features} features" if features <= FIRST else f"the first {FIRST} of {features} features"
    kept = "" if "running_mean" in norm.arrays else ", no running statistics"
    lines = [_filled(f"{title}: {shown}{kept}", width), "", *lines_of(table)]
    if norm.mean_gap is not None and norm.var_gap is not None:
        lines += ["", f"gap of the means {norm.mean_gap:.3g}, of the variances {norm.var_gap:.3g}"]
    return "\n".join(lines)


def _norm_table(norm: Norm, features: int, gap: int) -> Table:
    """A column per array, a row per feature; then its range and how it is spread."""
    table = empty_table(gap)
    table.add_column("feature", no_wrap=True)
    columns = []
    for name, values in norm.arrays.items():
        table.add_column(Text(HEADINGS[name]), justify="right", no_wrap=True)
        columns.append(_cells(values, min(FIRST, features)))
    labels = [*map(str, range(min(FIRST, features))), "min", "mean", "max", "histogram"]
    for index, (label, cells) in enumerate(zip(labels, zip(*columns, strict=True), strict=True)):
        table.add_row(*map(Text, (label, *cells)), end_section=index == len(labels) - 5)
    return table


def _cells(values: Sequence[float], rows: int) -> list[str]:
    """The first values in so many rows; the least, the mean and the greatest, NaN where one is; a histogram."""
    sound = [value for value in values if math.isfinite(value)]
    whole = not any(map(math.isnan, values))  # min() and max() pass over a NaN or not, by its place
    summary = (min(values), sum(values) / len(values), max(values)) if whole else (math.nan,) * 3
    largest = max(map(abs, sound), default=0.0)
    style = ".4f" if 1e-2 <= largest < 1e5 or not largest else ".3e"
    first, last = ([format(value, style) for value in part] for part in (values[:rows], summary))
    return [*first, *[""] * (rows - len(first)), *last, histogram(sound)]


def histogram(values: Sequence[float]) -> str:
    """Bars over `BINS` bins of equal width from the least value to the greatest; a blank is an empty bin."""
    if not values:
        return NOTHING
    low, high = min(values), max(values)
    counts = [0] * BINS
    for value in values:
        share = (value - low) / (high - low) if high > low else 0.5
        counts[min(int(share * BINS), BINS - 1)] += 1
    return "".join(BARS[math.ceil(count / max(counts) * (len(BARS) - 1))] for count in counts)


def _legend(found: Inspection) -> str:
    text = (
        "running_mean and running_var are what evaluation normalises with: the moving mean and the moving variance of "
        "the batches seen."
    )
    if found.samples is None:
        return text
    return text + (
        f" batch: the statistics of the first {found.samples} samples the run was trained on, in training mode, with "
        "the weights it has now; the variance is divided by the number of values. Gaps are root mean squares over "
        "features: of the means in running standard deviations, of the variances their log ratio."
    )
