"""The probes `precise`, `batch_statistics` and `train`: accuracy under other statistics, or on other images."""

import torch
from torch import Tensor, nn

from runner.training.averages import reestimate
from runner.training.evaluation import evaluate, in_batches
from runner.training.norm_trace import is_norm
from runner.training.probes.probe import Look, ProbeValues

BATCH_STATISTICS_SAMPLES = 2_000
"""How many of the first validation samples `batch_statistics` evaluates."""

BATCH_STATISTICS_SIZES = (2, 8, 64, 256)
"""Size 1 is not among them: BatchNorm1d refuses a batch of one sample, because it has no variance."""


def precise(network: nn.Module, look: Look) -> ProbeValues:
    """Validation loss and accuracy with averages over the training set, at these weights, as the moving averages."""
    norms = [module for module in network.modules() if is_norm(module)]
    averaging = [layer for layer in norms if isinstance(getattr(layer, "running_mean", None), Tensor)]
    reestimate(network, averaging, look.data.train)
    loss, accuracy = evaluate(network, look.data.valid)
    return {("", "precise_valid_loss"): loss, ("", "precise_valid_accuracy"): accuracy}


def batch_statistics(network: nn.Module, look: Look) -> ProbeValues:
    """Validation accuracy where norm layers use the statistics of the current batch, for several batch sizes.

    It is measured on an even number of validation samples, so that no batch has one sample. `moving_valid_accuracy` is
    the accuracy with the moving averages on the same samples. A network without norm layers has no such values.
    The layers do what they do in training: 'ghost' uses its virtual batches, and a frozen layer its fixed statistics.
    """
    count = min(BATCH_STATISTICS_SAMPLES, len(look.data.valid)) // 2 * 2
    layers = [module for module in network.modules() if is_norm(module)]
    if not layers or not count:
        return {}
    split = look.data.valid[:count]
    values: ProbeValues = {("", "moving_valid_accuracy"): evaluate(network, split)[1]}
    # Not no_grad: some hand-written layers take that as the sign of evaluation.
    network.requires_grad_(False)
    for layer in layers:
        layer.train()
    for size in BATCH_STATISTICS_SIZES:
        predictions = torch.cat([network(images).argmax(1) for images, _ in in_batches(split, size)])
        values["", f"batch_valid_accuracy_{size}"] = int((predictions == split.labels).sum()) / count
    return values


def train(network: nn.Module, look: Look) -> ProbeValues:
    """Loss and accuracy on the training set in evaluation mode: unlike the epoch's, comparable with validation."""
    loss, accuracy = evaluate(network, look.data.train)
    return {("", "eval_train_loss"): loss, ("", "eval_train_accuracy"): accuracy}
