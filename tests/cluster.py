"""A Ray cluster of several nodes on this machine, started as docs/cluster.md says.

`python -m tests.cluster bnbench run …` runs a command in one of two nodes with one CPU each, and takes it down again.
A node is a process group of its own, so that a test can end it as a power cut would.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

SMALL = ("--object-store-memory", "100000000", "--disable-usage-stats")


class Node:
    """`ray start --block` with these arguments; `address` is how the machines of one cluster tell it from others."""

    def __init__(
        self, environment: Mapping[str, str], address: str, *arguments: str, python: Path = Path(sys.executable)
    ) -> None:
        self.address = address
        ray = [str(python), "-m", "ray.scripts.scripts"]
        command = [*ray, "start", "--block", *SMALL, "--node-ip-address", address, *arguments]
        self.process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def members(self) -> list[int]:
        """The processes of this node: its group's, and those below them that have left it."""
        parents, found = {}, set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(entry.name)] = int(fields[1])
                if int(fields[2]) == self.process.pid:
                    found.add(int(entry.name))
        while more := {child for child, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def signal(self, number: int) -> None:
        for member in self.members():
            try:
                os.kill(member, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """As a power cut."""
        self.signal(signal.SIGKILL)
        self.process.wait()


def alive(environment: Mapping[str, str]) -> int:
    """How many nodes the cluster has."""
    code = (
        "import logging, ray; ray.init(log_to_driver=False, logging_level=logging.ERROR)\n"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=30
        )
    except subprocess.TimeoutExpired:  # of a head that died as it came up
        return 0
    return int(done.stdout.splitlines()[0]) if done.returncode == 0 else 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Cluster:
    """A head that trains nothing, and nodes that do; `environment` is a driver's."""

    def __init__(self, stack: ExitStack, *options: str, port: int | None = None) -> None:
        self.port = str(port or free_port())
        # Ray pretends GPUs only where this variable does not name others.
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
            **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"},
            # Only Ray's fake autoscaler reads these.
            **{"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
        }
        self.stack, self.count = stack, 0
        self.start("127.0.0.1", "--head", "--port", self.port, "--num-cpus", "0", "--include-dashboard=false", *options)
        self.environment["RAY_ADDRESS"] = f"{self._host()}:{self.port}"
        self.wait(1)

    def _host(self) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # as Ray finds what it calls this machine
            try:
                probe.connect(("192.0.2.1", 80))
            except OSError:
                return "127.0.0.1"
            return str(probe.getsockname()[0])

    def start(self, address: str, *arguments: str, python: Path = Path(sys.executable)) -> Node:
        node = Node(self.environment, address, *arguments, python=python)
        self.stack.callback(node.kill)
        return node

    def add(self, cpus: int = 1, gpus: int = 0, python: Path = Path(sys.executable)) -> Node:
        """One more node, under a loopback address of its own. Its GPUs are pretended."""
        self.count += 1
        there = self.environment["RAY_ADDRESS"]
        resources = ("--num-cpus", str(cpus), "--num-gpus", str(gpus))
        return self.start(f"127.0.0.{self.count + 1}", "--address", there, *resources, python=python)

    def wait(self, nodes: int, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while alive(self.environment) != nodes:  # a node that was killed counts until it is missed
            assert time.monotonic() < until, "the cluster does not come up"


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    with ExitStack() as stack:
        found = Cluster(stack)
        for number in range(nodes):  # one after the other: two at once take each other's ports
            found.add()
            found.wait(number + 2)
        yield found


@contextmanager
def autoscaled(folder: Path, most: int) -> Iterator[Cluster]:
    """A head without CPUs, and Ray's fake autoscaler, which starts at most so many nodes of one CPU when it is asked.

    Ray's `AutoscalingCluster` does the same, but first stops every other cluster on the machine.
    """
    port = free_port()
    provider = {"type": "fake_multinode", "disable_launch_config_check": True, "disable_node_updaters": True}
    node = {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}, "min_workers": 0}
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    config = {
        **{"cluster_name": "fake", "max_workers": most, "upscaling_speed": 1.0, "idle_timeout_minutes": 1},
        **{"provider": provider | {"gcs_address": f"127.0.0.1:{port}"}, "auth": {}, "docker": {}},
        **{"head_node_type": "ray.head.default", "file_mounts": {}, "cluster_synced_files": []},
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "one CPU": node | {"max_workers": most},
        },
        **{f"{name}_commands": [] for name in lists},
        **{"file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": []},
    }
    file = folder / "autoscaler.json"
    file.write_text(json.dumps(config))
    with ExitStack() as stack:
        yield Cluster(stack, "--autoscaling-config", str(file), port=port)


def main(command: Sequence[str]) -> int:
    with cluster(2) as found:
        return subprocess.run(command, env=found.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
