"""The program of a worker process: it gets jobs and sends events, until the driver closes the pipe or dies."""

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
from runner.training.options import TrainingOptions


@dataclass(frozen=True)
class NodeCheck:
    """What a worker on a node of a cluster does first: import these packages, and compare these versions."""

    packages: tuple[str, ...]
    versions: dict[str, Any]


def main() -> None:
    """Work until the driver is gone. The program's argument is the file descriptor of its end of the pipe."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    # Ctrl-C reaches the whole group; the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, args=(os.dup(0),), daemon=True).start()
    # A network that reads its standard input gets nothing, and does not wait.
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    with suppress(EOFError, ConnectionError):
        _work(Connection(descriptor))


def _end_with_driver(standard_input: int) -> None:
    """End at once when the driver dies, also in the middle of an epoch."""
    while os.read(standard_input, 1):
        pass
    os._exit(1)


def _work(pipe: Connection) -> None:
    options, node = pipe.recv()
    for package in node.packages if node else ():
        importlib.import_module(package)
    load_plugins(options.plugins)

    from runner.training.data.datasets import load
    from runner.training.networks import DeviceLostError
    from runner.training.train import work

    while True:
        task, checkpoint = pipe.recv()
        dataset = task.runs[0].dataset
        if node:
            pipe.send(_check_node(node, dataset, options))
        # An error in the data is not reported here. Training reads the data again, and reports it.
        with suppress(Exception):
            load(dataset, options.data_dir)
        # Importing torch and reading the data do not count as the run's time.
        pipe.send("ready")
        try:
            for event in work(task, options, checkpoint):
                pipe.send(event)
        except DeviceLostError:
            pipe.send("device lost")
            return
        pipe.send(None)


def _check_node(driver: NodeCheck, dataset: str, options: TrainingOptions) -> Note | UserError:
    """The name of this node if its versions and data are the driver's; otherwise an error that says what differs."""
    from runner.training import environment

    name = socket.gethostname()
    try:
        versions = environment.versions([dataset], options.data_dir, options.kernels)
    except UserError as error:
        return UserError(f"node {name}: {error}")
    different = []
    for key, version in versions.items():
        if version != (here := driver.versions.get(key)):
            different.append(f"{key} {version} there, {here} here")
    if different:
        return UserError(f"node {name} differs from this machine: {'; '.join(different)}")
    return Note(f"trains on {name}: {environment.machine()}")
