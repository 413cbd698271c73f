"""Training on CUDA. Every check takes the device, so that the default suite runs a few of its cases on the CPU.

The oracle is the same stack on the CPU in float64, which `test_stack.py` compares with torch's own networks and
optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from click.testing import Result
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Form, job_of
from runner.config.run_spec import RunSpec
from runner.storage import checkpoints
from runner.storage.checkpoints import Every
from runner.storage.rows import Checkpoint, EpochRow, RunResult
from runner.storage.tables import read_rows
from runner.training.data.batches import batch_order
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData, prepare
from runner.training.learners.stack import Stack
from runner.training.networks import build_network
from runner.training.options import TrainingOptions
from runner.training.settings import settings_of
from runner.training.train import train

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

RUN = RunSpec(network="batch_norm", dataset="digits", device="cpu", batch_size=100, epochs=3)

on_both = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


# torch says the first of a thread of its own, which then goes on as it should; Python the second of a DataLoader's
# processes, which use no GPU.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


# A pairwise selection


class Case(NamedTuple):
    """One combination of what a stack trains."""

    network: str
    norm: str
    optimizer: str
    precision: str
    size: int


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.01},
    "momentum": {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"lr": 1e-3, "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
}
NORMS = (
    *("none", "batch", "layer", "group", "instance", "rms", "hand_written", "notebook", "d2l"),
    *("ghost", "frozen", "renorm", "precise", "dyt"),
)
FACTORS: tuple[tuple[Any, ...], ...] = (
    ("batch_norm", "no_batch_norm", "notebook_mlp", "notebook_cnn", "mlp", "lenet", "conv_unit", "vgg"),
    NORMS,
    tuple(OPTIMIZERS),
    ("fp32", "tf32", "bf16"),
    (1, 3, 10),
)
WITHOUT_NORM = ("batch_norm", "no_batch_norm")
NARROW = {"vgg": {"width": 2}, "conv_unit": {"width": 4}}
"""The same layers, sooner done."""


def is_possible(network: str, norm: str) -> bool:
    """Whether the network takes the norm: the tutorial's two take none, and instance norm needs images."""
    if network in WITHOUT_NORM:
        return norm == "none"
    return norm != "instance" or network in ("notebook_cnn", "conv_unit", "vgg")


def pairs(case: tuple[Any, ...]) -> set[tuple[Any, ...]]:
    """Every pair of two factors' values in a case."""
    return set(combinations(enumerate(case), 2))


def pairwise(cases: Iterable[tuple[Any, ...]]) -> list[Case]:
    """Few of these cases that together hold every pair of values which any of them holds: the greedy selection."""
    left = {case: pairs(case) for case in cases}
    chosen = []
    while left:
        best = max(left, key=lambda case: len(left[case]))
        covered = left.pop(best)
        chosen.append(Case(*best))
        left = {case: rest for case, found in left.items() if (rest := found - covered)}
    return chosen


ALL = [case for case in product(*FACTORS) if is_possible(case[0], case[1])]
CASES = pairwise(ALL)


def test_the_selection_holds_every_pair_and_is_small() -> None:
    held = set().union(*map(pairs, CASES))
    assert held == set().union(*map(pairs, ALL))
    assert len(CASES) < len(ALL) / 20


# Stacks


def runs_of(case: Case, device: str) -> list[RunSpec]:
    arguments = NARROW.get(case.network, {}) | ({} if case.network in WITHOUT_NORM else {"norm": case.norm})
    run = RUN.changed(
        network=case.network,
        network_args=arguments,
        device=device,
        precision=case.precision,
        **OPTIMIZERS[case.optimizer],
    )
    return [run.changed(seed=seed, lr=run.lr / (1 + seed % 2)) for seed in range(case.size)]


def data_on(device: str, dtype: torch.dtype = torch.float32) -> RunData:
    data = prepare("digits", Path(), "normal", "held_out", None, torch.device(device))

    def cast(split: Split) -> Split:
        return Split(split.images.to(dtype), split.labels)

    return replace(data, train=cast(data.train), valid=cast(data.valid))


def stack_of(runs: list[RunSpec], dtype: torch.dtype = torch.float32, form: Form = "grouped") -> Stack:
    networks = [build_network(run).to(dtype) for run in runs]
    return Stack(runs, networks, data_on(runs[0].device, dtype), form)


SIZES = (100, 30)
"""The batches of a check. The second is smaller, as the last one of an epoch is, and has a graph of its own."""


def losses(stack: Stack, runs: list[RunSpec]) -> Tensor:
    """[3, R]: the training loss of each step, and the validation loss after them."""
    orders = torch.stack([batch_order(run, 1250, 1) for run in runs]).to(stack.device)
    found = []
    with settings_of(runs[0]):
        stack.begin_epoch(1)
        for batch, size in zip(orders.split(100, dim=1), SIZES, strict=False):
            stack.step(batch[:, :size])
            sums = stack.reading()
            found.append(sums[:, 0] / sums[:, 2])
        found.append(torch.tensor([loss for loss, _ in stack.evaluate(stack.data.valid)]))
    return torch.stack([each.double() for each in found])


def exact(case: Case) -> Tensor:
    """The losses on the CPU in float64."""
    runs = runs_of(case._replace(precision="fp32"), "cpu")
    return losses(stack_of(runs, torch.float64), runs)


TOLERANCES = {"fp32": (1e-4, 5e-3), "tf32": (5e-3, 2e-2), "bf16": (2e-2, 6e-2)}
"""Relative, for the first loss and for those after an update.

A number's relative error is 2⁻²⁴ in float32, 2⁻¹¹ in TF32 and 2⁻⁹ in bfloat16. An update makes it larger: Adam moves a
weight whose gradient is nearly 0 by a full step, up or down. Over all cases, the largest difference on the CPU is
1e-7 and then 8e-4 in float32, 2e-3 and then 2e-2 in bfloat16.
"""


def assert_close(found: Tensor, expected: Tensor, precision: str) -> None:
    first, later = TOLERANCES[precision]
    torch.testing.assert_close(found[:1], expected[:1], rtol=first, atol=0)
    torch.testing.assert_close(found[1:], expected[1:], rtol=later, atol=0)


@pytest.mark.parametrize(
    ("device", "case"),
    [
        *(pytest.param("cpu", case, id="-".join(map(str, ("cpu", *case)))) for case in CASES[::12]),
        *(pytest.param("cuda", case, id="-".join(map(str, case)), marks=pytest.mark.cuda) for case in CASES),
    ],
)
def test_a_stack_is_the_one_in_float64(device: str, case: Case) -> None:
    """On CUDA: its graphs, and its plain step."""
    runs, expected = runs_of(case, device), exact(case)
    stack, plain = stack_of(runs), stack_of(runs)
    plain.captures = False
    before = stack.states()
    found = losses(stack, runs)
    assert_close(found, expected, case.precision)
    assert_close(losses(plain, runs), found, case.precision)
    after = stack.states()
    for old, new in zip(before, after, strict=True):  # a graph whose replays do nothing would leave them
        assert any(not torch.equal(new.tensors[name], tensor) for name, tensor in old.tensors.items())
    if device == "cuda":
        assert stack.captures, stack.how
        assert len(stack.graphs) == len(SIZES)


@on_both
@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_computes_the_same(form: Form, count: int, device: str) -> None:
    case = Case("batch_norm", "none", "momentum", "fp32", count)
    runs = runs_of(case, device)
    assert_close(losses(stack_of(runs, form=form), runs), exact(case), "fp32")


@on_both
def test_a_state_goes_from_one_device_to_the_other(device: str) -> None:
    case = Case("notebook_cnn", "batch", "adam", "fp32", 3)
    here, there = stack_of(runs_of(case, "cpu")), stack_of(runs_of(case, device))
    losses(there, runs_of(case, device))
    here.restore(there.states())
    assert [name for name, _ in here.member(1).named_parameters()]
    for ours, theirs in zip(here.states(), there.states(), strict=True):
        assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())
    again = [losses(stack, runs_of(case, on)) for stack, on in ((here, "cpu"), (there, device))]
    assert_close(again[1], again[0], "fp32")


def lstm(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.LSTM(256, 256)
    outputs: Tensor = layer.to(x.device, x.dtype)(x)[0]
    return outputs.detach()


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "matrix product": lambda x: x @ x.T,
    "convolution": lambda x: F.conv2d(x.view(4, 64, 16, 16), x.view(4, 64, 16, 16)[:, :, :3, :3]),
    "lstm": lstm,
}


@on_both
@pytest.mark.parametrize("name", OPERATIONS)
def test_float32_is_float32(name: str, device: str) -> None:
    """TF32 would differ by some 2⁻¹¹."""
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    with settings_of(RUN):
        found = OPERATIONS[name](x.to(device)).cpu().double()
    expected = OPERATIONS[name](x.double())
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.cuda
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0), reason="needs a GPU with TF32"
)
def test_tf32_is_tf32() -> None:
    x = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    with settings_of(RUN.changed(precision="tf32")):
        found = (x.cuda() @ x.T.cuda()).cpu().double()
    expected = x.double() @ x.double().T
    assert 1e-5 < float((found - expected).norm() / expected.norm()) < 1e-3


DROPOUT = {"norm": "batch", "dropout": 0.5}


def dropout_losses(seeds: list[int], device: str, *, captures: bool = True) -> list[list[float]]:
    """Each run's training losses over three steps on one batch, with weights that hardly move."""
    runs = [RUN.changed(network="mlp", network_args=DROPOUT, device=device, lr=1e-9, seed=seed) for seed in seeds]
    stack = stack_of(runs)
    stack.captures &= captures
    batch = torch.arange(100, device=device).expand(len(runs), -1)
    found = []
    with settings_of(runs[0]):
        stack.begin_epoch(1)
        for _ in range(3):
            stack.step(batch)
            found.append(stack.reading()[:, 0] / 100)
    return torch.stack(found, dim=1).tolist()


@on_both
def test_dropout_draws_a_new_mask_each_step_and_the_same_one_in_every_stack(device: str) -> None:
    together = dropout_losses([0, 1, 2], device)
    for run in together:
        assert len({round(loss, 4) for loss in run}) == 3
    (alone,) = dropout_losses([1], device)
    assert alone == pytest.approx(together[1], rel=1e-5)
    for run, plain in zip(together, dropout_losses([0, 1, 2], device, captures=False), strict=True):
        assert run == pytest.approx(plain, rel=1e-5)


# Jobs


def trained(
    job: list[RunSpec], checkpoint: Path | None = None
) -> tuple[dict[str, list[tuple[float, ...]]], list[Checkpoint], list[RunResult]]:
    """The numbers of each run's rows, the checkpoints, and the results."""
    task = job_of(tuple(job), None if job[0].num_workers else "grouped")
    events = list(train(task, TrainingOptions(checkpoint_every=Every(epochs=1)), checkpoint))
    results = [event for event in events if isinstance(event, RunResult)]
    numbers = {result.run_id: list(map(numbers_of, result.rows)) for result in results}
    return numbers, [event for event in events if isinstance(event, Checkpoint)], results


def numbers_of(row: EpochRow) -> tuple[float, ...]:
    return row.epoch, row.step, row.train_loss, row.train_accuracy, row.valid_loss, row.valid_accuracy


def in_a_graph(result: RunResult) -> bool:
    """Whether a run trained in a stack of three, in a CUDA graph."""
    how = result.trained_as
    return how.startswith("stack of 3") and "CUDA graph" in how and "no CUDA graph" not in how


def three_runs(device: str, **changes: Any) -> list[RunSpec]:
    """Epochs of three batches, the last one with 50 samples."""
    return [RUN.changed(device=device, train_samples=250, seed=seed, **changes) for seed in range(3)]


@on_both
@pytest.mark.parametrize("changes", [{}, {"network": "mlp", "network_args": DROPOUT}], ids=["lenet", "dropout"])
def test_a_resumed_stack_gives_the_same_bytes(changes: dict[str, Any], device: str, tmp_path: Path) -> None:
    whole, saved, results = trained(three_runs(device, **changes))
    if device == "cuda":
        assert all(map(in_a_graph, results))
    assert trained(three_runs(device, **changes))[0] == whole
    path = tmp_path / checkpoints.file_name(saved[0].run_ids, saved[0].epoch)
    path.write_bytes(checkpoints.to_bytes(saved[0]))
    assert trained(three_runs(device, **changes), path)[0] == whole


@on_both
@pytest.mark.parametrize("loaders", [0, 1])
def test_a_run_is_the_one_on_the_cpu(loaders: int, device: str) -> None:
    """On CUDA a run is a stack of one; with a DataLoader it is its network itself."""
    run = RUN.changed(train_samples=250, epochs=1)
    there, here = (trained([each])[0] for each in (run.changed(device=device, num_workers=loaders), run))
    ((ours,),), ((theirs,),) = there.values(), here.values()
    assert ours == pytest.approx(theirs, rel=2e-2)


ASSERTS = """\
import torch
from torch import nn

from runner import network


class BeyondTheEnd(nn.Module):
    def forward(self, x):
        if x.device.type == "DEVICE":
            return x + torch.ones(3, device=x.device)[torch.full((1,), 7, device=x.device)]
        return x


@network("asserts")
def asserts():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), *[BeyondTheEnd()] * (torch.initial_seed() == 0))
"""


@on_both
def test_after_an_assert_on_the_device_the_next_job_succeeds(
    device: str, bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    write("asserts.py", ASSERTS.replace("DEVICE", device))
    fixed = f"{{network: asserts, dataset: digits, device: {device}, epochs: 1}}"
    config = write("a.yaml", f"plugins: [asserts.py]\nfixed: {fixed}\ngrid: {{seed: {{range: 3}}}}\n")
    executor = "process" if device == "cuda" else "inline"  # on a CPU no worker has to be replaced
    options = ("--executor", executor, "--workers", 1, "--stack", "off", "--quiet")
    done = bnbench("run", config, "--out", tmp_path, *options)
    assert done.exit_code == 1
    assert [row["status"] for row in read_rows(tmp_path / "a/runs.csv")] == ["failed", "ok", "ok"]


@pytest.mark.cuda
@needs_two_gpus
def test_the_second_gpu_gives_what_the_first_gives() -> None:
    case = Case("batch_norm", "none", "adam", "fp32", 3)
    runs = runs_of(case, "cuda:1")
    stack = stack_of(runs)
    assert_close(losses(stack, runs), exact(case), "fp32")
    assert stack.captures, stack.how
    first, second = (trained(three_runs(f"cuda:{number}")) for number in range(2))
    if torch.cuda.get_device_name(0) == torch.cuda.get_device_name(1):
        assert list(first[0].values()) == list(second[0].values())
    assert all(map(in_a_graph, second[2]))
