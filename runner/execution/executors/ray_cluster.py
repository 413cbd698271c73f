"""A Ray cluster: how it is reached, and how many jobs it has room for.

Ray is imported when a sweep connects, not before.
"""

import importlib.util
import logging
import math
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import click

from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.options import Options, usable_cpus
from runner.registry import plugin_packages

if TYPE_CHECKING:
    import torch

PATIENCE = 300.0
"""Seconds to wait for a node when no node can take a job, or when no actor starts."""

ANSWER = 10.0
"""Seconds in which a cluster's head must answer. Ray itself would try for minutes without a message."""

MOST_ASKED = 1000
"""The autoscaler is asked for room for at most so many jobs, unless `--workers` says another number."""


@dataclass(frozen=True)
class Cluster:
    """A connected cluster. A job asks for `num_cpus` and `num_gpus`; at most `most` jobs run at a time.

    `refused` are the ids of nodes that cannot train the sweep's jobs.
    """

    ray: Any
    num_cpus: float
    num_gpus: float
    most: int | None = None
    refused: frozenset[str] = frozenset()

    def nodes(self) -> list[Mapping[str, Any]]:
        """The nodes that are there now and are not refused."""
        return [node for node in self.ray.nodes() if node["Alive"] and node["NodeID"] not in self.refused]

    def slots(self) -> int:
        """How many jobs fit on the nodes that are there now. A slot is room for one job."""
        room = sum(self._fit(node["Resources"]) for node in self.nodes())
        return min(room, self.most or room)

    def _fit(self, resources: Mapping[str, float]) -> int:
        asked = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        fits = [resources.get(name, 0) / amount for name, amount in asked.items() if amount]
        return math.floor(min(fits) + 1e-9)

    def no_room(self) -> str:
        """The message where no job fits."""
        nodes = []
        for node in self.nodes():
            cpus, gpus = (node["Resources"].get(name, 0) for name in ("CPU", "GPU"))
            nodes.append(f"{node['NodeManagerHostname']}: {cpus:g} CPUs, {gpus:g} GPUs")
        return (
            f"a job asks for {self.num_cpus:g} CPUs and {self.num_gpus:g} GPUs, "
            f"and no node of the cluster has them ({'; '.join(nodes) or 'it has no node'}); "
            "'resources:' in the config sets what a job asks for"
        )

    def resolve(self, device: str) -> "torch.device":
        """The device that a run's `device` means on a node. Errors: UserError where no job gets such a device."""
        import torch

        if device == "auto":
            return torch.device("cuda" if self.num_gpus else "cpu")
        if device.startswith("cuda:"):
            raise UserError(f"device '{device}': Ray chooses each job's GPU; allowed: auto, cpu, cuda")
        if device == "cuda" and not self.num_gpus:
            raise UserError("device 'cuda', but a job asks for no GPU (resources: {num_gpus: 0})")
        return torch.device(device)

    def actor(self, kind: type, *arguments: Any) -> Any:
        """Start an actor of this class on a node that has room, now or later. Ray restarts no actor by itself."""
        labels = {"ray.io/node-id": f"!in({','.join(sorted(self.refused))})"} if self.refused else None
        options = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "label_selector": labels}
        return _remote(self.ray, kind).options(**options).remote(*arguments)

    def ask_autoscaler(self, jobs: int) -> None:
        """Ask for nodes with room for so many jobs. A cluster without an autoscaler stays as it is."""
        from ray.autoscaler.sdk import request_resources

        job = {name: amount for name, amount in (("CPU", self.num_cpus), ("GPU", self.num_gpus)) if amount}
        request_resources(bundles=[job] * min(jobs, self.most or MOST_ASKED))


@cache
def _remote(ray: Any, kind: type) -> Any:
    """A class of actors. Ray sends it to the cluster once, which takes as long as starting an actor."""
    return ray.remote(kind)


@dataclass(frozen=True)
class RayContext:
    """What the executor `ray` gets besides the jobs.

    Every node must have these `versions`. The driver writes checkpoints to `checkpoint_folder`. With `shared`, the
    nodes see this folder, too, and write them.
    """

    cluster: Cluster
    versions: dict[str, Any]
    checkpoint_folder: Path
    shared: bool = False


@contextmanager
def connected(sweep: Sweep, options: Options) -> Iterator[Cluster]:
    """The cluster at `options.ray_address`. The default is $RAY_ADDRESS, then `local`: a cluster on this machine.

    Errors: UserError where Ray is not installed, or the cluster is not reached or has no room for a job.
    """
    address = options.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    ray = _connect(address)
    try:
        num_cpus, num_gpus = sweep.resources.num_cpus, sweep.resources.num_gpus
        num_cpus = num_cpus or max(run.threads + run.num_workers for run in sweep.runs)
        if num_gpus is None:
            devices = {run.device.partition(":")[0] for run in sweep.runs}
            has_gpu = ray.cluster_resources().get("GPU", 0) > 0
            num_gpus = int("cuda" in devices or ("auto" in devices and has_gpu))
        cluster = Cluster(ray, num_cpus, num_gpus, options.workers)
        cluster.ask_autoscaler(len(sweep.runs))
        # A cluster on this machine gets no other nodes.
        _wait_for_room(cluster, 0 if address == "local" else PATIENCE)
        try:
            yield cluster
        finally:
            # The nodes that the autoscaler has added can go. If the cluster is gone, they are gone, too.
            with suppress(ConnectionError, ray.exceptions.RayError):
                cluster.ask_autoscaler(0)
    finally:
        ray.shutdown()


def _wait_for_room(cluster: Cluster, seconds: float) -> None:
    """Errors: UserError where no node has room for a job within so many seconds."""
    until = monotonic() + seconds
    if seconds and not cluster.slots():
        click.echo(f"{cluster.no_room()}; waiting {seconds:g} seconds for such a node", err=True)
    while not cluster.slots():
        if monotonic() > until:
            raise UserError(cluster.no_room())
        sleep(0.5)


def _connect(address: str) -> Any:
    """The module `ray`, connected to a cluster."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    options: dict[str, Any] = {}
    if address == "local":
        # In spite of its name, the first variable makes Ray bind to the loopback address alone.
        variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        options["num_cpus"] = usable_cpus()
        options |= {"include_dashboard": False, "object_store_memory": 100_000_000}
    # Ray reads some of them when it is imported.
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs ray: pip install 'bnbench[ray]'") from None
    _check_head(address)
    options["runtime_env"] = {"py_modules": [str(path) for path in packages().values()]}
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise UserError(f"--ray-address {address}: {first_line or type(error).__name__}") from None
    finally:
        # Ray has replaced it.
        signal.signal(signal.SIGTERM, sigterm_handler)
    return ray


def _check_head(address: str) -> None:
    """Errors: UserError where nothing answers at HOST:PORT. For the other forms of addresses, Ray says so soon."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--ray-address {address}: no cluster answers there: {error}") from None


def packages() -> dict[str, Path]:
    """The packages that are sent to the nodes: bnbench's own, and those whose entry points register something."""
    folders = {}
    for name in ("bnbench", "runner", *plugin_packages()):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"plugin '{name}' cannot be sent to a cluster: not a package")
        folders[name] = Path(next(iter(spec.submodule_search_locations)))
    return folders
