"""Write docs/api.md: the public names, with their signatures and docstrings. Run by `make docs`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bnbench

PAGE = Path(__file__).parent / "api.md"

INTRODUCTION = """\
# The public names

`from bnbench import run` imports such a name. `from runner import run` does the same, but a file `runner.py` of your
own would hide it. All other names can change without a notice. This page is made from the docstrings, by `make docs`.
"""


def page() -> str:
    parts, explained = [INTRODUCTION], set[type]()
    for name in bnbench.__all__:
        value = getattr(bnbench, name)
        parts.append(f"## `{name}`\n")
        if inspect.isclass(value) or inspect.isfunction(value):
            parts += _entry(name, value)
            continue
        parts += _decorator(name, value)
        if type(value) not in explained:
            parts.append(_text(type(value)))
        explained.add(type(value))
    return "\n".join(parts)


def _decorator(name: str, value: Any) -> Iterator[str]:
    yield f"A decorator for a function that makes a {value.kind}.\n"
    yield _code(f"{name}{_arguments(type(value).__call__)}")


def _entry(name: str, value: Any) -> Iterator[str]:
    """The description of a function, or of a class with its methods."""
    if inspect.isfunction(value):
        yield _code(f"{name}{_arguments(value)}")
        yield _text(value)
        return
    if fields := [ast.unparse(node) for node in _tree(value).body if isinstance(node, ast.AnnAssign)]:
        yield _code("\n".join([f"{name}(", *(f"    {field}," for field in fields), ")"]))
    yield _text(value)
    for method, function in vars(value).items():
        function = getattr(function, "__func__", function)  # of a static method, the function
        if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
            yield f"### `{name}.{method}`\n"
            yield _code(f"{method}{_arguments(function)}")
            yield _text(function)


def _tree(value: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _arguments(function: Any) -> str:
    """A function's arguments, and what it returns, as its source has them."""
    node = _tree(function)
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    return f"({arguments}) -> {ast.unparse(node.returns)}"


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _text(value: Any) -> str:
    """A docstring as Markdown: an example becomes a block of code, an argument an entry of a list."""
    parts = []
    for paragraph in (inspect.getdoc(value) or "").split("\n\n"):
        if paragraph.startswith(">>> "):
            parts.append(_code(paragraph).rstrip())
        else:
            parts.append(
                re.sub(r"^(\w+): ", r"- `\1`: ", paragraph, flags=re.MULTILINE).replace("- `Errors`:", "Errors:")
            )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
