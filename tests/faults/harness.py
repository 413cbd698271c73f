"""Faults at every write, fsync, rename and deletion of a small sweep, in processes that are really killed.

A script, so that its processes are forked from one that has no threads and has not loaded torch: the trainer is a stub
with the driver, the store and the checkpoints of the real one. `python -m tests.faults.harness kill|error|writers|many
[SIZE [stub|together]]` prints what it tried and what failed, and exits with 1 where something did.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from runner import execution, training
from runner.config.jobs import Task
from runner.config.reader import from_mapping
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.storage.checkpoints import Every, find
from runner.storage.rows import Checkpoint, EpochRow, Event, EventBatch, RunResult
from runner.training.options import TrainingOptions

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the sweeps are. What ends here is a process and not the machine, so nothing needs to wait for a disk."""

ENVIRONMENT = {"python": "3", "code": "0" * 64}

# The driver imports these inside its functions; they would load torch.
for package, name, module in (
    (execution, "kernels", types.SimpleNamespace(choose=lambda *_: "torch", shortfalls=lambda *_: ())),
    (
        execution,
        "preflight",
        types.SimpleNamespace(check=lambda sweep, *_: sweep, norm_changes=lambda _: [], batch_warnings=lambda *_: []),
    ),
    (training, "environment", types.SimpleNamespace(describe=lambda *_: ENVIRONMENT)),
):
    sys.modules[f"{package.__name__}.{name}"] = module  # type: ignore[assignment]
    setattr(package, name, module)

from runner.execution.driver import run_sweep  # noqa: E402
from runner.execution.options import Options  # noqa: E402
from runner.storage import checkpoints, contrast_history  # noqa: E402

contrast_history.now = lambda: "2026-11-26T14:02:00+00:00"  # a sweep that was killed ends with the same bytes
checkpoints.loads = lambda found: bool(found)  # the stub's states are not torch's


def row(run: RunSpec, epoch: int) -> EpochRow:
    value = (run.seed + 1) / (epoch + 1) / 3
    return EpochRow(run.run_id, epoch, epoch * 10, value, 1 - value, value / 2, 1 - value / 2, 0.5, 0.5 * epoch)


@executor("stub")
def stub(jobs: Sequence[Task], context: Context) -> Iterator[Event]:
    """Trains nothing; its rows are a function of run and epoch. The second run of three fails."""
    for job in jobs:
        for run in job.runs:
            file = context.checkpoints.get(run.run_id)
            done = next((found.epoch for found in find(file.parent)[0] if found.path == file), 0) if file else 0
            rows = [row(run, epoch) for epoch in range(1, done + 1)]
            for epoch in range(done + 1, run.epochs + 1):
                rows.append(row(run, epoch))
                yield rows[-1]
                if epoch < run.epochs and context.training.checkpoint_every.due(epoch, 0):
                    yield Checkpoint((run.run_id,), epoch, b"state of " + str(epoch).encode())
            failed = run.seed % 3 == 1
            status, error = ("failed", "ValueError: one") if failed else ("ok", "")
            weights = f"weights of {run.seed}".encode() if context.training.save_weights and not failed else None
            yield RunResult(run.run_id, status, tuple(rows), 10, 0.5, 0.5, "w", "b", error, weights=weights)  # type: ignore[arg-type]


TOGETHER = 5
"""Events a batch; no multiple or divisor of a run's, so that batches begin and end anywhere in one."""


@executor("together")
def together(jobs: Sequence[Task], context: Context) -> Iterator[Event]:
    """The stub's events in batches, as a cluster's come."""
    events = stub(jobs, context)
    while batch := tuple(islice(events, TOGETHER)):
        yield EventBatch(batch)  # type: ignore[arg-type]


def sweep_of(runs: int, epochs: int) -> Sweep:
    fixed = {"network": "batch_norm", "dataset": "digits", "device": "cpu", "epochs": epochs}
    return from_mapping({"name": "small", "fixed": fixed, "grid": {"seed": {"range": runs}}, "save_weights": True})


def finish(sweep: Sweep, out: Path) -> int:
    return run_sweep(
        sweep,
        Options(
            out=out,
            executor=HOW,
            existing="resume",
            quiet=True,
            workers=1,
            training=TrainingOptions(checkpoint_every=Every(epochs=1)),
        ),
    )


HOW = "stub"


def tables(out: Path) -> dict[str, bytes]:
    """Everything in the folder but the log, which says what happened, and the lock."""
    folder = out / "small"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.log", ".lock")
    }


# Faults


CONTENT = ("write", "fsync", "replace", "unlink", "rmdir")
NEW = ("open", "mkdir")
"""The functions of os that change the disk. Those of `NEW` do so only where they make a file or a folder."""


class Operations:
    """Notes the operations that change the disk, and does something at one of them."""

    def __init__(
        self, at: int, fault: Callable[[str, Callable[..., Any], Any], Any], names: Sequence[str] = (*CONTENT, *NEW)
    ) -> None:
        self.names, self.at, self.fault = list[str](), at, fault
        for name in names:
            self.wrap(name)

    def wrap(self, name: str) -> None:
        real = getattr(os, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            message = name == "write" and arguments[0] < 3
            reading = name == "open" and not arguments[1] & os.O_CREAT
            if message or reading or (name in NEW and is_there(arguments[0], named.get("dir_fd"))):
                return real(*arguments, **named)
            self.names.append(name)
            call = partial(real, **named)
            return self.fault(name, call, arguments) if len(self.names) == self.at else call(*arguments)

        setattr(os, name, wrapped)


def is_there(path: Any, folder: int | None) -> bool:
    try:
        os.stat(path, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def kill(_: str, __: Callable[..., Any], ___: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_halfway(_: str, real: Callable[..., Any], arguments: Any) -> None:
    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def kills_at(name: str) -> Sequence[Callable[..., None]]:
    """Only a write has a half: a kill after any other operation is one before the next."""
    return (kill, kill_halfway) if name == "write" else (kill,)


def in_child(work: Callable[[], int]) -> int:
    """The exit code of work done in a forked process; negative where a signal ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            code = work()
        except (UserError, OSError):
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def faulty(sweep: Sweep, out: Path, at: int, fault: Callable[..., Any]) -> int:
    out.mkdir(exist_ok=True)

    def work() -> int:
        Operations(at, fault)
        return finish(sweep, out)

    return in_child(work)


def operations_of(sweep: Sweep, out: Path) -> tuple[list[str], int]:
    """The names of the operations of a sweep that goes on from what lies there, and its exit code."""
    out.mkdir(exist_ok=True)
    reading, writing = os.pipe()

    def work() -> int:
        operations = Operations(0, kill)
        code = finish(sweep, out)
        names = list(operations.names)
        os.write(writing, " ".join(names).encode())
        return code

    code = in_child(work)
    # Without a writer, the pipe of a child that has failed is empty, and reading it does not wait.
    os.close(writing)
    with os.fdopen(reading) as pipe:
        names = pipe.read().split()
    assert names, f"a sweep without a fault ended with {code}"
    return names, code


class Trials:
    def __init__(self) -> None:
        self.tried, self.failures = 0, list[str]()

    def check(self, good: bool, what: str) -> None:
        self.tried += 1
        if not good:
            self.failures.append(what)


def kills(stride: int) -> Trials:
    """SIGKILL at every operation, then at every `stride`-th of the recovery, then a recovery to the same bytes."""
    trials, sweep = Trials(), sweep_of(3, 3)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        whole, first, second = (Path(name) / each for each in ("whole", "first", "second"))
        assert in_child(lambda: finish(sweep, whole)) == 1  # one run fails
        expected = tables(whole)
        operations, _ = operations_of(sweep, Path(name) / "counted")
        for at, operation in enumerate(operations, start=1):
            for fault in kills_at(operation):
                shutil.rmtree(first, ignore_errors=True)
                code = faulty(sweep, first, at, fault)
                killed = code == -signal.SIGKILL
                shutil.rmtree(second, ignore_errors=True)
                shutil.copytree(first, second)
                again, code = operations_of(sweep, second)
                same = tables(second) == expected
                trials.check(killed and code == 1 and same, f"operation {at}, {fault.__name__}: {code}, {killed=}")
                for then in range(at % stride, len(again), stride):
                    for fault_then in kills_at(again[then]):
                        shutil.rmtree(second)
                        shutil.copytree(first, second)
                        code = faulty(sweep, second, then + 1, fault_then)
                        killed = code == -signal.SIGKILL
                        code = in_child(lambda: finish(sweep, second))
                        same = tables(second) == expected
                        trials.check(killed and code == 1 and same, f"operations {at} and {then + 1}: {code}")
        print(f"{len(operations)} operations")
    return trials


def errors() -> Trials:
    """ENOSPC or EIO at every operation: a clear end, the rows before it intact, a resume to the same bytes."""
    trials, sweep = Trials(), sweep_of(3, 3)

    def failing(number: int) -> Callable[..., Any]:
        def fault(name: str, real: Callable[..., Any], arguments: Any) -> Any:
            if name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])  # a disk that fills takes a part
            raise OSError(number, os.strerror(number))

        return fault

    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        in_child(lambda: finish(sweep, whole))
        expected = tables(whole)
        operations, _ = operations_of(sweep, Path(name) / "counted")
        for at in range(1, len(operations) + 1):
            number = (errno.ENOSPC, errno.EIO)[at % 2]  # bnbench does not tell them apart
            shutil.rmtree(broken, ignore_errors=True)
            code = faulty(sweep, broken, at, failing(number))
            path = broken / "small/metrics.csv"
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            intact = all(line in expected["metrics.csv"].split(b"\n") for line in lines)
            trials.check(code == 2 and intact, f"{errno.errorcode[number]} at {at}: exit code {code}, {intact=}")
            code = in_child(lambda: finish(sweep, broken))
            same = code == 1 and tables(broken) == expected
            trials.check(same, f"{errno.errorcode[number]} at {at}, resumed: exit code {code}")
    return trials


def writers(times: int) -> Trials:
    """Two writers at once: one wins, the other is told within a second and changes nothing."""
    trials, sweep = Trials(), sweep_of(3, 3)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        whole, out = Path(name) / "whole", Path(name) / "out"
        in_child(lambda: finish(sweep, whole))
        expected = tables(whole)
        for trial in range(times):
            shutil.rmtree(out, ignore_errors=True)
            begun = time.monotonic() + 0.02
            ends = Path(name) / "ends"
            ends.mkdir(exist_ok=True)

            def work(number: int, begun: float = begun, ends: Path = ends) -> int:
                while time.monotonic() < begun:
                    pass
                # Of two that begin at once, both may make the folder and its lock file.
                operations = Operations(0, kill, CONTENT)
                code = 70
                try:
                    code = finish(sweep, out)
                except UserError as error:
                    code = 2 if "another process is writing" in str(error) else 71
                finally:
                    late = time.monotonic() - begun
                    (ends / str(number)).write_text(f"{code} {late} {len(operations.names)}")
                return code

            children = []
            for number in range(2):
                child = os.fork()
                if child == 0:
                    try:
                        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                        work(number)
                    finally:
                        os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
            found = sorted(tuple(map(float, (ends / str(number)).read_text().split())) for number in range(2))
            (won, _, _), (lost, late, changes) = found
            # The second may come when the first is through: then it finds a finished sweep and writes nothing.
            told = (lost == 2 and late < 1 and changes == 0) or (lost == 1 and 0 in (changes, found[0][2]))
            trials.check(won == 1 and told and tables(out) == expected, f"trial {trial}: {found}")
    return trials


def many(runs: int) -> Trials:
    """Runs of one epoch each: the driver's memory and the cost of a row, at the first tenth and at the last."""
    trials, sweep = Trials(), sweep_of(runs, 1)
    readings: list[tuple[float, float]] = []

    def memory() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    @executor("watched")
    def watched(jobs: Sequence[Task], context: Context) -> Iterator[Event]:
        for number, event in enumerate(stub(jobs, context)):
            if number % (2 * runs // 10) == 0:
                readings.append((time.perf_counter(), memory()))
            yield event
        readings.append((time.perf_counter(), memory()))

    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        run_sweep(sweep, Options(out=Path(name), executor="watched", quiet=True, workers=1))
        rows = len((Path(name) / "small/metrics.csv").read_text().splitlines()) - 1
    costs = [1e3 * (after[0] - before[0]) / (runs / 10) for before, after in pairwise(readings)]
    print(f"{runs} runs: ms a run, by tenths: " + " ".join(f"{cost:.2f}" for cost in costs))
    print("driver's memory, MB, by tenths: " + " ".join(f"{megabytes:.0f}" for _, megabytes in readings))
    trials.check(rows == runs, f"{rows} rows of {runs}")
    trials.check(readings[-1][1] - readings[1][1] < 20, "the driver's memory grows")
    return trials


def main(mode: str, size: int, how: str) -> int:
    global HOW
    HOW = how
    modes: dict[str, Callable[[], Trials]] = {
        "kill": lambda: kills(size),
        "error": errors,
        "writers": lambda: writers(size),
        "many": lambda: many(size),
    }
    trials = modes[mode]()
    print(f"{mode}: {trials.tried} trials, {len(trials.failures)} failures")
    for failure in trials.failures[:20]:
        print(f"  {failure}")
    return 1 if trials.failures else 0


if __name__ == "__main__":
    mode, size, how, *_ = [*sys.argv[1:], *("", "1", "stub")[len(sys.argv) - 1 :]]
    sys.exit(main(mode, int(size), how))
