"""What runs in a worker process: jobs in, events out, until the driver closes the pipe or is gone."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from runner.errors import UserError
from runner.registry import load_plugins
from runner.storage.rows import Note


@dataclass(frozen=True)
class NodeCheck:
    """What a worker on a node of a cluster does first: import these packages, and compare these versions."""

    packages: tuple[str, ...]
    versions: dict[str, Any]


def main() -> None:
    """The program of a worker process. Its argument is the file descriptor of its end of the pipe."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides what it means.
    threading.Thread(target=_end_with_driver, args=(os.dup(0),), daemon=True).start()
    with Path(os.devnull).open() as nothing:  # A network that reads its standard input gets nothing, and does not wait.
        os.dup2(nothing.fileno(), 0)
    with suppress(EOFError, ConnectionError):
        _work(Connection(descriptor))


def _end_with_driver(standard_input: int) -> None:
    """A worker in the middle of an epoch notices here that the driver was killed, not only at its next row."""
    while os.read(standard_input, 1):
        pass
    os._exit(1)


def _work(pipe: Connection) -> None:
    options, node = pipe.recv()
    for package in node.packages if node else ():
        importlib.import_module(package)
    load_plugins(options.plugins)

    from runner.training.data.datasets import load
    from runner.training.train import train

    while True:
        job, checkpoint = pipe.recv()
        if node:
            pipe.send(_checked(node, job[0].dataset, options.data_dir))
        with suppress(Exception):  # Training reports the error.
            load(job[0].dataset, options.data_dir)
        pipe.send("ready")  # Importing torch and reading the data is not the run's time.
        for event in train(job, options, checkpoint):
            pipe.send(event)
        pipe.send(None)


def _checked(node: NodeCheck, dataset: str, data_dir: Path) -> Note | UserError:
    """The machine's name, where it has what the driver has; else what is wrong with it."""
    from runner.training import environment

    name = socket.gethostname()
    try:
        here = environment.versions([dataset], data_dir)
    except UserError as error:
        return UserError(f"node {name}: {error}")
    wrong = [
        f"{key} {here[key]} there, {node.versions[key]} here" for key in here if here[key] != node.versions.get(key)
    ]
    if wrong:
        return UserError(f"node {name} is not like this machine: {'; '.join(wrong)}")
    return Note(f"trains on {name}: {environment.machine()}")
