"""What in a network's training step is a problem on CUDA. No GPU is needed: the step is taken on the CPU.

Three kinds of operations are found: those that are not deterministic on CUDA, those that wait for the GPU, and those
that use a tensor on the CPU. A step that waits or copies from the CPU cannot be recorded as a CUDA graph.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from runner.training.learners.deterministic_layers import make_deterministic

DIVIDE = "use nn.AdaptiveAvgPool2d or nn.AdaptiveMaxPool2d with a size that divides its input's height and width"
PAD = "pad with zeros"
RESIZE = "resize with mode 'nearest' or 'bilinear', without antialias"

REMEDIES = {
    "_adaptive_avg_pool2d_backward": DIVIDE,
    "adaptive_max_pool2d_backward": DIVIDE,
    "reflection_pad1d_backward": PAD,
    "reflection_pad2d_backward": PAD,
    "reflection_pad3d_backward": PAD,
    "upsample_linear1d_backward": RESIZE,
    "upsample_bicubic2d_backward": RESIZE,
    "_upsample_bilinear2d_aa_backward": RESIZE,
    "_upsample_bicubic2d_aa_backward": RESIZE,
}
"""What to do instead, for the operations where torch has a deterministic way."""

REFUSED: dict[str, Callable[..., bool] | None] = {
    **dict.fromkeys(REMEDIES),
    "_adaptive_avg_pool3d_backward": None,
    "avg_pool3d_backward": None,
    "fractional_max_pool2d_backward": None,
    "fractional_max_pool3d_backward": None,
    "max_unpool2d": None,
    "max_unpool3d": None,
    "grid_sampler_2d_backward": None,
    "grid_sampler_3d_backward": None,
    "_ctc_loss_backward": None,
    "put": None,
    "put_": None,
    "nll_loss2d_forward": lambda _self, _target, _weight, reduction, *_: reduction != 0,
    "_embedding_bag_backward": lambda *arguments: arguments[8] == 2,
    "histc": lambda values, *_: values.is_floating_point(),
    "bincount": lambda _values, weights=None, *_: weights is not None,
    "median": lambda _values, dim=None, *_: dim is not None,
    "nanmedian": lambda _values, dim=None, *_: dim is not None,
    "scatter_reduce": lambda _self, _dim, _index, _src, reduce: reduce == "prod",
    "scatter_reduce_": lambda _self, _dim, _index, _src, reduce: reduce == "prod",
}
"""The operations that raise on CUDA under `torch.use_deterministic_algorithms(True)`, from its documentation (2.14).

The value says for which arguments the operation raises; None: for all. Linear upsampling of images and volumes is
missing here, because `F.interpolate` computes it in another way under this setting.
"""

VALUE = "it reads a value on the host (.item(), or a condition on a tensor)"
SIZE = "the size of a result depends on values (nonzero, or a condition as an index)"

WAITS = {
    "_local_scalar_dense": VALUE,
    "equal": VALUE,
    "nonzero": SIZE,
    "masked_select": SIZE,
    "_unique2": SIZE,
}
"""The operations for which the host waits until the GPU has finished, and why."""


@dataclass(frozen=True)
class Finding:
    """An operation that is a problem on CUDA.

    layer:    The name of the layer that computes it, as in `network.named_modules()`; empty for the network itself.
    kind:     The layer's class.
    problem:  What is wrong, in words.
    remedy:   What to do instead; empty where there is nothing.
    refused:  Whether a run fails because of it, unless it has `deterministic: false`.

    >>> print(Finding("pad", "ReflectionPad2d", "it is not deterministic", "pad with zeros", refused=True))
    layer 'pad' (ReflectionPad2d): it is not deterministic; pad with zeros, or set deterministic: false
    """

    layer: str
    kind: str
    problem: str
    remedy: str
    refused: bool

    def __str__(self) -> str:
        where = f"layer '{self.layer}' ({self.kind})" if self.layer else f"its own forward ({self.kind})"
        remedies = [self.remedy, "set deterministic: false" if self.refused else ""]
        remedy = ", or ".join(filter(None, remedies))
        return f"{where}: {self.problem}" + (f"; {remedy}" if remedy else "")


def findings(network: nn.Module, images: Tensor, labels: Tensor) -> list[Finding]:
    """Take one training step of a copy of the network, and list the operations that are a problem on CUDA.

    images [N, C, H, W] as the network gets them, labels [N]; two samples or more, all on the CPU.
    Errors: those of the network's step.

    >>> network = nn.Sequential(nn.ReflectionPad2d(1), nn.Flatten(), nn.Linear(900, 10))
    >>> findings(network, torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]))  # nothing before the padding is trained
    []
    """
    trial = copy.deepcopy(network).train()
    make_deterministic(trial)
    # `network` has the layers' classes before they were replaced.
    guard = Guard(trial, {name: type(module).__name__ for name, module in network.named_modules()})
    with torch.random.fork_rng(devices=[]):
        guard.step(images, labels)
        waits = any(not finding.refused for finding in guard.found)
        # Beside tensors of the device "meta", a tensor on the CPU can be told apart.
        try:
            trial.to("meta")
            guard.step(images.to("meta"), labels.to("meta"))
        except (Exception, SystemExit) as error:
            # A step that reads values cannot be taken there, and has its finding already.
            if not waits and not any(not finding.refused for finding in guard.found):
                problem = f"not checked for tensors on the CPU ({type(error).__name__} on the meta device)"
                guard.found[Finding("", type(network).__name__, problem, "", refused=False)] = None
    return list(guard.found)


class Guard(TorchDispatchMode):
    """Collects the problems of the operations in its block, and the layer of the network that computes each of them.

    It hooks into the network, which should therefore be a copy. `kinds` are the layers' classes by the layers' names.
    """

    def __init__(self, network: nn.Module, kinds: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network, self.kinds = network, kinds
        self.found: dict[Finding, None] = {}
        self.layer = ""
        self._outer: list[str] = []
        # The nodes of autograd whose layer is known.
        self._nodes: set[Any] = set()
        for name, module in network.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave, always_call=True)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """The training step that is watched: forward pass, loss, backward pass."""
        with self:
            loss = F.cross_entropy(self.network(images), labels)
            loss.backward()

    def _enter(self, layer: str, _module: nn.Module, inputs: Any) -> None:
        self._claim(inputs)
        self._outer.append(self.layer)
        self.layer = layer

    def _leave(self, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
        self._claim([outputs])
        self.layer = self._outer.pop()

    def _claim(self, results: Any) -> None:
        """Note the layer at all new nodes of autograd behind its results, so that the backward pass knows it."""
        waiting = [tensor.grad_fn for tensor in _tensors(results)]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self._nodes:
                self._nodes.add(node)
                node.register_prehook(partial(self._enter_node, self.layer))
                waiting += [following for following, _ in node.next_functions]

    def _enter_node(self, layer: str, _gradients: Any) -> None:
        self.layer = layer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in REFUSED and (REFUSED[name] or _always)(*args):
            self._add(f"it is not deterministic on CUDA ({name})", REMEDIES.get(name, ""), refused=True)
        if name.startswith("index") and any(_is_condition(tensor) for tensor in _tensors(args[1:2])):
            name = "nonzero"
        if name in WAITS:
            self._add(f"no CUDA graph, because {WAITS[name]}", "compute with tensors, such as torch.where")
        if _uses_the_cpu(name, args, kwargs):
            remedy = "make it on the input's device (device=x.device), or register it as a buffer"
            self._add("no CUDA graph, because it uses a tensor that is on the CPU", remedy)
        return func(*args, **kwargs)

    def _add(self, problem: str, remedy: str, *, refused: bool = False) -> None:
        self.found[Finding(self.layer, self.kinds[self.layer], problem, remedy, refused)] = None


def _always(*_: Any) -> bool:
    return True


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _is_condition(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8)


def _uses_the_cpu(name: str, args: Any, kwargs: Any) -> bool:
    """Whether an operation has tensors on the CPU and elsewhere. A single number on the CPU is no obstacle."""
    copies = name in ("copy_", "_to_copy")
    devices = {tensor.device.type for tensor in _tensors(args) if copies or tensor.dim()}
    if name == "_to_copy" and kwargs.get("device") is not None:
        devices.add(kwargs["device"].type)
    return "cpu" in devices and len(devices) > 1
