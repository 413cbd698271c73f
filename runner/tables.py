"""How a comparison looks: on a terminal, in a paper, on a page, to a program. One set of cells for all."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.records import Comparison, Difference, Row, Time
from runner.values import is_share

Format = Literal["table", "csv", "json", "md", "latex"]

NOTHING = "–"

SAID = ("dataset", "trainset", "network", "optimizer", "lr", "batch_size", "epochs")
"""The parameters a reader asks for first; they are named below the table where every run has the same."""


@dataclass(frozen=True)
class Column:
    """One column of the table a person reads."""

    heading: str
    cell: Callable[[Row], str]
    number: bool = False


def render(comparison: Comparison, format: Format = "table", *, width: int | None = None, color: bool = False) -> str:
    """The comparison as text. `width` (default: the terminal's, or COLUMNS, else as wide as it takes) and `color`
    concern `table` only. `csv` and `json` are `Comparison.records` in full precision.
    """
    if format == "table":
        return _table(comparison, width or _terminal_width(), color)
    return {"csv": _csv, "json": _json, "md": _md, "latex": _latex}[format](comparison)


# The cells


def title(comparison: Comparison) -> str:
    """The metric, the epoch, the axis and the baseline in one sentence."""
    epoch = {"last": "at the last epoch", "best": "at each run's best epoch"}.get(
        str(comparison.at), f"at epoch {comparison.at}"
    )
    text = f"{comparison.metric} {epoch}, mean ± SD over runs"
    if comparison.axis:
        baseline = _value(comparison.baseline)
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
    same = [f"{name} {_value(comparison.constant[name])}" for name in SAID if name in comparison.constant]
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
            p = "" if row.divergence.p is None else f", p {_p(row.divergence.p)}"
            yield f"{_who(row, comparison)} {100 * share.estimate:.0f}% [{low}, {high}]{p}"


def _who(row: Row, comparison: Comparison) -> str:
    """A row by what tells it apart."""
    facts = {**row.cell, **row.variant}
    said = [f"{name} {_value(value)}" for name, value in facts.items() if value is not None]
    return " ".join([*([_value(row.arm)] if comparison.axis else []), *said]) or "runs"


def _not_paired(comparison: Comparison) -> Iterator[str]:
    unpaired = [row for row in comparison.rows if row.difference and not row.difference.paired]
    if unpaired:
        why = dict.fromkeys(f"{_value(row.arm)}: {_why(row.difference)}" for row in unpaired if row.difference)
        welch = any(row.difference and row.difference.pairs for row in unpaired)
        tail = ": the interval is Welch's, of a difference of means" if welch else ""
        yield f"Not paired ({'; '.join(why)}){tail}."


def _own_best(comparison: Comparison) -> Iterator[str]:
    chosen = [row for row in comparison.rows if row.own_best_lr]
    if chosen:
        yield "best: each arm at the lr of its highest mean valid_accuracy at the last epoch."
    edge = list(
        dict.fromkeys(f"{_value(row.arm)} {_value(row.cell['lr'])}" for row in chosen if row.own_best_lr == "edge")
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
        table.append(Column("difference", lambda row: _difference(row.difference, comparison.metric)))
        baseline = {tuple(row.cell.items()): row.n for row in rows if row.difference is None}
        if any(
            row.difference and not row.difference.pairs == row.n == baseline.get(tuple(row.cell.items()), row.n)
            for row in rows
        ):
            table.append(Column("pairs", lambda row: str(row.difference.pairs) if row.difference else "", number=True))
        if _p_values(comparison):
            table.append(Column("p", lambda row: _p(row.difference.p_adjusted) if row.difference else ""))
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
    return {None: "", "inner": "best ", "edge": "best! "}[row.own_best_lr] + _value(row.cell["lr"])


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


def _p(p: float | None) -> str:
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
    return Column(name, lambda row: _value(get(row)), number)


def _value(value: object) -> str:
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


def _difference(difference: Difference | None, metric: str) -> str:
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


# The formats


def _terminal_width() -> int | None:
    """COLUMNS, or the terminal's; None in a pipe, where nothing needs to fit."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"]) or None
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None


def _table(comparison: Comparison, width: int | None, color: bool) -> str:
    layouts = list(_layouts(comparison, columns(comparison)))
    text = _page(comparison, title(comparison), notes(comparison), layouts, width, color)
    if comparison.target is None:
        return text
    shown = target_columns(comparison)
    return text + "\n" + _page(comparison, target_title(comparison), [], [(shown, 2), (shown, 1)], width, color)


def target_title(comparison: Comparison) -> str:
    """What the second table shows."""
    ratio = "; ratio to the baseline with its 95% interval" if comparison.axis else ""
    better = "or more" if is_share(comparison.metric) else "or less"
    return (
        f"Steps and seconds to {comparison.metric} {comparison.target:.6g} {better}, mean over runs{ratio}; "
        "a run that did not reach it counts as the horizon that every ok run of the cell got to, a diverged one too"
    )


def _layouts(comparison: Comparison, shown: list[Column]) -> Iterator[tuple[list[Column], int]]:
    """Columns and the gap between them, each narrower than the one before."""
    # First without the reason why runs are not paired (the notes have it), then closer.
    short = [replace(c, cell=_first_word(c.cell)) if c.heading == "paired" else c for c in shown]
    yield from ((shown, 2), (short, 2), (short, 1))
    if comparison.smallest_effect is not None:  # the verdict says what p does, and the notes what is not paired
        few = [column for column in shown if column.heading not in ("p", "paired")]
        yield from ((few, 2), (few, 1))


def _page(
    comparison: Comparison,
    heading: str,
    below: Sequence[str],
    layouts: Sequence[tuple[list[Column], int]],
    width: int | None,
    color: bool,
) -> str:
    """Heading, the first layout that fits (else the narrowest), and what stands below."""
    for layout, gap in layouts:
        table = _rich_table(comparison, layout, gap)
        needed = Console(width=100_000, _environ={}).measure(table).maximum
        if width is None or needed <= width:
            break
    console = Console(
        width=needed,  # never narrower: a terminal folds a long line, but what is cut is lost
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    left_out = [column.heading for column in layouts[0][0] if column.heading not in {c.heading for c in layout}]
    if left_out:
        below = [*below, f"Not shown at this width: {', '.join(left_out)}."]
    heading, *below = (
        textwrap.fill(text, max(width or needed, 40), break_long_words=False, break_on_hyphens=False)
        for text in (heading, *below)
    )
    return "\n".join([heading, "", *lines, "", *below]).rstrip("\n") + "\n"


def _rich_table(comparison: Comparison, shown: list[Column], gap: int) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False, header_style="bold")
    for column in shown:
        justify: Literal["left", "right"] = "right" if column.number else "left"
        table.add_column(Text(column.heading), justify=justify, no_wrap=True)
    rows = comparison.rows
    ends = [row.block != following.block for row, following in pairwise(rows)]
    # A gap between cells, unless sorting has mixed them or each is one row.
    apart = sum(ends) + 1 == len({row.block for row in rows}) < len(rows)
    for row, end in zip(rows, [*ends, False], strict=True):
        styles = {"difference": _style(row, comparison.metric), "paired": _doubt(row)}
        table.add_row(
            *(Text(column.cell(row), styles.get(column.heading, "")) for column in shown), end_section=apart and end
        )
    return table


def _first_word(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: cell(row).partition(" ")[0]


def _doubt(row: Row) -> str:
    return "yellow" if row.difference and not row.difference.paired else ""


def _style(row: Row, metric: str) -> str:
    """Green or red where the interval excludes no difference; more is better of accuracy only."""
    interval = row.difference.interval if row.difference else None
    if interval is None or interval.low is None or interval.high is None or interval.low <= 0 <= interval.high:
        return ""
    return "green" if (interval.low > 0) == is_share(metric) else "red"


def _csv(comparison: Comparison) -> str:
    records = pd.DataFrame(comparison.records, dtype=object)  # object: an empty cell must not make 10 pairs 10.0
    return records.to_csv(index=False, lineterminator="\n")


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison.records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _md(comparison: Comparison) -> str:
    parts = [_md_text(title(comparison)), _md_table(comparison, columns(comparison)), *map(_md_text, notes(comparison))]
    if comparison.target is not None:
        parts += [_md_text(target_title(comparison)), _md_table(comparison, target_columns(comparison))]
    return "\n\n".join(parts) + "\n"


def _md_table(comparison: Comparison, shown: list[Column]) -> str:
    lines = [
        [_md_text(column.heading) for column in shown],
        ["---:" if column.number else ":---" for column in shown],
        *([_md_text(column.cell(row)) for column in shown] for row in comparison.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md_text(text: str) -> str:
    return _escape(text, {character: f"\\{character}" for character in "\\`*_|<>"} | {"\n": " "})


def _latex(comparison: Comparison) -> str:
    caption = " ".join([title(comparison) + ".", *notes(comparison)])
    lines = [r"% \usepackage{booktabs}", *_latex_table(comparison, caption, columns(comparison))]
    if comparison.target is not None:
        lines += _latex_table(comparison, target_title(comparison) + ".", target_columns(comparison))
    return "\n".join(lines) + "\n"


def _latex_table(comparison: Comparison, caption: str, shown: list[Column]) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in shown)}}}",
        r"\toprule",
        " & ".join(_latex_text(column.heading) for column in shown) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_text(column.cell(row)) for column in shown) + r" \\" for row in comparison.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # else a row that begins with one is taken for an argument of the \\\\ before it
    "±": r"$\pm$",
    NOTHING: "--",
    "\n": " ",
}


def _latex_text(text: str) -> str:
    # A hyphen before a digit is a minus; 1e-05's is preceded by a letter.
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", _escape(text, LATEX))


def _escape(text: str, replacements: dict[str, str]) -> str:
    """Character by character, so that no replacement is itself replaced."""
    return "".join(replacements.get(character, character) for character in text)
