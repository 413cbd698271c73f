"""The faults of a config, collected so that all are reported at once, each with its place."""

import json
from collections.abc import Sequence
from typing import Any

from runner.config.yaml_source import Path, Source
from runner.errors import Fault, Place, UserError


class Faults:
    """Collects the faults of one config.

    `places` holds where the config sets a parameter to a value; under (parameter, "") where it first sets it at all.
    `registered` says whether the plugins are loaded, so that the names of networks and data sets can be checked.
    """

    def __init__(self, source: Source, *, registered: bool = True) -> None:
        self.source, self.registered = source, registered
        self.found: list[Fault] = []
        self.places: dict[tuple[str, str], Place] = {}

    def add(self, message: str, path: Path, *, key: bool = False) -> None:
        """Add a fault of the value at a path of the config; with `key=True`, of its key."""
        self.found.append(Fault(message, self.source.place(path, key=key)))

    def add_for(self, message: str, parameter: str, value: Any) -> None:
        """Add a fault of a run's parameter, at the place where the config sets it to this value, or sets it at all."""
        place = self.places.get((parameter, json.dumps(value))) or self.places.get((parameter, ""))
        self.found.append(Fault(message, place))

    def remember(self, parameter: str, values: Sequence[Any], path: Path) -> None:
        """Keep the place where the config sets a parameter to these values."""
        place = self.source.place(path)
        first = self.places.setdefault((parameter, ""), place)
        # The many values of a helper have one place.
        if len(values) == 1 or first != place:
            for value in values:
                self.places.setdefault((parameter, json.dumps(value)), place)

    def raise_all(self) -> None:
        """Errors: UserError with every fault found so far, in the order of their files and lines."""
        if self.found:
            distinct = dict.fromkeys(self.found)  # one wrong value can break several grids
            raise UserError(*sorted(distinct, key=_order))


def _order(fault: Fault) -> tuple[str, int]:
    place = fault.place
    return (place.file, place.line) if place and place.line else ("", 0)
