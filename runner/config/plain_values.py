"""A config that is given as a dictionary, with the types of Python and numpy → the plain values that YAML has."""

import os
from collections.abc import Mapping
from typing import Any

from runner.config.grid import MAX_RUNS
from runner.config.yaml_source import MAX_DEPTH
from runner.errors import Fault, Place, UserError, short


def plain(value: Any, origin: str, path: tuple[str, ...] = ()) -> Any:
    """The value with lists in place of ranges, tuples and arrays, texts in place of paths, and numbers of Python.

    origin: says in messages where the config comes from; `path` is the value's place in it.

    Errors: UserError for a value that no config has, such as a function.

    >>> import numpy as np
    >>> plain({"seed": range(3), "lr": np.array([0.5, 1.0]), "epochs": np.int64(2), "augment": ("flip",)}, "config")
    {'seed': [0, 1, 2], 'lr': [0.5, 1.0], 'epochs': 2, 'augment': ['flip']}
    >>> plain(np.array([0.1, 0.01], dtype=np.float32), "config")
    [0.1, 0.01]
    """

    def fault(message: str) -> UserError:
        return UserError(Fault(f"{'.'.join(path)}: {message}" if path else message, Place(origin)))

    if len(path) > MAX_DEPTH:
        raise fault(f"nested more than {MAX_DEPTH} deep")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner, origin, (*path, str(key))) for key, inner in value.items()}
    if isinstance(value, range) and len(value) > MAX_RUNS:
        raise fault(f"{len(value):,} values; at most {MAX_RUNS:,}")
    if isinstance(value, list | tuple | range):
        return [plain(inner, origin, (*path, str(index))) for index, inner in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        # An array or a number of numpy, torch or pandas. This module is imported here, because most configs need none.
        import numpy

        numbers = numpy.asarray(value)
        # 0.1 in 32 bits is 0.1, and not 0.10000000149011612.
        exact = numbers.astype(str).astype(float) if numbers.dtype.kind == "f" else numbers
        return plain(exact.tolist(), origin, path)
    raise fault(f"a config has no {type(value).__name__}, got {short(value)}; allowed: numbers, texts, lists, mappings")
