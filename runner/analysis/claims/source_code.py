"""The digest of code that decides a verdict. Comments, docstrings and empty lines do not count."""

import ast
import hashlib
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import runner

ROOT = Path(runner.__file__).parent

MODULES = (
    "analysis/claims/*.py",
    "analysis/stats/*.py",
    "analysis/best_lr.py",
    "analysis/metrics.py",
    "analysis/pairing.py",
)
"""The modules that turn tables into verdicts."""

NOT_DECIDING = ("claim.py", "finding.py", "plan.py", "source_code.py", "__init__.py")
"""Modules that declare and record."""


def bare(source: str) -> str:
    """Python code without comments, docstrings and empty lines. It is the same text in each version of Python.

    >>> bare('x = 1  # one\\n\\n"A text."\\ny = "#"\\n')
    'x = 1\\ny = "#"'
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            lines[first] = lines[first][: node.col_offset]
            lines[first + 1 : last + 1] = [""] * (last - first)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def code_digests() -> dict[str, str]:
    """The digest of each module that turns tables into verdicts, by its path."""
    paths = sorted(path for pattern in MODULES for path in ROOT.glob(pattern) if path.name not in NOT_DECIDING)
    return {f"runner/{path.relative_to(ROOT)}": digest(bare(path.read_text(encoding="utf-8"))) for path in paths}


def described(measure: Callable[..., Any]) -> str:
    """A measure by its name and arguments, and by a digest of its code where it is not bnbench's.

    >>> from runner.analysis.claims.accuracy import final
    >>> described(partial(final, arm="batch", epochs=5))
    "accuracy.final(arm='batch', epochs=5)"
    """
    arguments = measure.keywords if isinstance(measure, partial) else {}
    function = measure.func if isinstance(measure, partial) else measure
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    package, _, module = function.__module__.rpartition(".")
    if package == "runner.analysis.claims":
        return f"{module}.{function.__qualname__}({given})"
    try:
        code = digest(bare(textwrap.dedent(inspect.getsource(function))))[:16]
    except (OSError, SyntaxError, tokenize.TokenError):
        # The source of a lambda in the middle of a call is no code of its own.
        code = digest(function.__code__.co_code.hex())[:16]
    return f"{function.__qualname__}({given}) {code}"
