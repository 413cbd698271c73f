"""What is registered, as text: networks and data sets."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from runner import registry, yaml_source
from runner.errors import Fault, Place, UserError
from runner.spec import RunSpec


def network_listing() -> Iterator[str]:
    """A line per network: its name and its docstring's first line."""
    width = max(map(len, registry.network))
    for name, factory in sorted(registry.network.items()):
        yield f"{name:<{width}}  {registry.summary(factory)}"


def network_page(name: str, assignments: Sequence[str]) -> Iterator[str]:
    """A network's docstring, arguments, parameter count and layers, built with `key=value` arguments.

    Errors: UserError where the name, an argument or its value is not allowed.
    """
    from runner.model import build_network, parameter_count

    factory = registry.network[name]
    yield f"{name}{_signature(factory)}"
    yield ""
    yield inspect.getdoc(factory) or ""
    network = build_network(RunSpec(network=name, network_args=_arguments(name, factory, assignments)))
    yield ""
    yield f"parameters: {parameter_count(network):,}"
    yield f"layers: {network}"


def _arguments(name: str, factory: Any, assignments: Sequence[str]) -> dict[str, Any]:
    arguments = {}
    for assignment in assignments:
        place = Place(f"--set {assignment}")
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(Fault("expected key=value, such as --set norm=batch", place))
        arguments[key] = yaml_source.read(text, place.file).values
        if "." not in key and (fault := registry.kwarg_fault("network", name, factory, key, arguments[key])):
            raise UserError(Fault(fault, place))
    missing = [key for key, (_, default) in registry.signature(factory).items() if default is registry.REQUIRED]
    if absent := [key for key in missing if key not in arguments]:
        raise UserError(f"network '{name}' needs {', '.join(f'--set {key}=…' for key in absent)}")
    return arguments


def _signature(factory: Any) -> str:
    parts = []
    for key, (annotation, default) in registry.signature(factory).items():
        shown = "" if default is registry.REQUIRED else f" = {default!r}"
        parts.append(f"{key}: {_type_name(annotation)}{shown}")
    return f"({', '.join(parts)})"


def _type_name(annotation: Any) -> str:
    if hasattr(annotation, "__metadata__"):  # Annotated: the constraint is told where it is broken
        return _type_name(annotation.__origin__)
    if type(annotation).__name__ == "_LiteralGenericAlias":
        return "|".join(map(str, get_args(annotation)))
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def dataset_listing() -> Iterator[str]:
    """A line per data set: its name and its docstring's first line."""
    width = max(map(len, registry.dataset))
    for name, factory in sorted(registry.dataset.items()):
        yield f"{name:<{width}}  {registry.summary(factory)}"


def check_datasets(names: Sequence[str], root: Path, *, download: bool) -> Iterator[str]:
    """A line per data set that is there and verified.

    Errors: UserError after the last one, with every data set that is not.
    """
    faults: list[Fault] = []
    for name in names:
        try:
            data = registry.dataset[name](root, download)
            yield f"{name}: ok, {len(data.train):,} + {len(data.test):,} samples"
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)
