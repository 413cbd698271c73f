"""A comparison as Markdown and as LaTeX."""

from __future__ import annotations

import re

from runner.analysis.records import Comparison
from runner.reporting.columns import Column, columns, target_columns
from runner.reporting.formats import NOTHING
from runner.reporting.notes import notes, target_title, title


def markdown(comparison: Comparison) -> str:
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


def latex(comparison: Comparison) -> str:
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
