"""The executor `process`: worker processes on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from runner.config.jobs import Job
from runner.execution.executors.executor import Context
from runner.execution.executors.worker import Worker
from runner.storage.rows import Event


def process(jobs: Sequence[Job], context: Context) -> Iterator[Event]:
    """Jobs spread over spawned worker processes; a worker that dies fails its own job's unfinished runs alone."""
    waiting = list(reversed(jobs))
    workers: list[Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < context.workers:
                workers.append(Worker(context))
                workers[-1].give(waiting.pop())
            patience = min((worker.patience() for worker in workers), default=None)
            ready = wait([worker.pipe for worker in workers], None if patience == math.inf else patience)
            for worker in list(workers):
                if worker.pipe in ready:
                    yield from worker.receive()
                elif worker.patience() <= 0:
                    yield from worker.expire()
                else:
                    continue
                if worker.dead:
                    workers.remove(worker)
                elif worker.idle and waiting:
                    worker.give(waiting.pop())
                elif worker.idle:
                    worker.dismiss()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.kill()
