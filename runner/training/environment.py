"""What a sweep ran on, in enough detail to tell two machines' results apart."""

import hashlib
import os
import platform
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, SubprocessError, check_output
from typing import Any

import torch

from runner import registry
from runner.storage import plugin_files
from runner.training.data.datasets import load
from runner.training.kernels.library import identity
from runner.training.options import Kernels

PACKAGES = ("bnbench", "torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn")
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS")

# What a process has imported stays as it is.
_version = cache(version)


def describe(
    datasets: Iterable[str],
    root: Path,
    plugins: Iterable[str] = (),
    kernels: Kernels = "auto",
    folder: Path = Path(),
) -> dict[str, Any]:
    """Versions, git commit, processor, GPUs, threads, kernels, and the digests of the code and of the data sets used.

    Plugins are named relative to the sweep's `folder`, as in its config.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "git": _git(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": identity(kernels),
        "cores": os.cpu_count(),
        "gpus": _gpus(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "plugins": digests(plugins, folder),
        "code": code(),
        "data": {name: load(name, root).digests for name in datasets},
    }


def versions(datasets: Iterable[str], root: Path, kernels: Kernels) -> dict[str, str]:
    """What two machines of one sweep must share, because it turns a run's parameters into numbers.

    Errors: UserError where a data set's files are missing and cannot be downloaded, or are not the published ones, or
    where native kernels are missing.
    """
    shared = {name: _version(name).partition("+")[0] for name in ("torch", "numpy")}
    shared["kernels"] = identity(kernels)
    for name in datasets:
        shared |= {f"{name}: {file}": digest[:12] for file, digest in load(name, root).digests.items()}
    return shared


def machine() -> str:
    """Processor and GPUs, for a person."""
    return ", ".join([f"{_cpu()} ({torch.backends.cpu.get_cpu_capability()})", *_gpus()])


def digests(plugins: Iterable[str], folder: Path) -> dict[str, str]:
    """The SHA-256 of the plugins' source files, by their paths relative to a folder."""
    return {os.path.relpath(path, folder.resolve()): digest for path, digest in plugin_files.digests(plugins).items()}


def code() -> str:
    """One SHA-256 over the source files that decide the numbers of a run, except for the plugins of the config.

    What only reads or shows numbers is not among them.
    """
    runner = Path(__file__).parent.parent
    roots = [runner / "config", runner / "registry.py", runner / "training"]
    roots += map(_source, registry.plugin_packages())
    digest = hashlib.sha256()
    for root in roots:
        files = [path for kind in ("*.py", "*.cpp") for path in root.rglob(kind)] if root.is_dir() else [root]
        for path in sorted(files):
            digest.update(f"{path.relative_to(root.parent)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _source(package: str) -> Path:
    """The folder of a package, or the file of a module."""
    spec = find_spec(package)
    assert spec is not None
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0] if folders else str(spec.origin))


def _git() -> dict[str, Any] | None:
    """The commit of the working directory's repository and whether it has changes; None outside a repository."""

    def git(*arguments: str) -> str:
        return check_output(["git", *arguments], stderr=DEVNULL, text=True, timeout=10).strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": git("status", "--porcelain") != ""}
    except (OSError, SubprocessError):
        return None


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    if name := re.search(r"^model name\s*:(.*)$", text, re.MULTILINE):
        return name[1].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    return list(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
