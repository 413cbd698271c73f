"""A sweep as one HTML page that stands alone: no request leaves it; it can be mailed, archived and opened offline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import runner
from runner.analysis.metrics import is_share
from runner.analysis.pairing import names, plain
from runner.analysis.records import ArmRow
from runner.reporting.columns import Column, columns, target_columns
from runner.reporting.figures.kinds import KINDS
from runner.reporting.figures.study import Study, timed_study
from runner.reporting.figures.style import svg
from runner.reporting.formats import shown
from runner.reporting.notes import notes, target_title, title
from runner.reporting.sentences import sentences
from runner.storage.folder import CONFIG, ENVIRONMENT
from runner.storage.rows import FAILED

MOST_PANELS = 24
"""Pictures of one kind on the page; what is left out is said, with the command that draws it."""

SECTIONS = {
    "accuracy": "Learning curves",
    "loss": "Loss curves",
    "differences": "Differences",
    "pairs": "Pair by pair",
    "learning-rate": "Learning rates",
    "target": "Time to a target",
    "gradients": "Gradients by layer",
    "activations": "Activations by layer",
    "norms": "Normalization layers",
}

_CURVES = "Thick: the mean over seeds, with its 95% band; thin: the seeds (of more than 60, the middle 90% of them). "
_DEPTH = "Means over seeds with 95% bands; blue is near the input, green near the output."

LEGENDS = {
    "accuracy": _CURVES + "A run that diverged keeps the accuracy it ended in.",
    "loss": _CURVES + "Losses that are not finite are left out.",
    "differences": "Diamond and bar: mean and 95% interval; dots: the pairs.",
    "pairs": "A line joins the two runs of a pair, in the arm's colour where the arm ends as high or higher.",
    "learning-rate": "A dot is a run, a cross one that diverged; the line is the mean, with its 95% band.",
    "target": "The share of runs that have been at the target or above; a run that diverged never has.",
    "gradients": _DEPTH,
    "activations": _DEPTH,
    "norms": _DEPTH,
}


@dataclass(frozen=True)
class Section:
    """One kind of picture on the page."""

    id: str
    title: str
    legend: str
    pictures: Sequence[Markup]
    left_out: int


@dataclass(frozen=True)
class Table:
    """A table to be sorted and filtered: headings, whether a column holds numbers, and the cells as text."""

    headings: Sequence[str]
    numbers: Sequence[bool]
    rows: Sequence[Sequence[str]]


def report(folder: Path, where: Mapping[str, object] | None = None, target: float | None = None) -> str:
    """The page of a sweep's folder; `where` and `target` are those of `timed_study`.

    Errors: UserError where there is no sweep, or no run or parameter of `where`.
    """
    of = timed_study(folder, where, target)
    environment = Environment(
        loader=PackageLoader("runner.reporting.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(**_contents(of), version=runner.__version__)


def _contents(of: Study) -> dict[str, Any]:
    comparison, results = of.comparison, of.results
    runs = results.runs
    planned, ok = len(runs), int((runs["status"] == "ok").sum())
    return {
        "name": results.name,
        "verdict": sentences(comparison),
        "facts": _facts(of),
        "ok": ok,
        "planned": planned,
        "table_title": title(comparison),
        "table": _table(columns(comparison), comparison.rows),
        "notes": notes(comparison),
        "target_title": target_title(comparison) if comparison.target is not None else "",
        "target_table": _table(target_columns(comparison), comparison.rows) if comparison.target is not None else None,
        "sections": list(_sections(of)),
        "failed": _failed(runs),
        "runs": _runs_table(of),
        "config": _text(results.folder / CONFIG),
        "environment": _environment(results.folder / ENVIRONMENT),
        "folder": results.folder.name,
        "commit": _commit(results.folder / ENVIRONMENT),
        "css": Markup(_own("page.css")),
        "script": Markup(_own("page.js")),
    }


def _own(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _environment(path: Path) -> dict[str, str]:
    """What environment.json says, a line each."""
    try:
        found = json.loads(_text(path))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    lines = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
    }
    return {name: line for name, line in lines.items() if line not in ("null", "{}", "[]")}


def _commit(path: Path) -> str:
    """Of which commit of bnbench's repository, or of the user's, the sweep is."""
    try:
        return str((json.loads(_text(path)).get("git") or {}).get("commit", ""))[:12]
    except (ValueError, AttributeError):
        return ""


def _facts(of: Study) -> list[tuple[str, str]]:
    said = ("dataset", "validate_on", "optimizer", "lr", "batch_size", "epochs", "device")
    constant = of.comparison.constant
    seeds = of.results.runs["seed"].nunique() if "seed" in of.results.parameters else None
    facts = [(name, shown(constant[name])) for name in said if name in constant]
    return [*([("seeds", str(seeds))] if seeds else []), *facts]


def _table(shown_columns: Sequence[Column], rows: Sequence[ArmRow]) -> Table:
    return Table(
        [column.heading for column in shown_columns],
        [column.number for column in shown_columns],
        [[column.cell(row) for column in shown_columns] for row in rows],
    )


def _sections(of: Study) -> list[Section]:
    if not len(of.results.metrics):
        return []
    found = []
    for kind, draw in KINDS.items():
        panels = draw(of)
        if panels:
            pictures = [Markup(svg(panel, f"{kind}-{n}")) for n, panel in enumerate(panels[:MOST_PANELS])]
            left_out = max(0, len(panels) - MOST_PANELS)
            found.append(Section(kind, SECTIONS[kind], LEGENDS[kind], pictures, left_out))
    return found


def _failed(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    failed = runs[runs["status"].isin(FAILED)]
    return [
        (str(run), str(status), "" if pd.isna(error) else str(error))
        for run, status, error in failed[["run", "status", "error"]].itertuples(index=False)
    ]


OUTCOMES = ("train_accuracy", "valid_accuracy", "best_valid_accuracy", "test_accuracy", "valid_loss")


def _runs_table(of: Study) -> Table:
    """Every run: what tells it from the others, and how it ended."""
    runs = of.results.runs
    differing = [name for name in names(of.parameters) if name in runs and runs[name].nunique(dropna=False) > 1]
    outcomes = [name for name in OUTCOMES if runs[name].notna().any()]
    seconds = of.results.metrics.groupby("run")["run_duration"].max()
    rows = []
    for record in runs.to_dict("records"):
        told = [shown(plain(record[name])) for name in differing]
        ends = [_number(plain(record[name]), is_share(name)) for name in outcomes]
        time = seconds.get(record["run"])
        rows.append([str(record["run"]), *told, str(record["status"]), *ends, "–" if time is None else f"{time:.1f}"])
    headings = [f"{name.replace('_accuracy', ' %').replace('_', ' ')}" for name in outcomes]
    number = [pd.api.types.is_numeric_dtype(runs[name]) for name in differing]
    return Table(
        ["run", *differing, "status", *headings, "seconds"],
        [True, *number, False, *(True for _ in outcomes), True],
        rows,
    )


def _number(value: Any, share: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if share else f"{value:.4f}"
