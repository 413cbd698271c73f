"""What is registered, as text: networks and data sets."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from runner import factories, registry
from runner.config import yaml_source
from runner.config.run_spec import RunSpec
from runner.errors import Fault, Place, UserError, described

_TYPES = {NoneType: "null", str: "text", int: "whole number", float: "number", bool: "true | false", dict: "mapping"}


def listing(named: Mapping[str, Any]) -> Iterator[str]:
    """A line for each name: the first line of its docstring."""
    width = max(map(len, named))
    for name, factory in sorted(named.items()):
        yield f"{name:<{width}}  {factories.summary(factory)}"


def network_page(name: str, assignments: Sequence[str]) -> Iterator[str]:
    """A network's docstring, arguments, parameter count and layers. It is built with the `key=value` assignments.

    Errors: UserError where the name, an argument or its value is not allowed.
    """
    from runner.training.networks import build_network, parameter_count

    factory = registry.network[name]
    yield f"{name}: {inspect.getdoc(factory) or ''}"
    if arguments := list(_argument_lines("network", factory)):
        yield from ("", "arguments:", *arguments)
    yield from _norm_lines(factories.signature(factory))
    run = RunSpec(network=name, network_args=_arguments(name, factory, assignments))
    try:
        network = build_network(run)
    except Exception as error:
        reason = described(error)
        raise UserError(f"network '{name}' cannot be built: {reason}") from None
    yield from ("", f"parameters: {parameter_count(network):,}", f"layers: {network}")


def _norm_lines(arguments: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """The norm layers that a network takes by their names, with their arguments if it takes these, too."""
    if "norm" not in arguments or _type_name(arguments["norm"][0]) != _TYPES[str]:
        return
    passed_on = "norm_args" in arguments
    yield from ("", f"norm layers (network.norm){' and their arguments' if passed_on else ''}:")
    for norm, factory in sorted(registry.norm.items()):
        yield f"  {norm}: {factories.summary(factory)}"
        if passed_on:
            yield from (f"  {line}" for line in _argument_lines("network.norm_args", factory))


def _arguments(name: str, factory: Any, assignments: Sequence[str]) -> dict[str, Any]:
    arguments = {}
    for assignment in assignments:
        key, value = yaml_source.read_assignment(assignment, "--set", "norm=batch")
        arguments[key] = value
        if "." not in key and (fault := factories.kwarg_fault("network", name, factory, key, value)):
            raise UserError(Fault(fault, Place(f"--set {assignment}")))
    signature = factories.signature(factory).items()
    required = [key for key, (_, default) in signature if default is factories.REQUIRED]
    if missing := [f"--set {key}=…" for key in required if key not in arguments]:
        raise UserError(f"network '{name}' needs {', '.join(missing)}")
    return arguments


def _argument_lines(prefix: str, factory: Any) -> Iterator[str]:
    """A line for each argument, named as in a config."""
    for key, (annotation, default) in factories.signature(factory).items():
        shown = "required" if default is factories.REQUIRED else f"default {json.dumps(default, default=str)}"
        yield f"  {prefix}.{key}: {_type_name(annotation)}  ({shown})"


def _type_name(annotation: Any) -> str:
    """An annotation in the words of a config, without constraints."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (list, tuple, Sequence):
        return f"list of {_type_name(inner[0])}"
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, inner))
    return _TYPES.get(origin or annotation) or str(getattr(annotation, "__name__", annotation))


def dataset_page(name: str) -> Iterator[str]:
    """A data set's docstring, with its licence and citation, and its shape. Errors: UserError for an unknown name."""
    yield f"{name}: {inspect.getdoc(registry.dataset[name]) or ''}"
    yield f"shape: {registry.dataset.shape(name)}"


def check_datasets(names: Sequence[str], root: Path, download: bool) -> Iterator[str]:
    """Load each data set from the data folder `root`, and yield a line for each that is complete.

    Errors: UserError at the end, with the faults of all others.
    """
    from runner.training.data.datasets import check

    faults: list[Fault] = []
    for name in names:
        try:
            data = registry.dataset[name](root, download)
            check(name, data)
            yield f"{name}: ok, {len(data.train):,} + {len(data.test):,} samples"
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)
