"""The registries: names of networks, norm layers, data sets and claims, and the function behind each name.

Such a function is called a factory. Its keyword-only parameters are the schema of its config, so there is no second
table of hyperparameters. `experiments` and a user's own module register their factories when they are imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import cache, lru_cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from runner.errors import UserError, described, unknown

REQUIRED = inspect.Parameter.empty
"""Stands for the default of a parameter that has none."""

Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry(dict[str, Factory]):
    """A dictionary from names to factories. A registry is also the decorator that adds to it.

    `runner` has four of them: `network`, `norm`, `dataset` and `claim`.

    kind: what the names stand for, as messages call it.

    Errors: UserError for a name that is not registered, a second factory of one name, or something that is not a
    function.

    >>> network = Registry("network")
    >>> @network("mine")
    ... def mine(*, width: int = 32): ...
    >>> list(network), signature(network["mine"])
    (['mine'], {'width': (<class 'int'>, 32)})
    >>> network["mime"]
    Traceback (most recent call last):
    runner.errors.UserError: unknown network 'mime'; did you mean 'mine'? allowed: mine
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __call__(self, name: str) -> Callable[[Factory], Factory]:
        if not isinstance(name, str) or not name:
            raise UserError(f"a {self.kind}'s decorator takes a name in brackets, not {name!r}")

        def register(factory: Factory) -> Factory:
            if not inspect.isfunction(factory):
                raise UserError(f"{self.kind} '{name}' must be a function, not a {type(factory).__name__}")
            known = self.get(name, factory)
            if _place(known) != _place(factory):
                raise UserError(f"two {self.kind}s are called '{name}': {_place(known)} and {_place(factory)}")
            self[name] = factory
            return factory

        return register

    def __missing__(self, name: str) -> Factory:
        raise UserError(unknown(self.kind, name, list(self)))

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """Undo, at the end of the block, every change that the block makes to the registry."""
        before = dict(self)
        try:
            yield
        finally:
            self.clear()
            self.update(before)


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


class DatasetRegistry(Registry[Callable[..., Any]]):
    """The registry of data sets. Its decorator also takes the shape, so planning knows it without reading the data.

    Errors: UserError for a size that is no positive whole number.

    >>> dataset = DatasetRegistry("data set")
    >>> @dataset("thumbnails", channels=3, height=8, width=8)
    ... def thumbnails(root, download): ...
    >>> dataset.shape("thumbnails")
    Shape(channels=3, height=8, width=8, classes=10)
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.shapes: dict[str, Shape] = {}

    def __call__(
        self, name: str, *, channels: int = 1, height: int = 28, width: int = 28, classes: int = 10
    ) -> Callable[[Factory], Factory]:
        shape = Shape(channels, height, width, classes)
        if not all(type(size) is int and size > 0 for size in astuple(shape)):
            raise UserError(f"data set '{name}': channels, height, width and classes must be whole numbers from 1")
        register = super().__call__(name)

        def declare(factory: Factory) -> Factory:
            register(factory)
            self.shapes[name] = shape
            return factory

        return declare

    def shape(self, name: str) -> Shape:
        """The shape that a data set declares. Errors: UserError for a name that is not registered."""
        self[name]
        return self.shapes.get(name, Shape())


network: Registry[Callable[..., Any]] = Registry("network")
norm: Registry[Callable[..., Any]] = Registry("norm layer")
dataset = DatasetRegistry("data set")
claim: Registry[Callable[[str], Any]] = Registry("claim")


def _place(factory: Callable[..., Any]) -> str:
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
                raise UserError(f"{_place(factory)}: annotation of '{name}': {error}") from None
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
        raise UserError(f"{_place(factory)}: '{key}: {annotation}' cannot be set from a config") from None


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
            return f"{kind} '{name}', argument '{key}': {error.errors()[0]['msg']}, got {value!r}"
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


PLUGINS = "bnbench.plugins"
"""The group of entry points of the packages that register something when they are imported."""

_BROUGHT: dict[str, set[str]] = {}
"""The modules that came with the import of a plugin file, by the name of the file's module."""


def plugin_packages() -> list[str]:
    """The packages whose entry points register something, such as `experiments`."""
    entry_points = importlib.metadata.entry_points(group=PLUGINS)
    return sorted({entry_point.module.partition(".")[0] for entry_point in entry_points})


def load_plugins(files: tuple[str, ...] = ()) -> None:
    """Import everything that registers itself: the entry points of `PLUGINS`, then the given files.

    `mine.py:Net` also registers the class or function `Net` of the file as a network.

    Errors: UserError when a file cannot be imported, with the reason, or when it has no such class or function.
    """
    for entry_point in importlib.metadata.entry_points(group=PLUGINS):
        entry_point.load()
    for plugin in files:
        file, name = plugin_parts(plugin)
        _load_file(file)
        if name:
            _register(file, name)


def plugin_parts(plugin: str) -> tuple[Path, str]:
    """The file of a plugin, and the name of a class or function in it that makes a network; "" where none is named.

    >>> plugin_parts("mine.py:Net"), plugin_parts("mine.py")
    ((PosixPath('mine.py'), 'Net'), (PosixPath('mine.py'), ''))
    """
    found = re.fullmatch(r"(.+\.py):(\w+)", plugin)
    return (Path(found[1]), found[2]) if found else (Path(plugin), "")


def _register(path: Path, name: str) -> None:
    """Register a class or a function of a plugin file, which needs no decorator, as the network of its name."""
    module = sys.modules[_module_name(path)]
    made = getattr(module, name, None)
    if not callable(made):
        names = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise UserError(f"plugin {path}: {unknown('class or function', name, names)}")
    if network.get(name) is made:
        return

    @wraps(made, updated=())
    def factory(**arguments: Any) -> Any:
        return made(**arguments)

    # A class of somebody else need not have a '*' before its arguments.
    given = inspect.signature(made)
    parameters = [
        each.replace(kind=each.KEYWORD_ONLY) if each.kind is each.POSITIONAL_OR_KEYWORD else each
        for each in given.parameters.values()
    ]
    factory.__signature__ = given.replace(parameters=parameters)  # type: ignore[attr-defined]
    network(name)(factory)


def brought_by(file: Path) -> set[str]:
    """The names of the modules that came with the import of a plugin file."""
    return _BROUGHT.get(_module_name(file), set())


def _module_name(path: Path) -> str:
    # The name holds a hash of the path: files of the same name in two folders are two plugins.
    return f"bnbench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def _load_file(path: Path) -> None:
    name = _module_name(path)
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = set(sys.modules)
    try:
        spec.loader.exec_module(module)
    # A plugin may call sys.exit().
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UserError | KeyboardInterrupt):
            raise
        raise UserError(f"plugin {path} does not import: {described(error)}") from error
    _BROUGHT[name] = sys.modules.keys() - before


def plugin_modules() -> dict[str, ModuleType]:
    """The plugin files that this process has loaded, and all modules that came with them, by name."""
    names = _BROUGHT.keys() | set[str]().union(*_BROUGHT.values())
    return {name: sys.modules[name] for name in sorted(names) if name in sys.modules}
