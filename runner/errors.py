"""Errors that a person can correct, in words that say what to change.

A mistake in a config, a data folder or a results folder is raised as `UserError`. The command line prints it without a
traceback and exits with 2. A `Fault` is one mistake at one place. A `UserError` carries all of them, so nobody has to
correct a file one error at a time.
"""

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

MAX_SHOWN = 50


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, also those of the direction of text, and lone surrogates, which cannot be written as UTF-8."""


def printable(text: str, keep: str = "\n\t") -> str:
    r"""The text with its control characters as escapes, so that it changes nothing in a terminal or a log.

    keep: the control characters that stay.

    >>> printable("red \x1b[31m\n"), printable("two\nlines", keep="")
    ('red \\x1b[31m\n', 'two\\nlines')
    """
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def quoted(path: os.PathLike[str]) -> str:
    """A path as a part of a printed command, so that the command can be copied into a shell.

    >>> from pathlib import Path
    >>> quoted(Path("results/my sweep")), quoted(Path("results/pair"))
    ("'results/my sweep'", 'results/pair')
    """
    return shlex.quote(os.fspath(path))


def text_of(error: BaseException) -> str:
    """An error's text, printable. An error of a network may even fail to say what it is."""
    try:
        return printable(str(error))
    except Exception:
        return "it has no text"


def described(error: BaseException) -> str:
    """An error's type and text, printable.

    >>> described(ValueError("no such layer"))
    'ValueError: no such layer'
    """
    return f"{printable(type(error).__name__)}: {text_of(error)}"


def line_of(value: object) -> str:
    r"""A text of somebody else as a part of a message's line: short, and without line breaks.

    >>> line_of("two\nlines")
    'two\\nlines'
    """
    return printable(cut(str(value)), keep="")


def short(value: object) -> str:
    """A value as a message quotes it: cut after 60 characters."""
    return cut(repr(value))


def cut(text: str, most: int = 60) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= most else text[: most - 1] + "…"


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
        """The source line with a caret under the column; empty where there is no line.

        A very long line is cut around the caret. A control character is shown as a space.
        """
        if not self.line:
            return ""
        start = max(0, self.column - 80)
        caret = " " * (self.column - 1 - start) + "^"
        shown = _CONTROL.sub(" ", self.source[start : start + 120])
        return f"\n{self.line:>6} | {shown}\n       | {caret}"


@dataclass(frozen=True)
class Fault:
    """One mistake, and its place where that is known."""

    message: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}{self.place.excerpt()}" if self.place else self.message


class UserError(Exception):
    """An error that the user can correct. The command line exits with 2.

    faults: the mistakes; a plain text is a fault without a place.

    >>> error = UserError(Fault("unknown key 'lt'", Place("a.yaml", 3, 3, "  lt: 0.1")), "no network")
    >>> print(error)
    a.yaml:3:3: unknown key 'lt'
         3 |   lt: 0.1
           |   ^
    no network
    >>> [fault.message for fault in error.faults]
    ["unknown key 'lt'", 'no network']
    """

    def __init__(self, *faults: Fault | str) -> None:
        self.faults = tuple(Fault(fault) if isinstance(fault, str) else fault for fault in faults)
        shown = [str(fault) for fault in self.faults[:MAX_SHOWN]]
        if len(self.faults) > MAX_SHOWN:
            shown.append(f"… and {len(self.faults) - MAX_SHOWN} more")
        super().__init__(printable("\n".join(shown)))

    def __reduce__(self) -> tuple[type[Self], tuple[Fault, ...]]:
        """Pickle the faults, too: a worker sends its errors to the driver."""
        return type(self), self.faults


def allowed(names: Iterable[str]) -> str:
    """The names as a message lists them: 'a, b, c'. A long list is cut after 30."""
    ordered = sorted(names)
    return ", ".join(ordered[:30]) + (f", … ({len(ordered)} in all)" if len(ordered) > 30 else "")


def unknown(kind: str, name: object, names: Sequence[str]) -> str:
    """The message for a name that does not exist, with the nearest one that does.

    >>> unknown("network", "bach_norm", ["lenet", "batch_norm"])
    "unknown network 'bach_norm'; did you mean 'batch_norm'? allowed: batch_norm, lenet"
    """
    meant = nearest(name, names)
    hint = f"did you mean '{meant}'? " if meant else ""
    return f"unknown {kind} '{cut(str(name))}'; {hint}allowed: {allowed(names)}"


_OTHER_WORDS = {
    **{"learningrate": "lr", "accuracy": "valid_accuracy", "loss": "valid_loss", "norm": "network.norm"},
    **{f"{norm}norm": norm for norm in ("batch", "layer", "group", "instance", "rms")},
}
"""What other tools call something, as `_letters` writes it → its name here."""


def nearest(name: object, names: Sequence[str]) -> str | None:
    """The name that somebody meant who wrote another one; None where none is likely.

    It is the same word in another spelling, or what other tools call it, or a word with a typing mistake.

    >>> nearest("FashionMNIST", ["mnist", "fashion_mnist"]), nearest("learning_rate", ["lr", "lr_step"])
    ('fashion_mnist', 'lr')
    >>> nearest("sdg", ["adam", "sgd"]), nearest("foo", ["ok", "oom"])
    ('sgd', None)
    """
    # A search among many names takes seconds.
    if len(names) > 200:
        return None
    text, spelt = _letters(str(name)), {_letters(each): each for each in names}
    if text not in spelt and _OTHER_WORDS.get(text) in names:
        return _OTHER_WORDS[text]
    swapped = [each for each in spelt if sorted(each) == sorted(text)]
    close = swapped or difflib.get_close_matches(text, spelt, n=1, cutoff=0.7)
    return spelt[close[0]] if close else None


def _letters(name: str) -> str:
    return re.sub("[-_ ]", "", name).lower()


def strict() -> bool:
    """Whether a fault of bnbench that training could work around is an error: BNBENCH_STRICT=1 is set, as in tests."""
    return os.environ.get("BNBENCH_STRICT") == "1"
