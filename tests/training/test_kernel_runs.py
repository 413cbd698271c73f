"""Runs with native kernels: every network, the same bytes, resumed sweeps, and what a user is told."""

from __future__ import annotations

import copy
import ctypes
import json
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import scipy.stats
import torch
from click.testing import Result
from torch import Tensor, nn
from torch.nn import functional as F

import experiments.networks  # noqa: F401 (registers the networks before the tests are collected)
from runner import factories, registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every, to_bytes
from runner.storage.rows import Checkpoint, EpochRow, RunResult
from runner.training.data.preprocessing import prepare
from runner.training.kernels import library as libraries
from runner.training.kernels.library import Library
from runner.training.kernels.program import program
from runner.training.learners.solo import Solo
from runner.training.networks import build_network
from runner.training.options import Kernels, TrainingOptions
from runner.training.probes.probe import Look
from runner.training.probes.registry import PROBES, probe_values
from runner.training.train import train

Bnbench = Callable[..., Result]

Write = Callable[[str, str], Path]

BOTH: tuple[Kernels, ...] = ("native", "torch")

RUN = RunSpec(network="batch_norm", dataset="digits", device="cpu", batch_size=100, epochs=2)

TIMING = ["epoch_duration", "run_duration"]


# Every network with every norm layer


def combinations() -> list[tuple[str, dict[str, Any]]]:
    """Every registered network that is an nn.Sequential, with every norm layer that it accepts."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, factory in registry.network.items():
        norms = registry.norm if "norm" in factories.signature(factory) else [None]
        for norm in norms:
            arguments = {"norm": norm} if norm else {}
            try:
                sequential = isinstance(factory(**arguments), nn.Sequential)
            except ValueError:  # this norm layer does not work for [N, F]
                continue
            if sequential:
                found.append((name, arguments))
    return found


def one_step(network: nn.Module, compute: Callable[[Tensor], Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A step of SGD on 37 images, then evaluation: the loss, every gradient and buffer, and the logits."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(37, 1, 28, 28, generator=generator).to(dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    loss = F.cross_entropy(compute(images), torch.arange(37) % 10)
    loss.backward()
    optimizer.step()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.eval()
    with torch.inference_mode():
        logits = compute(images)
    return {"loss": loss.detach(), "logits": logits, **gradients, **dict(network.named_buffers())}


@pytest.mark.parametrize(("name", "arguments"), combinations(), ids=str)
def test_every_network_learns_what_it_learns_in_float64(name: str, arguments: dict[str, Any], native: Library) -> None:
    torch.manual_seed(0)
    ours = registry.network[name](**arguments)
    made = program(ours, native)
    assert len(made.native) + len(made.others) == sum(type(layer) is not nn.Identity for layer in ours)
    if any(isinstance(layer, nn.Conv2d) for layer in ours):
        assert "Conv2d" in " ".join(made.native)
        assert "Conv2d" not in " ".join(made.others)
    for layer in ours:
        if isinstance(layer, nn.Dropout):
            layer.p = 0
    theirs, gradients = copy.deepcopy(ours).double(), dict(ours.named_parameters())
    found, expected = one_step(ours, made, torch.float32), one_step(theirs, theirs, torch.float64)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # A bias before a norm layer has a gradient of 0, so it has the scale of its layer's weights.
        largest = max(float(each.abs().max()) for each in (value, expected.get(key.replace("bias", "weight"), value)))
        worst = float((found[key].double() - value.double()).abs().max())
        # Where rounding moves a value over a ReLU's edge, one image has another gradient, and the step another end.
        assert worst <= (1e-2 if key in gradients or key == "logits" else 2e-5) * largest, key


# Runs


def events(
    run: RunSpec, kernels: Kernels, checkpoint: Path | None = None, **options: Any
) -> tuple[list[tuple[float, ...]], RunResult, list[Any]]:
    """The numbers of a run's rows, its result, and everything else."""
    *others, result = train(Job((run,)), TrainingOptions(kernels=kernels, **options), checkpoint)
    assert isinstance(result, RunResult), result
    rows = [event for event in others if isinstance(event, EpochRow)]
    numbers = [(row.train_loss, row.train_accuracy, row.valid_loss, row.valid_accuracy) for row in rows]
    return list[tuple[float, ...]](numbers), result, [event for event in others if not isinstance(event, EpochRow)]


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_is_the_same_to_the_bit_whatever_came_before(optimizer: str) -> None:
    run = RUN.changed(optimizer=optimizer, momentum=0.9 if optimizer == "sgd" else 0.0)
    numbers, result, _ = events(run, "native", save_weights=True)
    events(run.changed(network="lenet", network_args={"norm": "batch"}, batch_size=37, epochs=1, seed=3), "native")
    torch.rand(17)
    again, repeated, _ = events(run, "native", save_weights=True)
    assert (again, repeated.weights) == (numbers, result.weights)
    assert result.weights
    assert events(run, "torch")[0] != numbers  # they round differently


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("network", ["batch_norm", "no_batch_norm"])
def test_the_losses_are_torchs(network: str) -> None:
    ours, theirs = (events(RUN.changed(network=network, lr=1e-3), kernels)[0] for kernels in BOTH)
    for one, other in zip(ours, theirs, strict=True):
        assert one[0::2] == pytest.approx(other[0::2], rel=1e-3)
        assert one[1::2] == pytest.approx(other[1::2], abs=0.005)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, "alone with kernels {}"),
        ({"network": "notebook_mlp"}, "alone with kernels {}|alone"),
        ({"threads": 2}, "alone"),
        ({"precision": "bf16"}, "alone"),
    ],
    ids=str,
)
def test_trained_as_names_the_kernels(changes: dict[str, Any], how: str, native: Library) -> None:
    run = RUN.changed(epochs=1, train_samples=200, **changes)
    numbers, result, _ = events(run, "native")
    assert result.trained_as in how.format(native.name).split("|")
    plain, alone, _ = events(run, "torch")
    assert alone.trained_as == "alone"
    if how == "alone":
        assert numbers == plain


def test_a_stack_has_torchs_kernels() -> None:
    runs = tuple(RUN.changed(epochs=1, seed=seed) for seed in range(2))
    results = train(Job(runs, "grouped"), TrainingOptions(kernels="native"))
    assert {event.trained_as for event in results if isinstance(event, RunResult)} == {"stack of 2"}


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("network", ["no_batch_norm", "batch_norm"])
def test_a_run_that_diverges_is_found(network: str, optimizer: str) -> None:
    run = RUN.changed(network=network, optimizer=optimizer, lr=1e30, epochs=3)
    (ours, result, _), (_, expected, _) = (events(run, kernels) for kernels in BOTH)
    assert (result.status, len(ours)) == (expected.status, len(expected.rows))
    assert result.status == "diverged" or network == "batch_norm"


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_checkpoint_goes_on_to_the_same_bytes(optimizer: str, tmp_path: Path) -> None:
    run = RUN.changed(epochs=3, optimizer=optimizer, momentum=0.9 if optimizer == "sgd" else 0.0)
    whole, result, others = events(run, "native", checkpoint_every=Every(epochs=1), save_weights=True)
    states = [event for event in others if isinstance(event, Checkpoint)]
    assert [state.epoch for state in states] == [1, 2]
    file = tmp_path / "one.ckpt"
    file.write_bytes(to_bytes(states[0]))
    rest, last, _ = events(run, "native", file, save_weights=True)
    assert rest == whole[1:]
    assert last.weights == result.weights


@pytest.mark.usefixtures("native")
def test_probes_see_the_same_network() -> None:
    data = prepare("digits", Path(), "normal", "held_out", 100, torch.device("cpu"))
    ours, theirs = (
        probe_values(Solo(RUN, build_network(RUN), data, kernels).member(0), Look(data, 0.1), tuple(PROBES))
        for kernels in BOTH
    )
    assert ours == theirs
    assert {layer for layer, _ in ours} > {"", "0", "3"}


@pytest.mark.usefixtures("native")
def test_native_and_torch_runs_are_one_distribution() -> None:
    """Twenty seeds of a short training: rounding alone must not move the accuracy."""
    ours, theirs = (
        [
            events(RUN.changed(seed=seed, epochs=1, train_samples=500), kernels)[1].rows[-1].valid_accuracy
            for seed in range(20)
        ]
        for kernels in BOTH
    )
    assert ours != theirs
    assert scipy.stats.ttest_rel(ours, theirs).pvalue > 0.05
    assert scipy.stats.ks_2samp(ours, theirs).pvalue > 0.05


# What a user is told

CONFIG = """\
name: small
fixed: {network: batch_norm, dataset: digits, device: cpu, batch_size: 250, epochs: 2}
grid: {seed: [0, 1]}
"""


@pytest.fixture
def config(write: Write) -> Path:
    return write("small.yaml", CONFIG)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that could not compile kernels."""
    monkeypatch.setattr(libraries, "_load", lambda: None)


def read(folder: Path) -> tuple[pd.DataFrame, set[str], str]:
    """The rows without timings, `trained_as`, and the kernels of environment.json."""
    rows = pd.read_csv(folder / "metrics.csv").drop(columns=TIMING)
    kernels = json.loads((folder / "environment.json").read_text())["kernels"]
    return rows, set(pd.read_csv(folder / "runs.csv")["trained_as"]), kernels


def test_the_folder_says_which_kernels_and_a_resume_keeps_to_them(
    bnbench: Bnbench, config: Path, tmp_path: Path, native: Library
) -> None:
    options = ("--executor", "inline", "--stack", "off", "--out")
    for kernels in BOTH:
        done = bnbench("run", config, *options, tmp_path / kernels, "--kernels", kernels)
        assert done.exit_code == 0, done.stderr
    assert read(tmp_path / "native/small")[1:] == ({f"alone with kernels {native.name}"}, str(native))
    assert read(tmp_path / "torch/small")[1:] == ({"alone"}, "torch")
    one_seed = ("--set", "grid.seed=[1]")
    for kernels in BOTH:
        # The first half has the kernels that are named; the second finds them in the folder.
        bnbench("run", config, *options, tmp_path / f"{kernels}-halves", "--kernels", kernels, *one_seed)
        done = bnbench("run", config, *options, tmp_path / f"{kernels}-halves", "--resume")
        assert done.exit_code == 0, done.stderr
        (rows, *how), (expected, *expected_how) = (read(tmp_path / f"{kernels}{x}/small") for x in ("-halves", ""))
        pd.testing.assert_frame_equal(rows, expected, check_exact=True)
        assert how == expected_how


def test_other_kernels_are_refused_on_a_resume(bnbench: Bnbench, config: Path, tmp_path: Path, native: Library) -> None:
    options = ("--executor", "inline", "--stack", "off", "--out", tmp_path)
    assert bnbench("run", config, *options, "--set", "grid.seed=[0]", "--kernels", "native").exit_code == 0
    before = (tmp_path / "small/metrics.csv").read_bytes()
    done = bnbench("run", config, *options, "--resume", "--kernels", "torch")
    assert done.exit_code == 2
    assert f"this sweep began with kernels {native}, not torch; leave out --kernels, or" in done.stderr
    assert (tmp_path / "small/metrics.csv").read_bytes() == before
    done = bnbench("run", config, *options, "--resume", "--kernels", "torch", "--allow-changed")
    assert done.exit_code == 0, done.stderr
    assert read(tmp_path / "small")[1:] == ({"alone", f"alone with kernels {native.name}"}, "torch")
    # Now the folder is of torch's kernels.
    assert bnbench("resume", tmp_path / "small", "--executor", "inline").exit_code == 0
    refused = bnbench("resume", tmp_path / "small", "--executor", "inline", "--kernels", "native")
    assert refused.exit_code == 2
    assert f"this sweep began with kernels torch, not {native}; leave out --kernels, or" in refused.stderr


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("content", ["damaged", "an older version"])
def test_kernels_that_do_not_fit_are_an_error(
    content: str, bnbench: Bnbench, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (name for names in libraries.FITTING.values() for name in names):
        (tmp_path / f"{name}{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    monkeypatch.setattr(libraries, "__file__", str(tmp_path / "library.py"))
    if content == "an older version":
        older = SimpleNamespace(version=lambda: libraries.VERSION - 1)
        monkeypatch.setattr(ctypes, "CDLL", lambda _: older)
    monkeypatch.setattr(libraries, "_load", libraries._load.__wrapped__)
    done = bnbench("run", config, "--executor", "inline", "--out", tmp_path, "-q")
    assert done.exit_code == 2
    assert done.stderr.endswith("damaged, or of another version; install bnbench again, or use --kernels torch\n")
    assert bnbench("run", config, "--executor", "inline", "--out", tmp_path, "-q", "--kernels", "torch").exit_code == 0


@pytest.mark.usefixtures("missing")
def test_an_installation_without_kernels_says_so(bnbench: Bnbench, config: Path, tmp_path: Path) -> None:
    options = ("--executor", "inline", "--out", tmp_path, "--set", "fixed.epochs=1")
    for command in ("run", "plan"):
        done = bnbench(command, config, *(("-q", *options) if command == "run" else ()), "--kernels", "native")
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert "--kernels native: there are no native kernels for this processor" in line
        assert "allowed here: auto, torch" in line
    assert not (tmp_path / "small").exists()
    done = bnbench("run", config, *options)
    assert done.exit_code == 0
    assert done.stderr.count("torch's kernels are used, and training is slower: there are no native kernels") == 1
    assert read(tmp_path / "small")[1:] == ({"alone"}, "torch")
    again = bnbench("resume", tmp_path / "small", "--executor", "inline")
    assert again.exit_code == 0
    assert "slower" not in bnbench("run", config, "--kernels", "torch", *options, "--fresh").stderr
    plan = bnbench("plan", config, "--kernels", "auto").stdout
    assert "kernels: torch's, because there are no native kernels" in plan
    assert "kernels torch" in bnbench("--version").stdout


def test_the_plan_names_layers(bnbench: Bnbench, write: Write, config: Path, native: Library) -> None:
    lines = bnbench("plan", config, "--kernels", "native").stdout.splitlines()
    assert f"kernels: native, {native}, where a run trains alone" in lines
    layers = "0 Conv2d, 1 ReLU, 2 MaxPool2d, 3 BatchNorm2d, 4 Conv2d, 5 ReLU, 6 MaxPool2d"
    assert f"network batch_norm: native: {layers}" in lines
    (others,) = (line for line in lines if line.startswith("network batch_norm: torch's: 7 Flatten"))
    assert "Conv2d" not in others
    assert f"kernels {native}" in bnbench("--version").stdout
    assert "kernels: torch's\n" in bnbench("plan", config, "--kernels", "torch").stdout
    threads = write("threads.yaml", CONFIG.replace("epochs: 2", "epochs: 1, threads: 2, train_samples: 100"))
    plan = bnbench("plan", threads, "--kernels", "native").stdout
    assert "all runs use torch's kernels: native kernels are for runs that train alone" in plan
    # Without a GPU, the plan is as complete as with one.
    assert bnbench("plan", config, "--kernels", "native", "--device", "cuda").exit_code == 0
    run = bnbench("run", threads, "--kernels", "native", "--executor", "inline", "--out", threads.parent)
    assert "runs use torch's kernels: native kernels are for runs that train alone" in run.stderr
    wrong = bnbench("run", config, "--kernels", "fast")
    assert wrong.exit_code == 2
    assert "'auto', 'native', 'torch'" in wrong.stderr


@pytest.mark.parametrize(
    ("capability", "allowed"), [("AVX512", "x86_64_v4 x86_64_v3"), ("AVX2", "x86_64_v3"), ("", "")]
)
def test_a_processor_gets_no_variant_that_it_cannot_run(
    capability: str, allowed: str, monkeypatch: pytest.MonkeyPatch, native: Library
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("ctypes.CDLL", lambda _: native.functions)
    found = libraries._load.__wrapped__()
    assert (found.name if found else "") in allowed
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    arm = libraries._load.__wrapped__()
    assert arm is None or arm.name == "aarch64"


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--stack", "on"), "2 of 2 runs use torch's kernels: native kernels are for runs that train alone"),
        (("--set", "fixed.network=notebook_mlp"), "native kernels compute no layer of network notebook_mlp"),
    ],
    ids=["stack", "no convolution"],
)
def test_native_kernels_that_are_not_used_are_told(
    option: tuple[str, str], said: str, bnbench: Bnbench, config: Path, tmp_path: Path
) -> None:
    done = bnbench("run", config, "--kernels", "native", "--executor", "inline", "--out", tmp_path, *option)
    assert done.exit_code == 0
    assert said in done.stderr
    assert said in (tmp_path / "small/run.log").read_text()


@pytest.mark.usefixtures("native")
def test_a_network_that_cannot_be_built_is_a_failed_run_with_any_kernels(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    @registry.network("no_network")
    def no_network() -> nn.Module:
        raise ValueError("no layers")

    broken = write("broken.yaml", CONFIG.replace("batch_norm", "no_network"))
    done = bnbench("run", broken, "--kernels", "native", "--executor", "inline", "--out", tmp_path)
    assert done.exit_code == 1
    assert "ValueError: no layers" in done.stderr
    assert "network no_network: it cannot be built" in bnbench("plan", broken, "--kernels", "native").stdout
