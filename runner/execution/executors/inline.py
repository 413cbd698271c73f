"""The executor `inline`: in the driver's own process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.config.jobs import Job
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.storage.rows import Event


def inline(jobs: Sequence[Job], context: Context) -> Iterator[Event]:
    """One job after the other, in this process."""
    from runner.training.train import train

    if context.training.run_timeout is not None:
        raise UserError("a run in the driver's own process cannot be stopped: --run-timeout needs --executor process")
    for job in jobs:
        yield from train(job, context.training, context.checkpoints.get(job[0].run_id))
