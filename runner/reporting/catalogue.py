"""What is registered, as text: networks and data sets."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from runner import factories, registry
from runner.config import yaml_source
from runner.config.run_spec import RunSpec
from runner.errors import Fault, Place, UserError, described
from runner.reporting.text_table import TextColumn, table_lines, terminal_width

_TYPES = {NoneType: "null", str: "text", int: "whole number", float: "number", bool: "true | false", dict: "mapping"}


Record = dict[str, Any]
"""What is known about one name. Its keys are those of `--format json`."""


def entries(named: Mapping[str, Any]) -> list[Record]:
    """Each name, with the first line of its docstring."""
    return [{"name": name, "summary": factories.summary(factory)} for name, factory in sorted(named.items())]


def listing(found: Sequence[Record]) -> list[str]:
    """A line for each of the `entries`."""
    columns = [TextColumn("", [entry[key] for entry in found]) for key in ("name", "summary")]
    return table_lines(columns, terminal_width(), ruled=False, headings=False)[0]


def network_record(name: str, assignments: Sequence[str]) -> Record:
    """A network's docstring, arguments, parameter count and layers. It is built with the `key=value` assignments.

    Errors: UserError where the name, an argument or its value is not allowed.
    """
    from runner.training.networks import build_network, parameter_count

    factory = registry.network[name]
    run = RunSpec(network=name, network_args=_arguments(name, factory, assignments))
    try:
        network = build_network(run)
    except Exception as error:
        reason = described(error)
        raise UserError(f"network '{name}' cannot be built: {reason}") from None
    return {
        "name": name,
        "description": inspect.getdoc(factory) or "",
        "arguments": _argument_records("network", factory),
        "norms": _norm_records(factories.signature(factory)),
        "parameters": parameter_count(network),
        "layers": str(network),
    }


def _norm_records(arguments: Mapping[str, tuple[Any, Any]]) -> list[Record]:
    """The norm layers that a network takes by their names, with their arguments if it takes these, too."""
    if "norm" not in arguments or _type_name(arguments["norm"][0]) != _TYPES[str]:
        return []
    passed_on = "norm_args" in arguments
    return [
        {
            "name": name,
            "summary": factories.summary(factory),
            "arguments": _argument_records("network.norm_args", factory) if passed_on else [],
        }
        for name, factory in sorted(registry.norm.items())
    ]


def network_page(record: Record) -> Iterator[str]:
    """A `network_record` as lines of text."""
    yield f"{record['name']}: {record['description']}"
    if record["arguments"]:
        yield from ("", "arguments:", *_argument_lines(record))
    if record["norms"]:
        takes_arguments = any(norm["arguments"] for norm in record["norms"])
        yield from ("", f"norm layers (network.norm){' and their arguments' if takes_arguments else ''}:")
        for norm in record["norms"]:
            yield f"  {norm['name']}: {norm['summary']}"
            yield from (f"  {line}" for line in _argument_lines(norm))
    yield from ("", f"parameters: {record['parameters']:,}", f"layers: {record['layers']}")


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


def _argument_records(prefix: str, factory: Any) -> list[Record]:
    """Each argument, named as in a config. One that is required has no default."""
    return [
        {"name": f"{prefix}.{key}", "type": _type_name(annotation), "required": default is factories.REQUIRED}
        | ({} if default is factories.REQUIRED else {"default": default})
        for key, (annotation, default) in factories.signature(factory).items()
    ]


def _argument_lines(record: Record) -> Iterator[str]:
    for argument in record["arguments"]:
        default = "required" if argument["required"] else f"default {json.dumps(argument['default'], default=str)}"
        yield f"  {argument['name']}: {argument['type']}  ({default})"


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


def dataset_record(name: str) -> Record:
    """A data set's docstring, with its licence and citation, and its shape. Errors: UserError for an unknown name."""
    description = inspect.getdoc(registry.dataset[name]) or ""
    return {"name": name, "description": description, "shape": asdict(registry.dataset.shape(name))}


def dataset_page(record: Record) -> Iterator[str]:
    """A `dataset_record` as lines of text."""
    yield f"{record['name']}: {record['description']}"
    yield f"shape: {factories.Shape(**record['shape'])}"


def check_datasets(names: Sequence[str], root: Path, download: bool) -> Iterator[Record]:
    """Load each data set from the data folder `root`, and yield a record for each that is complete.

    Errors: UserError at the end, with the faults of all others.
    """
    from runner.training.data.datasets import check

    faults: list[Fault] = []
    for name in names:
        try:
            data = registry.dataset[name](root, download)
            check(name, data)
            yield {"name": name, "train": len(data.train), "test": len(data.test)}
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)


def checked_line(record: Record) -> str:
    """A record of `check_datasets` as text."""
    return f"{record['name']}: ok, {record['train']:,} + {record['test']:,} samples"
