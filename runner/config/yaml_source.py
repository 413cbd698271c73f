"""YAML text → plain Python values, and the line and column each of them came from.

PyYAML's traps are closed here: duplicate keys, tags and oversized or alias-bombed documents are refused; `1e-3` is a
float; `on`, `off`, `yes` and `no` are strings; a date is a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from runner.errors import Fault, Place, UserError

MAX_BYTES = 64 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 20

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with YAML 1.2's core scalars in place of 1.1's."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_NUMBER = list("-+.0123456789")
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"^[-+]?[0-9]+$"), _NUMBER)
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    _NUMBER,
)


@dataclass
class Source:
    """A document's values with their places.

    `values` is plain dicts, lists and scalars; `places` maps a path such as ("grid", "lr", 1) to the value's place,
    `keys` maps the path of a mapping's entry to its key's place.
    """

    file: str
    values: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """The place of the value at `path` (of its key with `key=True`), or of the nearest enclosing value."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(self.file))

    def override(self, assignment: str) -> None:
        """Apply `--set key=value`; the value is YAML. `grid.network.norm=[none, batch]` sets one key of `grid`.

        Errors: UserError when there is no `=`, the value is not YAML, or the key leads through something that is not
        a mapping.
        """
        place = Place(f"--set {assignment}")
        key, value = read_assignment(assignment, "--set", "grid.lr=[0.01,0.1]")
        path = _override_path(key)
        where = self.values
        for step in path[:-1]:
            if isinstance(where, list) and isinstance(step, int) and step < len(where):
                where = where[step]
            elif isinstance(where, dict) and isinstance(step, str):
                where = where.setdefault(step, [] if step == "grids" else {})
            else:
                where = None
        if not isinstance(where, dict):
            raise UserError(Fault(f"'{'.'.join(map(str, path[:-1]))}' is not a mapping", place))
        where[path[-1]] = value
        for places in (self.places, self.keys):
            for old in [old for old in places if old[: len(path)] == path]:
                del places[old]
        self.places[path] = self.keys[path] = place


def read_assignment(assignment: str, option: str, example: str) -> tuple[str, Any]:
    """The key and the value, which is YAML, of an option's `key=value`. Errors: UserError with an example."""
    place = Place(f"{option} {assignment}")
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(Fault(f"expected key=value, such as {option} {example}", place))
    return key.strip(), read(text, place.file).values


def _override_path(key: str) -> Path:
    """'grid.network.norm' → ('grid', 'network.norm'): below `fixed`, `grid` and `zip` a dotted name is one key."""
    head, _, rest = key.partition(".")
    if not rest:
        return (head,)
    if head == "grids":
        number, _, inner = rest.partition(".")
        return (head, int(number) if number.isdecimal() else number, *_override_path_inner(inner))
    return (head, *_override_path_inner(rest))


def _override_path_inner(key: str) -> Path:
    if key.startswith("zip."):
        return ("zip", key.removeprefix("zip."))
    return (key,)


def read(text: str, file: str) -> Source:
    """Parse one YAML document.

    Errors: UserError with every duplicate key and tag, or the first syntax error, each with its place.
    """
    if len(text.encode()) > MAX_BYTES:
        raise UserError(Fault(f"larger than {MAX_BYTES // 1024} KiB: not a config", Place(file)))
    source = Source(file)
    builder = _Builder(source, text.splitlines())
    try:
        node = yaml.compose(text, Loader=_Loader)
        source.values = builder.build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(Fault(f"not YAML: {error.problem or error.context}", builder.at(mark))) from None
    except yaml.YAMLError as error:
        raise UserError(Fault(f"not YAML: {str(error).splitlines()[0]}", Place(file))) from None
    except RecursionError:
        raise UserError(Fault(f"nested more than {MAX_DEPTH} deep", Place(file))) from None
    if builder.faults:
        raise UserError(*builder.faults)
    return source


class _Builder:
    def __init__(self, source: Source, lines: list[str]) -> None:
        self.source, self.lines = source, lines
        self.faults: list[Fault] = []
        self.nodes = 0

    def at(self, mark: Any) -> Place:
        if mark is None:
            return Place(self.source.file)
        line = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Place(self.source.file, mark.line + 1, mark.column + 1, line)

    def build(self, node: yaml.Node, path: Path) -> Any:
        place = self.at(node.start_mark)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise UserError(Fault(f"more than {MAX_NODES} values once its aliases are expanded", place))
        if len(path) > MAX_DEPTH:
            raise UserError(Fault(f"nested more than {MAX_DEPTH} deep", place))
        self.source.places[path] = place
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, place)
        self.faults.append(Fault(f"the tag {node.tag} is not allowed here", place))
        return None

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:  # an explicit tag on a text it does not fit, or an integer of thousands of digits
            self.faults.append(Fault(f"'{node.value[:40]}' is no such value", place))
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Mapping[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.at(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault("a key must be a word, not a list or a mapping", place))
                continue
            key = str(key_node.value)
            if key in values:
                first = self.source.keys[(*path, key)].line
                self.faults.append(Fault(f"duplicate key '{key}', first on line {first}", place))
                continue
            self.source.keys[(*path, key)] = place
            values[key] = self.build(value_node, (*path, key))
        return values


def _float(text: str) -> float:
    special = text.lower().lstrip("+-") in (".inf", ".nan")
    return float(text.replace(".", "", 1) if special else text)


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_SCALARS: dict[str, Callable[[str], object]] = {
    _TAG + "null": lambda _: None,
    _TAG + "bool": _bool,
    _TAG + "int": int,
    _TAG + "float": _float,
    _TAG + "str": str,
}


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def dump(values: Mapping[str, Any]) -> str:
    """YAML text that `read` gives the same values back for; keys in order, inner lists on one line."""
    return yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
