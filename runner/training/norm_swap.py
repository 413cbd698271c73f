"""Norm layers of a finished network: replaced by others (`swap_norm`), or added after other layers (`insert_norm`).

A forward pass of a copy of the network shows which norm layers are called, the shapes of their inputs, and the layers
whose outputs these inputs are. So any `nn.Module` can be changed, however it is written.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from runner import factories, registry
from runner.config.run_spec import InsertNorm
from runner.training.norm_trace import NORMS, WEIGHTED, is_closed, is_norm, title, trace_of


class Reshaped(nn.Module):
    """A norm layer for inputs that are neither [N, F] nor [N, C, H, W].

    last: the features are the last axis, as in [N, L, F]; the layer gets [N·L, F]. Otherwise they are axis 1, as in
    [N, C, L]; the layer gets [N, C, L, 1].

    >>> Reshaped(nn.BatchNorm1d(3), last=True)(torch.ones(2, 5, 3)).shape
    torch.Size([2, 5, 3])
    """

    is_norm = True

    def __init__(self, norm: nn.Module, *, last: bool) -> None:
        super().__init__()
        self.norm, self.last = norm, last

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2) if self.last else x.flatten(2).unsqueeze(-1)
        result: Tensor = self.norm(flat)
        return result.view(x.shape)


@dataclass
class Change:
    """What was done: the norm layers that were replaced, those that were not (with the reason), the layers that got a
    norm layer, and the layers that got a bias.
    """

    replaced: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    inserted: list[str] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = [(self.replaced, "replaced {} norm layer{}"), (self.inserted, "put {} norm layer{} in")]
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
    whether there are γ and β. An argument `groups` becomes a divisor of the features. A batch or instance norm of torch
    that is to be replaced by its own kind stays as it is, if there are no `arguments`.

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
    if not swap.change.replaced and not swap.change.inserted:
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
        known = factories.signature(registry.norm[name])
        self.arguments = {key: value for key, value in arguments.items() if key in known}
        self.trace = trace_of(network, shape)
        self.change = Change()
        self.modules = dict(network.named_modules())

    def replace_all(self, *, bias: bool) -> None:
        closed = [name for name, module in self.modules.items() if is_closed(module)]
        for name, module in self.modules.items():
            if not is_norm(module) and not _seems_a_norm(module):
                continue
            if any(name.startswith(outer) for outer in closed):
                self.change.left.append(f"{title(name)} (in a scripted or compiled module)")
            elif not is_norm(module):
                self.change.left.append(f"{title(name)} ({type(module).__name__}: no 'is_norm = True')")
            elif name in self.trace.inputs:
                self._replace(name, module, bias=bias)
            elif not any(name.startswith(f"{norm}.") for norm in self.trace.inputs):
                self.change.left.append(f"{title(name)} (the network does not call it)")
        self.change.left += dict.fromkeys(self.trace.functions)

    def _replace(self, name: str, old: nn.Module, *, bias: bool) -> None:
        inner = dict(old.named_children())
        if inner.keys() - {"drop", "act"} and not getattr(old, "is_norm", False):
            self.change.left.append(f"{title(name)} ({type(old).__name__} holds other layers)")
            return
        new = self._layer(self.trace.inputs[name], old)
        if isinstance(old, nn.modules.batchnorm._NormBase) and type(new) is type(old) and not self.arguments:
            new = old
        elif inner and not getattr(old, "is_norm", False):
            # timm's norm layers hold the dropout and the activation that follow.
            new = nn.Sequential(new, *inner.values())
        self._put(old, new)
        self.change.replaced.append(name)
        before: Any = self.modules.get(self.trace.before[name]) if name in self.trace.direct else None
        if bias and self.name == "none" and isinstance(before, WEIGHTED) and before.bias is None:
            features = before.out_features if isinstance(before, nn.Linear) else before.out_channels
            before.bias = nn.Parameter(torch.zeros(features))
            before.__dict__["added_bias"] = True
            self.change.biases.append(self.trace.before[name])

    def insert_all(self, insert: InsertNorm) -> None:
        followed = {self.trace.before[name] for name in self.trace.direct}
        kinds = tuple(getattr(nn, kind) for kind in insert["after"])
        if insert["skip_last"]:
            followed |= {list(self.trace.outputs)[-1]}
        for name in self.trace.outputs:
            layer = self.modules[name]
            if isinstance(layer, kinds) and name not in followed:
                last = isinstance(layer, nn.Linear) and len(self.trace.outputs[name]) > 2
                self._put(layer, nn.Sequential(layer, self._layer(self.trace.outputs[name], None, last=last)))
                self.change.inserted.append(name)

    def _put(self, old: nn.Module, new: nn.Module) -> None:
        """Put a layer in the place of another one."""
        if self.network is old:
            self.network = new
        _replace(self.modules, old, new)

    def _layer(self, shape: tuple[int, ...], old: nn.Module | None, *, last: bool = False) -> nn.Module:
        """The new norm layer for an input of this shape."""
        last = last or (type(old) in (nn.LayerNorm, nn.RMSNorm) and len(old.normalized_shape) == 1 and len(shape) > 2)  # type: ignore[union-attr, arg-type]
        features = shape[-1] if last else shape[1]
        dims = 1 if last or len(shape) == 2 else 2
        factory = registry.norm[self.name]
        known = factories.signature(factory)
        arguments = {key: value for key, value in _kept(old).items() if key in known} | self.arguments
        if "groups" in known:
            arguments["groups"] = _divisor(features, arguments.get("groups", known["groups"][1]), dims)
        layer: nn.Module = factory(features, dims, **arguments)
        return layer if len(shape) in (2, 4) and not last else Reshaped(layer, last=last)


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

    Errors: ValueError where there is no layer before any of these norm layers.
    """
    modules = dict(network.named_modules())
    followers: dict[str, Any] = {name: module for name, module in modules.items() if hasattr(module, "follow")}
    if not followers:
        return
    trace = trace_of(network, shape)
    found = {name: trace.before[name] for name in followers if name in trace.before}
    if not found:
        raise ValueError(f"{title(next(iter(followers)))}: no convolution or linear layer stands before it")
    done = set[str]()
    for name, before in found.items():
        if before not in done:
            done.add(before)
            _replace(modules, modules[before], followers[name].follow(modules[before]))


def _replace(modules: Mapping[str, nn.Module], old: nn.Module, new: nn.Module) -> None:
    """Put a layer in the place of another one, wherever these modules have it."""
    for parent in modules.values():
        for child, module in parent._modules.items():
            if module is old:
                parent._modules[child] = new
