"""The executor `process`: worker processes on this machine."""

from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from multiprocessing.connection import wait

from runner.config.jobs import Task
from runner.execution.executors.executor import Context, checkpoint_of
from runner.execution.executors.server import Server
from runner.execution.executors.worker import Worker
from runner.storage.rows import Event, Note


def process(tasks: Sequence[Task], context: Context) -> Iterator[Event]:
    """Tasks in worker processes. When a worker dies, only the unfinished runs of its own task fail.

    A worker has a number, from 0. The number decides which GPU it sees, so a new worker takes the GPU of the dead one.
    """
    with nullcontext(context.server) if context.server else closing(Server()) as server:
        yield from _in_workers(tasks, context, server)


def _in_workers(tasks: Sequence[Task], context: Context, server: Server) -> Iterator[Event]:
    waiting = list(reversed(tasks))
    workers: dict[int, Worker] = {}
    notes = set[Note]()

    def start_next_task(worker: Worker) -> None:
        task = waiting.pop()
        worker.start(task, checkpoint_of(task, context.checkpoints), context.finished)

    try:
        while waiting or workers:
            for number in range(context.workers):
                if waiting and number not in workers:
                    gpu = context.gpus[number % len(context.gpus)] if context.gpus else None
                    run = waiting[-1].runs[0]
                    workers[number] = Worker(server, context.training, run, gpu=gpu)
                    start_next_task(workers[number])
            # An hour at most, because `wait` does not take infinity.
            timeout = min(3600.0, *(worker.seconds_left() for worker in workers.values()))
            ready = wait([worker.pipe for worker in workers.values()], timeout)
            for number, worker in list(workers.items()):
                if worker.pipe in ready:
                    for event in worker.receive():
                        if isinstance(event, Note):
                            # Several workers can say the same.
                            if event in notes:
                                continue
                            notes.add(event)
                        yield event
                elif worker.seconds_left() <= 0:
                    yield from worker.time_out()
                if worker.lost:
                    waiting.append(worker.lost)
                if worker.idle and waiting and not worker.dead:
                    start_next_task(worker)
                elif worker.idle:
                    worker.stop()
                    del workers[number]
    finally:
        for worker in workers.values():
            worker.kill()
