"""The registries: names of networks, norm layers, data sets and claims, and the function behind each name.

Such a function is called a factory. `experiments` and a user's own module register their factories when they are
imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from functools import cache, wraps
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from runner.errors import UserError, described, unknown
from runner.factories import Shape, place

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
    >>> list(network)
    ['mine']
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
            if place(known) != place(factory):
                raise UserError(f"two {self.kind}s are called '{name}': {place(known)} and {place(factory)}")
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


BUILT_IN = "experiments"
"""The package beside this one that registers what belongs to bnbench."""

PLUGINS = "bnbench.plugins"
"""The group of entry points of the other packages that register something when they are imported."""

_BROUGHT: dict[str, set[str]] = {}
"""The modules that came with the import of a plugin file, by the name of the file's module."""


def plugin_packages() -> list[str]:
    """The packages that register something when they are imported: `BUILT_IN`, and those with entry points."""
    return sorted({BUILT_IN} | {entry_point.module.partition(".")[0] for entry_point in _entry_points()})


@cache
def _entry_points() -> importlib.metadata.EntryPoints:
    """Those of `PLUGINS`. Every installed package is asked for them, which takes tens of milliseconds."""
    return importlib.metadata.entry_points(group=PLUGINS)


def load_plugins(files: tuple[str, ...] = ()) -> None:
    """Import everything that registers itself: `BUILT_IN`, the entry points of `PLUGINS`, then the given files.

    `mine.py:Net` also registers the class or function `Net` of the file as a network.

    Errors: UserError when a file cannot be imported, with the reason, or when it has no such class or function.
    """
    _load_built_in()
    for entry_point in _entry_points():
        entry_point.load()
    for plugin in files:
        file, name = plugin_parts(plugin)
        _load_file(file)
        if name:
            _register(file, name)


def _load_built_in() -> None:
    """Import `BUILT_IN`: the package beside this one, although a folder of a user may have its name.

    Errors: UserError where such a folder is imported already.
    """
    # (On a node of a Ray cluster, each package is in a folder of its own.)
    spec = PathFinder.find_spec(BUILT_IN, [str(Path(__file__).resolve().parent.parent), *sys.path])
    assert spec is not None
    assert spec.loader is not None
    assert spec.origin is not None
    known = sys.modules.get(BUILT_IN)
    if known is None:
        sys.modules[BUILT_IN] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[BUILT_IN])
    elif (file := Path(known.__file__ or next(iter(known.__path__)))).resolve() != Path(spec.origin).resolve():
        raise UserError(f"{file} hides bnbench's package '{BUILT_IN}' ({spec.origin}); give it another name")


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
    if not (inspect.isclass(made) or inspect.isfunction(made)):
        kinds = inspect.isclass, inspect.isfunction
        own = [(key, value) for key, value in vars(module).items() if any(kind(value) for kind in kinds)]
        names = [key for key, value in own if value.__module__ == module.__name__]
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
        if each.kind is not each.VAR_POSITIONAL
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
        if isinstance(error, OSError) and error.filename == str(path):
            raise UserError(f"plugin {path}: {error.strerror}") from None
        raise UserError(f"plugin {path} does not import: {described(error)}") from error
    _BROUGHT[name] = sys.modules.keys() - before


def plugin_modules() -> dict[str, ModuleType]:
    """The plugin files that this process has loaded, and all modules that came with them, by name."""
    names = _BROUGHT.keys() | set[str]().union(*_BROUGHT.values())
    return {name: sys.modules[name] for name in sorted(names) if name in sys.modules}
