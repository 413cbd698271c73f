"""A sweep of 2,000 simulated runs on 16 Ray slots, while everything around it breaks.

`python -m tests.faults.chaos` starts four nodes of four slots. Every few seconds it kills a node or stops it (SIGSTOP),
and adds another one. It also kills the driver five times, and lets the disk be full twice. Each time the sweep is
resumed. In the end the table must be the whole table, byte for byte, with each row once.
"""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster import made_up
from runner.config.jobs import Task
from runner.config.reader import from_mapping
from runner.config.sweep import Sweep
from runner.execution.driver import run_sweep
from runner.execution.executors import ray_executor
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_actor import Answer
from runner.execution.executors.registry import executor
from runner.execution.options import Options
from runner.storage.rows import Event, Single
from tests.cluster import Cluster, Node, cluster

RUNS, EPOCHS, NODES, SLOTS = 2000, 5, 4, 4
BLOWS = ["driver", "disk", "driver", "driver", "disk", "driver", "driver"]
"""What ends the driver, one after the other, while the sweep goes from its first to its last row."""

EVERY = 8.0
"""Seconds between two blows to nodes."""

TABLES = ("metrics.csv", "runs.csv")


class Simulated:
    """A slot that trains nothing. A job of it takes a tenth of a second."""

    def __init__(self, *_: Any) -> None:
        self.events = deque[Single]()

    def next_events(self, tasks: Sequence[Task] = (), _: Any = None) -> Answer:
        for task in tasks:
            self.events.extend(made_up(task))
        if self.events:
            time.sleep(0.1)
        told = [self.events.popleft() for _ in range(min(len(self.events), EPOCHS + 1))]
        return Answer(tuple(told), not self.events)


def sweep() -> Sweep:
    fixed = {"network": "batch_norm", "dataset": "digits", "device": "cpu", "epochs": EPOCHS}
    return from_mapping({"name": "chaos", "fixed": fixed, "grid": {"seed": {"range": RUNS}}})


def drive(out: str) -> int:
    """The driver: bnbench's own, with simulated slots. It gives up a silent node after half a minute."""
    setattr(ray_executor, "RayActor", Simulated)  # noqa: B010
    ray_executor.SILENCE = 30.0
    return run_sweep(sweep(), Options(out=Path(out), executor="ray", existing="resume", quiet=True))


def expected(out: Path) -> list[bytes]:
    def undisturbed(jobs: Sequence[Task], _: Context) -> Iterator[Event]:
        for job in jobs:
            yield from made_up(job)

    with executor.temporary():
        executor("undisturbed")(undisturbed)
        # Not durable, and not shown: this is the oracle, and takes a minute if each row waits for the disk.
        run_sweep(sweep(), Options(out=out, executor="undisturbed", quiet=True, workers=1))
    return [(out / "chaos" / name).read_bytes() for name in TABLES]


def rows(out: Path) -> int:
    path = out / "chaos/metrics.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


class Driver:
    """The driver's process, started again each time that a blow has ended it."""

    def __init__(self, found: Cluster, out: Path) -> None:
        self.command = [sys.executable, "-m", "tests.faults.chaos", "drive", str(out)]
        self.environment, self.out = found.environment, out
        self.errors = out / "stderr.txt"
        self.start()

    def start(self) -> None:
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )

    def strike(self, blow: str) -> None:
        if blow == "driver":
            self.process.send_signal(signal.SIGKILL)
        else:
            # No file may grow any more, which the driver sees as it sees a full disk.
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        self.process.wait()


def strike_nodes(nodes: list[Node], found: Cluster, draw: random.Random) -> str:
    blow = draw.choice(["killed", "stopped"])
    node = nodes.pop(draw.randrange(len(nodes)))
    node.signal(signal.SIGKILL if blow == "killed" else signal.SIGSTOP)
    nodes.append(found.add(SLOTS))
    return f"node {blow}"


def main() -> int:
    draw, hits = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory() as name, cluster(0) as found:
        out, blows = Path(name), list(BLOWS)
        whole = expected(out / "undisturbed")
        nodes = []
        for number in range(NODES):
            nodes.append(found.add(SLOTS))
            found.wait(number + 2)
        driver, began, struck = Driver(found, out), time.monotonic(), time.monotonic()
        while driver.process.poll() is None:
            time.sleep(0.1)
            done = len(BLOWS) - len(blows)
            if blows and rows(out) > RUNS * EPOCHS * (done + 1) / (len(BLOWS) + 2):
                hits[blows[0]] += 1
                driver.strike(blows.pop(0))
                print(f"{time.monotonic() - began:.0f} s: {rows(out)} rows, {dict(hits)}", flush=True)
                driver.start()
            elif time.monotonic() - struck > EVERY:
                hits[strike_nodes(nodes, found, draw)] += 1
                struck = time.monotonic()
        same = [(out / "chaos" / table).read_bytes() for table in TABLES] == whole
        lost = (out / "chaos/run.log").read_text().count("runs lost")
        if driver.process.returncode or not same:
            print(driver.errors.read_text()[-4000:])
        blown = ", ".join(f"{count} x {hit}" for hit, count in sorted(hits.items()))
        print(f"{RUNS} runs, {rows(out) - 1} rows in {time.monotonic() - began:.0f} s; {blown}; {lost} attempts lost")
        failed = bool(driver.process.returncode or not same or blows)
        print(f"exit code {driver.process.returncode}; the whole table: {same}; {int(failed)} failures")
        return int(failed)


if __name__ == "__main__":
    sys.exit(drive(sys.argv[2]) if sys.argv[1:2] == ["drive"] else main())
