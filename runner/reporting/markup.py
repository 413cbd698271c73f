"""A comparison as Markdown and as LaTeX."""

import re
from collections.abc import Iterable, Sequence

from runner.analysis.records import ArmRow, Comparison
from runner.reporting.columns import Part, parts
from runner.reporting.formats import NOTHING

MARKDOWN = str.maketrans({**{character: f"\\{character}" for character in "\\`*_|<>"}, "\n": " "})

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # LaTeX would read a bare bracket at the start of a row as an argument of the \\ before it.
        "[": "{[}",
        "±": r"$\pm$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "σ": r"$\sigma$",
        "²": r"$^2$",
        "·": r"$\cdot$",
        NOTHING: "--",
        "\n": " ",
    }
)


def markdown(comparison: Comparison) -> str:
    blocks: list[str] = []
    for part in parts(comparison):
        headings = [_md_text(column.heading) for column in part.columns]
        rule = ["---:" if column.number else ":---" for column in part.columns]
        rows = ([_md_text(column.cell(row)) for column in part.columns] for row in comparison.rows)
        table = markdown_table([headings, rule, *rows])
        blocks += [_md_text(part.title), table, *map(_md_text, part.notes)]
    return "\n\n".join(blocks) + "\n"


def markdown_table(lines: Iterable[Sequence[str]]) -> str:
    """The headings, the rule below them and the rows as a Markdown table. The cells must be escaped already."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md_text(text: str) -> str:
    return text.translate(MARKDOWN)


def latex(comparison: Comparison) -> str:
    lines = [r"% \usepackage{booktabs}"]
    for part in parts(comparison):
        lines += _latex_table(part, comparison.rows)
    return "\n".join(lines) + "\n"


def _latex_table(part: Part, rows: Iterable[ArmRow]) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(' '.join([part.title + '.', *part.notes]))}}}",
        rf"\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in part.columns)}}}",
        r"\toprule",
        _latex_row(column.heading for column in part.columns),
        r"\midrule",
        *(_latex_row(column.cell(row) for column in part.columns) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    # A hyphen before a digit is a minus sign, except in numbers such as 1e-05.
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", text.translate(LATEX))
