"""Norm layers of a finished network: replaced by others (`swap_norm`), or added after other layers (`insert_norm`).

A forward pass of a copy of the network shows which norm layers are called, the shapes of their inputs, and the layers
whose outputs these inputs are. So any `nn.Module` can be changed, however it is written.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from runner import factories, registry
from runner.config.run_spec import InsertNorm
from runner.training.learners.learner import has_hooks
from runner.training.norm_adapters import Reshaped, copying
from runner.training.norm_trace import NORMS, is_closed, is_norm, title, trace_of


@dataclass
class Change:
    """What was done to which layers.

    `replaced` norm layers, those that are `kept` because they are of the kind that is asked for, those `left` because
    they cannot be replaced (with the reason), layers with a norm layer `inserted` after them, and layers with new
    `biases`.
    """

    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    inserted: list[str] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = [
            (self.replaced, "replaced {} norm layer{}"),
            (self.kept, "kept {} norm layer{}"),
            (self.inserted, "put {} norm layer{} in"),
        ]
        done = [text.format(len(names), "s" * (len(names) > 1)) for names, text in counts if names]
        if self.biases:
            done.append(f"gave a bias to {len(self.biases)} layer{'s' * (len(self.biases) > 1)}")
        text = ", ".join(done) or "replaced no norm layer"
        return f"{text}; not replaced: {', '.join(self.left)}" if self.left else text


def swap_norms(
    network: nn.Module,
    shape: tuple[int, int, int],
    name: str,
    arguments: Mapping[str, Any],
    *,
    bias: bool = True,
    insert: InsertNorm | None = None,
) -> tuple[nn.Module, Change]:
    """Replace each norm layer of a network by the one that is registered as `name`, with as many features.

    The network is changed; it is returned because a network can be a norm layer itself. A new layer keeps `eps`, and
    whether there are γ and β. It starts with the old γ and β if they are not 1 and 0, or not trained. An argument
    `groups` becomes a divisor of the features. A batch or instance norm of torch that is to be replaced by its own kind
    stays as it is, if there are no `arguments`.

    shape: channels, height and width of an image.
    arguments: those that the norm layer does not have are for other arms.
    bias: where `name` is "none", a layer without a bias whose output the norm layer got receives one that starts at 0.
    insert: after which layers norm layers are put, where none follows.

    Errors: ValueError where there is no norm layer to replace and no place for a new one.

    >>> registry.load_plugins()
    >>> plain = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    >>> network, change = swap_norms(plain, (1, 8, 8), "group", {"groups": 3})
    >>> network[1], str(change)
    (GroupNorm(1, 4, eps=1e-05, affine=True, bias=True), 'replaced 1 norm layer')
    """
    swap = _Swap(network, shape, name, arguments)
    swap.replace_all(bias=bias)
    if insert:
        swap.insert_all(insert)
    if not (swap.change.replaced or swap.change.kept or swap.change.inserted):
        left = f" ({', '.join(swap.change.left)})" if swap.change.left else ""
        # Where there are norm layers, more of them would not answer the question.
        hint = "" if insert or left else "; fixed.insert_norm={after: [Conv2d, Linear]} puts norm layers in"
        raise ValueError(f"the network has no norm layer that can be replaced{left}{hint}")
    return swap.network, swap.change


class _Swap:
    def __init__(
        self, network: nn.Module, shape: tuple[int, int, int], name: str, arguments: Mapping[str, Any]
    ) -> None:
        self.network, self.name = network, name
        self.factory = registry.norm[name]
        self.known = factories.signature(self.factory)
        self.arguments = {key: value for key, value in arguments.items() if key in self.known}
        self.trace = trace_of(network, shape)
        self.change = Change()
        self.modules = dict(network.named_modules())

    def replace_all(self, *, bias: bool) -> None:
        for name, module in self.modules.items():
            if not is_norm(module) and not _seems_a_norm(module):
                continue
            if self._in_closed(name):
                self.change.left.append(f"{title(name)} (in a scripted or compiled module)")
            elif not is_norm(module):
                self.change.left.append(f"{title(name)} ({type(module).__name__}: no 'is_norm = True')")
            elif name in self.trace.inputs:
                self._replace_norm(name, module, bias=bias)
            elif not any(name.startswith(f"{norm}.") for norm in self.trace.inputs):
                self.change.left.append(f"{title(name)} (the network does not call it)")
        self.change.left += dict.fromkeys(self.trace.functions)

    def _in_closed(self, name: str) -> bool:
        closed = [outer for outer, module in self.modules.items() if is_closed(module)]
        return any(f"{name}.".startswith(f"{outer}." if outer else "") for outer in closed)

    def _replace_norm(self, name: str, old: nn.Module, *, bias: bool) -> None:
        inner = {} if getattr(old, "is_norm", False) else dict(old.named_children())
        shape = self.trace.inputs[name]
        if reason := _obstacle(old, shape, inner):
            self.change.left.append(f"{title(name)} ({reason})")
            return
        new = self._layer(shape, old, last=bool(_features_are_last(old, shape)))
        if self._is_kept(old, new):
            self.change.kept.append(name)
            return
        if not self._has_its_input_alone(name):
            new = copying(new)
        if inner:
            # timm's norm layers hold the dropout and the activation that follow.
            new = nn.Sequential(new, *inner.values())
        self._put(old, new)
        self.change.replaced.append(name)
        for layer in self.trace.direct[name] if bias and self.name == "none" else ():
            self._give_bias(layer)

    def _is_kept(self, old: nn.Module, new: nn.Module) -> bool:
        new = new.norm if isinstance(new, Reshaped) else new
        families = nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm
        return not self.arguments and any(isinstance(old, kind) and isinstance(new, kind) for kind in families)

    def _has_its_input_alone(self, name: str) -> bool:
        """Whether nothing else sees a norm layer's input: it comes from the layer before it in an nn.Sequential."""
        parent, _, own = name.rpartition(".")
        others = list(self.modules[parent]._modules) if type(self.modules[parent]) is nn.Sequential else []
        before = others[others.index(own) - 1] if own in others[1:] else None
        return before is not None and self.trace.direct[name] == [f"{parent}.{before}".removeprefix(".")]

    def _give_bias(self, name: str) -> None:
        layer: Any = self.modules[name]
        if layer.bias is None:
            features = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            layer.bias = nn.Parameter(torch.zeros(features))
            layer.__dict__["added_bias"] = True
            self.change.biases.append(name)

    def insert_all(self, insert: InsertNorm) -> None:
        followed = {layer for layers in self.trace.direct.values() for layer in layers}
        kinds = tuple(getattr(nn, kind) for kind in insert["after"])
        if insert["skip_last"]:
            followed |= {*list(self.trace.outputs)[-1:]}
        for name in self.trace.outputs:
            layer = self.modules[name]
            if isinstance(layer, kinds) and name not in followed and not self._in_closed(name):
                last = isinstance(layer, nn.Linear) and len(self.trace.outputs[name]) > 2
                self._put(layer, nn.Sequential(layer, self._layer(self.trace.outputs[name], None, last=last)))
                self.change.inserted.append(name)

    def _put(self, old: nn.Module, new: nn.Module) -> None:
        """Put a layer in the place of another one."""
        if self.network is old:
            self.network = new
        _put_everywhere(self.modules, old, new)

    def _layer(self, shape: tuple[int, ...], old: nn.Module | None, *, last: bool) -> nn.Module:
        """The new norm layer for an input of this shape. `last` says whether its features are the last axis."""
        features = shape[-1] if last else shape[1]
        dims = 1 if last or len(shape) == 2 else 2
        arguments = {key: value for key, value in _kept(old).items() if key in self.known} | self.arguments
        if "groups" in self.known:
            arguments["groups"] = _divisor(features, arguments.get("groups", self.known["groups"][1]), dims)
        layer: nn.Module = self.factory(features, dims, **arguments)
        for key, start in (("weight", 1), ("bias", 0)):
            _start_as(getattr(layer, key, None), getattr(old, key, None), start)
        return layer if len(shape) in (2, 4) and not last else Reshaped(layer, last=last)


def _start_as(new: Any, old: Any, start: float) -> None:
    """Let γ or β of a new layer start as the old ones do, if these do not start as usual, or are not trained."""
    both = isinstance(new, nn.Parameter) and isinstance(old, nn.Parameter) and new.shape == old.shape
    if both and ((old != start).any() or not old.requires_grad):
        new.data.copy_(old.data)
        new.requires_grad_(old.requires_grad)


def _obstacle(old: nn.Module, shape: tuple[int, ...], inner: Mapping[str, nn.Module]) -> str | None:
    """Why a norm layer that the network calls cannot be replaced; None where it can."""
    if has_hooks(old):
        return "it has hooks"
    if inner.keys() - {"drop", "act"}:
        return f"{type(old).__name__} holds other layers"
    if _features_are_last(old, shape) is None:
        return "it is not clear which axis holds its features"
    return None


def _features_are_last(old: nn.Module, shape: tuple[int, ...]) -> bool | None:
    """Whether a norm layer's features are the last axis of its input, and not axis 1; None where that is not clear."""
    if len(shape) == 2:
        return False
    if isinstance(old, nn.LayerNorm | nn.RMSNorm):
        if len(old.normalized_shape) > 1 or type(old) in (nn.LayerNorm, nn.RMSNorm):
            return len(old.normalized_shape) == 1
        sizes = set(old.normalized_shape)
    elif isinstance(old, NORMS) or len(shape) > 3:
        return False
    else:
        sizes = {parameter.numel() for parameter in old.parameters()}
    # A class of somebody else may have its features anywhere.
    last, first = shape[-1] in sizes, shape[1] in sizes
    return None if last == first else last


def _kept(old: nn.Module | None) -> dict[str, Any]:
    """The arguments that mean the same in all norm layers, as the old layer has them."""
    kept: dict[str, Any] = {}
    if isinstance(getattr(old, "eps", None), float):
        kept["eps"] = old.eps  # type: ignore[union-attr]
    if isinstance(old, NORMS):
        kept["affine"] = getattr(old, "weight", None) is not None
    return kept


def _divisor(features: int, groups: int, dims: int) -> int:
    """The largest number of groups, at most `groups`, that divides both; for [N, F] a group has two features or more.

    >>> _divisor(24, 32, 2), _divisor(6, 4, 2), _divisor(2, 2, 1)
    (8, 2, 1)
    """
    common = math.gcd(features, groups)
    return next(n for n in range(common, 0, -1) if common % n == 0 and (dims == 2 or n < features or features == 1))


def _seems_a_norm(module: nn.Module) -> bool:
    name = getattr(module, "original_name", type(module).__name__)
    return "norm" in name.lower() and not list(module.children())


def follow(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Let each norm layer that has a method `follow` replace the layer before it by what the method returns.

    Errors: ValueError where one of these norm layers has no layer before it, or where that layer has hooks.
    """
    modules = dict(network.named_modules())
    followers: dict[str, Any] = {name: module for name, module in modules.items() if hasattr(module, "follow")}
    if not followers:
        return
    trace = trace_of(network, shape)
    # What a layer in a Reshaped got, the Reshaped got.
    found = {name: trace.before[name] or trace.before[name.removesuffix(".norm")] for name in followers}
    if alone := [name for name, layers in found.items() if not layers]:
        raise ValueError(f"{title(alone[0])}: no convolution or linear layer with as many features stands before it")
    by_layer = {layer: followers[name] for name, layers in found.items() for layer in layers}
    for layer, follower in by_layer.items():
        if has_hooks(modules[layer]):
            raise ValueError(f"{title(layer)} has hooks, so it cannot be replaced")
        _put_everywhere(modules, modules[layer], follower.follow(modules[layer]))


def _put_everywhere(modules: Mapping[str, nn.Module], old: nn.Module, new: nn.Module) -> None:
    """Put a layer in the place of another one, wherever these modules have it."""
    for parent in modules.values():
        for child, module in parent._modules.items():
            if module is old:
                parent._modules[child] = new
