"""bnbench in a notebook: `bnbench.load("results/x")` and `bnbench.run({...})` return an object that displays itself."""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pandas as pd

from runner import registry
from runner.analysis import comparison, records
from runner.analysis.metrics import At
from runner.analysis.selection import Where, against, only
from runner.config.reader import from_mapping
from runner.errors import UserError
from runner.execution.composition import shortfalls
from runner.execution.driver import run_sweep
from runner.interfaces.cli.options import options_of
from runner.interfaces.cli.table import output_path
from runner.reporting import columns, notes, sentences, tables
from runner.reporting.figures import kinds, study, style
from runner.reporting.page import report
from runner.storage import results
from runner.storage.files import write_atomically
from runner.storage.folder import CONFIG
from runner.storage.foreign import table as foreign
from runner.storage.foreign.question import Question


@dataclass(frozen=True, repr=False)
class Compared:
    """A comparison that a notebook displays as a table; `frame` has its numbers."""

    comparison: records.Comparison

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each arm and cell, in full precision: the columns of `bnbench compare --format csv`."""
        return pd.DataFrame(self.comparison.records)

    def __repr__(self) -> str:
        return tables.render(self.comparison)

    def _repr_html_(self) -> str:
        shown = self.comparison
        parts = [self._table(notes.title(shown), columns.columns(shown))]
        parts += [f"<p>{html.escape(note)}</p>" for note in notes.notes(shown)]
        if shown.target is not None:
            parts.append(self._table(notes.target_title(shown), columns.target_columns(shown)))
            parts += [f"<p>{html.escape(note)}</p>" for note in notes.target_notes(shown)]
        return "".join(parts)

    def _table(self, caption: str, shown: Sequence[columns.Column]) -> str:
        cells = [[column.cell(row) for column in shown] for row in self.comparison.rows]
        frame = pd.DataFrame(cells, columns=[column.heading for column in shown])
        return f"<p>{html.escape(caption)}.</p>{frame.to_html(index=False, border=0)}"


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure that a notebook displays; `save("x.svg")` writes it."""

    panels: Sequence[style.Panel]

    def save(self, path: str | Path) -> Path:
        """Write a .svg, .pdf or .png file. Errors: UserError for another ending."""
        style.save(self.panels, Path(path))
        return Path(path)

    def __repr__(self) -> str:
        return "\n".join(panel.description for panel in self.panels)

    def _repr_svg_(self) -> str:
        content = io.StringIO()
        with style.settings():
            style.figure(self.panels).savefig(content, format="svg", metadata={"Date": None})
        return content.getvalue()


@dataclass(frozen=True, repr=False)
class Outcome:
    """A sweep's folder: `metrics` has a row for each run and epoch, `runs` a row for each planned run."""

    results: results.Results

    @property
    def metrics(self) -> pd.DataFrame:
        return self.results.metrics

    @property
    def runs(self) -> pd.DataFrame:
        return self.results.runs

    def compare(
        self,
        metric: str | None = None,
        at: At = "last",
        *,
        where: Where | None = None,
        baseline: object | None = None,
        group_by: Sequence[str] | None = None,
        sort: str | None = None,
        target: float | None = None,
        interaction: str | None = None,
    ) -> Compared:
        """Compare the arms, like `bnbench compare`; the arguments are those of `runner.analysis.comparison.compare`.

        `where` keeps only runs with these parameters, and `baseline` is another baseline than that of the config.
        """
        found = only(self.results, where or {})
        found = found if baseline is None else against(found, baseline)
        options: dict[str, Any] = {"group_by": group_by, "sort": sort, "target": target, "interaction": interaction}
        return Compared(comparison.compare([found], metric=metric, at=at, **options))

    def plot_curves(self, metric: Literal["accuracy", "loss"] = "accuracy", where: Where | None = None) -> Picture:
        """Draw training and validation against epochs and seconds."""
        return self.plot(metric, where)

    def plot(
        self,
        kind: str,
        where: Where | None = None,
        target: float | None = None,
        *,
        metric: str | None = None,
        at: At = "last",
    ) -> Picture:
        """Draw one kind of figure, like `bnbench plot`, of the runs that have the parameters `where`."""
        drawn = study.study(self.results, where, target, metric=metric, at=at, timed=kind == "target")
        return Picture(kinds.draw(drawn, kind))

    def report(self, path: str | Path | None = None, *, metric: str | None = None, at: At = "last") -> Path:
        """Write the page of `bnbench report`; by default to report.html in the sweep's folder, or beside the table."""
        path = Path(path or output_path(self.results, "report.html"))
        write_atomically(path, report.report(self.results, metric=metric, at=at))
        return path

    def __str__(self) -> str:
        return str(self.compare())

    def __repr__(self) -> str:
        statuses = self.runs["status"].value_counts()
        counts = ", ".join(f"{number} {status}" for status, number in statuses.items())
        kind = "table" if self.results.stated else "sweep"
        return f"<bnbench {kind} '{self.results.name}' in {self.results.folder}: {counts}>"

    def _repr_html_(self) -> str:
        compared = self.compare()
        verdicts = sentences.sentences(compared.comparison)
        text = "".join(f"<p><b>{html.escape(verdict)}</b></p>" for verdict in verdicts)
        return f"<h4>{html.escape(self.results.name)}</h4>{text}{compared._repr_html_()}"


def load(folder: str | Path) -> Outcome:
    """The sweep in a folder; `run` has an example. Errors: UserError where there is none."""
    return Outcome(results.load(Path(folder)))


def table(
    path: str | Path,
    *,
    axis: str = "",
    wide: Sequence[str] = (),
    baseline: object,
    pair: Sequence[str] = (),
    metric: str = "",
    better: Literal["higher", "lower"] | None = None,
    share: bool = False,
    smallest_effect: float | None = None,
) -> Outcome:
    """A table of another tool, like `bnbench compare` with `--axis` or `--wide`. The arguments are its options.

    Errors: UserError for a table that cannot be read or compared.
    """
    question = Question(axis, tuple(wide), str(baseline), tuple(pair), metric, better, share, smallest_effect)
    return Outcome(foreign.load(Path(path), question))


def run(
    config: Mapping[str, Any],
    *,
    out: str | Path = "results",
    data_dir: str | None = None,
    workers: int | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train every run of a config that is given as a dictionary.

    Runs that `out/NAME` holds already are kept; `fresh` starts over. A run that fails becomes a row of `runs`.

    Networks that are defined in the notebook train in this process, because a worker cannot import them. They need
    `fresh` if the folder holds a sweep, because their code may have changed. A file under `plugins:` has neither limit.

    Errors: UserError for a wrong config, or where the folder holds another sweep. KeyboardInterrupt when interrupted;
    the same call continues the sweep.

    >>> fixed = {"dataset": "digits", "network": "notebook_mlp", "epochs": 1, "device": "cpu"}
    >>> run({"name": "example", "fixed": fixed, "grid": {"seed": [0, 1]}}, workers=1, quiet=True)
    <bnbench sweep 'example' in results/example: 2 ok>
    >>> load("results/example").metrics[["run", "epoch", "step", "seed"]]
       run  epoch  step  seed
    0    1      1     2     0
    1    2      1     2     1
    """
    registry.load_plugins()
    sweep = from_mapping(config)
    folder = Path(out) / sweep.name
    networks = dict.fromkeys(run.network for run in sweep.runs)
    own = [name for name in networks if registry.network[name].__module__ == "__main__"]
    if own and (folder / CONFIG).exists() and not fresh:
        raise UserError(
            f"{folder} holds a sweep, and {', '.join(own)} may have changed since; "
            "run(..., fresh=True) starts over; a network in a file under plugins: can continue"
        )
    options = options_of(
        data_dir=data_dir,
        out=Path(out),
        executor="inline" if own else "process",
        workers=workers,
        existing="fresh" if fresh else "resume",
        quiet=quiet,
    )
    if run_sweep(sweep, options) > 1:
        raise KeyboardInterrupt
    for line in shortfalls(folder):
        click.echo(line, err=True)
    return load(folder)
