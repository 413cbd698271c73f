"""What a cluster costs, and how many workers one driver serves. `python -m benchmarks cluster`; needs bnbench[ray].

Three things: the driver alone, handed made-up rows in batches; the driver and Ray with simulated nodes, whose slots
make rows up as fast as they are asked for them; and real training on two workers, with Ray and with `process`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

from runner.config import yaml_source
from runner.config.jobs import Task
from runner.config.reader import from_mapping
from runner.config.sweep import Sweep
from runner.execution.driver import run_sweep
from runner.execution.executors import ray_executor as remote
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_actor import Answer
from runner.execution.executors.ray_cluster import Cluster, RayContext
from runner.execution.executors.ray_executor import ray as on_ray
from runner.execution.executors.registry import executor
from runner.execution.options import Options
from runner.storage.rows import EpochRow, Event, EventBatch, RunResult, Single

BATCHES = (1, 10, 100, 1000)
WORKERS = (1, 4, 16, 64)
NODES = 4
ROUNDS = 3


def made_up(job: Task) -> Iterator[Single]:
    """A job's events without any training."""
    for run in job.runs:
        rows = [
            EpochRow(run.run_id, epoch, 60 * epoch, 1 / epoch, 0.5, 1 / 3, 0.5, 0.1, 0.1 * epoch)
            for epoch in range(1, run.epochs + 1)
        ]
        yield from rows
        yield RunResult(run.run_id, "ok", tuple(rows), 44_426, 0.5, 0.5, "0" * 16, "0" * 8, trained_as="alone")


class Simulated:
    """A slot that trains nothing; it says its first word when all the others are there."""

    def __init__(self, meeting: Path, workers: int) -> None:
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < workers:
            sleep(0.1)

    def next_events(self, tasks: Sequence[Task] = (), _: Any = None) -> Answer:
        return Answer(tuple(event for task in tasks for event in made_up(task)))


@dataclass(frozen=True)
class SimulatedCluster(Cluster):
    """Real scheduling, real messages; slots without a worker process, so that 64 fit on one machine."""

    meeting: Path = Path()

    def actor(self, kind: type, *arguments: Any) -> Any:  # noqa: ARG002
        return super().actor(Simulated, self.meeting, self.most)


def measured(runs: int, epochs: int, name: str) -> dict[str, float]:
    """From the first event to the last row on the disk: rows and runs a second, and rows a second of the driver's own
    CPU time."""
    fixed = {"network": "batch_norm", "dataset": "digits", "device": "cpu", "epochs": epochs}
    sweep = from_mapping({"name": "rows", "fixed": fixed, "grid": {"seed": {"range": runs}}})
    with tempfile.TemporaryDirectory() as folder:
        run_sweep(sweep, Options(out=Path(folder), executor=name, quiet=True, workers=1))
        lines = (Path(folder) / "rows/metrics.csv").read_bytes().count(b"\n")
    assert lines == runs * epochs + 1, lines
    (seconds, cpu), rows = TOOK[-1], runs * epochs
    return {
        "rows_per_second": rows / seconds,
        "runs_per_second": runs / seconds,
        "rows_per_cpu_second": rows / cpu,
    }


TOOK: list[tuple[float, float]] = []
"""Seconds, and of them the driver's CPU time, that the last sweep's events took; planning and sorting apart."""


def timed(events: Iterator[Event]) -> Iterator[Event]:
    first = next(events)
    began, cpu = perf_counter(), process_time()
    yield first
    yield from events
    TOOK.append((perf_counter() - began, process_time() - cpu))


def driver_alone(batch: int, runs: int, epochs: int) -> dict[str, float]:
    def handed(jobs: Sequence[Task], _: Context) -> Iterator[Event]:
        events = (event for job in jobs for event in made_up(job))
        while together := tuple(islice(events, batch)):
            yield EventBatch(together)

    with executor.temporary():
        executor("handed")(lambda jobs, context: timed(handed(jobs, context)))
        return measured(runs, epochs, "handed")


def simulated(workers: int, runs: int, epochs: int, turn: float) -> dict[str, float]:
    """So many slots over four nodes, simulated ones, on this machine. `turn`: seconds of work that a slot gets at once;
    0 for one job at a time."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    remote.TURN = turn
    remote.SILENCE = 600.0  # 64 processes come to life one after the other here
    each = {"num_cpus": -(-workers // NODES), "object_store_memory": 100_000_000}
    nodes = Nodes(initialize_head=True, head_node_args=each | {"include_dashboard": False})
    try:
        for _ in range(min(workers, NODES) - 1):
            nodes.add_node(**each)
        root = Path(__file__).parent.parent
        paths = [str(root / name) for name in ("bnbench", "runner", "experiments", "benchmarks")]
        ray.init(address=nodes.address, log_to_driver=False, logging_level="error", runtime_env={"py_modules": paths})
        with tempfile.TemporaryDirectory() as meeting:
            cluster = SimulatedCluster(ray, 1, 0, workers, meeting=Path(meeting))
            on_cluster = RayContext(cluster, {}, Path(meeting))
            with executor.temporary():
                executor("spread")(lambda jobs, context: timed(on_ray(jobs, replace(context, ray=on_cluster))))
                return measured(runs, epochs, "spread")
    finally:
        ray.shutdown()
        nodes.shutdown()


def large_sweep(runs: int, epochs: int) -> Sweep:
    """Two arms with `runs` runs in all."""
    fixed = {"dataset": "digits", "device": "cpu", "epochs": epochs}
    grid = {"network": ["no_batch_norm", "batch_norm"], "seed": {"range": runs // 2}}
    contrast = {"axis": "network", "baseline": "no_batch_norm"}
    return from_mapping({"name": "large", "contrast": contrast, "fixed": fixed, "grid": grid})


def varied(job: Task) -> Iterator[Single]:
    """Made-up events whose accuracies differ from run to run."""
    (run,) = job.runs
    accuracy = 0.5 + 0.1 * int(run.run_id, 16) / 16**12
    *rows, result = made_up(job)
    changed = tuple(replace(row, valid_accuracy=accuracy) for row in rows if isinstance(row, EpochRow))
    assert isinstance(result, RunResult)
    yield from changed
    yield replace(result, rows=changed)


def peak() -> float:
    """The most memory that this process has had, in MB. (`ru_maxrss` is never below that of the process before it.)"""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def large(folder: str, runs: int, epochs: int) -> dict[str, float]:
    """The driver with so many runs, whose events come a thousand at a time. `mb_above_torch` is its peak of memory
    above that of a process that has imported torch; the tenths are seconds of the first and the last tenth of the
    events."""
    import torch  # noqa: F401

    with_torch = peak()
    times: list[float] = []

    def handed(jobs: Sequence[Task], _: Context) -> Iterator[Event]:
        events = (event for job in jobs for event in varied(job))
        while together := tuple(islice(events, 1000)):
            times.append(perf_counter())
            yield EventBatch(together)
        times.append(perf_counter())

    with executor.temporary():
        executor("handed")(handed)
        began = perf_counter()
        run_sweep(large_sweep(runs, epochs), Options(out=Path(folder), executor="handed", quiet=True, workers=1))
        seconds, tenth = perf_counter() - began, len(times) // 10
    return {
        "seconds": seconds,
        "first_tenth": times[tenth] - times[0],
        "last_tenth": times[-1] - times[-1 - tenth],
        "mb_above_torch": peak() - with_torch,
    }


def commands_on(folder: Path) -> dict[str, list[str]]:
    """What users do with a finished sweep."""
    config = folder.with_suffix(".yaml")
    shutil.copy(folder / "config.yaml", config)
    return {
        "plan": ["plan", str(config)],
        "resume": ["resume", str(folder), "--quiet"],
        "watch --once": ["watch", str(folder), "--once"],
        "compare": ["compare", str(folder)],
        "report": ["report", str(folder)],
    }


COST = """
import resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run([sys.executable, "-m", "bnbench", *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
"""
"""It runs a command from a small process: the memory of a child is counted as at least that of its parent."""


def cost(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of a `bnbench` command, and its peak of memory in MB."""
    done = subprocess.run([sys.executable, "-c", COST, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, memory = map(float, done.stdout.split())
    return {"seconds": seconds, "mb": memory}


def large_folder(runs: int = 100_000, epochs: int = 10) -> dict[str, dict[str, float]]:
    """The driver and the commands on a sweep of so many runs."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"driver": alone(f"large({folder!r}, {runs}, {epochs})")}
        for name, arguments in commands_on(Path(folder) / "large").items():
            found[name] = cost(arguments)
        for name, values in found.items():
            show(f"{runs:,} runs of {epochs}: {name}", {key: f"{value:,.1f}" for key, value in values.items()})
    return found


def train(name: str, fixed: dict[str, Any], runs: int) -> float:
    """Seconds of one `bnbench run` on two workers."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "train.yaml"
        config.write_text(yaml_source.dump({"fixed": fixed, "grid": {"seed": {"range": runs}}}), "utf-8")
        command = [sys.executable, "-m", "runner.interfaces.cli.main", "run", str(config), "--out", folder, "--quiet"]
        began = perf_counter()
        subprocess.run([*command, "--workers", "2", "--executor", name], stdout=subprocess.DEVNULL, check=True)
        return perf_counter() - began


TRAINED: dict[str, tuple[dict[str, Any], int]] = {
    "2 runs of 1 epoch, digits": ({"dataset": "digits", "network": "batch_norm", "epochs": 1}, 2),
    "100 runs of 1 epoch, digits": ({"dataset": "digits", "network": "batch_norm", "epochs": 1}, 100),
    "8 runs of 5 epochs, FashionMNIST": ({"network": "batch_norm", "epochs": 5}, 8),
}
"""The first is start-up; the second less the first, jobs; the third, whether two workers are kept busy."""


def trained() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case, (fixed, runs) in TRAINED.items():
        found[case] = {"process": [], "ray": []}
        for _ in range(ROUNDS):
            for name, seconds in found[case].items():
                seconds.append(train(name, {**fixed, "device": "cpu"}, runs))
        show(case, {name: f"{statistics.median(seconds):.1f} s" for name, seconds in found[case].items()})
    return found


def show(case: str, figures: dict[str, Any]) -> None:
    print(f"{case:<44} {'  '.join(f'{name} {value}' for name, value in figures.items())}", flush=True)


def alone(call: str) -> Any:
    """One measurement in a process of its own: peaks of memory, and Ray, begin anew."""
    code = f"import json; from benchmarks import cluster; print(json.dumps(cluster.{call}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure() -> dict[str, Any]:
    """All of it: name → figures."""
    results: dict[str, Any] = {"load": {"first": os.getloadavg()[0]}, "driver": {}, "simulated": {}}
    # First what needs data: if they are not there, that is said at once.
    results["trained"] = trained()
    for batch in BATCHES:
        found = alone(f"driver_alone({batch}, 2000, {1 if batch == 1 else 10})")
        results["driver"][f"{batch} events a batch"] = found
        show(f"driver, {batch} events a batch", {name: f"{value:,.0f}" for name, value in found.items()})
    for epochs, runs in ((10, 10_000), (1, 10_000), (1, 100_000)):
        for workers in WORKERS if runs < 100_000 else WORKERS[-1:]:
            case = f"{workers} workers, {runs:,} runs of {epochs}"
            # Jobs one at a time, as before bnbench gave an actor several short ones, and as now.
            results["simulated"][case] = {
                name: alone(f"simulated({workers}, {runs}, {epochs}, {turn})")
                for name, turn in (("one job at a time", 0.0), ("turns", remote.TURN))
            }
            for name, found in results["simulated"][case].items():
                show(f"{case}, {name}", {name: f"{value:,.0f}" for name, value in found.items()})
    results["load"]["last"] = os.getloadavg()[0]
    results["large"] = large_folder()
    return results
