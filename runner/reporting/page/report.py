"""A sweep as one HTML page. It needs no network and no other file, so it can be mailed, archived and opened offline."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pandas.api.types import is_numeric_dtype

import runner
from runner.analysis.metrics import of_sweep
from runner.analysis.pairing import names, plain
from runner.analysis.selection import Where
from runner.errors import printable
from runner.reporting.columns import Column, parts, robust_part
from runner.reporting.figures.curves import SAMPLE
from runner.reporting.figures.kinds import KINDS
from runner.reporting.figures.study import LARGE, Study, study
from runner.reporting.figures.style import svg
from runner.reporting.formats import NOTHING, number_format, shown
from runner.reporting.sentences import sentences
from runner.storage.files import exists, read_text
from runner.storage.folder import CONFIG
from runner.storage.results import Results
from runner.storage.resume import read_environment
from runner.storage.rows import FAILED

MOST_PANELS = 24
"""The page has up to this many panels of one kind. It says how many are left out, and which command draws them."""

_CURVES = "Thick: the mean over seeds with its 95% band. Thin: the seeds, or the middle 90% of over 60 seeds. "
_LAYERS = "Means over seeds with 95% bands; blue is near the input, green near the output."

SECTIONS = {
    "accuracy": ("Learning curves", _CURVES + "A run that diverged keeps its last accuracy."),
    "loss": ("Loss curves", _CURVES + "Losses that are not finite are left out."),
    "differences": ("Differences", "Diamond and bar: mean and 95% interval; dots: the pairs."),
    "pairs": (
        "Pair by pair",
        "A line joins a pair's runs. It has the arm's colour where the arm is as good or better.",
    ),
    "learning-rate": (
        "Learning rates",
        "A dot is a run, a cross is a run that diverged. The line is the mean with its 95% band.",
    ),
    "best-lr": (
        "Learning curves at each arm's own best learning rate",
        _CURVES + "The first half of the seeds chose the learning rate.",
    ),
    "target": (
        "Time to a target",
        "The share of runs that have reached the target. A run that diverged never reaches it.",
    ),
    "gradients": ("Gradients by layer", _LAYERS),
    "activations": ("Activations by layer", _LAYERS),
    "norms": ("Normalization layers", _LAYERS),
}
"""Kind of figure → the title and the legend of its section."""

FACTS = ("dataset", "validate_on", "optimizer", "lr", "batch_size", "epochs", "device")
"""The parameters at the top of the page, where every run has the same."""

OUTCOMES = ("train_accuracy", "valid_accuracy", "best_valid_accuracy", "test_accuracy", "valid_loss")


def report(source: Path | Results, where: Where | None = None, target: float | None = None, **shown: Any) -> str:
    """The page of a sweep's folder, or of its tables. The arguments are those of `study`.

    Errors: UserError where there is no sweep, and for an unknown parameter, metric or epoch.
    """
    environment = Environment(
        loader=PackageLoader("runner.reporting.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    return printable(template.render(_contents(study(source, where, target, timed=True, **shown))))


def _contents(study: Study) -> dict[str, Any]:
    comparison, results, runs = study.comparison, study.results, study.results.runs
    environment = {} if results.stated else read_environment(results.folder) or {}
    git = environment.get("git")
    return {
        "version": runner.__version__,
        "name": results.name,
        "folder": results.folder.name,
        "sentences": sentences(comparison),
        "facts": _facts(study),
        "parts": parts(comparison),
        "robust": robust_part(comparison),
        "rows": comparison.rows,
        "sections": list(_sections(study)),
        "failed": [] if results.stated else runs[runs["status"].isin(FAILED)].fillna({"error": ""}).to_dict("records"),
        "run_columns": _run_columns(study),
        "runs": runs.assign(seconds=_seconds(results)).head(LARGE).to_dict("records"),
        "run_count": len(runs),
        "config": "" if results.stated else _text(results.folder / CONFIG),
        "arguments": results.stated.arguments if results.stated else "",
        "environment": {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in environment.items()
            if value not in (None, {}, [])
        },
        "commit": str(git.get("commit", ""))[:12] if isinstance(git, dict) else "",
    }


def _seconds(results: Results) -> pd.Series:
    """How long each run took; NaN for a table of another tool."""
    if results.stated:
        return pd.Series(np.nan, index=results.runs.index)
    return results.runs["run"].map(results.metrics.groupby("run")["run_duration"].max())


def _text(path: Path) -> str:
    return read_text(path) if exists(path) else ""


def _facts(study: Study) -> list[tuple[str, str]]:
    runs, constant = study.results.runs, study.comparison.constant
    counts = [("runs", f"{(runs['status'] == 'ok').sum()} ok of {len(runs)}")]
    if "seed" in study.results.parameters:
        counts.append(("seeds", str(runs["seed"].nunique())))
    return [*counts, *((name, shown(constant[name])) for name in FACTS if name in constant)]


def _sections(study: Study) -> Iterator[dict[str, Any]]:
    if study.empty:
        return
    for kind, draw in KINDS.items():
        panels = draw(study)
        if panels:
            title, legend = SECTIONS[kind]
            if study.large and _CURVES in legend:
                legend += (
                    f" Of {len(study.results.runs):,} runs, at most the first {SAMPLE} are drawn beside each mean. "
                    "Means, bands and the middle 90% are those of all runs."
                )
            drawn = enumerate(panels[:MOST_PANELS])
            figures = [Markup(svg(panel, f"{kind}-{n}")) for n, panel in drawn]
            text = {"id": kind, "title": title, "legend": legend}
            yield {**text, "figures": figures, "left_out": len(panels) - len(figures)}


def _run_columns(study: Study) -> list[Column]:
    """The parameters that differ between runs, and how each run ended."""
    runs = study.results.runs

    def column(name: str, text: Callable[[Any], str] = shown, heading: str = "") -> Column:
        def cell(run: Mapping[str, Any]) -> str:
            value = plain(run[name])
            return NOTHING if value is None else text(value)

        return Column(heading or name, cell, number=name == "seconds" or is_numeric_dtype(runs[name]))

    parameters = [name for name in names(study.parameters) if name in runs]
    differing = [name for name in parameters if runs[name].nunique(dropna=False) > 1]
    stated = study.results.stated
    outcomes = [stated.metric] if stated else [of_sweep(name) for name in OUTCOMES if runs[name].notna().any()]
    headings = {
        m: m.name + (" %" if m.share else "") if stated else m.name.replace("_accuracy", " %").replace("_", " ")
        for m in outcomes
    }
    return [
        column("run"),
        *map(column, differing),
        column("status"),
        *(column(metric.name, number_format(metric, 0), headings[metric]) for metric in outcomes),
        *([] if stated else [column("seconds", "{:.1f}".format)]),
    ]
