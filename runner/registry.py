"""Names for things a researcher adds: networks, norm layers, data sets.

A registry maps a name to a factory. The factory's keyword-only parameters are the schema of its config, so there is
no second table of hyperparameters to keep in step. `experiments` and any user's module register themselves on import;
this package knows none of them by name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from runner.errors import UserError, unknown

REQUIRED = inspect.Parameter.empty
"""The default of an argument that has none."""

Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry(Mapping[str, Factory], Generic[Factory]):
    """A mapping of names to factories, filled by decorator:

    >>> network = Registry("network")
    >>> @network("mine")
    ... def mine(*, width: int = 32): ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Factory] = {}

    def __call__(self, name: str) -> Callable[[Factory], Factory]:
        def register(factory: Factory) -> Factory:
            known = self._factories.get(name)
            if known is not None and _where(known) != _where(factory):
                raise UserError(f"two {self.kind}s are called '{name}': {_where(known)} and {_where(factory)}")
            self._factories[name] = factory
            return factory

        return register

    def __getitem__(self, name: str) -> Factory:
        if name not in self._factories:
            raise UserError(unknown(self.kind, name, list(self)))
        return self._factories[name]

    def __contains__(self, name: object) -> bool:
        return name in self._factories

    def __iter__(self) -> Iterator[str]:
        return iter(self._factories)

    def __len__(self) -> int:
        return len(self._factories)


network: Registry[Callable[..., Any]] = Registry("network")
norm: Registry[Callable[..., Any]] = Registry("norm layer")
dataset: Registry[Callable[..., Any]] = Registry("data set")
probe: Registry[Callable[..., Any]] = Registry("probe")


def _where(factory: Callable[..., Any]) -> str:
    code = inspect.unwrap(factory).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def summary(factory: Callable[..., Any]) -> str:
    """The first line of the factory's docstring."""
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def signature(factory: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The factory's keyword-only parameters: name → (annotation, default); `REQUIRED` where it has none.

    Annotations written as strings are evaluated one by one, so that a return annotation that needs torch does not
    make `plan` import it.
    """
    parameters = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = eval(annotation, factory.__globals__)
        parameters[name] = (Any if annotation is inspect.Parameter.empty else annotation, parameter.default)
    return parameters


def takes_anything(factory: Callable[..., Any]) -> bool:
    """Whether the factory has a `**kwargs`, that is, accepts keywords it does not name."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())


def kwarg_fault(kind: str, name: str, factory: Callable[..., Any], key: str, value: object) -> str | None:
    """What is wrong with passing `key=value` to the factory registered as `name`; None where nothing is."""
    parameters = signature(factory)
    if key not in parameters:
        if takes_anything(factory):
            return None
        if not parameters:
            return f"{kind} '{name}' takes no arguments, so not '{key}'"
        return f"{kind} '{name}': {unknown('argument', key, list(parameters))}"
    try:
        TypeAdapter(parameters[key][0]).validate_python(value, strict=True)  # "no" is not a bool
    except ValidationError as error:
        return f"{kind} '{name}', argument '{key}': {error.errors()[0]['msg']}, got {value!r}"
    return None


def load_plugins(files: tuple[str, ...] = ()) -> None:
    """Import everything that registers itself: the `bnbench.plugins` entry points, then the files named.

    Errors: UserError when a file does not exist or does not import (with the reason).
    """
    for entry_point in importlib.metadata.entry_points(group="bnbench.plugins"):
        entry_point.load()
    for file in files:
        _load_file(Path(file))


def _load_file(path: Path) -> None:
    # One module per path: two files of one name in different folders are two plugins.
    name = f"bnbench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plugin {path} does not import: {type(error).__name__}: {error}") from error
