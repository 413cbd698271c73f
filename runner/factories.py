"""Factories: the functions behind registered names. A factory's keyword-only parameters are the schema of its config.

So there is no second table of hyperparameters.
"""

import inspect
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from runner.errors import UserError, short, unknown

REQUIRED = inspect.Parameter.empty
"""Stands for the default of a parameter that has none."""


@dataclass(frozen=True)
class Shape:
    """What a data set's images are like, and how many classes it has. The defaults are those of MNIST."""

    channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = 10

    def __str__(self) -> str:
        return f"images [{self.channels}, {self.height}, {self.width}], {self.classes} classes"

    @property
    def arguments(self) -> dict[str, Any]:
        """What bnbench fills in where a network's factory has a keyword-only parameter of this name."""
        return {"in_channels": self.channels, "image_size": (self.height, self.width), "classes": self.classes}


FILLED_IN = {"in_channels": "int", "image_size": "tuple[int, int]", "classes": "int"}
"""The keyword-only parameters of a factory that bnbench fills in from the data set, with their types."""


def place(factory: Callable[..., Any]) -> str:
    """Where a factory is written: its file and line, or the name of its class."""
    made = inspect.unwrap(factory)
    code = getattr(made, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{made.__module__}.{made.__qualname__}"


def summary(factory: Callable[..., Any]) -> str:
    """The first line of the factory's docstring."""
    return (inspect.getdoc(factory) or "").partition("\n")[0]


@cache
def filled_in(factory: Callable[..., Any]) -> tuple[str, ...]:
    """The keyword-only parameters of a network's factory that bnbench fills in from the data set."""
    parameters = inspect.signature(factory).parameters
    return tuple(
        key for key in FILLED_IN if key in parameters and parameters[key].kind is inspect.Parameter.KEYWORD_ONLY
    )


@cache
def signature(factory: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The keyword-only parameters that a config can set: name → (annotation, default). The default may be `REQUIRED`.

    Annotations that are strings are evaluated one by one. The return annotation is not evaluated, because it may need
    torch, and `bnbench plan` does not import torch.
    """
    made = inspect.unwrap(factory)
    names = getattr(made, "__globals__", None) or vars(sys.modules[made.__module__])
    parameters = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name in FILLED_IN:
            continue
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)
            except Exception as error:
                raise UserError(f"{place(factory)}: annotation of '{name}': {error}") from None
        parameters[name] = (annotation, parameter.default)
    return parameters


def coerced(factory: Callable[..., Any], key: str, value: Any) -> Any:
    """The value in the type of the factory's parameter: 1 becomes 1.0 for a float, so that both are the same run."""
    if key not in signature(factory):
        return value
    # `kwarg_fault` reports a value that is not valid.
    with suppress(ValidationError):
        value = _adapter(factory, key).validate_python(value, strict=True)
    return value + 0.0 if isinstance(value, float) else value  # -0.0 becomes 0.0


@lru_cache(maxsize=1000)
def _adapter(factory: Callable[..., Any], key: str) -> TypeAdapter[Any]:
    annotation = signature(factory)[key][0]
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        raise UserError(f"{place(factory)}: '{key}: {annotation}' cannot be set from a config") from None


_PYDANTICS = (
    ("^(Input|String|List|Tuple|Set|Dictionary) should ", "must "),
    ("^Field required$", "is missing"),
    ("a valid boolean", "true or false"),
    ("a valid integer", "a whole number"),
    ("a valid number", "a number"),
    ("a valid string", "a text"),
    (r"a valid dictionary( or instance of \w+)?|an instance of Mapping", "a mapping"),
    ("a valid (list|tuple)|an instance of Sequence", "a list"),
    ("None", "null"),
    (" after validation|^Value error, ", ""),
)
"""What pydantic says, and what a user of YAML says."""

_YES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def refusal(problem: ErrorDetails) -> str:
    """Why pydantic refuses a value, and the value, in a config's words.

    >>> refusal({"type": "bool_type", "loc": (), "msg": "Input should be a valid boolean", "input": "yes"})
    "must be true or false, got 'yes'; write true"
    """
    reason, value = problem["msg"], problem["input"]
    for theirs, ours in _PYDANTICS:
        reason = re.sub(theirs, ours, reason)
    if problem["type"] == "missing" or repr(value) in reason:
        return reason
    meant = _YES.get(str(value).lower()) if problem["type"].startswith("bool") else None
    return f"{reason}, got {short(value)}" + (f"; write {meant}" if meant else "")


def kwarg_fault(kind: str, name: str, factory: Callable[..., Any], key: str, value: object) -> str | None:
    """Why `key=value` cannot be passed to the factory that is registered as `name`; None where it can."""
    known = signature(factory)
    if key in filled_in(factory):
        return f"{kind} '{name}': bnbench fills in '{key}' from the data set; a config cannot set it"
    if key in known:
        try:
            # strict: the text "no" is not a bool
            _adapter(factory, key).validate_python(value, strict=True)
        except ValidationError as error:
            return f"{kind} '{name}', argument '{key}': {refusal(error.errors()[0])}"
        return None
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    if known:
        return f"{kind} '{name}': {unknown('argument', key, list(known))}"
    hint = ""
    if parameters and kind == "network":
        hint = f"; put '*, ' before {', '.join(parameters)} to make them arguments"
    return f"{kind} '{name}' takes no arguments, got '{key}'{hint}"
