"""The program of a server: it imports torch and reads data once, and starts workers, until the driver is gone."""

import gc
import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle
from pathlib import Path
from time import monotonic

from runner.config.run_spec import RunSpec
from runner.execution.executors import worker_process
from runner.registry import load_plugins

FORKS = sys.platform == "linux"
"""Whether workers are forked. Python does not trust a fork on macOS, because the system's libraries start threads."""


@dataclass(frozen=True)
class Start:
    """Start a worker. The descriptor of its pipe follows. `gpu` names the only GPU that it sees; None for all."""

    number: int
    run: RunSpec
    data_dir: Path
    gpu: str | None


@dataclass(frozen=True)
class End:
    """Give a worker some seconds to end by itself, then kill it. The answer is its exit code; None if it is unknown."""

    number: int
    seconds: float


def main() -> None:
    """Serve the driver. The program's argument is the file descriptor of its end of the pipe."""
    requests = Connection(int(sys.argv[1]))
    os.set_inheritable(requests.fileno(), False)
    lifeline = Connection(os.dup(0), writable=False)
    # A network that reads its standard input gets nothing, and does not wait.
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    # Ctrl-C reaches the whole group; the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if FORKS:
        # Only the server may have its end of the pipe, so that the pipe ends when the server dies.
        os.register_at_fork(after_in_child=requests.close)
        _import_everything()
    try:
        _serve(requests, lifeline)
    except (EOFError, ConnectionError):
        # The driver is gone.
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        # Not `sys.exit`: multiprocessing would wait for the workers, and the driver for this process.
        os._exit(1)


def _serve(requests: Connection, lifeline: Connection) -> None:
    workers: dict[int, BaseProcess] = {}

    def stop(*_: object) -> None:
        """Ctrl-Z reaches the driver's group. Pass it on, because each worker has a group of its own."""
        for worker in workers.values():
            _signal_group(worker, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        # This process goes on here when it is continued.
        for worker in workers.values():
            _signal_group(worker, signal.SIGCONT)

    signal.signal(signal.SIGTSTP, stop)
    while True:
        request: Start | End = requests.recv()
        if isinstance(request, End):
            worker = workers.pop(request.number, None)
            requests.send(worker and _end(worker, request.seconds))
            continue
        with Connection(recv_handle(requests)) as pipe:
            try:
                workers[request.number] = _start(request, pipe, lifeline)
            except OSError as error:
                # There may be too many processes, or too little memory. The pipe ends, so the driver learns it.
                print(f"a worker cannot be started: {error}", file=sys.stderr)


def _import_everything() -> None:
    load_plugins()
    # torch imports torch._dynamo when a process makes its first optimizer.
    for module in ("torch._dynamo", "runner.training.train"):
        importlib.import_module(module)


def _start(request: Start, pipe: Connection, lifeline: Connection) -> BaseProcess:
    obstacle = ""
    if FORKS:
        _read(request.run, request.data_dir)
        obstacle = _obstacle()
    context = get_context("fork") if FORKS and not obstacle else get_context("spawn")
    note = f"this worker was started as a program, not forked, because {obstacle}" if obstacle else ""
    worker = context.Process(target=worker_process.main, args=(pipe, lifeline, request.gpu, note))
    # The garbage collection of a worker would write to, and so copy, the memory that it shares.
    gc.freeze()
    worker.start()
    return worker


def _read(run: RunSpec, data_dir: Path) -> None:
    """Read a run's data, so that workers share their memory. torch has one thread here, so that it starts none."""
    import torch

    from runner.training.data.datasets import load
    from runner.training.data.preprocessing import data_of

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # An error in the data is not reported here. The worker reads the data again, and reports it. It also reads the data
    # that are not known here, because a plugin of the config registers them.
    with suppress(Exception):
        if run.device == "cpu":
            data_of([run], data_dir, torch.device("cpu"))
        else:
            load(run.dataset, data_dir)
    torch.set_num_threads(threads)


def _obstacle() -> str:
    """Why this process must not be forked; empty where it may be."""
    import torch

    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"the process that forks has {threads} threads (is OPENBLAS_NUM_THREADS set?)"
    return "the process that forks uses CUDA" if torch.cuda.is_initialized() else ""


def _end(worker: BaseProcess, seconds: float) -> int | None:
    """End a worker, and the processes that its networks have left. Returns its exit code."""
    until = monotonic() + seconds
    # The sentinel alone does not show that the worker has ended: a process that it has started may have it, too.
    while worker.exitcode is None and (left := until - monotonic()) > 0:
        wait([worker.sentinel], min(left, 0.1))
    _signal_group(worker, signal.SIGKILL)
    worker.kill()
    worker.join()
    return worker.exitcode


def _signal_group(worker: BaseProcess, number: signal.Signals) -> None:
    assert worker.pid is not None
    # There may be no such group: the worker has just started, or all of its processes have ended.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, number)
