"""The executor `process`: worker processes on this machine."""

from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from runner.config.jobs import Job
from runner.execution.executors.executor import Context
from runner.execution.executors.worker import Worker
from runner.storage.rows import Event


def process(jobs: Sequence[Job], context: Context) -> Iterator[Event]:
    """Jobs in worker processes. When a worker dies, only the unfinished runs of its own job fail."""
    waiting = list(reversed(jobs))
    workers: list[Worker] = []

    def start_next_job(worker: Worker) -> None:
        job = waiting.pop()
        worker.start(job, context.checkpoints.get(job[0].run_id))

    try:
        while waiting or workers:
            while waiting and len(workers) < context.workers:
                workers.append(Worker(context.training))
                start_next_job(workers[-1])
            # An hour at most, because `wait` does not take infinity.
            timeout = min(3600.0, *(worker.seconds_left() for worker in workers))
            ready = wait([worker.pipe for worker in workers], timeout)
            for worker in list(workers):
                if worker.pipe in ready:
                    yield from worker.receive()
                elif worker.seconds_left() <= 0:
                    yield from worker.time_out()
                if worker.idle and waiting and not worker.dead:
                    start_next_job(worker)
                elif worker.idle:
                    worker.stop()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.kill()
