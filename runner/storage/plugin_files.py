"""The source files of plugins: each plugin's own file, and the modules that it imports."""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec, resolve_name
from itertools import accumulate
from pathlib import Path
from types import ModuleType

from runner.errors import UserError
from runner.registry import brought_by, plugin_modules, plugin_packages, plugin_parts

INSTALLED = {"site-packages", "dist-packages"}
"""The folders of installed packages."""

PYTHON = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]

VERSIONED = {"bnbench", "runner", "torch", "torchvision", "numpy", "pandas", "scipy", "sklearn"}
"""Packages that environment.json describes, wherever they are."""


def digests(plugins: Iterable[str]) -> dict[Path, str]:
    """The SHA-256 of each source file of these plugins, in an order that does not depend on where they are.

    A module is one of a plugin's if the plugin, or another of its modules, has an `import` of it, also inside a
    function, or if it came with the plugin's import. Modules of Python, of installed packages and of the packages
    whose entry points are plugins do not count.
    """
    files = [path for plugin in plugins for path in files_of(plugin_parts(plugin)[0])]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def files_of(plugin: Path) -> list[Path]:
    """The plugin's own file, and those of its modules."""
    return [plugin.resolve(), *_modules(plugin)]


def digest(plugins: Iterable[str]) -> str:
    """One digest of all source files of these plugins."""
    return hashlib.sha256("\n".join(digests(plugins).values()).encode()).hexdigest()


def check_unchanged(plugins: Iterable[str], expected: str) -> None:
    """Errors: UserError where the source files of these plugins have another digest than the expected one."""
    if digest(plugins) != expected:
        changed = "a plugin, or a module that it imports, has changed since this command began"
        raise UserError(f"{changed}; bnbench resume says which one, and how to continue")


def loaded_modules() -> list[ModuleType]:
    """The plugin files that this process has loaded, and the modules that came with them and are in no package."""
    return [module for name, module in plugin_modules().items() if _own_file(name)]


def _modules(plugin: Path) -> list[Path]:
    """The files of the plugin's modules, sorted by the modules' names."""
    excluded = VERSIONED.union(plugin_packages())
    waiting = brought_by(plugin) | _imports(plugin, "")
    seen = set[str]()
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        if name.partition(".")[0] not in excluded and (path := _own_file(name)):
            found[name] = path
            package = name if path.stem == "__init__" else name.rpartition(".")[0]
            waiting |= _imports(path, package) - seen
    return [found[name] for name in sorted(found)]


def _imports(path: Path, package: str) -> set[str]:
    """The names of all modules that a source file of a package may import: every name of an `import` may be one."""
    if path.suffix != ".py":
        return set()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        # Importing it fails, too, and its run says so.
        return set()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A relative import that leads out of the package cannot be resolved.
            with suppress(ImportError):
                base = resolve_name("." * node.level + (node.module or ""), package)
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    # The import of "a.b" imports "a", too.
    return {part for name in names for part in accumulate(name.split("."), "{}.{}".format)}


def _own_file(name: str) -> Path | None:
    """The file of a module that is neither Python's nor an installed package's; None for all other names."""
    origin = _origin(name)
    # This is quick, and most modules are installed.
    if origin is None or INSTALLED & set(Path(origin).parts):
        return None
    path = Path(origin).resolve()
    known = INSTALLED & set(path.parts) or any(path.is_relative_to(folder) for folder in PYTHON)
    return path if path.is_file() and not known else None


def _origin(name: str) -> str | None:
    """The file of a module, also of one that is not imported yet. Nothing is imported here."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return file if isinstance(file, str) else None
    parent = name.rpartition(".")[0]
    spec = None
    # The finders of other packages may raise any of these.
    with suppress(ImportError, ValueError, AttributeError):
        if not parent:
            spec = find_spec(name)
        elif (package := _own_file(parent)) and package.stem == "__init__":
            spec = PathFinder.find_spec(name, [str(package.parent)])
    return spec.origin if spec and spec.has_location else None
