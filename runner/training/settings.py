"""How torch computes a run: threads, precision, deterministic kernels. What is set is put back afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from runner.config.run_spec import RunSpec

_deterministic: Any = torch.utils.deterministic
_cudnn: Any = torch.backends.cudnn
_matmul: Any = torch.backends.cuda.matmul


@dataclass(frozen=True)
class _Settings:
    """torch's global settings, as far as a run needs them."""

    threads: int
    deterministic: bool = True
    fill_memory: bool = False  # torch fills new memory in deterministic mode, which costs a pass over it
    tune_kernels: bool = False  # cudnn.benchmark chooses kernels by timing
    convolutions: str = "ieee"
    products: str = "ieee"
    workspace: str | None = ":4096:8"  # cuBLAS is deterministic with this one

    @classmethod
    def now(cls) -> _Settings:
        return cls(
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            _deterministic.fill_uninitialized_memory,
            _cudnn.benchmark,
            _cudnn.conv.fp32_precision,
            _matmul.fp32_precision,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )

    def apply(self) -> None:
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)
        _deterministic.fill_uninitialized_memory = self.fill_memory
        _cudnn.benchmark = self.tune_kernels
        _cudnn.conv.fp32_precision = self.convolutions
        _matmul.fp32_precision = self.products
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        if self.workspace is not None:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = self.workspace


@contextmanager
def settings_of(run: RunSpec) -> Iterator[None]:
    """Within the block, torch computes as the run says, and the same way at every visit."""
    before = _Settings.now()
    precision = "tf32" if run.precision == "tf32" else "ieee"
    workspace = before.workspace or ":4096:8"
    _Settings(run.threads, convolutions=precision, products=precision, workspace=workspace).apply()
    torch.set_flush_denormal(True)  # Denormals slow a CPU's convolutions 20 to 50 times.
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # torch cannot say what it was before; scipy needs denormals.
        before.apply()


def autocast(run: RunSpec, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a run's forward passes are computed: bfloat16 where its precision says so."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else nullcontext()
