"""`extends: base.yaml`: a config that changes another one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.config.grid import ZIP
from runner.config.yaml_source import Path as Keys
from runner.config.yaml_source import Source, file_text, read
from runner.errors import Fault, UserError, printable, short

EXTENDS = "extends"

BY_KEY = ("fixed", "grid")
"""The entries of the top level that are merged key by key. Another entry replaces that of the base."""


def with_bases(source: Source, folder: Path) -> Source:
    """The config together with the configs that it extends, each value with the place in its own file.

    folder: where the config's paths begin.

    Errors: UserError where a base cannot be read, or where a config extends itself through others.
    """
    chain, here = [source], Path(source.file)
    seen = [os.path.realpath(here)]
    while (named := _named(chain[-1])) is not None:
        place = chain[-1].place((EXTENDS,))
        here = folder / named
        if os.path.realpath(here) in seen:
            circle = " extends ".join([*(each.file for each in chain), str(here)])
            raise UserError(Fault(f"extends: a circle: {circle}", place))
        try:
            text = file_text(here)
        except UserError as error:
            raise UserError(Fault(f"extends: {error}", place)) from None
        seen.append(os.path.realpath(here))
        chain.append(_with_folder(read(text, str(here)), here.parent))
        folder = here.parent
    result = chain.pop()
    while chain:
        result = _merged(result, chain.pop())
    return result


def _named(source: Source) -> str | None:
    """The file that a config extends. Errors: UserError where its value is no file's name."""
    if not isinstance(source.values, dict) or (name := source.values.pop(EXTENDS, None)) is None:
        return None
    if not isinstance(name, str) or not name or printable(name, keep="") != name:
        fault = f"extends: must be a file's name, such as base.yaml, got {short(name)}"
        raise UserError(Fault(fault, source.place((EXTENDS,))))
    return name


def _with_folder(base: Source, folder: Path) -> Source:
    """A base with absolute paths of plugins, because they begin at its folder. It has no name: each sweep has its own.

    Errors: UserError where the base is not a mapping.
    """
    if base.values is None:
        base.values = {}
    if not isinstance(base.values, dict):
        raise UserError(Fault("a config is a mapping", base.place(())))
    base.values.pop("name", None)
    if isinstance(plugins := base.values.get("plugins"), list):
        absolute = folder.absolute()
        base.values["plugins"] = [str(absolute / file) if isinstance(file, str) else file for file in plugins]
    return base


def _merged(base: Source, own: Source) -> Source:
    """The base with the values of the config that extends it.

    A run parameter that the config sets in one place (`fixed:`, a grid, a zip) is removed from the base's other places.
    null removes an entry of the base's top level or grid.
    """
    if not isinstance(own.values, dict):
        return own  # Another fault says so.
    for one, other in (("grid", "grids"), ("grids", "grid")):
        if one in own.values:
            _remove(base, (other,))
    here = dict(_parameters(own.values))
    for path, names in list(_parameters(base.values)):
        for name in names:
            if any(name in others for other, others in here.items() if other != path):
                _remove(base, (*path, name))
        if path[-1] == ZIP and base.at(path) == {}:
            _remove(base, path)
    for key, value in own.values.items():
        together = key in BY_KEY and isinstance(value, dict) and isinstance(base.values.get(key), dict)
        for path in [(key, name) for name in value] if together else [(key,)]:
            # Under `fixed:`, null is a value.
            if own.at(path) is None and base.at(path) is not None and path[:-1] != ("fixed",):
                _remove(base, path)
            else:
                _take(base, own, path)
    merged = Source(own.file, base.values, base.places, base.keys)
    merged.places[()] = own.place(())
    return merged


def _parameters(values: dict[str, Any]) -> Iterator[tuple[Keys, list[str]]]:
    """Each mapping of a config that sets run parameters, with their names: `fixed:`, the grids and their zips."""
    several = values.get("grids")
    count = len(several) if isinstance(several, list) else 0
    source = Source("", values)
    for path in [("fixed",), ("grid",), *(("grids", index) for index in range(count))]:
        for inner in (path, (*path, ZIP)):
            if isinstance(found := source.at(inner), dict):
                yield inner, [name for name in found if name != ZIP]


def _remove(source: Source, path: Keys) -> None:
    """Remove a value and its places."""
    outer = source.at(path[:-1])
    if isinstance(outer, dict):
        outer.pop(path[-1], None)
    for places in (source.places, source.keys):
        for old in [old for old in places if old[: len(path)] == path]:
            del places[old]


def _take(source: Source, other: Source, path: Keys) -> None:
    """Take a value of another config, with its places."""
    # A key that is there already keeps its place in the grid's order.
    source.at(path[:-1])[path[-1]] = other.at(path)
    for mine, others in ((source.places, other.places), (source.keys, other.keys)):
        for old in [old for old in mine if old[: len(path)] == path]:
            del mine[old]
        mine.update({each: place for each, place in others.items() if each[: len(path)] == path})
