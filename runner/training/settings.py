"""How torch computes a run: threads, precision, deterministic kernels."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
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
    backends: Any = torch.backends
    settings = (
        # Filling costs a pass over new memory.
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
        # It would choose kernels by timing.
        (backends.cudnn, "benchmark", False),
    )
    with ExitStack() as restore:
        restore.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(run.threads)
        restore.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        torch.use_deterministic_algorithms(run.deterministic)
        restore.enter_context(float32_precision("tf32" if run.precision == "tf32" else "ieee"))
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


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """Inside the block, every product of float32 numbers is computed in this precision: "tf32" or "ieee".

    Convolutions, recurrent layers and matrix products have a setting each. torch also has two older flags, which other
    code may read inside the block. Reading one raises where it contradicts the settings. So the flags are set, too.

    >>> with float32_precision("ieee"):
    ...     torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    (False, 'highest')
    """
    backends: Any = torch.backends
    parts = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul)
    with ExitStack() as restore:
        # The last callback is called first. An older flag changes the settings, so they are restored after it.
        for part in parts:
            restore.callback(setattr, part, "fp32_precision", part.fp32_precision)
        # A flag that contradicts the settings cannot be read.
        with suppress(RuntimeError):
            restore.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        with suppress(RuntimeError):
            restore.callback(setattr, backends.cudnn, "allow_tf32", backends.cudnn.allow_tf32)
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        backends.cudnn.allow_tf32 = precision == "tf32"
        for part in parts:
            part.fp32_precision = precision
        yield


def autocast(run: RunSpec, device: torch.device) -> AbstractContextManager[object]:
    """The context of a run's forward passes: it computes in bfloat16 where the run's precision is `bf16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else nullcontext()
