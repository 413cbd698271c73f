"""A run that continues from a checkpoint gives the bytes of a run that was never interrupted."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from runner import registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every, to_bytes
from runner.storage.rows import Checkpoint, EpochRow, Note, ProbeRow, RunResult
from runner.training.options import TrainingOptions
from runner.training.train import train
from tests.training.awkward import AWKWARD, PLUGIN, RUN, train_all, values

registry.load_plugins()
KEEPING = """
from collections import defaultdict
import torch
from torch import nn
from runner.registry import network

SEEN = []

class Keeping(nn.Sequential):
    def __init__(self, seen):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
        self.seen = seen

    def forward(self, images):
        self.seen.append(len(images))
        return super().forward(images)

class Averaging(Keeping):
    def forward(self, images):
        self.seen = self.seen * 0.9 + images.mean()
        return nn.Sequential.forward(self, images)

class Counting(Keeping):
    def forward(self, images):
        self.seen["steps"] += 1
        return nn.Sequential.forward(self, images)

@network("keeping_a_tensor")
def a_tensor():
    return Averaging(torch.ones(1))

@network("keeping_a_counter")
def a_counter():
    return Counting(defaultdict(lambda: 0))

@network("keeping_a_list")
def a_list():
    return Keeping([])

@network("keeping_a_variable")
def a_variable():
    return Keeping(SEEN)
"""
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "adam"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "adamw", "weight_decay": 0.1},
]
CASES = [(name, OPTIMIZERS[number % 3]) for number, name in enumerate(sorted(registry.network))]
CASES += [(name, optimizer) for name in AWKWARD for optimizer in OPTIMIZERS[:2]]


@pytest.fixture(autouse=True)
def _awkward() -> None:
    registry.load_plugins((str(PLUGIN),))


def check(folder: Path, *runs: RunSpec) -> None:
    """Interrupt at the end of each epoch but the last."""
    whole = train_all(*runs, checkpoint_every=Every(epochs=1))
    assert {event.status for event in whole if isinstance(event, RunResult)} == {"ok"}
    saved = [event for event in whole if isinstance(event, Checkpoint)]
    assert [checkpoint.epoch for checkpoint in saved] == [1, 2]
    for checkpoint in saved:
        file = folder / f"{checkpoint.epoch}.ckpt"
        file.write_bytes(to_bytes(checkpoint))
        job = Job(runs, "grouped" if len(runs) > 1 else None)
        rest = list(train(job, TrainingOptions(save_weights=True), file))
        rows = EpochRow, ProbeRow
        left = [event for event in whole if not isinstance(event, rows) or event.epoch > checkpoint.epoch]
        assert values(rest) == values(left)


@pytest.mark.parametrize(("network", "optimizer"), CASES, ids=str)
def test_alone(network: str, optimizer: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, RUN.changed(network=network, **optimizer))


@pytest.mark.parametrize("norm", ["ghost", "frozen", "renorm", "precise", "dyt"])
def test_norms_alone_and_as_a_stack(norm: str, tmp_path: Path) -> None:
    """They differ between the epochs: frozen layers from the second one on, renorm's bounds from the third step on."""
    norm_args = {"ghost": {"size": 8}, "renorm": {"warm_up": 2, "ramp": 6}}.get(norm, {})
    arguments = {"hidden": [12, 12], "dropout": 0.2, "norm": norm, "norm_args": norm_args}
    run = RUN.changed(network="mlp", network_args=arguments, optimizer="sgd", momentum=0.9, probes=("norms",))
    check(tmp_path, run)
    check(tmp_path, run, run.changed(seed=1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: str(optimizer["optimizer"]))
@pytest.mark.parametrize("network", ["batch_norm", "notebook_mlp", "awkward_channels_last", "awkward_transposed"])
def test_as_a_stack(network: str, optimizer: dict[str, Any], tmp_path: Path) -> None:
    run = RUN.changed(network=network, **optimizer)
    check(tmp_path, run, run.changed(seed=1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: str(optimizer["optimizer"]))
@pytest.mark.parametrize("network", ["notebook_mlp", "awkward_channels_last", "awkward_transposed"])
def test_a_run_leaves_its_stack_and_returns(network: str, optimizer: dict[str, Any], tmp_path: Path) -> None:
    """The numbers of a stack round otherwise, so this compares losses."""
    run = RUN.changed(network=network, **optimizer)
    runs = run, run.changed(seed=1)
    stacked = train_all(*runs, checkpoint_every=Every(epochs=1))
    expected = [row.valid_loss for row in stacked if isinstance(row, EpochRow) and row.run_id == run.run_id]
    file = tmp_path / "1.ckpt"
    file.write_bytes(to_bytes(next(event for event in stacked if isinstance(event, Checkpoint))))
    alone = list(train(Job((run,)), TrainingOptions(checkpoint_every=Every(epochs=1)), file))
    assert [row.valid_loss for row in alone if isinstance(row, EpochRow)] == pytest.approx(expected[1:], rel=1e-4)
    file.write_bytes(to_bytes(next(event for event in alone if isinstance(event, Checkpoint))))
    again = train(Job((run,), "grouped"), TrainingOptions(), file)
    assert [row.valid_loss for row in again if isinstance(row, EpochRow)] == pytest.approx(expected[2:], rel=1e-4)


@pytest.mark.parametrize(
    ("network", "kept"),
    [
        ("keeping_a_list", "attribute seen of layer ''"),
        ("keeping_a_variable", "SEEN of "),
        ("keeping_a_tensor", "attribute seen of layer ''"),
        ("keeping_a_counter", "attribute seen of layer ''"),
    ],
)
def test_a_run_that_keeps_something_elsewhere_has_no_checkpoint_and_says_so(
    network: str, kept: str, tmp_path: Path
) -> None:
    plugin = tmp_path / "keeping.py"
    plugin.write_text(KEEPING)
    registry.load_plugins((str(plugin),))
    job = Job((RUN.changed(network=network),))
    events = train(job, TrainingOptions(checkpoint_every=Every(epochs=1)))
    found = list(takewhile(lambda event: not isinstance(event, RunResult), events))
    assert not any(isinstance(event, Checkpoint) for event in found)
    (note,) = [event.text for event in found if isinstance(event, Note)]
    assert f"has no checkpoint, because it changes what a checkpoint does not hold: {kept}" in note
