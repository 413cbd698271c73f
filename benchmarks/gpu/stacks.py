"""The training steps of LeNet stacks: how long they take in each form, and which kernels take longest."""

from __future__ import annotations

import gc
from itertools import cycle, islice
from time import perf_counter

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.setting import Record, Row, Setting
from benchmarks.training import resident
from runner.config.jobs import Form
from runner.config.run_spec import RunSpec
from runner.training.data.batches import batch_order
from runner.training.data.preprocessing import RunData
from runner.training.learners.stack import Stack
from runner.training.networks import build_network
from runner.training.settings import settings_of

KERNELS = 10
PROFILED_STEPS = 5


class Steps:
    """A stack in its first epoch, which takes as many steps as it is asked for."""

    def __init__(self, form: Form, run: RunSpec, size: int, data: RunData) -> None:
        runs = [run.changed(seed=seed) for seed in range(size)]
        self.stack: Stack = Stack(runs, [build_network(each) for each in runs], data, form)
        self.stack.begin_epoch(1)
        orders = torch.stack([batch_order(each, len(data.train), 1) for each in runs]).to(data.train.labels.device)
        # A smaller last batch would be another step, with a graph of its own.
        whole = orders.shape[1] // run.batch_size * run.batch_size
        self.batches: tuple[Tensor, ...] = orders[:, :whole].split(run.batch_size, dim=1)

    def seconds(self, count: int) -> float:
        """Take so many steps, and wait for the device."""
        began = perf_counter()
        for batch in islice(cycle(self.batches), count):
            self.stack.step(batch)
        self.stack.reading()
        return perf_counter() - began


def sizes(setting: Setting, record: Record) -> None:
    """Milliseconds per run and epoch of training steps alone, for every batch size, stack size and form."""
    for batch_size in setting.batch_sizes:
        run = setting.run.changed(batch_size=batch_size)
        for size in setting.stack_sizes:
            for form in setting.forms:
                row: Row = {"batch_size": batch_size, "runs": size, "form": form}
                record(row | measured(form, run, size, setting))
                gc.collect()
                torch.cuda.empty_cache()


def measured(form: Form, run: RunSpec, size: int, setting: Setting) -> Row:
    """What one stack shows. A fault of one stack leaves the others."""
    data = resident(run, setting.root)
    try:
        with settings_of(run):
            steps = Steps(form, run, size, data)
            steps.seconds(2)  # the first step warms up and records the graph
            count = 3
            while (seconds := steps.seconds(count)) < setting.seconds:
                count = max(2 * count, int(count * setting.seconds / seconds))
    except torch.OutOfMemoryError:
        return {"not measured": "out of memory"}
    except Exception as error:
        return {"wrong": f"{type(error).__name__}: {error}"}
    per_step = seconds / count / size
    row: Row = {"milliseconds": 1000 * per_step * len(data.train) / run.batch_size, "how": steps.stack.how}
    if run.device != "cpu" and not steps.stack.captures:
        row["wrong"] = f"no CUDA graph: {steps.stack.how}"
    return row


def kernels(setting: Setting, record: Record) -> None:
    """The kernels that take longest in a step of a stack, in each form; on a CPU, torch's operations."""
    data = resident(setting.run, setting.root)
    for form in setting.forms:
        try:
            found = profiled(form, setting, data)
        except torch.OutOfMemoryError:
            record({"form": form, "not measured": "out of memory"})
            continue
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        if not found:
            record({"form": form, "wrong": "the profiler saw no kernel"})
        total = sum(milliseconds for milliseconds, _, _ in found)
        for milliseconds, calls, name in sorted(found, reverse=True)[:KERNELS]:
            share = milliseconds / total
            record({"form": form, "kernel": name, "milliseconds": milliseconds, "calls": calls, "share": share})


def profiled(form: Form, setting: Setting, data: RunData) -> list[tuple[float, float, str]]:
    """(milliseconds per step, calls per step, name) of every kernel."""
    on_cpu = setting.run.device == "cpu"
    activities = [ProfilerActivity.CPU] if on_cpu else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with settings_of(setting.run):
        steps = Steps(form, setting.run, setting.runs, data)
        steps.seconds(2)
        with profile(activities=activities) as profiler:
            steps.seconds(PROFILED_STEPS)
    found = []
    for event in profiler.key_averages():
        micros = event.self_cpu_time_total if on_cpu else event.self_device_time_total
        if on_cpu or event.device_type.name == "CUDA":
            found.append((micros / 1000 / PROFILED_STEPS, event.count / PROFILED_STEPS, event.key))
    return found
