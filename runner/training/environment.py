"""What a sweep ran on: enough to tell two machines' results apart."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from runner.training.data.datasets import load

PACKAGES = ("bnbench", "torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn")


def describe(datasets: Iterable[str], root: Path, plugins: Iterable[str] = ()) -> dict[str, Any]:
    """Versions, git commit, processor, GPUs, threads, and the digests of the data sets and plugins used."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "git": _git(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name in _VARIABLES},
        "plugins": digests(plugins),
        "code": code(),
        "data": {name: load(name, root).digests for name in datasets},
    }


_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")


def versions(datasets: Iterable[str], root: Path) -> dict[str, str]:
    """What two machines of one sweep must share: what turns a run's parameters into numbers.

    Errors: UserError where a data set's files are missing and cannot be fetched, or are not the published ones.
    """
    found = {name: importlib.metadata.version(name).partition("+")[0] for name in ("torch", "numpy")}
    for name in datasets:
        found |= {f"{name}: {file}": digest[:12] for file, digest in load(name, root).digests.items()}
    return found


def machine() -> str:
    """Processor and GPUs, for a person."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"{_cpu()} ({torch.backends.cpu.get_cpu_capability()})", *gpus])


def digests(files: Iterable[str]) -> dict[str, str]:
    """SHA-256 by file name."""
    return {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}


def code() -> str:
    """One SHA-256 over this command's own Python files: what a network is may have changed with any of them."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent.parent
    for package in ("runner", "experiments"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _git() -> dict[str, Any] | None:
    """The commit of the working directory's repository and whether it has changes; None outside one."""
    try:
        commit = _run("git", "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_run("git", "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
