"""The server and the workers that it forks: who may die, and what is then said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.execution.executors import server as servers
from runner.execution.executors.executor import Context
from runner.execution.executors.process import process
from runner.execution.executors.server import Server
from runner.execution.executors.worker import Worker
from runner.execution.executors.worker_process import NodeOptions
from runner.registry import load_plugins
from runner.storage.rows import Event, Note, RunResult
from runner.training import environment
from runner.training.options import TrainingOptions

Write = Callable[[str, str], Path]
ROOT = Path(__file__).parent.parent.parent

PLUGIN = """\
import json, os, pathlib, signal, sys, time
from torch import nn
from runner.registry import network
from runner.training.data.preprocessing import prepare

HERE = pathlib.Path(__file__).parent

class Mortal(nn.Linear):
    def __init__(self, end):
        super().__init__(784, 10)
        self.end, self.steps = end, 0

    def forward(self, images):
        self.steps += self.training
        if self.steps > 5:
            if self.end == "hang":
                time.sleep(10_000)
            if self.end == "exit":
                os._exit(7)
            if self.end in ("SIGKILL", "SIGABRT"):
                os.kill(os.getpid(), getattr(signal, self.end))
            if self.end == "stop":
                os.kill(os.getppid(), signal.SIGSTOP)
                os._exit(7)
            if self.end == "server" and not (HERE / "killed").exists():
                while '"hang"' not in (HERE / "seen.jsonl").read_text():
                    time.sleep(0.01)
                (HERE / "killed").touch()
                os.kill(os.getppid(), signal.SIGKILL)
                # This worker ends with the server. On a busy machine it would otherwise finish its run before that.
                time.sleep(10_000)
        return super().forward(images.flatten(1))

@network("mortal")
def mortal(*, end: str):
    with open(HERE / "seen.jsonl", "a") as file:
        seen = {"end": end, "worker": os.getpid(), "server": os.getppid(), "misses": prepare.cache_info().misses}
        seen["read"] = sys.stdin.read() + os.read(0, 1).decode()
        file.write(json.dumps(seen) + "\\n")
    return Mortal(end)
"""


FIRST_FORK_FAILS = """\
import os

fork, calls = os.fork, []

def fail_once():
    calls.append(1)
    if len(calls) == 1:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = fail_once
"""


@pytest.fixture
def plugin(write: Write) -> Path:
    path = write("mortal.py", PLUGIN)
    load_plugins((str(path),))
    return path


def jobs(*ends: str) -> list[Job]:
    """A job of ten steps for each end."""
    fixed: dict[str, Any] = {"dataset": "digits", "device": "cpu", "train_samples": 200, "batch_size": 20, "epochs": 1}
    return [Job((RunSpec(network="mortal", network_args={"end": end}, **fixed),)) for end in ends]


def train(
    plugin: Path, ends: Sequence[str], workers: int, server: Server | None = None
) -> tuple[dict[str, RunResult], list[Event]]:
    """The results by the runs' ends, and all events. Without a server, the executor starts one."""
    tasks, options = jobs(*ends), TrainingOptions(plugin.parent, (str(plugin),))
    events = list(process(tasks, Context(options, workers=workers, server=server)))
    by_id = {event.run_id: event for event in events if isinstance(event, RunResult)}
    return {end: by_id[task.run_ids[0]] for end, task in zip(ends, tasks, strict=True)}, events


def seen(plugin: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (plugin.parent / "seen.jsonl").read_text().splitlines()]
    return {line["end"]: line for line in lines}


def test_workers_survive_one_anothers_death_and_it_is_said_how_they_died(plugin: Path) -> None:
    results, _ = train(plugin, ["SIGKILL", "never", "exit", "SIGABRT", "late"], workers=2)
    assert {end: result.error for end, result in results.items()} == {
        "SIGKILL": "the worker process died (killed by SIGKILL)",
        "exit": "the worker process died (exit code 7)",
        "SIGABRT": "the worker process died (killed by SIGABRT)",
        "never": "",
        "late": "",
    }
    assert results["never"].status == results["late"].status == "ok"
    lines = seen(plugin)
    assert len({line["server"] for line in lines.values()}) == 1
    assert len({line["worker"] for line in lines.values()}) >= 4
    # A network that reads the standard input gets nothing, and does not wait.
    assert {line["read"] for line in lines.values()} == {""}
    # Where workers are forked, none reads the data that the server has read.
    assert sys.platform != "linux" or {line["misses"] for line in lines.values()} == {1}


def test_a_server_that_is_killed_costs_what_its_workers_train_and_there_is_a_new_one(plugin: Path) -> None:
    results, _ = train(plugin, ["server", "hang", "late"], workers=2)
    assert results["late"].status == "ok", results["late"].error
    assert results["hang"].error.startswith("the worker process died (with the process that started it: killed by")
    lines = seen(plugin)
    assert lines["server"]["server"] == lines["hang"]["server"]


def test_a_server_that_has_stopped_is_given_up(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "TO_ANSWER", 0.5)
    results, _ = train(plugin, ["stop", "late"], workers=1)
    assert results["stop"].error.startswith("the worker process died (with the process that started it: killed by")
    assert results["late"].status == "ok"


def test_a_worker_that_cannot_be_forked_fails_its_job_only(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The server forks workers in a program that fails at the first fork.
    (plugin.parent / "sitecustomize.py").write_text(FIRST_FORK_FAILS)
    monkeypatch.setattr(sys, "path", [str(plugin.parent), *sys.path])
    results, _ = train(plugin, ["never", "late"], workers=1)
    assert results["never"].error == "the worker process died (it could not be started; the error is above)"
    assert results["late"].status == "ok"


def test_server_and_workers_die_with_the_driver(plugin: Path, tmp_path: Path) -> None:
    config = tmp_path / "hang.yaml"
    config.write_text(
        "plugins: [mortal.py]\nfixed: {network: mortal, network.end: hang, dataset: digits, device: cpu}\n"
        "grid: {batch_size: [20, 40]}\n"
    )
    command = [sys.executable, "-m", "runner.interfaces.cli.main", "run", str(config), "--out", str(tmp_path)]
    driver = subprocess.Popen([*command, "--workers", "2"], cwd=ROOT, stderr=subprocess.PIPE)
    found = plugin.parent / "seen.jsonl"
    while not found.exists() or found.read_text().count("\n") < 2:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    # The workers inherit the driver's standard error. It ends when all of them have ended.
    driver.communicate(timeout=60)


def test_a_plugin_that_does_not_import_in_a_worker_is_one_error(plugin: Path, server: Server) -> None:
    plugin.write_text("import no_such_module")
    with pytest.raises(UserError, match=r"plugin .*mortal.py does not import: ModuleNotFoundError: .*no_such_module"):
        train(plugin, ["never"], 1, server)


def test_an_import_error_of_the_server_is_shown(
    plugin: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("torch.py", "raise ImportError('libtorch.so: no such file')")
    monkeypatch.setattr(sys, "path", [str(plugin.parent), *sys.path])
    with pytest.raises(UserError, match="no worker can be started"):
        train(plugin, ["never"], workers=1)
    assert "ImportError: libtorch.so: no such file" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_a_server_that_has_threads_starts_programs_and_says_so(
    plugin: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A daemon: every program that Python starts would wait for another one, such as multiprocessing's resource tracker.
    write("sitecustomize.py", "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()")
    monkeypatch.setattr(sys, "path", [str(plugin.parent), *sys.path])
    results, events = train(plugin, ["never", "exit"], workers=1)
    assert results["never"].status == "ok"
    assert results["exit"].error == "the worker process died (exit code 7)"
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert "not forked, because the process that forks has 2 threads" in notes[0]


def test_a_node_with_other_kernels_is_refused(server: Server, tmp_path: Path) -> None:
    run = RunSpec(network="notebook_mlp", dataset="digits", device="cpu", epochs=1)
    versions = environment.versions(["digits"], tmp_path, "torch") | {"kernels": "x86_64_v4 0123456789ab"}
    worker = Worker(server, TrainingOptions(tmp_path, kernels="torch"), run, NodeOptions((), versions))
    worker.start(Job((run,)))
    with pytest.raises(UserError, match="kernels torch there, x86_64_v4 0123456789ab here"):
        list(worker.receive())
    worker.kill()


@pytest.mark.cuda
def test_forked_workers_train_on_cuda(tmp_path: Path) -> None:
    run = RunSpec(network="notebook_mlp", dataset="digits", device="cuda", epochs=1)
    tasks = [Job((run.changed(seed=seed),)) for seed in range(3)]
    events = list(process(tasks, Context(TrainingOptions(tmp_path), workers=2)))
    assert [event.status for event in events if isinstance(event, RunResult)] == ["ok"] * 3
    assert not [event.text for event in events if isinstance(event, Note)]
