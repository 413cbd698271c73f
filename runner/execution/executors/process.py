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
    """Jobs spread over worker processes. When a worker dies, only the unfinished runs of its own job fail."""
    waiting = list(reversed(jobs))
    workers: list[Worker] = []

    def next_job(worker: Worker) -> None:
        job = waiting.pop()
        worker.start(job, context.checkpoints.get(job[0].run_id))

    try:
        while waiting or workers:
            while waiting and len(workers) < context.workers:
                workers.append(Worker(context.training))
                next_job(workers[-1])
            seconds_left = min((worker.seconds_left() for worker in workers), default=math.inf)
            ready = wait([worker.pipe for worker in workers], None if seconds_left == math.inf else seconds_left)
            for worker in list(workers):
                if worker.pipe in ready:
                    yield from worker.receive()
                elif worker.seconds_left() <= 0:
                    yield from worker.time_out()
                else:
                    continue
                if worker.dead:
                    workers.remove(worker)
                elif worker.idle and waiting:
                    next_job(worker)
                elif worker.idle:
                    worker.stop()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.kill()
