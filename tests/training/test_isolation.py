"""A run's numbers do not depend on the runs before it in the same process, whatever these did to the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import registry
from runner.config.jobs import Job
from runner.config.reader import from_mapping
from runner.config.run_spec import RunSpec
from runner.execution import kernels
from runner.execution.executors.executor import Context, inline
from runner.execution.executors.process import process
from runner.execution.executors.server import Server
from runner.storage.rows import Event, Note, RunResult
from runner.training.data.preprocessing import ChangedDataError, check_unchanged, prepare
from runner.training.isolation import left_behind
from runner.training.learners.stack import Stack
from runner.training.networks import SpoiledProcessError
from runner.training.options import TrainingOptions
from runner.training.train import train
from tests.training.awkward import AWKWARD, NASTY, PLUGIN, RUN, train_all, values

Write = Callable[[str, str], Path]

registry.load_plugins()
REGISTERED = sorted(registry.network)
STAYS = {
    "nasty_variable": "the network changed COUNTED of ",
    "nasty_class_variable": "the network changed ClassVariable.built of ",
}
"""Networks that leave something that cannot be taken back, and what is said of it."""

TAKEN_BACK = [name for name in NASTY if name not in STAYS and "writes" not in name]


@pytest.fixture(autouse=True)
def _awkward() -> None:
    registry.load_plugins((str(PLUGIN),))


def run_of(network: str) -> RunSpec:
    return RUN.changed(network=network, epochs=1)


VALUES_ALONE: dict[str, list[Any]] = {}


def values_alone(run: RunSpec) -> list[Any]:
    """The values of a run that trains first. They are the same for all tests, so it trains once."""
    if run.run_id not in VALUES_ALONE:
        VALUES_ALONE[run.run_id] = values(train_all(run))
    return VALUES_ALONE[run.run_id]


def test_registered_and_awkward_networks_in_any_order() -> None:
    names = [*REGISTERED, *AWKWARD]
    forwards = {name: values(train_all(run_of(name))) for name in names}
    backwards = {name: values(train_all(run_of(name))) for name in reversed(names)}
    assert backwards == forwards
    assert {result[-1][1] for result in forwards.values()} == {"ok"}


@pytest.mark.parametrize("nasty", TAKEN_BACK)
def test_what_a_network_changes_is_taken_back(nasty: str) -> None:
    others = [run_of(name) for name in ("batch_norm", "awkward_channels_last", "awkward_noisy", *TAKEN_BACK)]
    others.append(run_of("batch_norm").changed(precision="bf16", epochs=2))
    alone = [values_alone(other) for other in others]
    before = Path.cwd(), dict(os.environ), torch.nn.functional.linear, torch.get_default_dtype()
    for other, expected in zip(others, alone, strict=True):
        train_all(run_of(nasty))
        assert values(train_all(other)) == expected, other
    assert (Path.cwd(), dict(os.environ), torch.nn.functional.linear, torch.get_default_dtype()) == before


@pytest.mark.parametrize("nasty", TAKEN_BACK)
def test_a_stack_after_it(nasty: str) -> None:
    pair = run_of("batch_norm"), run_of("batch_norm").changed(seed=1)
    expected = values(train_all(*pair))
    train_all(run_of(nasty))
    assert values(train_all(*pair)) == expected


@pytest.mark.parametrize("nasty", STAYS)
def test_what_stays_is_named_and_a_new_worker_trains_the_next_job(nasty: str) -> None:
    runs = [run_of(nasty).changed(batch_size=size) for size in (20, 30)] + [run_of("batch_norm")]
    options = TrainingOptions(plugins=(str(PLUGIN),), save_weights=True)
    with closing(Server()) as server:
        context = Context(options, workers=1, server=server)
        events = list(process([Job((run,)) for run in runs], context))
        alone = [list(process([Job((run,))], context)) for run in runs]
    for run, expected in zip(runs, alone, strict=True):
        own = [event for event in events if getattr(event, "run_id", "") == run.run_id]
        assert values(own) == values([event for event in expected if not isinstance(event, Note)])
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert STAYS[nasty] in notes[0]


def test_a_run_that_writes_to_the_data_fails_and_the_next_one_has_the_data() -> None:
    expected = values(train_all(run_of("batch_norm")))
    result = train_all(run_of("nasty_writes_to_data"))[-1]
    assert isinstance(result, RunResult)
    assert (result.status, "the network changed the images of the data set" in result.error) == ("failed", True)
    assert values(train_all(run_of("batch_norm"))) == expected


def test_a_run_that_fails_after_it_wrote_to_the_data_leaves_none_behind() -> None:
    expected = values(train_all(run_of("batch_norm")))
    run = run_of("nasty_writes_and_fails")
    assert [event.error for event in train_all(run) if isinstance(event, RunResult)] == ["ValueError: after writing"]
    assert values(train_all(run_of("batch_norm"))) == expected


@pytest.mark.parametrize("probes", [(), ("gradients", "precise", "batch_statistics", "train", "activations")])
def test_a_network_that_changes_its_input_changes_no_data(probes: tuple[str, ...]) -> None:
    """`awkward_in_place` computes what `awkward_out_of_place` computes."""
    runs = [run_of(name).changed(probes=probes, epochs=2) for name in ("awkward_in_place", "awkward_out_of_place")]
    in_place, other = ([row[1:] for row in values(train_all(run))] for run in runs)
    assert in_place[:-1] == other[:-1]


def test_probes_change_nothing() -> None:
    for name in ("awkward_in_place", "awkward_noisy", "awkward_late_by_attribute"):
        plain = run_of(name).changed(epochs=2)
        looked = plain.changed(probes=("gradients", "precise", "batch_statistics", "curvature"))
        rows = [[row[1:] for row in values(train_all(run)) if len(row) == 7] for run in (plain, looked)]
        assert rows[0] == rows[1]


def test_inline_the_sweep_stops_before_a_job_that_may_be_wrong(tmp_path: Path) -> None:
    with pytest.raises(SpoiledProcessError, match="the network changed COUNTED of "):
        list(train(Job((run_of("nasty_variable"),)), TrainingOptions(tmp_path)))


@pytest.mark.usefixtures("native")
def test_what_a_check_of_the_driver_leaves_is_not_trained_with() -> None:
    sweep = from_mapping({"name": "checked", "fixed": {"network": "nasty_variable", "device": "cpu"}})
    list(kernels.describe(sweep, "native"))
    with pytest.raises(SpoiledProcessError, match="the network changed COUNTED of "):
        list(inline([Job((run_of("batch_norm"),))], Context(TrainingOptions())))


def test_the_runs_of_a_stack_that_fails_do_not_train_with_what_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no stack today")

    monkeypatch.setattr(Stack, "begin_epoch", fail)
    runs = tuple(run_of("nasty_variable").changed(seed=seed) for seed in (0, 1))
    events: list[Event] = []
    with pytest.raises(SpoiledProcessError, match="the network changed COUNTED of "):
        events.extend(train(Job(runs, "grouped"), TrainingOptions()))
    results = [(event.status, event.error) for event in events if isinstance(event, RunResult)]
    assert results == [("failed", "RuntimeError: no stack today")] * 2


def test_what_a_late_import_adds_to_torch_stays_and_is_named(write: Write) -> None:
    write("tensor_methods_16.py", "import torch\ndef squash(x): return x.tanh()\ntorch.Tensor.squash_16 = squash\n")
    text = (
        "import sys, torch\nfrom torch import nn\nfrom runner.registry import network\n"
        "class Squashed(nn.Linear):\n    def forward(self, x): return super().forward(x.flatten(1).squash_16())\n"
        "@network('late')\ndef late():\n    sys.path.insert(0, {!r})\n    import tensor_methods_16\n"
        "    return Squashed(784, 10)\n"
    )
    plugin = write("late.py", "")
    plugin.write_text(text.format(str(plugin.parent)))
    registry.load_plugins((str(plugin),))
    with pytest.raises(SpoiledProcessError, match=r"a module that the network imported changed Tensor\.squash_16"):
        train_all(run_of("late"))
    left_behind.clear()
    assert [event.status for event in train_all(run_of("late")) if isinstance(event, RunResult)] == ["ok"]
    del torch.Tensor.squash_16  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.neg_(),
        lambda images: images.copy_(images.flip(3)),
        lambda images: images.copy_(images.flip(0)),
        lambda images: images[7, 0, 14, 15].add_(1e-6),
        lambda images: images.clamp_(min=0),
    ],
    ids=["signs", "mirrored", "exchanged", "one pixel", "ReLU"],
)
def test_a_change_of_the_data_is_seen(change: Callable[[torch.Tensor], object]) -> None:
    data = prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu"))
    check_unchanged(data)
    change(data.train.images)
    with pytest.raises(ChangedDataError):
        check_unchanged(data)
