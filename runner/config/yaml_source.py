"""YAML text → plain Python values, with the line and column of each.

This module avoids PyYAML's pitfalls. Duplicate keys, tags, and documents that are too large (also through aliases) are
refused. `1e-3` is a float. `on`, `off`, `yes`, `no` and dates are strings.
"""

import os
import pathlib
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from runner.config.yaml_mistakes import place_in, syntax_fault
from runner.errors import Fault, Place, UserError, cut

MAX_BYTES = 64 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 20

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2's core schema in place of those of YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


def _float(text: str) -> float:
    # Python writes inf and nan without the point.
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"

_SCALARS: dict[str, tuple[str, Callable[[str], object]]] = {
    _TAG + "null": (r"~|null|Null|NULL|", lambda _: None),
    _TAG + "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: {"true": True, "false": False}[text.lower()]),
    _TAG + "int": (r"[-+]?[0-9]+", int),
    _TAG + "float": (_NUMBER + r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", _float),
    _TAG + "str": (r".*", str),
}
"""For each tag: the pattern of the plain scalars that have it, and the function that makes the value."""

for _tag, (_pattern, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), None)


@dataclass
class Source:
    """A document's values with their places.

    `values` is made of plain dicts, lists and scalars. `places` maps a path such as ("grid", "lr", 1) to the value's
    place. `keys` maps the path of a mapping's entry to its key's place.
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

    def at(self, path: Path) -> Any:
        """The value at a path; None where there is none."""
        value = self.values
        for step in path:
            if isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            elif isinstance(value, dict) and isinstance(step, str):
                value = value.get(step)
            else:
                return None
        return value

    def override(self, assignment: str) -> None:
        """Apply `--set key=value`. The value is YAML: `grid.network.norm=[none, batch]` sets one key of `grid`.

        Errors: UserError where there is no `=`, the value is not YAML, or the key leads through something that is not
        a mapping.
        """
        key, value = read_assignment(assignment, "--set", "grid.lr=[0.01,0.1]")
        self.put(_override_path(key), value, Place(_option("--set", assignment)))

    def put(self, path: Path, value: Any, place: Place) -> None:
        """Set the value at a path. A mapping that is missing on the way is made.

        Errors: UserError where the path leads through something that is not a mapping.
        """
        *outer, last = path
        parent = self.values
        for step in outer:
            if isinstance(parent, list) and isinstance(step, int) and step < len(parent):
                parent = parent[step]
            elif isinstance(parent, dict) and isinstance(step, str):
                parent = parent.setdefault(step, [] if step == "grids" else {})
            else:
                parent = None
        if not isinstance(parent, dict):
            through = "'" + cut(".".join(map(str, outer))) + "'" if outer else "the config"
            raise UserError(Fault(f"{through} is not a mapping", place))
        parent[last] = value
        for places in (self.places, self.keys):
            for old in [old for old in places if old[: len(path)] == path]:
                del places[old]
        self.places[path] = self.keys[path] = place


def read_assignment(assignment: str, option: str, example: str) -> tuple[str, Any]:
    """The key and the value (which is YAML) of an option's `key=value`.

    Errors: UserError with the example where there is no key or no `=`.
    """
    place = Place(_option(option, assignment))
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(Fault(f"expected key=value, such as {option} {example}", place))
    return key.strip(), read(text, place.file).values


def _option(option: str, assignment: str) -> str:
    """An option as a message quotes it."""
    return f"{option} {cut(assignment, 100)}"


def _override_path(key: str) -> Path:
    """'grid.network.norm' → ('grid', 'network.norm'): below `fixed`, `grid` and `zip` a dotted name is one key."""
    head, _, rest = key.partition(".")
    if not rest:
        return (head,)
    path: Path = (head,)
    if head == "grids":
        number, _, rest = rest.partition(".")
        path = (head, int(number) if re.fullmatch("[0-9]{1,6}", number) else number)
    if rest.startswith("zip."):
        return (*path, "zip", rest.removeprefix("zip."))
    return (*path, rest)


def file_text(path: pathlib.Path, opened: Callable[[pathlib.Path, int], int] = os.open) -> str:
    """A config's text. `opened` makes a descriptor from the path and the flags of `os.open`.

    Errors: UserError where the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        # With O_NONBLOCK, opening a pipe does not wait for its other end.
        descriptor = opened(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{path}: cannot read the config: not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        _check_size(content, str(path))
        return content.decode()
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot read the config: not UTF-8 text") from None


def _check_size(content: bytes, file: str) -> None:
    """Errors: UserError where a config is too large."""
    if len(content) > MAX_BYTES:
        raise UserError(Fault(f"larger than {MAX_BYTES // 1024} KiB", Place(file)))


def read(text: str, file: str) -> Source:
    """Parse one YAML document.

    file: the name of its file, for messages.

    Errors: UserError with every duplicate key and tag, or with the first syntax error, each with its place.

    >>> source = read("grid:\\n  lr: [0.1, 1e-3]", "a.yaml")
    >>> source.values, str(source.place(("grid", "lr", 1)))
    ({'grid': {'lr': [0.1, 0.001]}}, 'a.yaml:2:13')
    >>> read("lr: 1\\nlr: 2", "a.yaml")
    Traceback (most recent call last):
    runner.errors.UserError: a.yaml:2:1: duplicate key 'lr', first on line 1
    ...
    """
    _check_size(text.encode(errors="surrogatepass"), file)
    source = Source(file)
    builder = _Builder(source, text.splitlines())
    try:
        node = yaml.compose(text, Loader=_Loader)
        source.values = builder.build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        raise UserError(syntax_fault(error, file, builder.lines)) from None
    except yaml.YAMLError as error:
        raise UserError(Fault(f"not YAML: {str(error).splitlines()[0]}", Place(file))) from None
    except (ValueError, OverflowError):
        # PyYAML converts these numbers without a check.
        message = "not YAML: a number in a directive, or of an escaped character, is too large"
        raise UserError(Fault(message, Place(file))) from None
    except RecursionError:
        raise UserError(Fault(f"nested more than {MAX_DEPTH} deep", Place(file))) from None
    if builder.faults:
        raise UserError(*builder.faults)
    return source


class _Builder:
    """Turns PyYAML's nodes into plain values, and notes their places and faults in the source."""

    def __init__(self, source: Source, lines: list[str]) -> None:
        self.source, self.lines = source, lines
        self.faults: list[Fault] = []

    def at(self, mark: Any) -> Place:
        return place_in(self.source.file, self.lines, mark.line, mark.column)

    def build(self, node: yaml.Node, path: Path) -> Any:
        place = self.at(node.start_mark)
        if len(self.source.places) >= MAX_NODES:
            raise UserError(Fault(f"more than {MAX_NODES} values, with aliases expanded", place))
        if len(path) > MAX_DEPTH:
            raise UserError(Fault(f"nested more than {MAX_DEPTH} deep", place))
        self.source.places[path] = place
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        fault = f"the tag {cut(node.tag)} is not allowed here"
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                return _SCALARS[node.tag][1](node.value)
            except (KeyError, ValueError):
                # An explicit tag may not fit, and a whole number may have thousands of digits.
                fault = f"the value does not fit the type {node.tag.removeprefix(_TAG)}, or has too many digits"
        self.faults.append(Fault(fault, place))
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Mapping[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.at(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault("a key must be a word, not a list or a mapping", place))
            elif (key := str(key_node.value)) in values:
                first = self.source.keys[(*path, key)].line
                self.faults.append(Fault(f"duplicate key '{key}', first on line {first}", place))
            else:
                self.source.keys[(*path, key)] = place
                values[key] = self.build(value_node, (*path, key))
        return values


class _Dumper(yaml.SafeDumper):
    """Quotes a string that `_Loader` would read as another type."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # In another style, PyYAML writes these characters as they are, and reads them as "\n".
        style = '"' if re.search("[\x85\u2028\u2029]", data) else None
        return self.represent_scalar(_TAG + "str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump(values: Mapping[str, Any]) -> str:
    """The values as YAML text, which `read` turns into the same values. Keys keep their order, inner lists one line."""
    return yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
