"""Variance components as text: for a terminal, as CSV or JSON."""

from collections.abc import Iterator
from typing import Literal

from runner.analysis.variance import INTERACTIONS, SUM, SourceRow, Variance
from runner.reporting.as_json import json_text
from runner.reporting.formats import NOTHING, interval_text, number_format, shown
from runner.reporting.tables import csv_text
from runner.reporting.text_table import fitted, plain_table

Style = Literal["table", "csv", "json"]


def render(found: Variance, style: Style) -> str:
    """The components, one per line. `table` says below what they are."""
    match style:
        case "csv":
            return csv_text(found.records)
        case "json":
            return json_text(found.records)
        case "table":
            axis = [found.axis] if found.axis else []
            headings = [*found.cell_columns, *axis, "of", "source", "seeds", "SD [95%]", "design"]
            rows = [headings, *(_cells(row, found) for row in found.rows)]
            table = plain_table(rows, leave=("design", "seeds"))
            return "\n".join([fitted(_title(found)), "", *table, "", *map(fitted, _notes(found))]) + "\n"


def _title(found: Variance) -> str:
    at = {"last": "the last epoch", "best": "each run's best epoch"}.get(str(found.at), f"epoch {found.at}")
    unit = " (pp)" if found.metric.share else ""
    text = f"{found.metric.name} at {at}: the standard deviation{unit} that each source of randomness adds"
    return f"{text}; difference: to the baseline {shown(found.baseline)}" if found.axis else text


def _cells(row: SourceRow, found: Variance) -> list[str]:
    number = number_format(found.metric, row.sd.estimate, row.sd.low or 0, row.sd.high or 0)
    arm = [shown(row.arm)] if found.axis else []
    seeds = NOTHING if row.seeds is None else str(row.seeds)
    return [*map(shown, row.cell.values()), *arm, row.of, row.source, seeds, interval_text(row.sd, number), row.design]


def _notes(found: Variance) -> Iterator[str]:
    """What the design allows to say, how the intervals are made, and what could not be estimated."""
    designs = {row.design for row in found.rows}
    if "crossed" in designs:
        yield "crossed: each seed of a source ran with each seed of the others. A source's SD is its main effect."
        yield f"{INTERACTIONS}: what only combinations of seeds explain. all sources: of a run whose seeds are all new."
    if "one at a time" in designs:
        yield "one at a time: the other sources keep their most frequent seeds. The SD includes interactions with them."
    if SUM in {row.source for row in found.rows}:
        yield f"{SUM}: the SD of all of them together, if they do not interact."
    if "together" in designs:
        yield "together: these streams change their seeds together, so their parts cannot be told apart."
    yield "Intervals assume normal effects: chi-square, or Weerahandi's (1993) where mean squares are combined."
    if any(row.sd.estimate == 0 for row in found.rows):
        yield "SD 0: the estimate of the variance is 0, or below 0."
    yield from (f"{note}." for note in found.notes)
