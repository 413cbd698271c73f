# mypy: ignore-errors
"""Awkward networks that a user may write, as a plugin. `awkward_...` are correct, `nasty_...` change the process."""

import functools
import gc
import os
import random
import sys
import warnings

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.registry import network
from runner.training.data.datasets import Split

COUNTED: list[int] = []


def register(name: str, kind: type[nn.Module]) -> None:
    @network(name)
    def build() -> nn.Module:
        return kind()


class Small(nn.Module):
    """Something before, in or beside a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(784, 12), nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images.flatten(1)).relu())


def convolutional() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 10))


@network("awkward_channels_last")
def channels_last() -> nn.Module:
    return convolutional().to(memory_format=torch.channels_last)


class Transposed(Small):
    def __init__(self) -> None:
        super().__init__()
        self.last.weight = nn.Parameter(torch.randn(12, 10).t())


class Skipped(Small):
    """A layer that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(12, 12)


class Late(Small):
    """A layer that is used from step 5 on, counted in a buffer."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(12, 12)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        features = self.first(images.flatten(1)).relu()
        return self.last(self.late(features).relu() if self.steps > 5 else features)


class LateByAttribute(Small):
    """The same, counted in a number."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.steps = nn.Linear(12, 12), 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        features = self.first(images.flatten(1)).relu()
        return self.last(self.late(features).relu() if self.steps > 5 else features)


class Doubles(Small):
    """Layers in float64, bfloat16 and float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first.double()
        self.middle = nn.Linear(12, 12, dtype=torch.bfloat16)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images.flatten(1).double()).relu()
        return self.last(self.middle(features.bfloat16()).float())


class Unfrozen(Small):
    """The first layer is frozen until the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.first.requires_grad_(False)
        self.epochs = 0

    def train(self, mode: bool = True) -> "Unfrozen":
        self.epochs += mode and not self.training
        self.first.requires_grad_(self.epochs > 1)
        return super().train(mode)


class Growing(Small):
    """A buffer that has one number more after each epoch, and one that begins as None."""

    seen: Tensor
    mean: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("mean", None)

    def train(self, mode: bool = True) -> "Growing":
        if mode and not self.training:
            self.seen = torch.cat([self.seen, self.seen[-1:] + 1])
            self.mean = self.seen.mean()
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 0.01 * self.seen.sum() * torch.arange(10)


class Tied(Small):
    def __init__(self) -> None:
        super().__init__()
        self.second, self.third = nn.Linear(12, 12), nn.Linear(12, 12)
        self.third.weight = self.second.weight

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images.flatten(1)).relu()
        return self.last(self.third(self.second(features).relu()).relu())


class Cooling(Small):
    """A temperature that falls with each step."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 2.0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.temperature *= 0.99
        return super().forward(images) / self.temperature


class Private(Small):
    """A warm-up that is counted in a private number, and a buffer that is gone after the first step."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self.register_buffer("start", torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        self._steps += self.training
        if self.start is not None:
            self.start = None
        return super().forward(images) * min(1.0, self._steps / 20)


class Ordinary(Small):
    """What many networks have: lists of layers, a bound method, a size that is known later, a generator."""

    generator = torch.Generator().manual_seed(0)

    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.first, self.last]
        self.all = list(self.parameters())
        self.scale = functools.partial(self._scaled, 0.5)
        self.size = None

    def _scaled(self, factor: float, logits: Tensor) -> Tensor:
        return logits * factor

    def forward(self, images: Tensor) -> Tensor:
        self.size = images.shape[1]
        return self.scale(super().forward(images))


class Noisy(Small):
    """Noise from three generators, in the weights and in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(numpy.random.rand() + random.random(), dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.rand(()) + float(numpy.random.rand()) + random.random() if self.training else 1.5
        return super().forward(images * self.scale * noise)


class InPlace(Small):
    """The first layer writes to its input."""

    in_place = True

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.1, inplace=self.in_place)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.activation(images))


class OutOfPlace(InPlace):
    in_place = False


register("awkward_transposed", Transposed)
register("awkward_skipped", Skipped)
register("awkward_late", Late)
register("awkward_late_by_attribute", LateByAttribute)
register("awkward_doubles", Doubles)
register("awkward_unfrozen", Unfrozen)
register("awkward_growing", Growing)
register("awkward_tied", Tied)
register("awkward_cooling", Cooling)
register("awkward_noisy", Noisy)
register("awkward_private", Private)
register("awkward_ordinary", Ordinary)
register("awkward_in_place", InPlace)
register("awkward_out_of_place", OutOfPlace)


@network("nasty_precision")
def precision() -> nn.Module:
    torch.set_float32_matmul_precision("medium")
    return Small()


@network("nasty_mkldnn")
def mkldnn() -> nn.Module:
    torch.backends.mkldnn.enabled = False
    return convolutional()


@network("nasty_autocast")
def autocast() -> nn.Module:
    torch.autocast("cpu", dtype=torch.bfloat16).__enter__()
    return convolutional()


@network("nasty_dtype")
def dtype() -> nn.Module:
    built = Small()
    torch.set_default_dtype(torch.float64)
    return built


@network("nasty_device")
def device() -> nn.Module:
    built = Small()
    torch.set_default_device("meta")
    return built


@network("nasty_grad")
def grad() -> nn.Module:
    torch.set_grad_enabled(False)
    return Small()


@network("nasty_global_hook")
def global_hook() -> nn.Module:
    nn.modules.module.register_module_forward_hook(lambda _module, _inputs, output: output * 0.9)
    return Small()


@network("nasty_patch")
def patch() -> nn.Module:
    F.linear = lambda images, weight, _bias=None: images @ weight.t()
    nn.ReLU.forward = lambda _, images: images.tanh()  # type: ignore[method-assign]
    nn.Flatten.__call__ = lambda _, images: images.flatten(1).abs()  # type: ignore[method-assign]
    return Small()


@network("nasty_directory")
def directory() -> nn.Module:
    os.chdir("/")
    os.environ["NASTY"] = "yes"
    sys.path.insert(0, "/nasty")
    return Small()


@network("nasty_warnings")
def warn() -> nn.Module:
    warnings.simplefilter("ignore")
    numpy.seterr(all="raise")
    return Small()


@network("nasty_nondeterministic")
def nondeterministic() -> nn.Module:
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(2)
    torch.set_flush_denormal(False)
    return Small()


@network("nasty_seeds")
def seeds() -> nn.Module:
    torch.manual_seed(0)
    random.seed(0)
    numpy.random.seed(0)
    return Noisy()


@network("nasty_inference")
def inference() -> nn.Module:
    built = Small()
    torch.inference_mode().__enter__()
    return built


@network("nasty_variable")
def variable() -> nn.Module:
    """Its weights depend on how many networks this process has built."""
    COUNTED.append(1)
    built = Small()
    with torch.no_grad():
        built.last.weight *= len(COUNTED)
    return built


class ClassVariable(Small):
    built = 0

    def __init__(self) -> None:
        super().__init__()
        ClassVariable.built += 1

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.built


register("nasty_class_variable", ClassVariable)


class WritesToData(Small):
    """It finds the data set of its process, and writes to it."""

    def forward(self, images: Tensor) -> Tensor:
        for held in gc.get_objects():
            if type(held) is Split and held.images.is_floating_point():
                held.images.add_(1)
        return super().forward(images)


register("nasty_writes_to_data", WritesToData)


class WritesAndFails(WritesToData):
    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        raise ValueError("after writing")


register("nasty_writes_and_fails", WritesAndFails)
