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
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

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
        if not isinstance(name, str) or not name:
            raise UserError(f"@{self.kind.replace(' ', '_')} takes a name in brackets, such as ('mine'); got {name!r}")

        def register(factory: Factory) -> Factory:
            if not inspect.isfunction(factory):
                raise UserError(f"{self.kind} '{name}' must be a function, not a {type(factory).__name__}")
            known = self._factories.get(name)
            if known is not None and _where(known) != _where(factory):
                raise UserError(f"two {self.kind}s are called '{name}': {_where(known)} and {_where(factory)}")
            self._factories[name] = factory
            return factory

        return register

    @contextmanager
    def temporary(self, factories: Mapping[str, Factory] | None = None) -> Iterator[None]:
        """Within the block the registry holds `factories` (default: what it holds now), and what is registered there.

        After the block it is as it was before.
        """
        before = self._factories
        self._factories = dict(before if factories is None else factories)
        try:
            yield
        finally:
            self._factories = before

    def __getitem__(self, name: str) -> Factory:
        if name not in self._factories:
            raise UserError(unknown(self.kind, name, list(self)))
        return self._factories[name]

    def get(self, name: object, default: Any = None) -> Any:
        return self._factories.get(name, default) if isinstance(name, str) else default

    def __contains__(self, name: object) -> bool:
        return name in self._factories

    def __iter__(self) -> Iterator[str]:
        return iter(self._factories)

    def __len__(self) -> int:
        return len(self._factories)


network: Registry[Callable[..., Any]] = Registry("network")
norm: Registry[Callable[..., Any]] = Registry("norm layer")
dataset: Registry[Callable[..., Any]] = Registry("data set")
claim: Registry[Callable[[str], Any]] = Registry("claim")


def _where(factory: Callable[..., Any]) -> str:
    code = inspect.unwrap(factory).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def summary(factory: Callable[..., Any]) -> str:
    """The first line of the factory's docstring."""
    return (inspect.getdoc(factory) or "").partition("\n")[0]


@cache
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
            try:
                annotation = eval(annotation, factory.__globals__)
            except Exception as error:
                raise UserError(f"{_where(factory)}: the annotation of '{name}' does not evaluate: {error}") from None
        parameters[name] = (Any if annotation is inspect.Parameter.empty else annotation, parameter.default)
    return parameters


def takes_anything(factory: Callable[..., Any]) -> bool:
    """Whether the factory has a `**kwargs`, that is, accepts keywords it does not name."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())


def coerced(factory: Callable[..., Any], key: str, value: Any) -> Any:
    """The value as the factory's annotation takes it: 1 for a float is 1.0, so that both spellings are one run."""
    parameters = signature(factory)
    if key not in parameters:
        return value
    with suppress(ValidationError):  # told by `kwarg_fault`
        value = _adapter(factory, key).validate_python(value, strict=True)
    return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0


@lru_cache(maxsize=1000)
def _adapter(factory: Callable[..., Any], key: str) -> TypeAdapter[Any]:
    annotation = signature(factory)[key][0]
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        raise UserError(f"{_where(factory)}: '{key}: {annotation}' cannot be set from a config") from None


def kwarg_fault(kind: str, name: str, factory: Callable[..., Any], key: str, value: object) -> str | None:
    """What is wrong with passing `key=value` to the factory registered as `name`; None where nothing is."""
    parameters = signature(factory)
    if key not in parameters:
        if takes_anything(factory):
            return None
        if not parameters:
            rest = list(inspect.signature(factory).parameters)
            hint = (
                f"; its {', '.join(rest)} would have to be keyword-only: put '*, ' first"
                if rest and kind == "network"
                else ""
            )
            return f"{kind} '{name}' takes no arguments, so not '{key}'{hint}"
        return f"{kind} '{name}': {unknown('argument', key, list(parameters))}"
    try:
        _adapter(factory, key).validate_python(value, strict=True)  # "no" is not a bool
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
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name no file system takes
        there = False
    if not there:
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() at import included
        del sys.modules[name]
        raise UserError(f"plugin {path} does not import: {type(error).__name__}: {error}") from error
