"""The faults of a config, collected so that all are reported at once, each with its place."""

import json
from typing import Any

from pydantic_core import ErrorDetails

from runner.config.yaml_source import Path, Source
from runner.errors import Fault, Place, UserError


class Faults:
    """Collects the faults of one config.

    `places` holds where the config sets a parameter to a value; under (parameter, "") where it first sets it at all.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[Fault] = []
        self.places: dict[tuple[str, str], Place] = {}

    def add(self, message: str, path: Path, *, key: bool = False) -> None:
        """Add a fault of the value at a path of the config; with `key=True`, of its key."""
        self.found.append(Fault(message, self.source.place(path, key=key)))

    def add_for(self, message: str, parameter: str, value: Any) -> None:
        """Add a fault of a run's parameter, at the place where the config sets it to this value."""
        self.found.append(Fault(message, self.places.get((parameter, json.dumps(value)))))

    def remember(self, parameter: str, value: Any, path: Path) -> None:
        """Keep the place where the config sets a parameter to a value."""
        for text in (json.dumps(value), ""):
            self.places.setdefault((parameter, text), self.source.place(path))

    def raise_all(self) -> None:
        """Errors: UserError with every fault found so far, in the order of their lines."""
        if self.found:
            distinct = dict.fromkeys(self.found)  # one wrong value can break several grids
            raise UserError(*sorted(distinct, key=lambda fault: fault.place.line if fault.place else 0))


def refusal(name: str, problem: ErrorDetails) -> str:
    """The message for a value that pydantic refuses."""
    reason = problem["msg"]
    return f"{name}: {reason[:1].lower()}{reason[1:]}, got {short(problem['input'])}"


def short(value: Any) -> str:
    """A value as a message quotes it: cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
