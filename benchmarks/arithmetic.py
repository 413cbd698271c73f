"""How long the arithmetic of an epoch takes at least: its operations, and how many of them a core can do a second."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from runner.config.run_spec import RunSpec
from runner.training.networks import build_network

IMAGES = 60_000
"""An epoch of MNIST and of FashionMNIST."""

LOOP = Path(__file__).with_name("multiply_add.cpp")


def gflops_of_a_core() -> float:
    """GFLOP/s of one core that does nothing but multiply-adds in float32: what no kernel can exceed.

    Needs a C++ compiler: MKL's matrix product, which torch has, does not reach this rate.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/multiply_add"
        subprocess.run(["c++", "-O3", "-march=native", str(LOOP), "-o", program], check=True)
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def gflop_of_an_epoch(run: RunSpec) -> float:
    """The operations of one epoch in 10⁹: convolutions and linear layers, a multiply-add being two operations.

    Forward, weight gradient and input gradient take equally many. The network's input needs no gradient. Evaluation,
    norm layers, pooling, biases and the optimizer are not counted.
    """
    multiply_adds = _multiply_adds(build_network(run))
    return 2 * (3 * sum(multiply_adds) - multiply_adds[0]) * IMAGES / 1e9


def _multiply_adds(network: nn.Module) -> list[int]:
    """Of each convolution and linear layer in the order of their calls, forward, for an image [1, 28, 28]."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, outputs: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        counts.append(outputs.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, 28, 28))
    return counts
