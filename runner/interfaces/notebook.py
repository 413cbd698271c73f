"""bnbench in a notebook: `runner.load("results/x")` and `runner.run({...})` give an object that shows itself."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from runner import registry
from runner.analysis.comparison import compare
from runner.analysis.metrics import At
from runner.analysis.records import Comparison
from runner.config.reader import from_mapping
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.driver import run_sweep
from runner.execution.options import EVERY_MINUTE, Options
from runner.reporting.columns import columns, target_columns
from runner.reporting.figures.kinds import draw
from runner.reporting.figures.study import study, timed_study
from runner.reporting.figures.style import Panel, figure, save, settings
from runner.reporting.notes import notes, target_title, title
from runner.reporting.page.report import report
from runner.reporting.sentences import sentences
from runner.reporting.tables import render
from runner.storage import results
from runner.storage.files import write_atomically
from runner.storage.folder import CONFIG, data_folder
from runner.storage.results import Results
from runner.training.options import TrainingOptions


@dataclass(frozen=True, repr=False)
class Compared:
    """A comparison: a table to look at, and `frame` to compute with."""

    comparison: Comparison

    @property
    def frame(self) -> pd.DataFrame:
        """A row per arm and cell, in full precision: the columns of `bnbench compare --format csv`."""
        return pd.DataFrame(self.comparison.records)

    def __repr__(self) -> str:
        return render(self.comparison)

    def _repr_html_(self) -> str:
        comparison = self.comparison
        parts = [_table(title(comparison), columns(comparison), comparison)]
        parts += [f"<p>{html.escape(note)}</p>" for note in notes(comparison)]
        if comparison.target is not None:
            parts.append(_table(target_title(comparison), target_columns(comparison), comparison))
        return "".join(parts)


def _table(caption: str, shown: Sequence[Any], comparison: Comparison) -> str:
    cells = pd.DataFrame(
        [[column.cell(row) for column in shown] for row in comparison.rows],
        columns=[column.heading for column in shown],
    )
    return f"<p>{html.escape(caption)}.</p>{cells.to_html(index=False, border=0)}"


@dataclass(frozen=True, repr=False)
class Picture:
    """Panels that a notebook shows; `save("x.svg")` writes them (svg, pdf or png)."""

    panels: Sequence[Panel]

    def save(self, path: str | Path) -> Path:
        """Errors: UserError for another ending."""
        path = Path(path)
        save(self.panels, path)
        return path

    def __repr__(self) -> str:
        return "\n".join(panel.description for panel in self.panels)

    def _repr_svg_(self) -> str:
        content = io.StringIO()
        with settings():
            figure(self.panels).savefig(content, format="svg", metadata={"Date": None})
        return content.getvalue()


@dataclass(frozen=True, repr=False)
class Outcome:
    """A sweep's folder: `metrics` has a row per run per epoch, `runs` a row per planned run."""

    results: Results

    @property
    def metrics(self) -> pd.DataFrame:
        return self.results.metrics

    @property
    def runs(self) -> pd.DataFrame:
        return self.results.runs

    def compare(
        self,
        metric: str = "valid_accuracy",
        at: At = "last",
        *,
        group_by: Sequence[str] | None = None,
        sort: str | None = None,
        target: float | None = None,
    ) -> Compared:
        """As `bnbench compare`; its arguments are those of `runner.analysis.comparison.compare`."""
        return Compared(compare([self.results], metric=metric, at=at, group_by=group_by, sort=sort, target=target))

    def plot_curves(
        self, metric: Literal["accuracy", "loss"] = "accuracy", where: Mapping[str, object] | None = None
    ) -> Picture:
        """Training and validation, against epochs and seconds."""
        return self.plot(metric, where)

    def plot(self, kind: str, where: Mapping[str, object] | None = None, target: float | None = None) -> Picture:
        """One kind of figure (`bnbench plot`), of the runs whose parameters are as in `where`."""
        of = (timed_study if kind == "target" else study)(self.results.folder, where, target)
        return Picture(draw(of, kind))

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page of `bnbench report`; default: report.html in the sweep's folder."""
        path = Path(path or self.results.folder / "report.html")
        write_atomically(path, report(self.results.folder))
        return path

    def __str__(self) -> str:
        return str(self.compare())

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {status}" for status, number in self.runs["status"].value_counts().items())
        return f"<bnbench sweep '{self.results.name}' in {self.results.folder}: {counts}>"

    def _repr_html_(self) -> str:
        compared = self.compare()
        said = "".join(f"<p><b>{html.escape(sentence)}</b></p>" for sentence in sentences(compared.comparison))
        return f"<h4>{html.escape(self.results.name)}</h4>{said}{compared._repr_html_()}"


def load(folder: str | Path) -> Outcome:
    """What lies in a sweep's folder. Errors: UserError where there is no sweep."""
    return Outcome(results.load(Path(folder)))


def run(
    config: Mapping[str, Any],
    *,
    out: str | Path = "results",
    data_dir: str | None = None,
    workers: int | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train every run of a config given as a dictionary; what `out/<name>` holds already is not trained again.

    `fresh` starts over. Networks of the notebook's own cells train in this process (a worker cannot import them), and
    only afresh: whether their code is what an earlier run had cannot be known. Put them in a file under `plugins:` to
    have both. Runs that failed are listed, and are rows of `runs`. Errors: UserError for a wrong config, or where the
    folder holds another sweep; KeyboardInterrupt when interrupted (the same call goes on).
    """
    registry.load_plugins()
    sweep = from_mapping(config)
    folder = Path(out) / sweep.name
    own = _defined_here(sweep)
    if own and (folder / CONFIG).exists() and not fresh:
        raise UserError(
            f"{folder} holds a sweep already, and {', '.join(own)} may have changed since; run(..., fresh=True) starts "
            f"over, a file under plugins: lets it go on"
        )
    options = Options(
        out=Path(out),
        executor="inline" if own else "process",
        workers=workers,
        existing="fresh" if fresh else "resume",
        quiet=quiet,
        training=TrainingOptions(data_folder(data_dir), checkpoint_every=EVERY_MINUTE),
    )
    if run_sweep(sweep, options) > 1:
        raise KeyboardInterrupt
    return load(folder)


def _defined_here(sweep: Sweep) -> list[str]:
    names = dict.fromkeys(run.network for run in sweep.runs)
    return [name for name in names if registry.network[name].__module__ == "__main__"]
