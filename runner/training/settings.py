"""How torch computes a run: threads, precision, deterministic kernels."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from runner.config.run_spec import RunSpec

if TYPE_CHECKING:
    from runner.config.run_spec import RunSpec


def autocast(run: RunSpec, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a run's forward passes are computed: bfloat16 where its precision says so."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else nullcontext()


def use_settings(run: RunSpec) -> None:
    """Make the arithmetic the same on every visit: threads, denormals, and kernels that do not depend on timing."""
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)  # denormals slow a CPU's convolutions 20 to 50 times
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # A debugging aid, on by default with the above; it costs a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    products = "tf32" if run.precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = products
