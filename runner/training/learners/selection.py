"""Which learner a job gets."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from runner.config.jobs import Job, even_parts
from runner.training.data.preprocessing import RunData
from runner.training.evaluation import BATCH
from runner.training.learners.learner import Learner
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.learners.stack_check import bytes_per_run, free_memory, obstacle


class CannotStackError(Exception):
    """This job cannot train as one stack. Train `parts` instead; `note` is the reason where they must train alone."""

    def __init__(self, parts: Sequence[Job], note: str = "") -> None:
        super().__init__(note)
        self.parts, self.note = parts, note


def learner_for(job: Job, networks: list[nn.Module], data: RunData, device: torch.device, note: str) -> Learner:
    """Choose a job's learner: a `Stack`, or a `Solo` for a run that trains alone.

    On CUDA one run is a stack of one, because then the whole step is one graph. `note` says why a run was taken out of
    a stack.
    Errors: CannotStackError where the runs cannot be stacked, or do not all fit into this machine's memory.
    """
    if len(job) == 1 and (device.type == "cpu" or job[0].num_workers or note):
        return Solo(job[0], networks[0], data, f"alone: {note}" if note else "alone")
    images = data.train.images
    if reason := obstacle(networks[0], images, data.classes):
        raise CannotStackError([(run,) for run in job], reason)
    # An evaluation keeps nothing for a backward pass, so its batch counts for less.
    samples = max(job[0].batch_size, BATCH // 3)
    limit = max(1, free_memory(device) // bytes_per_run(networks[0], images, samples))
    if len(job) > limit:
        raise CannotStackError(even_parts(job, math.ceil(len(job) / limit)))
    return Stack(job, networks, data)
