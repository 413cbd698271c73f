"""How torch computes a run: threads, precision, deterministic kernels."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from runner.config.run_spec import RunSpec

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def settings_of(run: RunSpec) -> Iterator[None]:
    """Inside the block, torch computes as the run says. After it, torch's settings are what they were before.

    >>> run = RunSpec(network="a network", threads=1)
    >>> with settings_of(run):
    ...     torch.are_deterministic_algorithms_enabled()
    True
    >>> torch.are_deterministic_algorithms_enabled()
    False
    """
    precision = "tf32" if run.precision == "tf32" else "ieee"
    backends: Any = torch.backends
    settings = (
        # Filling costs a pass over new memory.
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
        # It would choose kernels by timing.
        (backends.cudnn, "benchmark", False),
        (backends.cudnn.conv, "fp32_precision", precision),
        (backends.cuda.matmul, "fp32_precision", precision),
    )
    with ExitStack() as restore:
        restore.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(run.threads)
        restore.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        torch.use_deterministic_algorithms(True)
        for module, name, value in settings:
            restore.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        if not os.environ.get(WORKSPACE):
            restore.callback(os.environ.pop, WORKSPACE, None)
            # With this value, cuBLAS is deterministic.
            os.environ[WORKSPACE] = ":4096:8"
        # Denormal numbers slow a CPU's convolutions 20 to 50 times. They are kept outside the block: scipy needs them.
        restore.callback(torch.set_flush_denormal, False)
        torch.set_flush_denormal(True)
        yield


def autocast(run: RunSpec, device: torch.device) -> AbstractContextManager[object]:
    """The context of a run's forward passes: it computes in bfloat16 where the run's precision is `bf16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else nullcontext()
