"""The server: a process that has imported torch and read the data, and forks workers. `Server` is the driver's end."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.execution.executors.server_process import End, Start

_ENVIRONMENT = {
    # glibc reads these when a process starts. It then keeps freed activations instead of mapping them anew, which took
    # a third of a training step at batch size 1000.
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    # numpy's BLAS starts its threads when it is imported. A process that has threads must not be forked.
    "OPENBLAS_NUM_THREADS": "1",
}

TO_EXIT = 5.0
"""Seconds that a server whose pipe has ended gets to exit."""

TO_ANSWER = 60.0
"""Seconds that a server gets to answer. It answers nothing while it reads data."""

_PROGRAM = "bnbench.server"


class Server:
    """The process that starts workers. It begins to import torch when the object is made, and ends at `close`.

    If it is killed, its workers end, too, and the next worker gets a new server.
    """

    def __init__(self) -> None:
        self.numbers = count()
        # How the server before this one ended, and the number of the first worker after it.
        self.earlier, self.first = "", 0
        self._launch()

    def _launch(self) -> None:
        self.requests, other_end = Pipe()
        # The server and its workers import from where this process does (-P: and from nowhere else).
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        # A program of its own: a fork would inherit this process's threads and the sweep's lock, and multiprocessing's
        # fork server would run the user's script again. Variables that the user has set win over `_ENVIRONMENT`.
        # The workers inherit the standard input. They end when it does, that is, with the driver.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROGRAM, str(other_end.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[other_end.fileno()],
            env={**_ENVIRONMENT, **os.environ, "PYTHONPATH": path},
        )
        # The server now has the only other end, so the pipe ends when the server dies.
        other_end.close()

    def start_worker(self, pipe: Connection, run: RunSpec, data_dir: Path, gpu: str | None) -> int:
        """Start a worker that has this end of a pipe, once the data of `run` are read. Returns the worker's number.

        This does not wait for the worker. If none can be started, the pipe ends.
        """
        number = next(self.numbers)
        if self.process.poll() is not None:
            self.close()
            self.earlier, self.first = _cause(self.process.returncode), number
            self._launch()
        try:
            # A server that has died closes the pipe.
            with suppress(ConnectionError):
                self.requests.send(Start(number, run, data_dir, gpu))
                send_handle(self.requests, pipe.fileno(), self.process.pid)
        except BaseException:
            # The server would take the next request for the missing half of this one.
            self.close()
            raise
        return number

    def end_worker(self, number: int, seconds: float) -> str:
        """Give a worker some seconds to end by itself, then kill it. Returns how it ended, such as "exit code 3".

        Errors: UserError where no worker can be started, for example because torch cannot be imported.
        """
        if number < self.first:
            return f"with the process that started it: {self.earlier}"
        code: int | None = None
        try:
            if self.process.poll() is None:
                self.requests.send(End(number, seconds))
                if self.requests.poll(seconds + TO_ANSWER):
                    code = self.requests.recv()
                else:
                    # It has stopped, or reads data that take very long.
                    self.close()
        except (EOFError, OSError):
            # It is ending, and its exit code says why.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(TO_EXIT)
            self.close()
        except BaseException:
            # The answer to an interrupted question would be taken for the next one's.
            self.close()
            raise
        if code is not None:
            return _cause(code)
        if self.process.returncode is None:
            return "it could not be started; the error is above"
        if self.process.returncode > 0:
            raise UserError("no worker can be started: the error of the process that starts them is above")
        return f"with the process that started it: {_cause(self.process.returncode)}"

    def close(self) -> None:
        """End the server, and the workers that it still has."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self.requests.close()


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    # Real-time signals have no name.
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
