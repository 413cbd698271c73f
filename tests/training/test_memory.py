"""The estimate of a run's memory against the peak that torch's profiler finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from runner.config.run_spec import RunSpec
from runner.training.data.preprocessing import prepare
from runner.training.learners.stack import Stack
from runner.training.learners.stack_check import bytes_per_run
from runner.training.networks import build_network
from runner.training.settings import settings_of

RUN = RunSpec(network="lenet", dataset="digits", device="cpu", batch_size=1000)
DATA = ("digits", Path(), "normal", "held_out", None, torch.device("cpu"))

NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "few kinds of layers": ("lenet", {}),
    "batch norm": ("lenet", {"norm": "batch"}),
    "layer norm, which keeps more in a stack": ("lenet", {"norm": "layer"}),
    "written by hand": ("lenet", {"norm": "d2l"}),
    "rms norm, mapped": ("notebook_mlp", {"norm": "rms"}),
    "more parameters than activations": ("mlp", {"norm": "batch"}),
    "a wide layer and dropout": ("mlp", {"hidden": [2000], "dropout": 0.3}),
    "maximum pooling": ("batch_norm", {}),
    "virtual batches": ("notebook_mlp", {"norm": "ghost"}),
    "averages before the evaluation": ("notebook_mlp", {"norm": "precise"}),
}


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with settings_of(RUN):
        yield


def peak(run: RunSpec, count: int) -> int:
    """The most bytes at one time, from building a stack to its first reading."""
    runs = [run.changed(seed=seed) for seed in range(count)]
    networks = [build_network(run) for run in runs]
    data = prepare(*DATA)
    index = torch.arange(count * run.batch_size).view(count, -1) % len(data.train)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        stack = Stack(runs, networks, data)
        stack.begin_epoch(1)
        stack.step(index)
        stack.reestimate()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_estimate_is_one_to_two_times_the_peak(name: str, optimizer: str) -> None:
    network, arguments = NETWORKS[name]
    run = RUN.changed(network=network, network_args=arguments, optimizer=optimizer)
    # One run alone has a convolution without groups, which torch computes in another memory layout.
    measured = (peak(run, 4) - peak(run, 2)) / 2
    estimate = bytes_per_run(build_network(run), prepare(*DATA).train.images, run.batch_size)
    assert measured <= estimate <= 2 * measured
