"""Which norm layers a network calls, on what, and after which layers: shown by a forward pass of a copy of it."""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.errors import described
from runner.training.data.seeding import generators_unchanged

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
"""torch's normalization layers. `_NormBase` is the base class of batch norm and instance norm."""

FUNCTIONS = {"batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"}
"""torch's normalization functions."""

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
"""The layers that a norm layer can follow: those that may have a bias."""


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalization layer: one of torch's, or one that has `is_norm = True`.

    >>> is_norm(nn.BatchNorm2d(6)), is_norm(nn.Linear(6, 6))
    (True, False)
    """
    return isinstance(module, NORMS) or getattr(module, "is_norm", False) is True


@dataclass
class Trace:
    """What a forward pass showed, by the names of the layers.

    `inputs` has the shape of each norm layer's input, `outputs` the shape of each convolution's and linear layer's
    output, in the order of their last calls. `direct` has, for a norm layer, the layers whose outputs it got unchanged.
    `before` has these, or else the last one before it with as many features. `functions` says where the network calls
    a norm function of torch.
    """

    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    before: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    direct: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    functions: list[str] = field(default_factory=list)


class _Recorder(TorchFunctionMode):
    """Records a forward pass of a network. The network keeps the recorder's hooks, so it should be a copy."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.trace = Trace()
        # The names of the modules that are being called, and those of the norm layers among them.
        self.calling: list[str] = []
        self.norms: list[str] = []
        # The outputs of the layers, each with its version, which an operation in place changes.
        self.tensors: dict[str, tuple[Tensor, int]] = {}
        for name, module in network.named_modules():
            # torch refuses hooks on scripted modules.
            if not isinstance(module, torch.jit.ScriptModule):
                module.register_forward_pre_hook(self._begin(name), with_kwargs=True)
                module.register_forward_hook(self._end(name))

    def _begin(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def begin(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            self.calling.append(name)
            if is_norm(module):
                if not self.norms:
                    self._norm(name, [*arguments, *keywords.values()][0])
                self.norms.append(name)

        return begin

    def _norm(self, name: str, x: Tensor) -> None:
        trace = self.trace
        trace.inputs.setdefault(name, tuple(x.shape))
        same = [layer for layer, (output, version) in self.tensors.items() if output is x and version == x._version]
        alike = [layer for layer, shape in trace.outputs.items() if _as_many_features(shape, x.shape)]
        trace.direct[name] += same
        trace.before[name] += same or alike[-1:]

    def _end(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def end(module: nn.Module, _: Any, output: Any) -> None:
            self.calling.pop()
            if is_norm(module):
                self.norms.pop()
            if isinstance(module, WEIGHTED):
                self.tensors[name] = output, output._version
                self.trace.outputs.pop(name, None)
                self.trace.outputs[name] = tuple(output.shape)

        return end

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in FUNCTIONS and not self.norms:
            self.trace.functions.append(f"{function.__name__} in {title(self.calling[-1] if self.calling else '')}")
        return function(*args, **(kwargs or {}))


def _as_many_features(one: Sequence[int], other: Sequence[int]) -> bool:
    # In [N, L, F] they are the last axis, in [N, C, L] axis 1.
    axes = (1, -1) if len(one) == 3 else (1,)
    return len(one) == len(other) and any(one[axis] == other[axis] for axis in axes)


def trace_of(network: nn.Module, shape: tuple[int, int, int]) -> Trace:
    """What a training step's forward pass of the network calls. The network and all random generators stay as they are.

    shape: channels, height and width of an image.
    Errors: ValueError where the network cannot be copied.
    """
    try:
        twin = copy.deepcopy(network).train()
    except Exception as error:
        raise ValueError(f"norm layers are looked for in a copy of the network, and {described(error)}") from error
    recorder = _Recorder(twin)
    # A compiled module would be compiled.
    eager = torch.compiler.set_stance("force_eager") if any(map(_is_compiled, twin.modules())) else nullcontext()
    with generators_unchanged(torch.device("cpu")), torch.no_grad(), eager, recorder:
        twin(torch.zeros(2, *shape))
    return recorder.trace


def title(name: str) -> str:
    return f"layer '{name}'" if name else "the network"


def is_closed(module: nn.Module) -> bool:
    """Whether a module's layers cannot be replaced, because it is scripted or compiled."""
    return isinstance(module, torch.jit.ScriptModule) or _is_compiled(module)


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod")
