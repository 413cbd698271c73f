"""What is registered, as text: networks and data sets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from runner import registry
from runner.config import yaml_source
from runner.config.run_spec import RunSpec
from runner.errors import Fault, Place, UserError


def network_listing() -> Iterator[str]:
    """A line per network: its name and its docstring's first line."""
    width = max(map(len, registry.network))
    for name, factory in sorted(registry.network.items()):
        yield f"{name:<{width}}  {registry.summary(factory)}"


def network_page(name: str, assignments: Sequence[str]) -> Iterator[str]:
    """A network's docstring, arguments, parameter count and layers, built with `key=value` arguments.

    Errors: UserError where the name, an argument or its value is not allowed.
    """
    from runner.training.networks import build_network, parameter_count

    factory = registry.network[name]
    yield f"{name}: {inspect.getdoc(factory) or ''}"
    if arguments := list(_arguments_of("network", factory)):
        yield ""
        yield "arguments:"
        yield from arguments
    if "norm" in registry.signature(factory):
        yield ""
        yield "norm layers (network.norm) and their arguments:"
        for norm, norm_factory in sorted(registry.norm.items()):
            yield f"  {norm}: {registry.summary(norm_factory)}"
            yield from (f"  {line}" for line in _arguments_of("network.norm_args", norm_factory))
    run = RunSpec(network=name, network_args=_arguments(name, factory, assignments))
    try:
        network = build_network(run)
    except Exception as error:
        raise UserError(f"network '{name}' cannot be built with these: {type(error).__name__}: {error}") from None
    yield ""
    yield f"parameters: {parameter_count(network):,}"
    yield f"layers: {network}"


def _arguments(name: str, factory: Any, assignments: Sequence[str]) -> dict[str, Any]:
    arguments = {}
    for assignment in assignments:
        key, value = yaml_source.read_assignment(assignment, "--set", "norm=batch")
        arguments[key] = value
        if "." not in key and (fault := registry.kwarg_fault("network", name, factory, key, value)):
            raise UserError(Fault(fault, Place(f"--set {assignment}")))
    missing = [key for key, (_, default) in registry.signature(factory).items() if default is registry.REQUIRED]
    if absent := [key for key in missing if key not in arguments]:
        raise UserError(f"network '{name}' needs {', '.join(f'--set {key}=…' for key in absent)}")
    return arguments


def _arguments_of(prefix: str, factory: Any) -> Iterator[str]:
    """A line per argument, as a config would name it."""
    for key, (annotation, default) in registry.signature(factory).items():
        shown = "required" if default is registry.REQUIRED else f"default {json.dumps(default, default=str)}"
        yield f"  {prefix}.{key}: {_type_name(annotation)}  ({shown})"


def _type_name(annotation: Any) -> str:
    """An annotation in the words of a config."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:  # the constraint is told where it is broken
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (list, tuple, Sequence):
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return "mapping"
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, inner))
    names = {type(None): "null", str: "text", int: "whole number", float: "number", bool: "true | false"}
    return names.get(annotation) or str(getattr(annotation, "__name__", annotation))


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
