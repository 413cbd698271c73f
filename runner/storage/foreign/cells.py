"""The cells of a table of another tool that count: checked, and one value for each run."""

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from runner.errors import UserError, cut, line_of
from runner.storage.foreign.question import Question
from runner.storage.foreign.sources import Place, Source

ORDER = ("epoch", "step")
"""The columns that put the rows of a run in order."""

STATE = ("Name", "State")
"""A table with both columns is an export of W&B, or made like one: `State` says how a run ended."""

MISSING = ("", "-", "na", "n/a", "nan", "none", "null")

MOST = 1e150
"""No metric is larger: its square must be finite."""

PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:[eE]-[0-9]{1,3})?")
"""Pair keys that are numbers: 1 and 1.0 are the same seed. (12e45678 is a commit.)"""


@dataclass
class Cells:
    """The rows that count. `keys` maps the arm (a text) and the pair keys of a run to its number, from 0."""

    keys: dict[tuple[Any, ...], int] = field(default_factory=dict)
    run: "array[int]" = field(default_factory=lambda: array("q"))
    value: "array[float]" = field(default_factory=lambda: array("d"))
    order: "tuple[array[float], ...]" = ()
    order_names: tuple[str, ...] = ()
    places: list[Place] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)
    left_out: list[Place] = field(default_factory=list)


def read(source: Source, asked: Question) -> Cells:
    """Errors: UserError for a cell that should be a number, and is none."""
    names = [asked.axis, *asked.pair]
    order = tuple(name for name in ORDER if name in source.columns and name not in (*names, asked.metric))
    state = STATE[1:] if set(STATE) <= set(source.columns) else ()
    source.check([*order, *state])
    cells = Cells(order=tuple(array("d") for _ in order), order_names=order)
    runs: dict[tuple[str, ...], int] = {}
    n = len(names)
    parsers = [_share if asked.share else _number, *[_finite] * len(order)]
    columns = [*names, asked.metric, *order, *state]
    for place, texts in source.rows(columns):
        key = tuple(texts[:n])
        run = runs.get(key)
        if run is None:
            if not all(text.strip() for text in key):
                cells.left_out.append(place)
                continue
            # An arm stays a text: the versions 1.1 and 1.10 are two arms.
            known = (key[0].strip(), *map(_key_of, key[1:]))
            run = runs[key] = cells.keys.setdefault(known, len(cells.keys))
        if state:
            cells.states[run] = texts[-1].strip().lower()
        # A logger leaves a cell empty where it did not measure. Where it measured "nan", this is the run's value.
        if order and not texts[n].strip():
            continue
        numbers = []
        for parse, name, text in zip(parsers, columns[n:], texts[n:], strict=False):
            try:
                numbers.append(parse(text))
            except ValueError as error:
                message = f"{name} is '{line_of(text)}': {error}"
                raise UserError(f"{source.path}: {source.at(place)}: {message}") from None
        value, *moment = numbers
        cells.run.append(run)
        cells.value.append(value)
        cells.places.append(place)
        for column, number in zip(cells.order, moment, strict=True):
            column.append(number)
    return cells


def _number(text: str) -> float:
    """A number; NaN where it is missing, infinite or NaN.

    Errors: ValueError with the reason for another text, and for a number that is too large.
    """
    try:
        found = float(text)
    except ValueError:
        if text.strip().lower() in MISSING:
            return math.nan
        hint = "; write a decimal point, and no comma" if "," in text else ""
        raise ValueError(f"not a number{hint}") from None
    if "_" in text:
        raise ValueError("not a number")
    if abs(found) > MOST and "inf" not in text.lower():
        raise ValueError(f"too large; allowed: from -{MOST:g} to {MOST:g}")
    return found if math.isfinite(found) else math.nan


def _finite(text: str) -> float:
    """An epoch or a step. Errors: those of `_number`, also where it is missing."""
    found = _number(text)
    if math.isnan(found):
        raise ValueError("not a number")
    return found


def _share(text: str) -> float:
    found = _number(text)
    if not (0 <= found <= 1 or math.isnan(found)):
        raise ValueError("a share (--share) lies from 0 to 1")
    return found


def _key_of(text: str) -> Any:
    """A pair key as a number, where it is a plain one, so that "1" and "1.0" are the same seed."""
    text = text.strip()
    if not PLAIN.fullmatch(text):
        return text
    number = float(text)
    return int(number) if number.is_integer() else number


def last_rows(source: Source, names: Sequence[str], cells: Cells) -> tuple[Any, Literal["last", "last step", ""]]:
    """The number of each run's last row, and which one this is; "" where no run has two.

    Errors: UserError for two rows of one run, or of one run at one moment.
    """
    order = [np.array(cells.run), *map(np.array, cells.order)]
    rows = np.lexsort(order[::-1])
    same = np.ones(max(len(rows) - 1, 0), dtype=bool)
    for column in order:
        same &= column[rows][1:] == column[rows][:-1]
    if same.any():
        first = int(np.flatnonzero(same)[0])
        one, other = sorted(int(row) for row in rows[first : first + 2])
        key = list(cells.keys)[cells.run[one]]
        at = [f"{name} {column[one]:g}" for name, column in zip(cells.order_names, cells.order, strict=True)]
        run = ", ".join([*(f"{name} {line_of(value)}" for name, value in zip(names, key, strict=True)), *at])
        both = f"{source.at(cells.places[one])} and {source.at(cells.places[other])}"
        raise UserError(
            f"{source.path}: {both} have the same {cut(run, 120)}; name all that tells runs apart in --pair"
        )
    last = np.append(order[0][rows][1:] != order[0][rows][:-1], [True][: len(rows)])
    if last.all():
        return rows, ""
    return rows[last], "last" if cells.order_names[0] == ORDER[0] else "last step"
