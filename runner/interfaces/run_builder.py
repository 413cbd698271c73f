"""The tutorial's RunBuilder."""

from collections import namedtuple
from collections.abc import Mapping
from itertools import product
from typing import Any

from runner.errors import UserError


class RunBuilder:
    """The tutorial's RunBuilder (deeplizard, "CNN Training Loop Refactoring")."""

    @staticmethod
    def get_runs(params: Mapping[str, Any]) -> list[Any]:
        """A namedtuple `Run` for every combination of the values; the last parameter changes fastest.

        Errors: UserError for a name that cannot be an attribute, and for values that are no list.

        >>> for run in RunBuilder.get_runs({"lr": [0.1, 0.01], "batch_size": [1000]}):
        ...     print(run)
        Run(lr=0.1, batch_size=1000)
        Run(lr=0.01, batch_size=1000)
        """
        try:
            run = namedtuple("Run", params.keys())  # type: ignore[misc]
        except ValueError as error:
            raise UserError(f"RunBuilder.get_runs: {error}") from None
        for key, values in params.items():
            if not isinstance(values, list | tuple | range):
                raise UserError(f"RunBuilder.get_runs: {key} must be a list of values, got {values!r}")
        return [run(*point) for point in product(*params.values())]
