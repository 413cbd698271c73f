"""The tutorial's RunBuilder."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from runner.errors import UserError


class RunBuilder:
    """The tutorial's RunBuilder (deeplizard, "CNN Training Loop Refactoring")."""

    @staticmethod
    def get_runs(params: Mapping[str, Sequence[Any]]) -> list[Any]:
        """`OrderedDict(lr=[.01, .001], batch_size=[1000])` → a list of `Run(lr=…, batch_size=…)` namedtuples.

        Errors: UserError where a key cannot be an attribute's name.
        """
        try:
            run = namedtuple("Run", params.keys())  # type: ignore[misc]
        except ValueError as error:
            raise UserError(f"RunBuilder.get_runs: {error}") from None
        for key, values in params.items():
            if not isinstance(values, list | tuple | range):
                raise UserError(f"RunBuilder.get_runs: {key} must be a list of values, got {values!r}")
        return [run(*point) for point in product(*params.values())]
