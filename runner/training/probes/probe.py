"""What a network looks like inside while it trains: gradients, activations, norm layers, curvature.

A probe is a function `(network, look) -> {(layer, measure): value}` under `@probe("name")`. It is handed a copy of the
network and may do with it what it likes: a run's rows are the same with and without probes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.registry import probe
from runner.storage.histograms import BINS, Histogram
from runner.training.data.datasets import RunData, Split
from runner.training.evaluation import BATCH, evaluate
from runner.training.networks import is_norm

SAMPLES = 512
"""The first samples of the training set: the same for every run, whatever its batch order."""

PRECISE_SAMPLES = 10_000
"""Over which precise batch norm averages (Wu & Johnson 2021, section 3.2)."""

BATCH_STATISTICS_SAMPLES = 2_000
"""The first samples of the validation set, on which a batch's own statistics are tried."""

BATCH_STATISTICS_SIZES = (2, 8, 64, 256)
"""Not 1: BatchNorm1d refuses a batch of one sample, whose variance says nothing."""

POWER_ITERATIONS = 20

Measures = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Look:
    """What a probe may look at: the run's data, and its learning rate at this epoch."""

    data: RunData
    lr: float

    @property
    def batch(self) -> Split:
        return Split(self.data.train.images[:SAMPLES], self.data.train.labels[:SAMPLES])


Probe = Callable[[nn.Module, Look], Measures]


def measure(network: nn.Module, look: Look, names: Sequence[str]) -> Measures:
    """Every measure of the probes named, each taken on its own copy of the network; no random number is drawn."""
    devices = [look.data.train.labels.device] if look.data.train.labels.is_cuda else []
    found: Measures = {}
    for name in names:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            found |= probe[name](copy.deepcopy(network), look)
    return found


@probe("gradients")
def gradients(network: nn.Module, look: Look) -> Measures:
    """Per layer, the squared norm of the loss's gradient by the layer's output and by its weight, in training mode."""
    network.train()
    with outputs_of(network, lambda module: not is_norm(module)) as outputs:
        loss = F.cross_entropy(network(look.batch.images), look.batch.labels)
        loss.backward()
    found: Measures = {}
    for layer, output in outputs.items():
        if output.grad is not None:
            found[layer, "output_gradient_squared"] = output.grad.double().square().sum().item()
        weight = getattr(network.get_submodule(layer), "weight", None)
        if isinstance(weight, Tensor) and weight.grad is not None:
            found[layer, "weight_gradient_squared"] = weight.grad.double().square().sum().item()
    return found


@probe("activations")
def activations(network: nn.Module, look: Look) -> Measures:
    """Per layer, mean and SD of its output in training mode; of a ReLU the share of units that are 0 on all samples."""
    network.train()
    with outputs_of(network) as outputs:
        network(look.batch.images)
    found: Measures = {}
    for layer, output in outputs.items():
        values = output.detach().double()
        found[layer, "mean"], found[layer, "sd"] = values.mean().item(), values.std(correction=0).item()
        if isinstance(network.get_submodule(layer), nn.ReLU):
            found[layer, "dead_share"] = (values.flatten(1) == 0).all(dim=0).double().mean().item()
    return found


NORM_NAMES = {
    "gamma": ("weight", "gamma"),
    "beta": ("bias", "beta"),
    "running_mean": ("running_mean", "moving_mean"),
    "running_var": ("running_var", "moving_var"),
}
"""What a norm layer may call its numbers: torch's names, and those of hand-written layers."""


@dataclass(frozen=True)
class NormState:
    """A norm layer's γ, β and moving averages before a batch, and the batch's own statistics, float64 [F].

    None where the layer has none; the batch's are None where it keeps no averages per channel. `batch_var` is what a
    layer normalises with: divided by the number of values.
    """

    gamma: Tensor | None
    beta: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    batch_mean: Tensor | None = None
    batch_var: Tensor | None = None

    @property
    def gaps(self) -> tuple[float, float] | None:
        """How far the batch is from the averages, as root mean squares over features.

        Of the means in the moving standard deviations, of the variances their log ratio.
        """
        mean, var, batch_mean, batch_var = self.running_mean, self.running_var, self.batch_mean, self.batch_var
        if mean is None or var is None or batch_mean is None or batch_var is None:
            return None
        tiny = torch.finfo(torch.float32).tiny
        ratio = (batch_var.clamp(min=tiny) / var.clamp(min=tiny)).log()
        distance = (batch_mean - mean).square() / var.clamp(min=tiny)
        return distance.mean().sqrt().item(), ratio.square().mean().sqrt().item()


def norm_states(network: nn.Module, images: Tensor | None) -> dict[str, NormState]:
    """Every norm layer by its name, and what a batch [N, …] is there in training mode; without one, its values alone.

    The network is changed by it: hand over a copy.
    """
    layers = {name: module for name, module in network.named_modules() if is_norm(module)}
    states = {name: _norm_state(module) for name, module in layers.items()}
    if images is None:
        return states
    network.train()
    network.requires_grad_(False)  # not by no_grad: the third document's layer takes that as the sign of evaluation
    with _inputs(layers) as inputs:
        network(images)
    for name, given in inputs.items():
        mean, var = states[name].running_mean, states[name].running_var
        if mean is not None and var is not None and len(mean) == len(var) == given.shape[1]:
            x = given.transpose(0, 1).flatten(1).double()
            states[name] = replace(states[name], batch_mean=x.mean(dim=1), batch_var=x.var(dim=1, correction=0))
    return states


def _norm_state(module: nn.Module) -> NormState:
    """Before a batch: copies."""
    found = {}
    for part, names in NORM_NAMES.items():
        tensors = [value for name in names if isinstance(value := getattr(module, name, None), Tensor)]
        found[part] = tensors[0].detach().clone().double().flatten() if tensors else None
    return NormState(**found)


@probe("norms")
def norms(network: nn.Module, look: Look) -> Measures:
    """Per norm layer, γ, β and the moving averages (mean and SD over features), and how far a batch is from them.

    The gap of the means is in the moving standard deviations, that of the variances the root mean squared log ratio.
    """
    found: Measures = {}
    for layer, state in norm_states(network, look.batch.images).items():
        gaps = state.gaps
        for name in ("gamma", "beta", *(("running_mean", "running_var") if gaps else ())):
            if (values := getattr(state, name)) is not None:
                found |= _spread(layer, name, values)
        if gaps:
            found[layer, "mean_gap"], found[layer, "var_gap"] = gaps
    return found


@probe("precise")
def precise(network: nn.Module, look: Look) -> Measures:
    """Validation loss and accuracy with averages over the training set, at these weights, for the moving averages."""
    for module in network.modules():
        if is_norm(module) and isinstance(getattr(module, "running_mean", None), Tensor):
            module.reset_running_stats()  # type: ignore[operator]
            module.momentum = None  # type: ignore[assignment]
    network.train()
    for images in look.data.train.images[:PRECISE_SAMPLES].split(BATCH):
        network(images)  # with gradients enabled: the third document's layer takes that as the sign of training
    loss, accuracy = evaluate(network, look.data.valid)
    return {("", "precise_valid_loss"): loss, ("", "precise_valid_accuracy"): accuracy}


@probe("batch_statistics")
def batch_statistics(network: nn.Module, look: Look) -> Measures:
    """Validation accuracy where norm layers take the statistics of the batch at hand, of several sizes.

    On the first samples of the validation set, an even number, so that no batch has one; `moving_valid_accuracy` is
    the accuracy with the moving averages on these very samples. A network without norm layers has none of these.
    """
    count = min(BATCH_STATISTICS_SAMPLES, len(look.data.valid)) // 2 * 2
    layers = [module for module in network.modules() if is_norm(module)]
    if not layers or not count:
        return {}
    split = Split(look.data.valid.images[:count], look.data.valid.labels[:count])
    found: Measures = {("", "moving_valid_accuracy"): evaluate(network, split)[1]}
    # No gradient, yet not by no_grad: the third document's layer takes gradients enabled as the sign of training.
    network.requires_grad_(False)
    for layer in layers:
        layer.train()
    for size in BATCH_STATISTICS_SIZES:
        batches = zip(split.images.split(size), split.labels.split(size), strict=True)
        correct = sum((network(images).argmax(dim=1) == labels).sum() for images, labels in batches)
        found["", f"batch_valid_accuracy_{size}"] = float(correct) / count
    return found


@probe("train")
def train(network: nn.Module, look: Look) -> Measures:
    """Loss and accuracy on the training set, in evaluation mode: comparable with validation, as the epoch's are not."""
    loss, accuracy = evaluate(network, look.data.train)
    return {("", "eval_train_loss"): loss, ("", "eval_train_accuracy"): accuracy}


@probe("curvature")
def curvature(network: nn.Module, look: Look) -> Measures:
    """The loss, its largest Hessian eigenvalue (by power iteration) and its gradient predictiveness.

    Predictiveness is ‖∇L(w) − ∇L(w − lr ∇L(w))‖ (Santurkar et al. 2018, section 3.1). Training mode.
    """
    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def gradient(create_graph: bool = False) -> tuple[Tensor, Sequence[Tensor]]:
        loss = F.cross_entropy(network(look.batch.images), look.batch.labels)
        return loss, torch.autograd.grad(loss, parameters, create_graph=create_graph)

    loss, first = gradient(create_graph=True)
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(g.shape, generator=generator).to(g.device) for g in first]
    eigenvalue = 0.0
    for _ in range(POWER_ITERATIONS):
        length = torch.sqrt(sum((v.square().sum() for v in vector), torch.zeros((), device=loss.device)))
        vector = [v / length for v in vector]
        product = torch.autograd.grad(first, parameters, vector, retain_graph=True)
        eigenvalue = float(sum((v * p).sum().item() for v, p in zip(vector, product, strict=True)))
        vector = [p.detach() for p in product]
    with torch.no_grad():
        for parameter, g in zip(parameters, first, strict=True):
            parameter.sub_(g, alpha=look.lr)
    _, second = gradient()
    change = sum((a.detach() - b).double().square().sum().item() for a, b in zip(first, second, strict=True))
    return {
        ("", "probe_loss"): loss.item(),
        ("", "hessian_eigenvalue"): eigenvalue,
        ("", "gradient_change"): change**0.5,
    }


@probe("histograms")
def histograms(network: nn.Module, look: Look) -> Measures:
    """Per parameter, its values and the loss's gradient by it, in training mode, counted in 32 bins from low to high.

    Values that are not finite are in no bin.
    """
    network.train()
    F.cross_entropy(network(look.batch.images), look.batch.labels).backward()
    found: Measures = {}
    for path, parameter in network.named_parameters():
        layer, _, name = path.rpartition(".")
        for label, values in ((name, parameter), (f"{name}_gradient", parameter.grad)):
            if values is not None:
                measures = _histogram(values.detach()).measures(label)
                found |= {(layer, measure): value for measure, value in measures.items()}
    return found


def _histogram(values: Tensor) -> Histogram:
    values = values[values.isfinite()].double().cpu()
    low, high = (values.min().item(), values.max().item()) if len(values) else (0.0, 0.0)
    if low == high:  # all values are one, such as γ at the start: a range around it
        half = max(0.5, abs(low) / 1e6)
        low, high = low - half, high + half
    counts = torch.histc(values, BINS, low, high)
    return Histogram(low, high, tuple(counts.tolist()))


def _spread(layer: str, name: str, values: Tensor) -> Measures:
    values = values.detach().double()
    return {(layer, f"{name}_mean"): values.mean().item(), (layer, f"{name}_sd"): values.std(correction=0).item()}


@contextmanager
def outputs_of(network: nn.Module, wanted: Callable[[nn.Module], bool] = lambda _: True) -> Iterator[dict[str, Tensor]]:
    """Layer's name → its output in the forward pass that follows, for the modules without children."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):  # a recurrent layer returns a tuple
                if output.requires_grad:
                    output.retain_grad()
                outputs[name] = output

        return hook

    leaves = {name: module for name, module in network.named_modules() if name and not list(module.children())}
    handles = [module.register_forward_hook(keep(name)) for name, module in leaves.items() if wanted(module)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _inputs(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Layer's name → its input in the forward pass that follows."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs[name] = args[0].detach()

        return hook

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in layers.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
