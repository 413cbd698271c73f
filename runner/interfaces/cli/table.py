"""The options of commands that also read a table of another tool, and what they open: a sweep, or such a table."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.errors import UserError
from runner.interfaces.cli.options import Command, together, words

if TYPE_CHECKING:  # They import pandas.
    from runner.storage.foreign.question import Question
    from runner.storage.results import Results


def _words(text: str | None) -> tuple[str, ...]:
    return words(text or "")


_options = together(
    click.option("--axis", metavar="COLUMN", help="Table: the column that holds the arm (a row for each run)."),
    click.option("--wide", type=_words, metavar="A,B,…", help="Table: a column for each arm, instead of --axis."),
    click.option("--baseline", metavar="ARM", help="Table: the arm that the others are compared with."),
    click.option(
        "--pair",
        type=_words,
        metavar="A,B",
        help="Table: the columns in which a pair's runs are equal, e.g. seed,dataset (default with --wide: the line).",
    ),
    click.option(
        "--better",
        type=click.Choice(("higher", "lower")),
        help="Table: which metric is better (default: higher, unless the name says loss, error, time or the like).",
    ),
    click.option("--share", is_flag=True, help="Table: the metric is a share from 0 to 1. Show it in percent."),
    click.option(
        "--smallest-effect",
        type=float,
        metavar="VALUE",
        help="Table: the smallest difference that matters, in the metric's unit, fixed beforehand. Gives verdicts.",
    ),
)

_NAMES = ("axis", "wide", "baseline", "pair", "better", "share", "smallest_effect")


def table_options(command: Command) -> Command:
    """Add the options of a table. The command receives a `Question` as `question`, or None where RESULTS is a sweep.

    The command has an option `--metric` of its own.
    """

    @functools.wraps(command)
    def with_question(metric: str | None, **options: Any) -> None:
        given = {name: options.pop(name) for name in _NAMES}
        # 0 is a value, although it equals False.
        given = {name: value for name, value in given.items() if not (value is None or value is False or value == ())}
        if not given:
            command(metric=metric, question=None, **options)
            return
        from runner.storage.foreign.question import Question

        command(metric=metric, question=Question(metric=metric or "", **given), **options)

    return _options(with_question)


def opened(path: Path, question: "Question | None") -> "Results":
    """The table of another tool, if there is a question about it, or else the sweep in a folder."""
    if question:
        from runner.storage.foreign import table

        return table.load(path, question)
    from runner.storage.results import load

    if path.is_file():
        raise UserError(f"{path}: is a file, and no sweep; a table of another tool needs --axis or --wide (see --help)")
    return load(path, whole=False)


def output_path(results: "Results", name: str) -> Path:
    """Where a file about them is written: into the sweep's folder, or beside the table of another tool."""
    folder = results.folder
    return folder.with_name(f"{folder.stem}-{name}") if results.stated else folder / name
