"""The probes `precise`, `batch_statistics` and `train`: accuracy under other statistics, or on other images."""

from __future__ import annotations

from torch import Tensor, nn

from runner.training.data.datasets import Split
from runner.training.evaluation import BATCH, evaluate
from runner.training.networks import is_norm
from runner.training.probes.probe import Look, ProbeValues

PRECISE_SAMPLES = 10_000
"""Over which precise batch norm averages (Wu & Johnson 2021, section 3.2)."""

BATCH_STATISTICS_SAMPLES = 2_000
"""The first samples of the validation set, on which a batch's own statistics are tried."""

BATCH_STATISTICS_SIZES = (2, 8, 64, 256)
"""Not 1: BatchNorm1d refuses a batch of one sample, whose variance says nothing."""


def precise(network: nn.Module, look: Look) -> ProbeValues:
    """Validation loss and accuracy with averages over the training set, at these weights, for the moving averages."""
    for module in network.modules():
        if is_norm(module) and isinstance(getattr(module, "running_mean", None), Tensor):
            module.reset_running_stats()  # type: ignore[operator]
            module.momentum = None  # type: ignore[assignment]
    network.train()
    for images in look.data.train.images[:PRECISE_SAMPLES].split(BATCH):
        network(images)  # Gradients stay enabled: some hand-written layers take that as the sign of training.
    loss, accuracy = evaluate(network, look.data.valid)
    return {("", "precise_valid_loss"): loss, ("", "precise_valid_accuracy"): accuracy}


def batch_statistics(network: nn.Module, look: Look) -> ProbeValues:
    """Validation accuracy where norm layers take the statistics of the batch at hand, of several sizes.

    On the first samples of the validation set, an even number, so that no batch has one; `moving_valid_accuracy` is
    the accuracy with the moving averages on these very samples. A network without norm layers has none of these.
    """
    count = min(BATCH_STATISTICS_SAMPLES, len(look.data.valid)) // 2 * 2
    layers = [module for module in network.modules() if is_norm(module)]
    if not layers or not count:
        return {}
    split = Split(look.data.valid.images[:count], look.data.valid.labels[:count])
    found: ProbeValues = {("", "moving_valid_accuracy"): evaluate(network, split)[1]}
    # Not no_grad: some hand-written layers take enabled gradients as the sign of training.
    network.requires_grad_(False)
    for layer in layers:
        layer.train()
    for size in BATCH_STATISTICS_SIZES:
        batches = zip(split.images.split(size), split.labels.split(size), strict=True)
        correct = sum((network(images).argmax(dim=1) == labels).sum() for images, labels in batches)
        found["", f"batch_valid_accuracy_{size}"] = float(correct) / count
    return found


def train(network: nn.Module, look: Look) -> ProbeValues:
    """Loss and accuracy on the training set, in evaluation mode: comparable with validation, as the epoch's are not."""
    loss, accuracy = evaluate(network, look.data.train)
    return {("", "eval_train_loss"): loss, ("", "eval_train_accuracy"): accuracy}
