"""What people get wrong in the syntax of YAML: tabs, and colons that are missing or have no space after them."""

import re
from collections.abc import Sequence

import yaml

from runner.errors import Fault, Place, cut


def syntax_fault(error: yaml.MarkedYAMLError, file: str, lines: Sequence[str]) -> Fault:
    """The fault of a text that is not YAML, at the line with the mistake. PyYAML may name a line below it."""
    mark = error.problem_mark
    place = place_in(file, lines, mark.line, mark.column) if mark else Place(file)
    problem = str(error.problem)
    if "'\\t'" in problem:
        return Fault("not YAML: a tab; use spaces instead", place)
    if "':'" in problem or "mapping values" in problem:
        # A text without its colon goes on in the next line.
        above = [number for number, line in enumerate(lines[: place.line - 1]) if line.partition("#")[0].strip()]
        for number in above[-1:]:
            text = lines[number].partition(" #")[0].strip()
            if hint := without_colon(text):
                return Fault(f"not YAML: {hint}", place_in(file, lines, number, lines[number].index(text)))
    return Fault(f"not YAML: {problem}", place)


def place_in(file: str, lines: Sequence[str], line: int, column: int) -> Place:
    """A place of a file, whose line and column count from 0, as PyYAML's do."""
    return Place(file, line + 1, column + 1, lines[line] if line < len(lines) else "")


def without_colon(text: str) -> str | None:
    """How to write a text that was meant as a key with its value, but has no colon or no space after it.

    None for a text that is something else.

    >>> without_colon("lr:0.01"), without_colon("lr 0.01"), without_colon("lr: 0.01")
    ("write a space after the colon: 'lr: 0.01'", "write a colon after the key: 'lr: 0.01'", None)
    """
    if not (found := re.fullmatch(r"([A-Za-z_][\w.]*)(:?)( *)(\S.*)?", text)):
        return None
    key, colon, space, value = found.groups()
    if colon and (space or not value):
        return None
    what = "a space after the colon" if colon else "a colon after the key"
    return f"write {what}: '{key}: {cut(value)}'" if value else f"write {what}: '{key}:'"
