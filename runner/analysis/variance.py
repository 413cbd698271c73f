"""Variance components of a sweep whose grid varies the random streams (Bouthillier et al. 2021, arXiv:2103.03098)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from runner.analysis.metrics import FOLDER, At, check, of_sweep, read_runs
from runner.analysis.pairing import Arms, Codes, group, names, pairs, plain, unproven
from runner.analysis.stats.components import MeanSquare, added, component, line, mean_squares, sd_interval
from runner.analysis.stats.intervals import Interval
from runner.analysis.streams import sources, stream_seeds
from runner.config.run_spec import SEEDS
from runner.errors import UserError
from runner.storage.results import Metric, Results

Design = Literal["crossed", "one at a time", "together"]

INTERACTIONS, ALL, SUM = "interactions", "all sources", "sum of the sources"
"""What rows are called that belong to no single source."""


@dataclass(frozen=True)
class SourceRow:
    """The standard deviation that one source of randomness adds."""

    cell: Mapping[str, object]
    arm: object | None
    of: Literal["runs", "difference"]
    """Of the arm's runs, or of the differences arm − baseline of its pairs."""
    design: Design
    source: str
    """Streams that vary together, such as "weights, batches"."""
    seeds: int | None
    """How many seeds the source has. None for a row that adds several sources."""
    sd: Interval


@dataclass(frozen=True)
class Variance:
    """The content of the table of `bnbench variance`."""

    metric: Metric
    at: At
    axis: str | None
    baseline: object | None
    cell_columns: tuple[str, ...]
    rows: tuple[SourceRow, ...]
    notes: tuple[str, ...]
    """What could not be estimated, and why."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as flat records with full precision."""
        return [
            {
                **row.cell,
                **({self.axis: row.arm} if self.axis else {}),
                **{"metric": self.metric.name, "at": self.at, "of": row.of, "design": row.design},
                **{"source": row.source, "seeds": row.seeds},
                **dict(zip(("sd", "low", "high"), astuple(row.sd), strict=True)),
            }
            for row in self.rows
        ]


class DesignError(Exception):
    """The seeds of these runs do not allow an estimate. The text says why."""


def variance(results: Results, *, metric: str | None = None, at: At = "last") -> Variance:
    """The standard deviation that each source of randomness adds: per arm, and for its difference from the baseline.

    Errors: UserError for a table that cannot be read so, and where no estimate is possible.
    """
    if results.stated:
        raise UserError("variance reads the folder of a sweep: a table of another tool does not say what its seeds do")
    chosen = of_sweep(metric or "valid_accuracy")
    check([results], chosen.name, at)
    parameters, facts = read_runs([results], chosen.name, at)
    seeds = stream_seeds(parameters)
    ignored = {FOLDER, results.axis, *SEEDS}
    cells = tuple(n for n in names(parameters) if n not in ignored and parameters[n].nunique(dropna=False) > 1)
    arms = Arms(parameters, results.axis, results.baseline)
    groups = group(parameters, [*cells, *([results.axis] if results.axis else [])])
    differences = pairs(parameters, facts, arms)
    rows: list[SourceRow] = []
    notes: list[str] = []
    for members in _ordered(groups, arms):
        first = members[0]
        cell = {name: plain(parameters[name][first]) for name in cells}
        arm = plain(parameters[results.axis][first]) if results.axis else None
        values: dict[Literal["runs", "difference"], pd.Series] = {"runs": facts["value"][members]}
        own = differences[differences.index.isin(members)]
        if arms.code[first] != arms.baseline:
            if unproven(own):
                notes.append(f"{arm}: {unproven(own)} of {len(own)} pairs are not proven, so differences are left out")
            else:
                values["difference"] = (own["value"] - own["value_base"]).reindex(members)
        for of, column in values.items():
            try:
                found = list(_estimates(seeds.loc[members], column))
            except DesignError as error:
                notes.append(f"{' '.join(map(str, [*filter(None, [arm]), *cell.values()]))}, {of}: {error}")
                continue
            rows += [SourceRow(cell, arm, of, *each) for each in found]
    if not rows:
        raise UserError(f"{results.folder}: no variance can be estimated: {'; '.join(dict.fromkeys(notes))}")
    return Variance(chosen, at, results.axis, results.baseline, cells, tuple(rows), tuple(dict.fromkeys(notes)))


def _ordered(groups: Codes, arms: Arms) -> Iterator[list[int]]:
    """The runs of each arm in each cell, the baseline first."""
    members = pd.Series(range(len(groups))).groupby(groups).agg(list)
    yield from sorted(members, key=lambda runs: arms.code[runs[0]] != arms.baseline)


Estimate = tuple[Design, str, int | None, Interval]


def _estimates(seeds: pd.DataFrame, values: pd.Series) -> Iterator[Estimate]:
    """(design, source, seeds, SD) of runs that differ in their seeds alone. `values` are NaN where there is none.

    Errors: DesignError.
    """
    # Runs whose seeds are all equal are the same run.
    seeds = seeds[~seeds.duplicated()]
    values = values[seeds.index]
    found = sources(seeds)
    if not found:
        raise DesignError("all runs have the same seeds")
    codes = np.stack(list(found.values()), axis=1)
    labels = [", ".join(streams) for streams in found]
    shape = tuple(int(column.max()) + 1 for column in codes.T)
    if len(shape) == 1:
        yield "together", *_line(labels, values)
    elif len(codes) == int(np.prod(shape)):
        yield from _crossed(labels, shape, codes, values)
    else:
        yield from _one_at_a_time(labels, codes, values)


def _line(labels: Sequence[str], values: pd.Series) -> tuple[str, int, Interval]:
    """The SD over runs that differ in every one of these sources."""
    known = values.dropna().to_numpy(float)
    if len(known) < 2:
        raise DesignError(f"{len(known)} run with other seeds of {', '.join(labels)} has a value; 2 are needed")
    return ", ".join(labels), len(known), sd_interval([(1.0, line(known))])


def _crossed(labels: Sequence[str], shape: tuple[int, ...], codes: Codes, values: pd.Series) -> Iterator[Estimate]:
    """Main effects, all interactions together, and the sum of all components."""
    if missing := int(values.isna().sum()):
        raise DesignError(f"{missing} of {len(values)} runs have no value, so the crossed table is not complete")
    table = np.empty(shape)
    table[tuple(codes.T)] = values.to_numpy(float)
    squares = mean_squares(table)

    def sd(*effects: tuple[int, ...]) -> Interval:
        factors = added([component(effect, shape) for effect in effects])
        return sd_interval([(factor, squares[effect]) for effect, factor in factors.items() if abs(factor) > 1e-12])

    for axis, label in enumerate(labels):
        yield "crossed", label, shape[axis], sd((axis,))
    yield "crossed", INTERACTIONS, None, sd(*(effect for effect in squares if len(effect) > 1))
    yield "crossed", ALL, None, sd(*squares)


def _one_at_a_time(labels: Sequence[str], codes: Codes, values: pd.Series) -> Iterator[Estimate]:
    """The SD over each source, with the others at the seeds of the centre: those that most runs have.

    Runs in which several sources differ from the centre are a line of their own, if no two of them share a seed.
    """
    centre = np.array([np.bincount(column).argmax() for column in codes.T])
    away = codes != centre
    singles: list[MeanSquare] = []
    kinds = np.unique(away[away.any(axis=1)], axis=0)
    for which in sorted(kinds, key=lambda kind: (kind.sum(), kind.argmax())):
        members = (away == which).all(axis=1) | ~away.any(axis=1)
        named = [label for label, is_away in zip(labels, which, strict=True) if is_away]
        if any(len(set(column)) < members.sum() for column in codes[members][:, which].T):
            rule = "neither crossed (each with each), nor one at a time around fixed seeds"
            raise DesignError(f"the seeds of {' and '.join(named)} are {rule}")
        label, seeds, sd = _line(named, values[members])
        if which.sum() == 1:
            singles.append(line(values[members].dropna().to_numpy(float)))
        yield "one at a time" if which.sum() == 1 else "together", label, seeds, sd
    if len(singles) > 1:
        yield "one at a time", SUM, None, sd_interval([(1.0, square) for square in singles])
