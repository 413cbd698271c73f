"""A table that another tool wrote → `Results`, which are compared like a sweep's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.errors import UserError, allowed, line_of, unknown
from runner.storage.foreign.cells import Cells, last_rows, read
from runner.storage.foreign.folders import open_source
from runner.storage.foreign.question import ARM, LINE, Question
from runner.storage.foreign.sources import Row, Source
from runner.storage.results import Results, Stated

STATES = {
    "finished": "ok",
    **dict.fromkeys(("failed", "crashed"), "failed"),
    **dict.fromkeys(("killed", "preempted", "preempting"), "interrupted"),
    **dict.fromkeys(("running", "pending", "scheduled"), "missing"),
}

OF_RUNS = ("run", "status", "weights_hash", "batches_hash", "code_hash", "run_id")
"""The columns that `runs` has beside those of the table."""

OF_RECORDS = (
    *("results", "own_best_lr", "metric", "at", "better", "n", "ok", "planned", "mean", "sd", "pairs", "difference"),
    *("low", "high", "interval", "paired", "weights_differ", "batches_differ", "p", "test", "p_adjusted"),
    *("p_adjustment", "tests", "dz", "probability_of_improvement", "collapsed_p", "verdict", "seeds_needed"),
    *("seeds_needed_low", "seeds_needed_high", "diverged", "failed", "oom", "timeout", "interrupted", "missing"),
    *("diverged_share", "diverged_share_low", "diverged_share_high", "diverged_p"),
    *(
        f"{name}{end}"
        for name in (
            "hodges_lehmann",
            "trimmed_mean",
            "collapsed_share",
            "baseline_collapsed_share",
            "without_collapse",
        )
        for end in ("", "_low", "_high")
    ),
    *("simultaneous", "simultaneous_low", "simultaneous_high"),
    *("code_differs", "smallest_effect_fixed", "warnings"),
)
"""The columns that a comparison has beside the axis and the pair keys."""


def load(path: Path, question: Question) -> Results:
    """Read a table of another tool: a CSV or Parquet file, or a folder or database of a tracker.

    `runs` has one row per arm and pair. A run without a number is "missing".
    Errors: UserError for a table that cannot be read, for a column that it lacks, and for two rows of one run.
    """
    asked = question.checked(path)
    source = open_source(path)
    if asked.wide:
        source = _long(source, asked)
    names = [asked.axis, *asked.pair]
    if taken := [*({*names, asked.metric} & set(OF_RUNS)), *(set(names) & set(OF_RECORDS))]:
        raise UserError(f"{path}: rename column '{taken[0]}': bnbench's own tables use this name")
    source.check([*names, asked.metric])
    cells = read(source, asked)
    rows, at = last_rows(source, names, cells)
    values = np.full(len(cells.keys), np.nan)
    values[np.array(cells.run, dtype=np.int64)[rows]] = np.array(cells.value)[rows]
    other_states = sorted(set(cells.states.values()) - STATES.keys())
    if other_states:
        # Another table with these two columns.
        cells.states.clear()
    status = _statuses(cells, np.isfinite(values))
    _check(source, asked, cells, values)
    runs = pd.DataFrame(list(cells.keys), columns=names)
    runs.insert(0, "run", range(1, len(runs) + 1))
    # Nobody has measured whether the runs of a pair are equal, except for the arm. The user's word stands for it.
    runs = runs.assign(status=status, **{asked.metric: values}, weights_hash="stated", batches_hash="stated")
    runs["run_id"] = runs["run"].astype(str)
    notes = [asked.direction, *map(line_of, source.notes)]
    if at:
        earlier, moment = len(cells.value) - len(rows), "step" if at == "last step" else "epoch"
        notes.append(f"Each run counts with its row of the last {moment}; {earlier} earlier rows do not count.")
    if other_states:
        notes.append(f"State does not say how a run ended: neither W&B nor MLflow writes '{line_of(other_states[0])}'.")
    if cells.left_out:
        notes.append(f"Not counted: {_left_out(source, names, cells)}.")
    return Results(
        folder=path,
        name=path.stem,
        axis=asked.axis,
        baseline=_baseline(path, asked, cells),
        parameters=tuple(names),
        grid_keys=tuple(names),
        metrics=pd.DataFrame({"run": [], "epoch": []}),
        runs=runs,
        smallest_effect=asked.smallest_effect,
        fixed="stated",
        stated=Stated(asked.measure, asked.pair, at, tuple(notes), asked.arguments(path)),
    )


def _long(source: Source, asked: Question) -> Source:
    """A table in wide form as one in long form: a row for each arm's cell."""
    source.check(asked.wide)
    others = [name for name in source.columns if name not in asked.wide]
    if clash := [name for name in others if name in (ARM, asked.metric)]:
        raise UserError(f"{source.path}: rename column '{clash[0]}', or give the numbers another name with --metric")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        known = [name for name in names if name in others]
        for place, cells in source.rows([*known, *asked.wide]):
            row = {LINE: str(place), **dict(zip(known, cells, strict=False))}
            for arm, value in zip(asked.wide, cells[len(known) :], strict=True):
                row |= {ARM: arm, asked.metric: value}
                yield place, [row[name] for name in names]

    columns = (*dict.fromkeys([*others, LINE]), ARM, asked.metric)
    return Source(source.path, columns, rows, source.unit, source.notes)


def _left_out(source: Source, names: Sequence[str], cells: Cells) -> str:
    listed = [source.at(place) for place in cells.left_out[:3]] + (["…"] if len(cells.left_out) > 3 else [])
    number = f"{len(cells.left_out)} row{'s' if len(cells.left_out) > 1 else ''}"
    return f"{number} without {' or '.join(names)} ({', '.join(listed)})"


def _statuses(cells: Cells, known: Any) -> list[str]:
    ends = [STATES[cells.states.get(run, "finished")] for run in range(len(known))]
    return ["missing" if end == "ok" and not has else end for end, has in zip(ends, known, strict=True)]


def _check(source: Source, asked: Question, cells: Cells, values: Any) -> None:
    if not cells.keys:
        left_out = f": {_left_out(source, [asked.axis, *asked.pair], cells)}" if cells.left_out else ""
        raise UserError(f"{source.path}: holds no run{left_out}")
    if not np.isfinite(values).any():
        raise UserError(f"{source.path}: no row has a number for {asked.metric}")


def _baseline(path: Path, asked: Question, cells: Cells) -> str:
    arms = list(dict.fromkeys(key[0] for key in cells.keys))
    wanted = asked.baseline.strip()
    named = [line_of(arm) for arm in arms]
    if wanted not in arms:
        what = unknown("arm", asked.baseline, named) if asked.baseline else f"allowed: {allowed(named)}"
        raise UserError(f"{path}: --baseline names the arm that others are compared with: {what}")
    if len(arms) == 1:
        raise UserError(f"{path}: only one arm, {named[0]}: there is nothing to compare it with")
    return wanted
