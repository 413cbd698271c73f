"""A Ray cluster as a sweep sees it: how it is reached, and how many jobs it has room for.

Ray is imported when a sweep connects, not before.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.config.run_spec import RunSpec
from runner.config.sweep import Resources
from runner.errors import UserError
from runner.execution.options import usable_cpus

if TYPE_CHECKING:
    import torch

ARRIVAL = 15.0
"""Seconds that a node which could take a job may take to appear."""

_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's name for: bind to the loopback address alone."""


@dataclass(frozen=True)
class Cluster:
    """A connected cluster. A job asks for `num_cpus` and `num_gpus`; at most `most` jobs run at a time."""

    ray: Any
    num_cpus: float
    num_gpus: float
    most: int | None = None

    def nodes(self) -> list[Mapping[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def slots(self) -> int:
        """How many jobs fit on the nodes there are now."""
        room = sum(self._fit(node["Resources"]) for node in self.nodes())
        return min(room, self.most or room)

    def _fit(self, has: Mapping[str, float]) -> int:
        asked = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        return min(math.floor(has.get(name, 0) / wanted + 1e-9) for name, wanted in asked.items() if wanted)

    def lacking(self) -> str:
        """The message where no job fits."""
        there = [
            f"{node['NodeManagerHostname']}: {node['Resources'].get('CPU', 0):g} CPUs, "
            f"{node['Resources'].get('GPU', 0):g} GPUs"
            for node in self.nodes()
        ]
        return (
            f"a job asks for {self.num_cpus:g} CPUs and {self.num_gpus:g} GPUs, and no node of the cluster has them "
            f"({'; '.join(there) or 'it has no node'}); 'resources:' in the config says what a job asks for"
        )

    def resolve(self, device: str) -> torch.device:
        """What a run's device is on a node. Errors: UserError where it cannot be."""
        import torch

        if device == "auto":
            return torch.device("cuda" if self.num_gpus else "cpu")
        if device.startswith("cuda:"):
            raise UserError(f"device '{device}': Ray says which GPU a job gets; allowed: auto, cpu, cuda")
        if device == "cuda" and not self.num_gpus:
            raise UserError("device 'cuda', and a job asks for no GPU (resources: {num_gpus: 0})")
        return torch.device(device)

    def actor(self, kind: type, *arguments: Any) -> Any:
        """A process of `kind` on some node that has room, now or later. What it runs is lost with it: no retries."""
        remote = self.ray.remote(kind).options(
            num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_restarts=0, max_task_retries=0
        )
        return remote.remote(*arguments)


@dataclass(frozen=True)
class RayContext:
    """What the executor `ray` gets besides the jobs.

    Every node must have these `versions`. The driver writes checkpoints to `checkpoint_folder`, which the nodes see,
    too, where it is `shared`.
    """

    cluster: Cluster
    versions: dict[str, Any]
    checkpoint_folder: Path
    shared: bool = False


@contextmanager
def connected(
    address: str | None, runs: Sequence[RunSpec], resources: Resources, most: int | None
) -> Iterator[Cluster]:
    """The cluster at an address of Ray's; `local` (default, or $RAY_ADDRESS) starts one on this machine for the sweep.

    Errors: UserError where Ray is not installed, the cluster is not reached, or has no room for a job.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    cluster = _connect(address)
    try:
        yield _sized(cluster, runs, resources, most)
    finally:
        cluster.shutdown()


def _connect(address: str) -> Any:
    local = address == "local"
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if local else {}
    for name, value in {**_ENVIRONMENT, **(_LOCAL if local else {}), **token}.items():
        os.environ.setdefault(name, value)  # before Ray is imported, which reads some of them then
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs ray: pip install 'bnbench[ray]'") from None
    own = {"num_cpus": usable_cpus(), "include_dashboard": False, "object_store_memory": 100_000_000} if local else {}
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": [str(path) for path in packages().values()]},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"--ray-address {address}: {_first_line(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, heard)  # Ray takes it; what it means is the driver's to say
    return ray


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def packages() -> dict[str, Path]:
    """This package and those whose entry points register something: they travel with the jobs."""
    names = {entry.module.partition(".")[0] for entry in importlib.metadata.entry_points(group="bnbench.plugins")}
    found = {}
    for name in sorted({"runner", *names}):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"plugin '{name}' is not a package, and cannot travel to a cluster")
        found[name] = Path(next(iter(spec.submodule_search_locations)))
    return found


def _sized(ray: Any, runs: Sequence[RunSpec], resources: Resources, most: int | None) -> Cluster:
    num_cpus, num_gpus = resources.num_cpus, resources.num_gpus
    if num_cpus is None:
        num_cpus = max(run.threads + run.num_workers for run in runs)
    if num_gpus is None:
        devices = {run.device.partition(":")[0] for run in runs}
        num_gpus = 1 if "cuda" in devices or ("auto" in devices and ray.cluster_resources().get("GPU")) else 0
    cluster = Cluster(ray, num_cpus, num_gpus, most)
    if not _await(lambda: cluster.slots() > 0, ARRIVAL):
        raise UserError(cluster.lacking())
    return cluster


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True
