"""The compiled kernels: which of them fits this processor, and how they are called."""

import ctypes
import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.training.options import Kernels

FITTING = {"AVX512": ("x86_64_v4", "x86_64_v3"), "AVX2": ("x86_64_v3",)}
"""The variants of the kernels that a processor can run, by what torch says of it; the best first."""

MISSING = "there are no native kernels for this processor (install a C++ compiler, then install bnbench again)"

NEEDS = "native kernels are for runs that train alone, in float32, on one thread of a CPU"

VERSION = 2
"""It changes, here and in kernels.cpp, with the arguments of a function or the fields of `Sizes`."""

FIELDS = ("images", "channels", "rows", "columns", "outputs", "filter", "padding", "relu", "pool", "group", "fixed")


class Sizes(ctypes.Structure):
    """The sizes of a layer, as the kernels take them."""

    _fields_ = [(name, ctypes.c_long) for name in FIELDS]


@dataclass(frozen=True)
class Library:
    """The compiled kernels. `lanes` is the number of images in a block."""

    name: str
    digest: str
    functions: ctypes.CDLL
    lanes: int

    def __str__(self) -> str:
        return f"{self.name} {self.digest[:12]}"

    def call(self, function: str, *arguments: Sizes | Tensor | None) -> None:
        """Call a function of the kernels. Tensors are contiguous; None stands for a tensor that is not needed."""
        # `arguments` keeps the tensors alive until the function returns.
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


def fits_native(run: RunSpec, device: str) -> bool:
    """Whether native kernels can compute a run on a device of this type."""
    return device == "cpu" and run.threads == 1 and run.precision == "fp32"


def library_of(run: RunSpec, device: torch.device, kernels: Kernels) -> Library | None:
    """The kernels of a run that trains alone; None for torch's."""
    return library(kernels) if fits_native(run, device.type) else None


def identity(kernels: Kernels) -> str:
    """What two machines must share, and two halves of a sweep: the kernels' name and digest; "torch" for torch's."""
    return str(library(kernels) or "torch")


@cache
def _load() -> Library | None:
    """Errors: UserError where the file is damaged, or was compiled from another version of bnbench."""
    arm = platform.machine() in ("aarch64", "arm64")
    names = ("aarch64",) if arm else FITTING.get(torch.backends.cpu.get_cpu_capability(), ())
    paths = [Path(__file__).with_name(name + EXTENSION_SUFFIXES[0]) for name in names]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    try:
        functions = ctypes.CDLL(str(path))
        fits = functions.version() == VERSION
    except (OSError, AttributeError):
        fits = False
    if not fits:
        raise UserError(f"{path}: damaged, or of another version; install bnbench again, or use --kernels torch")
    name, digest = path.name.partition(".")[0], hashlib.sha256(path.read_bytes()).hexdigest()
    return Library(name, digest, functions, functions.lanes())


def _passed(argument: Sizes | Tensor | None) -> Any:
    if argument is None:
        return None
    return ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else ctypes.byref(argument)
