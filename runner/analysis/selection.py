"""A part of a sweep, and another baseline than that of its config."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from runner.analysis.pairing import plain
from runner.errors import UserError, line_of, printable, unknown
from runner.storage.results import Results

Where = Mapping[str, object]
"""Parameter → the value that the runs must have."""


def only(results: Results, where: Where) -> Results:
    """The runs whose parameters have these values.

    Errors: UserError for an unknown parameter, and where no run is left.
    """
    kept = np.ones(len(results.runs), dtype=bool)
    for name, value in where.items():
        if name not in results.parameters:
            raise UserError(f"{results.folder}: {unknown('parameter', name, results.parameters)}")
        values = results.runs[name].map(plain)
        texts = values.map(_text)
        kept &= ((values == value) | (texts == _text(value))).to_numpy()
        if not kept.any():
            there = ", ".join(texts.unique())
            raise UserError(
                printable(f"{results.folder}: no run with {name} {_text(value)}; there are {there}", keep="")
            )
    if kept.all():
        return results
    if results.max_seeds:
        raise UserError(f"{results.folder}: a sweep that --until-decided ended is shown as a whole; leave out --where")
    runs = results.runs[kept].reset_index(drop=True)
    metrics = results.metrics[results.metrics["run"].isin(runs["run"])]
    chosen = ", ".join(f"{name} {line_of(_text(value))}" for name, value in where.items())
    sentence = f"Only the runs with {chosen} count: they were chosen for this table."
    return _chosen(replace(results, runs=runs, metrics=metrics.reset_index(drop=True)), sentence)


def against(results: Results, baseline: object) -> Results:
    """The sweep with another arm as its baseline. Its tables say that the config names another one.

    Errors: UserError where the sweep has no contrast, or no such arm.
    """
    if results.axis is None:
        raise UserError(f"{results.folder}: --baseline needs a contrast in the config, and this sweep has none")
    if results.axis not in results.parameters:
        raise UserError(f"{results.folder}: {unknown('column', results.axis, results.parameters)}")
    arms = {_text(plain(value)): plain(value) for value in results.runs[results.axis]}
    if _text(baseline) not in arms:
        raise UserError(f"{results.folder}: {unknown(results.axis, _text(baseline), list(arms))}")
    if _text(baseline) == _text(results.baseline):
        return results
    chosen, planned = line_of(_text(baseline)), line_of(_text(results.baseline))
    sentence = f"The baseline {chosen} was chosen for this table; that of the config is {planned}."
    return _chosen(replace(results, baseline=arms[_text(baseline)]), sentence)


def _chosen(results: Results, sentence: str) -> Results:
    """What is chosen for one table was not fixed beforehand. A sentence says so wherever the table is shown."""
    return replace(results, contrast_changes=(*results.contrast_changes, sentence))


def _text(value: object) -> str:
    """A value as a config writes it: numbers without rounding, `true` and `null`, texts without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
