"""The compiled kernels: which of them fits this processor, and how they are called."""

import ctypes
import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.training.options import Kernels

FITTING = {"AVX512": ("x86_64_v4", "x86_64_v3"), "AVX2": ("x86_64_v3",)}
"""The variants of the kernels that a processor can run, by what torch says of it; the best first."""

MISSING = "bnbench was installed without kernels for this processor (the installation needs a C++ compiler)"

ALIGNMENT = 64
"""The kernels read a vector at an address that is divisible by this many bytes. torch allocates memory so."""


@dataclass(frozen=True)
class Library:
    """The compiled kernels. `lanes` is the number of images in a block."""

    name: str
    digest: str
    functions: ctypes.CDLL
    lanes: int

    def __str__(self) -> str:
        return f"{self.name} {self.digest[:12]}"

    def call(self, function: str, *arguments: ctypes.Structure | Tensor | int | None) -> None:
        """Call a function of the kernels. Tensors are contiguous; None stands for a tensor that is not needed."""
        # The tensors stay in `arguments`, so that their memory is theirs until the function returns.
        getattr(self.functions, function)(*map(_passed, arguments))


def library(kernels: Kernels) -> Library | None:
    """The kernels that are used; None for torch's. Errors: UserError where native kernels are asked for and missing.

    >>> library("torch") is None
    True
    """
    found = None if kernels == "torch" else _load()
    if kernels == "native" and not found:
        raise UserError(f"--kernels native: {MISSING}; allowed here: auto, torch")
    return found


def library_of(run: RunSpec, device: torch.device, kernels: Kernels) -> Library | None:
    """The kernels of a run that trains alone; None for torch's. Native kernels compute float32 on one thread."""
    return library(kernels) if device.type == "cpu" and run.threads == 1 and run.precision == "fp32" else None


def identity(kernels: Kernels) -> str:
    """What two machines must share, and two halves of a sweep: the kernels' name and digest; "torch" for torch's."""
    return str(library(kernels) or "torch")


@cache
def _load() -> Library | None:
    arm = platform.machine() in ("aarch64", "arm64")
    for name in ("aarch64",) if arm else FITTING.get(torch.backends.cpu.get_cpu_capability(), ()):
        for path in Path(__file__).parent.glob(f"{name}.*so"):
            functions = ctypes.CDLL(str(path))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            return Library(name, digest, functions, functions.lanes())
    return None


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, contiguous and at an aligned address; a copy where it is not."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def _passed(argument: ctypes.Structure | Tensor | int | None) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_long(argument or 0)
