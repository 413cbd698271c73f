"""What a network may keep where no checkpoint and no new run finds it: variables of its module, and odd attributes."""

import pickle
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from runner.training.learners.learner import PLAIN
from runner.training.sources import loaded_modules

_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, classmethod, staticmethod, property)


def plugin_variables() -> dict[str, bytes]:
    """The values of the plugins' variables and of their classes' variables, as bytes."""
    return {
        f"{name} of {plugin.__file__}": value
        for plugin in loaded_modules()
        for name, value in _as_bytes(_names(plugin)).items()
    }


def _names(plugin: ModuleType) -> dict[str, Any]:
    names = dict(vars(plugin))
    for kind in vars(plugin).values():
        if isinstance(kind, type) and kind.__module__ == plugin.__name__:
            names |= {f"{kind.__name__}.{name}": value for name, value in vars(kind).items()}
    return {name: value for name, value in names.items() if not name.rpartition(".")[2].startswith("__")}


def outside_checkpoints(networks: Iterable[nn.Module]) -> dict[str, bytes]:
    """What the networks keep and a checkpoint does not hold, as bytes.

    A checkpoint holds parameters, buffers, and attributes that are numbers or texts.
    """
    values = plugin_variables()
    for network in networks:
        for name, module in network.named_modules():
            attributes = {key: value for key, value in vars(module).items() if not key.startswith("_")}
            others = {
                f"attribute {key} of layer '{name}'": value
                for key, value in attributes.items()
                if not isinstance(value, Tensor | nn.Module) and type(value) not in PLAIN
            }
            values |= _as_bytes(others)
    return values


def _as_bytes(values: Mapping[str, Any]) -> dict[str, bytes]:
    found = {}
    for name, value in values.items():
        if not isinstance(value, _CODE):
            # What has no bytes cannot be compared.
            with suppress(Exception):
                found[name] = pickle.dumps(value)
    return found


def differing(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> list[str]:
    """The names whose values differ.

    >>> differing({"a": b"1", "b": b"2"}, {"b": b"3", "c": b""})
    ['a', 'b', 'c']
    """
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
