"""Networks that end their worker in odd ways, or leave threads and processes behind: no sweep waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.execution.executors import worker
from runner.execution.executors.executor import Context
from runner.execution.executors.process import process
from runner.execution.executors.server import Server
from runner.execution.executors.worker import Worker
from runner.registry import load_plugins
from runner.storage.rows import Note, RunResult
from runner.training.options import TrainingOptions

ROOT = Path(__file__).parent.parent.parent

PLUGIN = """\
import os, pathlib, signal, threading, time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from torch import nn
from runner.registry import network

HERE = pathlib.Path(__file__).parent
send, send_bytes = Connection.send, Connection._send

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def send_and_die(self, message):
    send(self, message)
    if message is None:
        die()

def send_half(self, buffer, *rest):
    send_bytes(self, buffer[: len(buffer) // 2], *rest)
    die()

def forked():
    child = os.fork()
    if not child:
        time.sleep(10_000)
    (HERE / "children").open("a").write(f"{child}\\n")

def started():
    child = get_context("fork").Process(target=time.sleep, args=(10_000,))
    child.start()
    (HERE / "children").open("a").write(f"{child.pid}\\n")

def do(what):
    if what in ("fork", "hang"):
        forked()
    if what in ("process", "all"):
        started()
    if what in ("thread", "all"):
        threading.Thread(target=time.sleep, args=(10_000,)).start()
    if what == "number 40":
        os.kill(os.getpid(), 40)
    if what == "idle":
        Connection.send = send_and_die
    if what == "half a message":
        Connection._send = send_half
    if what == "fork":
        die()
    if what == "hang":
        (HERE / "worker.new").write_text(str(os.getpid()))
        (HERE / "worker.new").rename(HERE / "worker")
        time.sleep(10_000)

class Odd(nn.Linear):
    def __init__(self, what):
        super().__init__(784, 10)
        self.what = what

    def forward(self, images):
        what, self.what = self.what, ""
        do(what)
        return super().forward(images.flatten(1))

@network("odd")
def odd(*, what: str):
    return Odd(what)
"""
FIXED: dict[str, Any] = {"network": "odd", "dataset": "digits", "device": "cpu", "train_samples": 100, "epochs": 1}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "odd.py"
    path.write_text(PLUGIN)
    load_plugins((str(path),))
    return path


def job(what: str) -> Job:
    return Job((RunSpec(network_args={"what": what}, **FIXED),))


def state(pid: int) -> str:
    """The state of a process, as Linux names it: such as S for one that sleeps; Z for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def children(plugin: Path) -> Iterator[Callable[[], list[int]]]:
    """The processes that the networks have started. They must have ended at the end of the test."""

    def pids() -> list[int]:
        path = plugin.parent / "children"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    yield pids
    # A process that has been killed may need a moment to end.
    until = time.monotonic() + 10
    while (left := [pid for pid in pids() if state(pid) != "Z"]) and time.monotonic() < until:
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_a_sweep_goes_on_whatever_a_network_does_to_its_worker(
    plugin: Path, children: Callable[[], list[int]], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that waits for what its networks have left would now wait until the test is stopped.
    monkeypatch.setattr(worker, "TO_END", 10_000.0)
    whats = ["fork", "half a message", "number 40", "idle", "thread", "process", "nothing"]
    tasks = {job(what).run_ids[0]: what for what in whats}
    context = Context(TrainingOptions(plugin.parent, (str(plugin),)), server=server)
    events = list(process([job(what) for what in whats], context))
    results = {tasks[event.run_id]: event for event in events if isinstance(event, RunResult)}
    assert {what: result.error for what, result in results.items()} == {
        "fork": "the worker process died (killed by SIGKILL)",
        "half a message": "the worker process died (killed by SIGKILL)",
        "number 40": "the worker process died (killed by signal 40)",
        **dict.fromkeys(("idle", "thread", "process", "nothing"), ""),
    }
    assert [result.status for result in results.values()] == ["failed"] * 3 + ["ok"] * 4
    assert [event.text for event in events if isinstance(event, Note)] == [
        "a worker process died between two tasks (killed by SIGKILL); a new one takes its place"
    ]
    assert len(children()) == 2


@linux
def test_what_a_network_has_started_stops_with_the_driver_and_ends_with_it(
    plugin: Path, children: Callable[[], list[int]]
) -> None:
    with closing(Server()) as server:
        hanging = Worker(server, TrainingOptions(plugin.parent, (str(plugin),)), job("hang").runs[0])
        hanging.start(job("hang"))
        wait_for(lambda: (plugin.parent / "worker").exists())
        pids = [int((plugin.parent / "worker").read_text()), *children(), server.process.pid]
        assert len(pids) == 3
        # Ctrl-Z, then fg.
        server.process.send_signal(signal.SIGTSTP)
        wait_for(lambda: [state(pid) for pid in pids] == ["T"] * 3)
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: "T" not in [state(pid) for pid in pids])
        # The server ends at once if the driver is killed.
        server.process.kill()
        wait_for(lambda: [state(pid) for pid in pids] == ["Z"] * 3)


@linux
def test_the_command_ends_although_a_network_has_left_a_thread_and_a_process(
    plugin: Path, children: Callable[[], list[int]]
) -> None:
    config = plugin.parent / "odd.yaml"
    fixed = ", ".join(f"{key}: {value}" for key, value in FIXED.items())
    config.write_text(f"plugins: [odd.py]\nfixed: {{{fixed}, network.what: all}}\ngrid: {{seed: [0]}}\n")
    command = [sys.executable, "-m", "runner.interfaces.cli.main", "run", str(config), "--out", str(plugin.parent)]
    # This also waits until no process has the pipes.
    done = subprocess.run(
        [*command, "--executor", "inline", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "valid_accuracy at the last epoch" in done.stdout
    assert len(children()) == 1
