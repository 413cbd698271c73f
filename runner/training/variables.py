"""What a network may change where neither a checkpoint nor the next run finds it: variables and odd attributes.

Values are compared by a digest of their pickle. What cannot be pickled, such as an open file, is not compared.
"""

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from runner.storage.plugin_files import loaded_modules
from runner.training.learners.dropout import SeededDropout
from runner.training.learners.learner import attributes, is_plain, named_tensors


class _Pickler(pickle.Pickler):
    """Pickles what a value holds, but of parameters, buffers and layers in `known` (by their `id`) only the name."""

    def __init__(self, file: Any, known: Mapping[int, str]) -> None:
        super().__init__(file)
        self.known = known

    def persistent_id(self, value: Any) -> Any:
        if id(value) in self.known:
            return self.known[id(value)]
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, FunctionType):
            return value.__module__, value.__qualname__, vars(value), value.__defaults__, value.__kwdefaults__
        # torch pickles addresses.
        if isinstance(value, torch.Generator):
            return value.get_state().numpy().tobytes()
        if isinstance(value, Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return str(value.dtype), tuple(value.shape), content.numpy().tobytes()
        return None


def _digests(values: Mapping[str, Any], known: Mapping[int, str]) -> dict[str, str]:
    found = {}
    for name, value in values.items():
        # A plugin may hold anything.
        with suppress(Exception):
            digest = hashlib.sha256()
            _Pickler(SimpleNamespace(write=digest.update), known).dump(value)
            found[name] = digest.hexdigest()
    return found


def plugin_variables() -> dict[str, str]:
    """Digests of the plugins' variables, of their classes' variables, and of what their functions keep."""
    return {
        f"{name} of {plugin.__file__}": value
        for plugin in loaded_modules()
        for name, value in _digests(_names(plugin), {}).items()
    }


def _names(plugin: ModuleType) -> dict[str, Any]:
    names = dict(vars(plugin))
    for kind in vars(plugin).values():
        if isinstance(kind, type) and kind.__module__ == plugin.__name__:
            names |= {f"{kind.__name__}.{name}": value for name, value in vars(kind).items()}
    kept = {name: value for name, value in names.items() if not name.rpartition(".")[2].startswith("__")}
    return {name: value for name, value in kept.items() if not isinstance(value, type | ModuleType)}


def clear_caches() -> None:
    """Forget what the plugins' cached functions (`functools.lru_cache`) have returned."""
    for plugin in loaded_modules():
        for value in vars(plugin).values():
            if callable(clear := getattr(value, "cache_clear", None)):
                clear()


def outside_checkpoints(networks: Iterable[nn.Module]) -> dict[str, str]:
    """Digests of what the networks change and a checkpoint does not hold.

    A checkpoint holds parameters, buffers, and the layers' attributes that are numbers or texts (`learner.State`).
    """
    values = plugin_variables()
    for network in networks:
        layers = dict(network.named_modules())
        known = {id(layer): f"layer '{name}'" for name, layer in layers.items()}
        known |= {id(tensor): name for name, tensor in named_tensors(network)}
        # A seeded dropout has its keys, which follow from seed, epoch and step.
        others = {
            f"attribute {key} of layer '{name}'": value
            for name, layer in layers.items()
            if not isinstance(layer, SeededDropout)
            for key, value in attributes(layer).items()
            if not is_plain(value)
        }
        values |= _digests(others, known)
        values["the kinds of its layers"] = str([(name, type(layer).__qualname__) for name, layer in layers.items()])
    return values


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names whose values differ.

    >>> differing({"a": "1", "b": "2"}, {"b": "3", "c": ""})
    ['a', 'b', 'c']
    """
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
