"""What a comparison says to a person: title, notes, columns and cells; `runner.reporting.tables` says how they look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from runner.analysis.metrics import is_share
from runner.analysis.records import Comparison, Difference, Row, Time

NOTHING = "–"

SAID = ("dataset", "train_samples", "validate_on", "trainset", "network", "optimizer", "lr", "batch_size", "epochs")
"""The parameters a reader asks for first; they are named below the table where every run has the same."""


@dataclass(frozen=True)
class Column:
    """One column of the table a person reads."""

    heading: str
    cell: Callable[[Row], str]
    number: bool = False


def title(comparison: Comparison) -> str:
    """The metric, the epoch, the axis and the baseline in one sentence."""
    epoch = {"last": "at the last epoch", "best": "at each run's best epoch"}.get(
        str(comparison.at), f"at epoch {comparison.at}"
    )
    text = f"{comparison.metric} {epoch}, mean ± SD over runs"
    if comparison.axis:
        baseline = shown(comparison.baseline)
        text += f"; difference of each {comparison.axis} to the baseline {baseline} with its 95% interval"
        tested = len(_p_values(comparison))
        if tested:
            text += f" and p, {comparison.adjustment}-adjusted for {tested} rows" if tested > 1 else " and p"
    return text


def _p_values(comparison: Comparison) -> list[float]:
    return [row.difference.p for row in comparison.rows if row.difference and row.difference.p is not None]


def notes(comparison: Comparison) -> list[str]:
    """What must be known beside the numbers: runs that are not ok, what is not paired, what is the same everywhere."""
    said = [*_not_ok(comparison), *_not_paired(comparison), *_own_best(comparison), *_judgement(comparison)]
    usual = (None, "null", "held_out")
    told = {name: value for name, value in comparison.constant.items() if name in SAID and value not in usual}
    same = [f"{name} {shown(told[name])}" for name in SAID if name in told]
    return [*said, f"Every run: {', '.join(same)}."] if same else said


def _not_ok(comparison: Comparison) -> Iterator[str]:
    counts = {status: number for status, number in comparison.statuses.items() if number and status != "ok"}
    if counts:
        planned = sum(row.planned for row in comparison.planned_rows)
        text = ", ".join(f"{number} {status}" for status, number in counts.items())
        kept = " Diverged runs are counted with what they ended in." if "diverged" in counts else ""
        yield f"Of {planned} runs: {text}.{kept}"
    if "diverged" in counts:
        yield f"Diverged, with 95% intervals (Wilson) and p (McNemar, exact): {'; '.join(_diverged(comparison))}."


def _diverged(comparison: Comparison) -> Iterator[str]:
    """Every row that is compared with one in which a run diverged."""
    blocks = {row.block for row in comparison.planned_rows if row.statuses.get("diverged")}
    for row in comparison.planned_rows:
        if row.block in blocks and row.divergence:
            share = row.divergence.share
            low, high = (f"{100 * (end or 0):.0f}" for end in (share.low, share.high))
            p = "" if row.divergence.p is None else f", p {p_text(row.divergence.p)}"
            yield f"{who(row, comparison)} {100 * share.estimate:.0f}% [{low}, {high}]{p}"


def who(row: Row, comparison: Comparison) -> str:
    """A row by what tells it apart."""
    facts = {**row.cell, **row.variant}
    said = [f"{name} {shown(value)}" for name, value in facts.items() if value is not None]
    return " ".join([*([shown(row.arm)] if comparison.axis else []), *said]) or "runs"


def _not_paired(comparison: Comparison) -> Iterator[str]:
    unpaired = [row for row in comparison.rows if row.difference and not row.difference.paired]
    if unpaired:
        why = dict.fromkeys(f"{shown(row.arm)}: {_why(row.difference)}" for row in unpaired if row.difference)
        welch = any(row.difference and row.difference.pairs for row in unpaired)
        tail = ": the interval is Welch's, of a difference of means" if welch else ""
        yield f"Not paired ({'; '.join(why)}){tail}."


def _own_best(comparison: Comparison) -> Iterator[str]:
    chosen = [row for row in comparison.rows if row.own_best_lr]
    if chosen:
        yield "best: each arm at the lr of its highest mean valid_accuracy at the last epoch."
    edge = list(
        dict.fromkeys(f"{shown(row.arm)} {shown(row.cell['lr'])}" for row in chosen if row.own_best_lr == "edge")
    )
    if edge:
        yield f"best!: that lr is on the edge of the grid, and a better one may lie beyond ({', '.join(edge)})."


def _judgement(comparison: Comparison) -> Iterator[str]:
    few = [row for row in comparison.rows if row.difference and row.difference.paired and 1 < row.difference.pairs < 6]
    if few:
        yield "p is of a sign-flip test, which needs 6 pairs or more to fall below .05."
    if comparison.smallest_effect is not None and comparison.axis:
        effect = f"{100 * comparison.smallest_effect:.6g} pp"
        text = f"Verdict on: better than the baseline by {effect} or more, the smallest effect fixed beforehand."
        yield text + (" needs: the seeds it would take." if _needing(comparison) else "")


def _needing(comparison: Comparison) -> bool:
    return any(row.difference and row.difference.verdict and row.difference.verdict.seeds for row in comparison.rows)


def columns(comparison: Comparison) -> list[Column]:
    """The columns a person reads. Those that would only repeat `n` are left out."""
    rows = comparison.rows
    table = _who_columns(comparison)
    table.append(Column("n", lambda row: str(row.n), number=True))
    if any((row.n, row.ok) != (row.planned, row.planned) for row in rows):
        table.append(Column("ok", lambda row: f"{row.ok}/{row.planned}", number=True))
    percent = " (%)" if is_share(comparison.metric) else ""
    table.append(Column(f"mean ± SD{percent}", lambda row: _mean(row, comparison.metric), number=True))
    if comparison.axis:
        table.append(Column("difference", lambda row: difference_text(row.difference, comparison.metric)))
        baseline = {tuple(row.cell.items()): row.n for row in rows if row.difference is None}
        if any(
            row.difference and not row.difference.pairs == row.n == baseline.get(tuple(row.cell.items()), row.n)
            for row in rows
        ):
            table.append(Column("pairs", lambda row: str(row.difference.pairs) if row.difference else "", number=True))
        if _p_values(comparison):
            table.append(Column("p", lambda row: p_text(row.difference.p_adjusted) if row.difference else ""))
        if comparison.smallest_effect is not None:
            table.append(Column("verdict", _verdict))
            if _needing(comparison):
                table.append(Column("needs", _needs, number=True))
        table.append(Column("paired", lambda row: _paired(row.difference)))
    return table


def target_columns(comparison: Comparison) -> list[Column]:
    """The columns of the second table, where a target was given."""
    table = _who_columns(comparison)
    table.append(Column("reached", _reached, number=True))
    for unit in ("steps", "seconds"):
        table.append(Column(unit, _time_cell(unit, _time_mean), number=True))
        if comparison.axis:
            table.append(Column("ratio", _time_cell(unit, _time_ratio)))
    return table


def _who_columns(comparison: Comparison) -> list[Column]:
    table = [_parameter(name, _field("cell", name), comparison) for name in comparison.cell_columns]
    if any(row.own_best_lr for row in comparison.rows):
        table = [replace(column, cell=_lr) if column.heading == "lr" else column for column in table]
    if comparison.axis:
        table.append(_parameter(comparison.axis, lambda row: row.arm, comparison))
    return table + [_parameter(name, _field("variant", name), comparison) for name in comparison.variant_columns]


def _lr(row: Row) -> str:
    return {None: "", "inner": "best ", "edge": "best! "}[row.own_best_lr] + shown(row.cell["lr"])


def _reached(row: Row) -> str:
    return f"{row.to_target.reached}/{row.to_target.n}" if row.to_target else NOTHING


def _time_cell(unit: str, text: Callable[[Time], str]) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        time = getattr(row.to_target, unit, None)
        return text(time) if time else NOTHING

    return cell


def _time_mean(time: Time) -> str:
    return f"{time.mean:.0f}" if time.mean >= 100 else f"{time.mean:.3g}"


def _time_ratio(time: Time) -> str:
    ratio = time.ratio
    if ratio is None:
        return ""
    return f"{ratio.estimate:.2f}" + ("" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]")


def p_text(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def _verdict(row: Row) -> str:
    if row.difference is None:
        return ""
    return row.difference.verdict.word if row.difference.verdict else NOTHING


def _needs(row: Row) -> str:
    found = row.difference.verdict if row.difference else None
    return str(found.seeds) if found and found.seeds else ""


def _field(part: Literal["cell", "variant"], name: str) -> Callable[[Row], object]:
    return lambda row: row.cell[name] if part == "cell" else row.variant[name]


def _parameter(name: str, get: Callable[[Row], object], comparison: Comparison) -> Column:
    number = all(isinstance(v := get(row), int | float | None) and not isinstance(v, bool) for row in comparison.rows)
    return Column(name, lambda row: shown(get(row)), number)


def shown(value: object) -> str:
    """A parameter's value as a person reads it."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()  # as the config writes it
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _mean(row: Row, metric: str) -> str:
    if row.mean is None:
        return NOTHING
    number = _numbers(metric, row.mean)
    return number(row.mean) if row.sd is None else f"{number(row.mean)} ± {number(row.sd)}"


def difference_text(difference: Difference | None, metric: str) -> str:
    if difference is None:
        return ""
    interval = difference.interval
    if interval is None:
        return NOTHING
    number = _numbers(metric, interval.estimate, interval.low or 0, interval.high or 0)
    text = _signed(number(interval.estimate))
    if interval.low is not None and interval.high is not None:
        text += f" [{_signed(number(interval.low))}, {_signed(number(interval.high))}]"
    return f"{text} pp" if is_share(metric) else text


def _paired(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return "yes" if difference.paired else f"no ({_why(difference)})"


def _why(difference: Difference) -> str:
    """Why pairs are not pairs."""
    if not difference.pairs:
        return "no pairs"
    counts = {"weights": difference.weights_differ, "batches": difference.batches_differ}
    differ = " and ".join(f"{what} differ in {number}" for what, number in counts.items() if number)
    return f"{differ} of {difference.pairs} pairs"


def _numbers(metric: str, *together: float) -> Callable[[float], str]:
    """How the numbers of one cell are written, all with the same decimals."""
    if is_share(metric):
        return lambda value: f"{100 * value:.2f}"
    if 1e-3 <= max(map(abs, together)) < 1e4 or not any(together):
        return lambda value: f"{value:.4f}"
    return lambda value: f"{value:.3g}"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def target_title(comparison: Comparison) -> str:
    """What the second table shows."""
    ratio = "; ratio to the baseline with its 95% interval" if comparison.axis else ""
    better = "or more" if is_share(comparison.metric) else "or less"
    return (
        f"Steps and seconds to {comparison.metric} {comparison.target:.6g} {better}, mean over runs{ratio}; "
        "a run that did not reach it counts as the horizon that every ok run of the cell got to, a diverged one too"
    )
