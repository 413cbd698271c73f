"""The digests of the files that turn tables into verdicts, and a measure in words.

A file's digest is that of its code: `bare` says what has no influence on a verdict.
"""

import ast
import hashlib
import io
import os
import re
import sys
import tokenize
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import runner
from runner import registry
from runner.analysis.claims.claim import Claim
from runner.errors import UserError
from runner.storage.plugin_files import files_of

ROOT = Path(runner.__file__).parent

READERS = ("analysis/**/*.py", "storage/**/*.py", "config/contrast.py", "config/grid.py")
"""The files of bnbench that read tables and judge them."""


def bare(source: str, texts: Collection[str] = ()) -> str:
    """Python code without comments, docstrings and empty lines. It is the same text in each version of Python.

    A string that has a space is left out, too, with the brackets around it, if it is one of `texts` or a part of one.
    So the name of a column or of an arm always stays.

    >>> bare('x = 1  # one\\n\\n"A text."\\ny = "#"\\n')
    'x = 1\\ny = "#"'
    >>> bare('print("It is so", "batch")', ["It is so with batch norm."])
    'print(, "batch")'
    """
    spans = [*_comments(source), *_texts(source, texts)]
    code, kept, position = source.encode(), b"", 0
    for start, end in sorted(spans):
        kept += code[position : max(start, position)]
        position = max(position, end)
    return "\n".join(line.rstrip() for line in (kept + code[position:]).decode().split("\n") if line.strip())


def _line_starts(source: str) -> list[int]:
    """Where each line starts, in bytes."""
    return list(accumulate((len(line.encode()) + 1 for line in source.split("\n")), initial=0))


def _comments(source: str) -> Iterator[tuple[int, int]]:
    """The first byte of each comment, and the first byte after it."""
    lines, starts = source.split("\n"), _line_starts(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            start = starts[row - 1] + len(lines[row - 1][:column].encode())
            yield start, start + len(token.string.encode())


def _texts(source: str, texts: Collection[str]) -> Iterator[tuple[int, int]]:
    """The first byte of each docstring and text with its brackets, and the first byte after it."""
    code, starts = source.encode(), _line_starts(source)
    for node in _no_code(ast.parse(source), texts):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        opening, closing = re.search(rb"\(\s*\Z", code[:start]), re.match(rb"\s*\)", code[end:])
        yield (opening.start(), end + closing.end()) if opening and closing else (start, end)


def _no_code(node: ast.AST, texts: Collection[str]) -> Iterator[Any]:
    """The outermost docstrings and texts of a tree."""
    value = node.value if isinstance(node, ast.Expr) else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value
    elif isinstance(node, ast.Constant | ast.JoinedStr):
        if _is_text(node, texts):
            yield node
    else:
        for child in ast.iter_child_nodes(node):
            yield from _no_code(child, texts)


def _is_text(node: ast.Constant | ast.JoinedStr, texts: Collection[str]) -> bool:
    """Whether a string has a space and is a part of a text. What an f-string inserts may be anything."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    if not any(isinstance(word, str) and " " in word for word in words):
        return False
    pattern = re.compile("".join(re.escape(word) if isinstance(word, str) else ".*" for word in words), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def code_digests(claims: Sequence[Claim]) -> dict[str, str]:
    """The digest of each file that turns tables into verdicts about these claims, by its path.

    These are the files of bnbench that read tables and judge them, and those that declare and measure the claims: the
    folder of a package, such as experiments/claims, or the files of a plugin.
    Errors: UserError where a claim or its measure is in no file.
    """
    texts = {text for claim in claims for text in claim.texts}
    readers = sorted(path for pattern in READERS for path in ROOT.glob(pattern))
    found = {f"runner/{path.relative_to(ROOT).as_posix()}": _digest(path) for path in readers}
    return found | {name: _digest(path, texts) for name, path in _files(claims).items()}


def _files(claims: Sequence[Claim]) -> dict[str, Path]:
    """The files that declare and measure the claims, by their names. A name does not depend on where a plugin is."""
    modules = {name for claim in claims for name in _modules(claim) if name.partition(".")[0] != "runner"}
    found: dict[str, Path] = {}
    plugins = []
    for name in sorted(modules):
        path = _file(name)
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        if package in sys.modules:
            folder, files = package.replace(".", "/"), path.parent.rglob("*.py")
            found |= {f"{folder}/{file.relative_to(path.parent).as_posix()}": file for file in files}
        else:
            plugins.append(path)
    if plugins:
        together = os.path.commonpath([path.parent for path in plugins])
        found |= {os.path.relpath(file, together): file for plugin in plugins for file in files_of(plugin)}
    return found


def _modules(claim: Claim) -> set[str]:
    """The modules that declare and measure a claim."""
    declaration = registry.claim.get(claim.name)
    return {function.__module__ for function in (declaration, _function(claim.measure)) if function}


def _file(module: str) -> Path:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise UserError(
            f"module {module}: it declares or measures a claim, but is in no file, so nothing shows its edits"
        )
    return Path(file).resolve()


def _digest(path: Path, texts: Collection[str] = ()) -> str:
    """The digest of a file's code. A plugin may also import compiled code."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with tokenize.open(path) as file:
        return _code_digest(file.read(), frozenset(texts))


@cache
def _code_digest(source: str, texts: frozenset[str]) -> str:
    return digest(bare(source, texts))


def _function(measure: Callable[..., Any]) -> Callable[..., Any]:
    return measure.func if isinstance(measure, partial) else measure


def in_words(measure: Callable[..., Any]) -> str:
    """A measure by its name and all its arguments.

    >>> from runner.analysis.claims.accuracy import final
    >>> in_words(partial(final, arm="batch", epochs=5))
    "final(arm='batch', epochs=5)"
    """
    if not isinstance(measure, partial):
        # A function is shown without its place in memory, which is another one in each process.
        return str(getattr(measure, "__qualname__", None) or repr(measure))
    arguments = [("", value) for value in measure.args]
    arguments += [(f"{name}=", value) for name, value in measure.keywords.items()]
    given = (f"{name}{in_words(value) if callable(value) else repr(value)}" for name, value in arguments)
    return f"{in_words(measure.func)}({', '.join(given)})"
