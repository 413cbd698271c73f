"""What a network looks like inside while it trains: gradients, activations, norm layers, curvature.

A probe is a function `(network, look) -> {(layer, measure): value}` under `@probe("name")`. It is handed a copy of the
network and may do with it what it likes: a run's rows are the same with and without probes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.data import RunData, Split
from runner.evaluation import BATCH, evaluate
from runner.histograms import BINS, Histogram
from runner.model import is_norm
from runner.registry import probe

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
    with _outputs(network, lambda module: not is_norm(module)) as outputs:
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
    with _outputs(network) as outputs:
        network(look.batch.images)
    found: Measures = {}
    for layer, output in outputs.items():
        values = output.detach().double()
        found[layer, "mean"], found[layer, "sd"] = values.mean().item(), values.std(correction=0).item()
        if isinstance(network.get_submodule(layer), nn.ReLU):
            found[layer, "dead_share"] = (values.flatten(1) == 0).all(dim=0).double().mean().item()
    return found


@probe("norms")
def norms(network: nn.Module, look: Look) -> Measures:
    """Per norm layer, γ, β and the moving averages (mean and SD over features), and how far a batch is from them.

    The gap of the means is in the moving standard deviations, that of the variances the root mean squared log ratio.
    """
    network.train()
    found: Measures = {}
    layers = {name: module for name, module in network.named_modules() if is_norm(module)}
    kept = {name: _moving_averages(module) for name, module in layers.items()}
    with _inputs(layers) as inputs, torch.no_grad():
        network(look.batch.images)
    for layer, module in layers.items():
        for name, attribute in (("gamma", "weight"), ("beta", "bias")):
            if isinstance(values := getattr(module, attribute, None), Tensor):
                found |= _spread(layer, name, values)
        averages = kept[layer]
        if averages is None or layer not in inputs:
            continue
        mean, var = averages
        x = inputs[layer].transpose(0, 1).flatten(1).double()
        batch_mean, batch_var = x.mean(dim=1), x.var(dim=1, correction=0)
        found |= _spread(layer, "running_mean", mean) | _spread(layer, "running_var", var)
        tiny = torch.finfo(torch.float32).tiny
        found[layer, "mean_gap"] = ((batch_mean - mean).square() / var.clamp(min=tiny)).mean().sqrt().item()
        ratio = (batch_var.clamp(min=tiny) / var.clamp(min=tiny)).log()
        found[layer, "var_gap"] = ratio.square().mean().sqrt().item()
    return found


@probe("precise")
def precise(network: nn.Module, look: Look) -> Measures:
    """Validation loss and accuracy with averages over the training set, at these weights, for the moving averages."""
    for module in network.modules():
        if is_norm(module) and _moving_averages(module) is not None:
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


def _moving_averages(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """A norm layer's moving mean and variance as they are now; None where it keeps none."""
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        return None
    return mean.detach().clone().double(), var.detach().clone().double()


@contextmanager
def _outputs(network: nn.Module, wanted: Callable[[nn.Module], bool] = lambda _: True) -> Iterator[dict[str, Tensor]]:
    """Layer's name → its output in the forward pass that follows, for the modules without children."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
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
