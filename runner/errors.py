"""What went wrong, said once, in the user's words.

Everything a person can mend (a config, a data folder, a results folder) is raised as `UserError`; the command line
prints it without a traceback and exits with 2. A `Fault` is one thing wrong at one place; a `UserError` carries all
of them, so nobody mends a file one error at a time.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A position in a file (lines and columns count from 1), or in a command line, where `line` is 0."""

    file: str
    line: int = 0
    column: int = 0
    source: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def excerpt(self) -> str:
        """The source line with a caret under the column; empty where there is no line to show."""
        if not self.line:
            return ""
        start = max(0, self.column - 80)  # of a very long line, the part with the caret
        return f"\n{self.line:>6} | {self.source[start : start + 120]}\n       | {' ' * (self.column - 1 - start)}^"


@dataclass(frozen=True)
class Fault:
    """One thing wrong, and where."""

    message: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}{self.place.excerpt()}" if self.place else self.message


MAX_SHOWN = 50


class UserError(Exception):
    """Something the user can mend. Exit code 2."""

    def __init__(self, *faults: Fault | str) -> None:
        self.faults = tuple(Fault(fault) if isinstance(fault, str) else fault for fault in faults)
        shown = [*map(str, self.faults[:MAX_SHOWN])]
        if len(self.faults) > MAX_SHOWN:
            shown.append(f"… and {len(self.faults) - MAX_SHOWN} more")
        super().__init__("\n".join(shown))

    def __reduce__(self) -> tuple[type[UserError], tuple[Fault, ...]]:
        return type(self), self.faults  # an error crosses the worker's pipe with its faults


def allowed(names: Iterable[str]) -> str:
    """'a, b, c' for an error message, cut where a person stops reading."""
    listed = sorted(names)
    return ", ".join(listed[:30]) + (f", … ({len(listed)} in all)" if len(listed) > 30 else "")


def unknown(kind: str, name: object, names: Sequence[str]) -> str:
    """'unknown network 'bach_norm'; did you mean 'batch_norm'? allowed: …'."""
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}'; {hint}allowed: {allowed(names)}"
