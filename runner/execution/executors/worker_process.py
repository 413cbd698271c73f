"""What a worker process does: it gets jobs and sends events, until the driver closes the pipe or dies."""

import importlib
import os
import signal
import socket
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from runner.errors import UserError
from runner.execution.leftovers import leave
from runner.registry import load_plugins
from runner.storage import checkpoints, plugin_files
from runner.storage.rows import Checkpoint, Note
from runner.training.options import TrainingOptions


@dataclass(frozen=True)
class NodeOptions:
    """What only a worker on a node of a cluster does: it imports these packages, and compares these versions.

    It writes the checkpoints to `checkpoint_folder`. Where this is None, the driver writes them.
    """

    packages: tuple[str, ...]
    versions: dict[str, Any]
    checkpoint_folder: Path | None = None


@dataclass(frozen=True)
class Spoiled:
    """The task has all its results, but this worker must not train another one."""

    reason: str


def main(pipe: Connection, lifeline: Connection, gpu: str | None, note: str) -> None:
    """Work until the driver closes its end of the pipe, or until the driver or the server dies.

    The lifeline ends when the driver dies.
    """
    import numpy

    # The processes that a network starts are in the worker's group, so that they can be ended with it.
    os.setpgid(0, 0)
    # They must not keep the pipe open, because the driver learns from its end that the worker has died.
    os.register_at_fork(after_in_child=pipe.close)
    # A fork has the server's handler, which is for the server's workers.
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # A fork begins with the state of its parent's generator. Python reseeds its own generator, numpy does not.
    numpy.random.seed()
    threading.Thread(target=_end_with_others, args=(lifeline,), daemon=True).start()
    code = 0
    try:
        with suppress(EOFError, ConnectionError):
            if note:
                pipe.send(Note(note))
            _work(pipe)
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)


def _end_with_others(lifeline: Connection) -> None:
    """End at once when the driver or the server dies, also in the middle of an epoch."""
    server = parent_process()
    assert server is not None
    wait([lifeline, server.sentinel])
    # What a network has started ends, too.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _work(pipe: Connection) -> None:
    options, node = pipe.recv()
    for package in node.packages if node else ():
        importlib.import_module(package)
    try:
        load_plugins(options.plugins)
        if options.plugins_digest and not node:
            plugin_files.check_unchanged(options.plugins, options.plugins_digest)
    except UserError as error:
        pipe.send(error)
        return

    from runner.training.data.datasets import load
    from runner.training.networks import SpoiledProcessError
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
                folder = node and node.checkpoint_folder
                pipe.send(_written(event, folder) if folder and isinstance(event, Checkpoint) else event)
        except SpoiledProcessError as error:
            pipe.send(Spoiled(error.reason))
            return
        pipe.send(None)


def _written(checkpoint: Checkpoint, folder: Path) -> Checkpoint | UserError:
    """A checkpoint that is in a file now; an error where the file cannot be written."""
    try:
        return checkpoints.written(checkpoint, folder)
    except OSError as error:
        return UserError(f"node {socket.gethostname()} cannot write checkpoints: {error}")


def _check_node(driver: NodeOptions, dataset: str, options: TrainingOptions) -> Note | UserError:
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
