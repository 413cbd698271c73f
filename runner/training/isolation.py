"""A run leaves its process as it found it, so that its rows do not depend on the runs before it.

A network is Python code. It can change torch's settings, add hooks, replace functions, or change the directory, and all
that stays when its run has ended. After each run, settings, hooks and functions are set back. A plugin's own variables
are only compared. What has changed and is not set back is named, and a new process trains the next job.
"""

import builtins
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import nn

from runner.training.networks import SpoiledProcessError
from runner.training.variables import clear_caches, differing, plugin_variables

backends: Any = torch.backends


class Setting(NamedTuple):
    """Something global that a network can change."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]


def _attribute(owner: Any, name: str) -> Setting:
    title = getattr(owner, "__name__", type(owner).__name__)
    return Setting(f"{title}.{name}", partial(getattr, owner, name), partial(setattr, owner, name))


def _set_default_device(device: torch.device) -> None:
    # torch looks for a device at each call where one is set, so the usual one is set by none.
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_deterministic(values: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(values[0], warn_only=values[1])


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_filters(filters: list[Any]) -> None:
    # This also makes Python forget which warnings the old filters have let pass.
    warnings.resetwarnings()
    warnings.filters[:] = filters  # type: ignore[index]


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _directory() -> str | None:
    """The current directory; None where it has been removed."""
    with suppress(OSError):
        return str(Path.cwd())
    return None


def _set_directory(path: str | None) -> None:
    if path is not None:
        os.chdir(path)


def _set_list(own: list[Any], values: list[Any]) -> None:
    own[:] = values


def _autocast(device: str) -> Iterator[Setting]:
    enabled = partial(torch.is_autocast_enabled, device), partial(torch.set_autocast_enabled, device)
    dtype = partial(torch.get_autocast_dtype, device), partial(torch.set_autocast_dtype, device)
    yield Setting(f"autocast on {device}", *enabled)
    yield Setting(f"autocast's dtype on {device}", *dtype)


def _autocast_depth() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _set_autocast_depth(depth: int) -> None:
    # torch clears autocast's copies of weights where the outermost block ends. One that never ends would keep them.
    while torch.autocast_decrement_nesting() > depth:
        pass
    torch.clear_autocast_cache()


SETTINGS = (
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("the default device", torch.get_default_device, _set_default_device),
    Setting("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("the anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Setting("deterministic algorithms", _deterministic, _set_deterministic),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    *_autocast("cpu"),
    *_autocast("cuda"),
    Setting("the depth of autocast", _autocast_depth, _set_autocast_depth),
    Setting("autocast's cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    _attribute(backends.cudnn, "enabled"),
    _attribute(backends.cudnn, "deterministic"),
    _attribute(backends.mkldnn, "enabled"),
    _attribute(backends.mkldnn, "deterministic"),
    _attribute(backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    _attribute(backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    _attribute(backends.cuda.matmul, "allow_fp16_accumulation"),
    _attribute(backends.opt_einsum, "enabled"),
    Setting("flash attention", backends.cuda.flash_sdp_enabled, backends.cuda.enable_flash_sdp),
    Setting("efficient attention", backends.cuda.mem_efficient_sdp_enabled, backends.cuda.enable_mem_efficient_sdp),
    Setting("plain attention", backends.cuda.math_sdp_enabled, backends.cuda.enable_math_sdp),
    Setting("warnings.filters", lambda: list(warnings.filters), _set_filters),
    Setting("numpy's handling of errors", numpy.geterr, lambda values: numpy.seterr(**values)),
    Setting("the current directory", _directory, _set_directory),
    Setting("os.environ", lambda: dict(os.environ), _set_environment),
    Setting("sys.path", lambda: list(sys.path), partial(_set_list, sys.path)),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
)
"""The precision of float32 products and cuDNN's benchmark are not among them: `settings_of` sets and restores them."""

_LAYERS = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
_OPTIMIZERS = [kind for kind in vars(torch.optim).values() if isinstance(kind, type)]

PATCHABLE: tuple[Any, ...] = (
    *(torch, torch.Tensor, nn, nn.functional, nn.init, nn.Parameter, torch.autograd, torch.optim, torch.linalg),
    *(*_LAYERS, *_OPTIMIZERS, numpy, numpy.random, random, builtins),
)
"""The modules and classes whose functions a network may replace."""

_HOOKS = [
    hooks
    for module in (nn.modules.module, sys.modules[torch.optim.Optimizer.__module__])
    for name, hooks in vars(module).items()
    if name.startswith("_global_") and isinstance(hooks, dict)
]
"""torch's hooks for all modules and all optimizers. (torch has no public way to list them.)"""


left_behind: list[str] = []
"""What networks have changed for the whole process, and what was not set back."""


def raise_if_spoiled() -> None:
    """Errors: SpoiledProcessError where networks have left something behind in this process."""
    if left_behind:
        raise SpoiledProcessError("; ".join(dict.fromkeys(left_behind)))


@contextmanager
def isolated() -> Iterator[None]:
    """Set back, after the block, what it has changed for the whole process. Add to `left_behind` what is not set back.

    >>> with isolated():
    ...     torch.set_default_dtype(torch.float64)
    ...     torch.relu = torch.tanh
    >>> torch.get_default_dtype(), float(torch.relu(torch.tensor(2.0))), left_behind
    (torch.float32, 2.0, [])
    """
    settings = [setting.get() for setting in SETTINGS]
    patchable = [dict(vars(owner)) for owner in PATCHABLE]
    hooks = [dict(own) for own in _HOOKS]
    modes, modules = _modes(), set(sys.modules)
    variables = plugin_variables()
    try:
        yield
    finally:
        late = sys.modules.keys() - modules
        for owner, names in zip(PATCHABLE, patchable, strict=True):
            for name in _restore_names(owner, names, late):
                left_behind.append(f"a module that the network imported changed {owner.__name__}.{name}")
        for own, earlier in zip(_HOOKS, hooks, strict=True):
            if own != earlier:
                own.clear()
                own.update(earlier)
        for setting, value in zip(SETTINGS, settings, strict=True):
            if not _restored(setting, value):
                left_behind.append(f"{setting.name} cannot be set back")
        if _modes() != modes:
            left_behind.append("a mode of torch has not ended")
        clear_caches()
        left_behind.extend(f"the network changed {name}" for name in differing(variables, plugin_variables()))


def _restored(setting: Setting, value: Any) -> bool:
    # A directory that a network has removed cannot be returned to.
    with suppress(Exception):
        if setting.get() != value:
            setting.set(value)
        return bool(setting.get() == value)
    return False


def _restore_names(owner: Any, names: dict[str, Any], late: Set[str]) -> list[str]:
    """Set the attributes of a module or a class back. Returns the names that a module in `late` has set: they stay.

    An import happens once. If its effect were taken back, later runs would lack it.
    """
    now, stay = dict(vars(owner)), []
    for name in [name for name in now.keys() | names.keys() if now.get(name) is not names.get(name)]:
        if getattr(now.get(name), "__module__", None) in late:
            stay.append(name)
        elif name in names:
            setattr(owner, name, names[name])
        elif isinstance(owner, type):
            # It could hide a name of the base class. A new name in a module is a submodule that was imported.
            delattr(owner, name)
    return stay


def _modes() -> tuple[bool, int, int]:
    """torch's modes that end with a block, and cannot be ended in another way."""
    return torch.is_inference_mode_enabled(), torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()
