"""Training against a loop written out plainly, and the guarantees a comparison rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from runner import registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.storage.rows import EpochRow, RunResult
from runner.training.data.batches import batch_order
from runner.training.data.preprocessing import prepare
from runner.training.data.seeding import stream
from runner.training.evaluation import evaluate
from runner.training.kernels.library import library
from runner.training.networks import build_network, resolve_device, weights_hash
from runner.training.norm_trace import is_norm
from runner.training.optimizers import learning_rate, make_optimizer
from runner.training.options import Kernels, TrainingOptions
from runner.training.settings import settings_of
from runner.training.train import train

RUN = RunSpec(network="batch_norm", dataset="digits", device="cpu", batch_size=100, epochs=2)


def rows_of(run: RunSpec, root: Path = Path(), kernels: Kernels = "auto") -> tuple[list[EpochRow], RunResult]:
    *rows, result = train(Job((run,)), TrainingOptions(root, kernels=kernels))
    assert isinstance(result, RunResult)
    assert all(isinstance(row, EpochRow) for row in rows)
    return [row for row in rows if isinstance(row, EpochRow)], result


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}
SPECS = {
    "sgd": RUN.changed(lr=0.05, optimizer="sgd"),
    "momentum": RUN.changed(lr=0.05, optimizer="sgd", momentum=0.9, weight_decay=1e-3),
    "adam": RUN.changed(lr=1e-3, weight_decay=1e-3),
    "adamw": RUN.changed(lr=1e-3, optimizer="adamw", weight_decay=0.1),
}


@pytest.fixture
def _settings() -> Iterator[None]:
    with settings_of(RUN):
        yield


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_is_the_plain_loop(name: str) -> None:
    run = SPECS[name]
    rows, result = rows_of(run, kernels="torch")
    data = prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu"))
    torch.manual_seed(run.seed)
    network = registry.network["batch_norm"]()
    optimizer = OPTIMIZERS[name](network.parameters())
    for row in rows:
        network.train()
        losses, correct = [], 0
        for index in batch_order(run, 1250, row.epoch).split(100):
            images, labels = data.train.images[index], data.train.labels[index]
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(labels)  # the last batch has 50: weighted by what it is
            correct += int((logits.argmax(1) == labels).sum())
        network.eval()
        with torch.no_grad():
            logits = network(data.valid.images)
        assert row.train_loss == pytest.approx(math.fsum(losses) / 1250, rel=1e-4)
        assert row.train_accuracy == pytest.approx(correct / 1250, abs=2 / 1250)
        assert row.valid_loss == pytest.approx(F.cross_entropy(logits, data.valid.labels).item(), rel=1e-3)
        assert row.step == 13 * row.epoch
        assert row.run_duration >= row.epoch_duration > 0
    assert result.status == "ok"
    assert result.parameter_count == 33_250
    assert result.rows == tuple(rows)


@pytest.mark.data
@pytest.mark.parametrize("threads", [1, 2], ids=["native", "torch"])
def test_the_tutorials_first_epoch_with_its_own_seed(real_data: Path, threads: int) -> None:
    # Published, from one run on CUDA: no_batch_norm .6660 (.9011), batch_norm .7861 (.5881).
    base = RunSpec(network="x", shuffle=False, validate_on="test", seed=50, epochs=1, device="cpu", threads=threads)
    published = {"no_batch_norm": (0.6660, 0.9011), "batch_norm": (0.7861, 0.5881)}
    for network, (accuracy, loss) in published.items():
        (row,), result = rows_of(base.changed(network=network), real_data)
        assert ("kernels" in result.trained_as) == (threads == 1 and library("auto") is not None)
        # With starting weights that differ in the last bit, batch_norm's loss is .5858 to .5893 with either kernels.
        assert row.train_accuracy == pytest.approx(accuracy, abs=4e-3)
        assert row.train_loss == pytest.approx(loss, abs=4e-3)


def test_the_same_run_twice_is_the_same_to_the_bit() -> None:
    @registry.network("with_dropout")
    def with_dropout() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.Dropout(0.5), nn.Linear(50, 10))

    def numbers(run: RunSpec) -> list[tuple[float, ...]]:
        return [(r.train_loss, r.train_accuracy, r.valid_loss, r.valid_accuracy) for r in rows_of(run)[0]]

    run = RUN.changed(network="with_dropout")
    first = numbers(run)
    torch.rand(17)  # whatever came before must not matter
    assert numbers(run) == first
    assert numbers(run.changed(seed=1)) != first


def test_a_loader_with_workers_gives_the_same_losses(tmp_path: Path) -> None:
    resident, loaded = (rows_of(RUN.changed(num_workers=n), tmp_path)[0] for n in (0, 1))
    for ours, theirs in zip(resident, loaded, strict=True):
        assert theirs.train_loss == pytest.approx(ours.train_loss, abs=1e-6)
        assert theirs.valid_loss == pytest.approx(ours.valid_loss, abs=1e-6)
        assert theirs.train_accuracy == ours.train_accuracy


def test_a_second_run_starts_from_chance() -> None:
    (_, _, last), (first, _, _) = (rows_of(RUN.changed(lr=lr, optimizer="sgd", epochs=3))[0] for lr in (0.1, 0.01))
    assert first.train_loss > last.train_loss  # it did not go on where the one before ended


def test_the_arms_of_a_seed_share_weights_and_batches() -> None:
    results = {
        (network, seed): rows_of(RUN.changed(network=network, seed=seed, epochs=1))[1]
        for network in ("no_batch_norm", "batch_norm")
        for seed in (0, 1)
    }
    assert results["no_batch_norm", 0].weights_hash == results["batch_norm", 0].weights_hash
    assert results["no_batch_norm", 0].batches_hash == results["batch_norm", 0].batches_hash
    assert results["batch_norm", 0].weights_hash != results["batch_norm", 1].weights_hash
    assert results["batch_norm", 0].batches_hash != results["batch_norm", 1].batches_hash


def test_weights_hash_sees_every_shared_weight_and_no_norm_layer() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(3, 2), nn.Linear(2, 2)
    plain = nn.Sequential(first, nn.ReLU(), last)
    normed = nn.Sequential(first, nn.BatchNorm1d(2), nn.ReLU(), last, nn.LayerNorm(2))
    assert weights_hash(plain) == weights_hash(normed)
    with torch.no_grad():
        last.bias[1] += 1e-7
    assert weights_hash(plain) == weights_hash(normed)
    assert weights_hash(plain) != weights_hash(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))

    class Mine(nn.Module):
        is_norm = True

    assert is_norm(Mine())
    assert not is_norm(nn.Linear(1, 1))


def test_divergence_ends_the_run_with_the_epoch_that_shows_it() -> None:
    rows, result = rows_of(RUN.changed(network="no_batch_norm", optimizer="sgd", lr=1e30, epochs=5))
    assert result.status == "diverged"
    assert len(rows) == 1
    assert not math.isfinite(rows[0].train_loss)
    assert result.best is None
    assert result.test_accuracy is not None


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 11)), r"returned \[100, 11\].*must return \[100, 10\]"),
        (lambda: nn.Conv2d(1, 10, 28), r"returned \[100, 10, 1, 1\]"),
        (lambda: nn.Linear(3, 3), "RuntimeError"),
        (lambda: "a network", "TypeError: network 'faulty' returned a str"),
    ],
)
def test_a_faulty_network_is_a_failed_run_and_the_next_one_goes_on(output: Any, message: str) -> None:
    registry.network("faulty")(output)
    jobs = Job((RUN.changed(network="faulty"),)), Job((RUN.changed(epochs=1),))
    failed, *_, ok = (event for job in jobs for event in train(job, TrainingOptions()))
    assert isinstance(failed, RunResult)
    assert failed.status == "failed"
    assert "Traceback" in failed.traceback
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failed.error)
    assert isinstance(ok, RunResult)
    assert ok.status == "ok"


@pytest.mark.parametrize(
    ("error", "status"), [(SystemExit(3), "failed"), (torch.OutOfMemoryError("no"), "oom"), (MemoryError(), "oom")]
)
def test_a_network_that_exits_or_asks_too_much_is_that_runs_status(error: BaseException, status: str) -> None:
    @registry.network("raises")
    def raises() -> nn.Module:
        raise error

    (result,) = train(Job((RUN.changed(network="raises"),)), TrainingOptions())
    assert isinstance(result, RunResult)
    assert result.status == status


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        ("none", lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1)),
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.2)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=8)),
    ],
)
def test_schedules_are_torchs(schedule: str, make: Any) -> None:
    extra = {"lr_step": 3, "lr_gamma": 0.2} if schedule == "step" else {}
    run = RUN.changed(lr=0.3, epochs=8, lr_schedule=schedule, **extra)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    for epoch in range(1, 9):
        assert learning_rate(run, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_evaluation_is_in_evaluation_mode_and_per_sample() -> None:
    data = prepare("digits", Path(), "normal", "test", None, torch.device("cpu"))
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Dropout(0.9), nn.Linear(784, 10))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    loss, accuracy = evaluate(network, data.train)  # 1,500 samples: batches of 1,000 and 500
    logits = network(data.train.images)
    assert loss == pytest.approx(F.cross_entropy(logits, data.train.labels).item(), rel=1e-5)
    assert accuracy == (logits.argmax(1) == data.train.labels).double().mean().item()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_streams_are_apart() -> None:
    seeds = [stream(seed, name, epoch) for seed in range(20) for name in ("batches", "dropout") for epoch in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="allowed here: auto, cpu"):
        resolve_device("cuda:99")


def test_build_network_and_optimizer_use_every_parameter() -> None:
    network = build_network(RUN)
    optimizer = make_optimizer(RUN, network)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 33_250


def test_one_runs_arguments_do_not_reach_the_next() -> None:
    seen = []

    @registry.network("keeps")
    def keeps(*, sizes: list[int]) -> nn.Module:
        seen.append(list(sizes))
        sizes.append(99)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    run = RUN.changed(network="keeps", network_args={"sizes": [1]}, epochs=1)
    assert run.factory_kwargs["sizes"] is not run.network_args["sizes"]
    list(train(Job((run, run.changed(seed=1)), "grouped"), TrainingOptions()))
    assert seen == [[1], [1]]


def test_a_last_step_that_ruins_the_network_is_divergence() -> None:
    # One batch an epoch: the training loss is taken before the only step, and is finite.
    rows, result = rows_of(RUN.changed(network="no_batch_norm", optimizer="sgd", lr=1e38, batch_size=1250, epochs=3))
    assert math.isfinite(rows[0].train_loss)
    assert len(rows) == 1
    assert result.status == "diverged"
    assert result.best is None


def test_training_leaves_denormals_to_the_statistics_that_follow() -> None:
    tiny = torch.tensor(1e-40)
    list(train(Job((RUN.changed(epochs=1),)), TrainingOptions()))
    assert (tiny * 1).item() > 0
    half_way = train(Job((RUN,)), TrainingOptions())
    next(half_way)
    assert (tiny * 1).item() == 0  # while it trains they are flushed
    half_way.close()  # type: ignore[attr-defined]
    assert (tiny * 1).item() > 0


def test_a_stack_that_fails_after_a_run_has_ended_trains_the_other_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        def __init__(self, job: Job, *_: object) -> None:
            self.job = job

        def events(self) -> Iterator[RunResult]:
            yield RunResult(self.job.runs[0].run_id, "diverged")
            if len(self.job.runs) > 1:
                raise RuntimeError("the stack failed")

    monkeypatch.setattr("runner.training.train.TrainingLoop", Loop)
    monkeypatch.setenv("BNBENCH_STRICT", "0")
    job = Job((RUN, RUN.changed(seed=1)), "grouped")
    results = list(train(job, TrainingOptions()))
    assert [result.run_id for result in results if isinstance(result, RunResult)] == list(job.run_ids)


def test_a_run_that_ends_earlier_alone_than_in_its_stack_still_has_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone it diverges at epoch 3, after its stack has passed on four epochs: fewer events than before."""

    class Loop:
        def __init__(self, job: Job, *_: object) -> None:
            self.runs = job.runs

        def events(self) -> Iterator[EpochRow | RunResult]:
            for epoch in range(1, 5 if len(self.runs) > 1 else 4):
                for run in self.runs:
                    yield EpochRow(run.run_id, epoch, epoch, 1.0, 0.5, 1.0, 0.5, 1.0, 1.0)
            if len(self.runs) > 1:
                raise RuntimeError("only together")
            yield RunResult(self.runs[0].run_id, "diverged")

    monkeypatch.setenv("BNBENCH_STRICT", "0")
    monkeypatch.setattr("runner.training.train.TrainingLoop", Loop)
    job = Job((RUN, RUN.changed(seed=1)), "grouped")
    found = [event for event in train(job, TrainingOptions()) if isinstance(event, RunResult)]
    assert [(result.status, len(result.rows)) for result in found] == [("diverged", 4)] * 2
