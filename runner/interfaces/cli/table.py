"""The options of commands that also read a table of another tool, and what they open: a sweep, or such a table."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.config.yaml_source import read_assignment
from runner.errors import UserError, short
from runner.interfaces.cli.options import Command, together, whole_number, words

if TYPE_CHECKING:  # They import pandas.
    from runner.storage.foreign.question import Question
    from runner.storage.results import Results


def _words(text: str | None) -> tuple[str, ...]:
    return words(text or "")


_options = together(
    click.option("--axis", metavar="COLUMN", help="Table: the column that holds the arm (a row for each run)."),
    click.option("--wide", type=_words, metavar="A,B,…", help="Table: a column for each arm, instead of --axis."),
    click.option(
        "--baseline", metavar="ARM", help="The arm that the others are compared with (default: that of the config)."
    ),
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


def _where(texts: Sequence[str]) -> dict[str, object]:
    pairs = [read_assignment(text, "--where", "lr=0.1") for text in texts]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UserError("--where: a parameter is given twice; a run has one value of it (--group-by compares several)")
    return found


where_option = click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    callback=lambda _context, _option, texts: _where(texts),
    help="Use only runs with this parameter value, e.g. lr=0.1.",
)
target_option = functools.partial(click.option, "--target", type=float, metavar="VALUE")


def _at(text: str) -> str | int:
    if text in ("last", "best"):
        return text
    if epoch := whole_number(text.removeprefix("epoch=")):
        return epoch
    raise click.BadParameter(f"{short(text)}; allowed: last, best, epoch=N")


at_option = click.option(
    "--at", default="last", type=_at, metavar="last|best|epoch=N", help="Compare at this epoch (default: last)."
)

_NAMES = ("axis", "wide", "pair", "better", "share", "smallest_effect")


def table_options(command: Command) -> Command:
    """Add the options of a table. The command receives a `Question` as `question`, or None where RESULTS is a sweep.

    For a sweep, the command receives `baseline`. The command has an option `--metric` of its own.
    """

    @functools.wraps(command)
    def with_question(metric: str | tuple[str, ...] | None, baseline: str | None, **options: Any) -> None:
        given = {name: options.pop(name) for name in _NAMES}
        # 0 is a value, although it equals False.
        given = {name: value for name, value in given.items() if not (value is None or value is False or value == ())}
        question = None
        if given:
            from runner.storage.foreign.question import Question

            first = metric if isinstance(metric, str) else next(iter(metric or ()), "")
            question = Question(metric=first, baseline=baseline or "", **given)
        command(metric=metric, question=question, baseline=baseline, **options)

    return _options(with_question)


def opened(
    path: Path, question: "Question | None", where: Mapping[str, object] | None = None, baseline: str | None = None
) -> "Results":
    """The table of another tool, if there is a question about it, or else the sweep in a folder.

    `where` keeps only the runs whose parameters have these values. `baseline` is another baseline for a sweep.
    """
    from runner.analysis.selection import against, only

    if question:
        from runner.storage.foreign import table

        return only(table.load(path, question), where or {})
    from runner.storage.results import load

    if path.is_file():
        raise UserError(f"{path}: is a file, and no sweep; a table of another tool needs --axis or --wide (see --help)")
    results = only(load(path, whole=False), where or {})
    return (
        results
        if baseline is None
        else against(results, read_assignment(f"baseline={baseline}", "--baseline", "none")[1])
    )


def output_path(results: "Results", name: str) -> Path:
    """Where a file about them is written: into the sweep's folder, or beside the table of another tool."""
    folder = results.folder
    return folder.with_name(f"{folder.stem}-{name}") if results.stated else folder / name
