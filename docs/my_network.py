"""A small residual network of six classes, written without bnbench. docs/any-network.md compares norm layers in it."""

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs))


class Stem(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class Branch(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(inputs, outputs, stride=2), ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(x)))
        return result


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch, self.shortcut = Branch(inputs, outputs), ConvNorm(inputs, outputs, kernel=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class Head(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.mean((2, 3)))
        return result


class MyNet(nn.Module):
    def __init__(self, width: int = 8, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = Stem(in_channels, width)
        self.blocks = nn.Sequential(Block(width, 2 * width), Block(2 * width, 4 * width))
        self.head = Head(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.blocks(self.stem(x)))
        return result
