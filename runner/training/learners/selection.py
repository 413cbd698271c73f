"""Which learner a job gets."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn

from runner.config.jobs import Job, even_parts
from runner.training.data.preprocessing import RunData
from runner.training.evaluation import BATCH
from runner.training.learners.learner import Learner
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.learners.stack_check import bytes_per_run, obstacle


class CannotStackError(Exception):
    """This job cannot train as one stack: train these parts instead; `note` says why, where they are to be alone."""

    def __init__(self, parts: Sequence[Job], note: str = "") -> None:
        super().__init__(note)
        self.parts, self.note = parts, note


def learner_for(job: Job, networks: Sequence[nn.Module], data: RunData, device: torch.device, note: str) -> Learner:
    """A stack; on a CPU, for one run, the network itself.

    On CUDA a run alone is a stack of one: the whole step is one graph. `note` says why a run was taken out of a stack.
    Errors: CannotStackError where the runs cannot be stacked, or not all of them in this machine's memory.
    """
    if len(job) == 1 and (device.type == "cpu" or job[0].num_workers or note):
        return Solo(job[0], networks[0], data, device, note and f"alone: {note}")
    images = data.train.images
    if reason := obstacle(networks[0], images, data.classes):
        raise CannotStackError([(run,) for run in job], reason)
    samples = max(job[0].batch_size, BATCH // 3)  # an evaluation's batch keeps nothing for a backward pass
    room = max(1, free_memory(device) // bytes_per_run(networks[0], images, samples))
    if len(job) > room:
        raise CannotStackError(even_parts(job, -(-len(job) // room)))
    return Stack(job, networks, data, device)


def free_memory(device: torch.device) -> int:
    """Bytes that a stack may take: four fifths of what a GPU has free; a fourth of a machine's, shared by workers."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] * 4 // 5
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
