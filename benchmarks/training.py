"""The contestants: the documents' loops as written, other tools, a bare loop, and bnbench.

A contestant is a function of the data folder that trains and returns seconds per run and epoch. bnbench's include all
it does besides: starting workers, evaluating after every epoch, hashing weights and batch orders. Those of a whole
command also include starting Python and importing torch.
"""

from __future__ import annotations

import logging
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import MNIST, FashionMNIST

from benchmarks.commands import BNBENCH
from runner.config import yaml_source
from runner.config.jobs import StackMode, expected_stacks, job_of, stackable
from runner.config.run_spec import RunSpec
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.storage.rows import RunResult
from runner.training.data.preprocessing import RunData, prepare
from runner.training.networks import build_network, resolve_device
from runner.training.options import Kernels, TrainingOptions

Contestant = Callable[[Path], float]

LENET = RunSpec(network="batch_norm", validate_on="test", device="cpu", epochs=1)
MLP = LENET.changed(network="notebook_mlp", dataset="mnist", trainset="half", optimizer="sgd", lr=0.1, batch_size=64)
CNN = MLP.changed(network="notebook_cnn", network_args={"norm": "batch"})

CASES = {
    "LeNet, FashionMNIST, batch 1000": LENET.changed(epochs=5),
    "LeNet, FashionMNIST, batch 64": LENET.changed(epochs=5, batch_size=64),
    "MLP, MNIST, batch 64": MLP.changed(epochs=20),
    "CNN, MNIST, batch 64": CNN.changed(epochs=5),
    "conv_unit, FashionMNIST, batch 1000": LENET.changed(network="conv_unit", epochs=2),
}
"""What all contestants train. The epochs are those of bnbench's runs: so many that start-up is a small part of them, as
in a real sweep. The others train one epoch."""

RUNS = 8


def tutorials_loop(run: RunSpec) -> Contestant:
    """The tutorial's loop: torchvision's transforms, a DataLoader with one worker, Adam, torch's own thread count."""

    def one_epoch(root: Path) -> float:
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
        train_set = FashionMNIST(str(root), train=True, transform=transform)
        network = build_network(run).to(run.device)
        loader = DataLoader(train_set, batch_size=run.batch_size, num_workers=1)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        total_loss, total_correct = 0.0, 0
        began = perf_counter()
        for batch in loader:
            images, labels = batch[0].to(run.device), batch[1].to(run.device)
            preds = network(images)
            loss = F.cross_entropy(preds, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * run.batch_size
            total_correct += preds.argmax(dim=1).eq(labels).sum().item()
        return perf_counter() - began

    return one_epoch


def notebooks_loop(run: RunSpec) -> Contestant:
    """The notebook's loop: numpy per sample, a shuffling DataLoader in the same process, SGD, batches of 64."""

    def data_tf(image: Any) -> Tensor:
        x = np.array(image, dtype="float32") / 255
        return torch.from_numpy((x - 0.5) / 0.5).unsqueeze(0)

    def one_epoch(root: Path) -> float:
        train_data = DataLoader(MNIST(str(root), train=True, transform=data_tf), batch_size=64, shuffle=True)
        net = build_network(run)
        optimizer = torch.optim.SGD(net.parameters(), 1e-1)
        train_loss, train_acc = 0.0, 0.0
        began = perf_counter()
        for im, label in train_data:
            output = net(im)
            loss = F.cross_entropy(output, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss += loss.item()
            train_acc += (output.argmax(1) == label).sum().item() / im.shape[0]
        return perf_counter() - began

    return one_epoch


def resident(run: RunSpec, root: Path) -> RunData:
    return prepare(run.dataset, root, run.trainset, run.validate_on, None, resolve_device(run.device))


def bare_loop(run: RunSpec) -> Contestant:
    """What a careful person writes by hand: data in memory, a fused optimizer, sums on the device, one evaluation."""

    def one_epoch(root: Path) -> float:
        data = resident(run, root)
        torch.set_num_threads(run.threads)
        torch.set_flush_denormal(True)
        began = perf_counter()
        network = build_network(run)
        optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(network.parameters(), lr=run.lr, fused=True)
            if run.optimizer == "sgd"
            else torch.optim.Adam(network.parameters(), lr=run.lr, fused=True)
        )
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for index in torch.randperm(len(data.train)).split(run.batch_size):
            images, labels = data.train.images[index], data.train.labels[index]
            optimizer.zero_grad()
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
            correct += (logits.argmax(1) == labels).sum()
        network.eval()
        with torch.inference_mode():
            for images, labels in zip(data.valid.images.split(1000), data.valid.labels.split(1000), strict=True):
                logits = network(images)
                total += F.cross_entropy(logits, labels)
                correct += (logits.argmax(1) == labels).sum()
        torch.set_flush_denormal(False)
        return perf_counter() - began

    return one_epoch


def lightning(run: RunSpec) -> Contestant:
    """Lightning's Trainer with its CSV logger, on tensors in memory."""

    def one_epoch(root: Path) -> float:
        from lightning import LightningModule, Trainer
        from lightning.pytorch.loggers import CSVLogger

        class Module(LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.network = build_network(run)

            def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
                logits = self.network(batch[0])
                loss = F.cross_entropy(logits, batch[1])
                self.log("loss", loss, on_step=False, on_epoch=True)
                self.log("accuracy", (logits.argmax(1) == batch[1]).float().mean(), on_step=False, on_epoch=True)
                return loss

            def configure_optimizers(self) -> torch.optim.Optimizer:
                kind = torch.optim.SGD if run.optimizer == "sgd" else torch.optim.Adam
                return kind(self.parameters(), lr=run.lr)

        # On the CPU: Lightning moves whole batches to a GPU, and a loader takes single samples.
        data = resident(run.changed(device="cpu"), root).train
        loader = DataLoader(TensorDataset(data.images, data.labels), batch_size=run.batch_size, shuffle=True)
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = Trainer(
                max_epochs=1,
                accelerator="cpu" if run.device == "cpu" else "gpu",
                devices=1,
                logger=CSVLogger(folder),
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
            )
            began = perf_counter()
            trainer.fit(Module(), loader)
            return perf_counter() - began

    return one_epoch


def skorch(run: RunSpec) -> Contestant:
    """skorch's NeuralNetClassifier, on arrays in memory."""

    def one_epoch(root: Path) -> float:
        from skorch import NeuralNetClassifier

        data = resident(run, root).train
        classifier = NeuralNetClassifier(
            build_network(run),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD if run.optimizer == "sgd" else torch.optim.Adam,
            lr=run.lr,
            batch_size=run.batch_size,
            max_epochs=1,
            train_split=None,
            iterator_train__shuffle=True,
            verbose=0,
        )
        began = perf_counter()
        classifier.fit(data.images.numpy(), data.labels.numpy())
        return perf_counter() - began

    return one_epoch


def command(run: RunSpec, kernels: Kernels) -> Contestant:
    """`bnbench run` with two workers, from the command to its end: a sweep of runs that differ in their seed."""
    fixed = {name: value for name, value in run.parameters.items() if name != "seed"}

    def whole_sweep(root: Path) -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "sweep.yaml"
            config.write_text(yaml_source.dump({"fixed": fixed, "grid": {"seed": {"range": RUNS}}}), "utf-8")
            line = [BNBENCH, "run", str(config), "--out", folder, "--data-dir", str(root), "--fresh", "--quiet"]
            began = perf_counter()
            subprocess.run([*line, "--workers", "2", "--kernels", kernels], stdout=subprocess.DEVNULL, check=True)
            return (perf_counter() - began) / RUNS / run.epochs

    return whole_sweep


def bnbench(
    run: RunSpec, runs: int, name: str, stack: StackMode = "auto", workers: int = 2, kernels: Kernels = "auto"
) -> Contestant:
    """A grid of runs that differ in their seed, in this process, which has started already."""

    def whole_grid(root: Path) -> float:
        specs = [run.changed(seed=seed) for seed in range(runs)]
        began = perf_counter()
        stacks = expected_stacks(specs, stack, workers)
        jobs = [job_of(runs, "grouped" if stackable(run, stack) else None) for runs in stacks]
        options = TrainingOptions(root, kernels=kernels)
        for event in executor[name](jobs, Context(options, workers=workers)):
            if isinstance(event, RunResult) and event.status != "ok":
                raise SystemExit(f"a benchmark run failed: {event.error}")
        return (perf_counter() - began) / runs / run.epochs

    return whole_grid


Case = dict[str, Contestant]


def contestants(run: RunSpec) -> Case:
    """All that train this network. The first one is what the ratios are to."""
    whole = f"bnbench, {RUNS} runs of {run.epochs} epochs, 2 workers"
    documents: Case = (
        {"the notebook's loop": notebooks_loop(run)}
        if run.dataset == "mnist"
        else {"the tutorial's loop": tutorials_loop(run)}
    )
    return {
        f"{whole}, native kernels": command(run, "native"),
        f"{whole}, torch's kernels": command(run, "torch"),
        "bare loop, 2 threads": bare_loop(run.changed(threads=2)),
        "skorch": skorch(run),
        "Lightning": lightning(run),
    } | documents


def cpu_cases() -> dict[str, Case]:
    return {name: contestants(run) for name, run in CASES.items()}


def overhead_cases() -> dict[str, Case]:
    """One run on one thread beside the bare loop; all evaluate once."""
    return {
        name: {
            "bare loop": bare_loop(run),
            "bnbench, torch's kernels": bnbench(run, 1, "inline", kernels="torch"),
            "bnbench, native kernels": bnbench(run, 1, "inline", kernels="native"),
        }
        for name, run in ((name, run.changed(epochs=1)) for name, run in CASES.items())
        if run.network in ("batch_norm", "notebook_mlp")
    }


def run_count_cases() -> dict[str, Case]:
    """What a run costs against how many there are, in worker processes and in one stack."""
    run = MLP.changed(epochs=2)
    counts = {n: f"{n} run{'s' if n > 1 else ''}" for n in (16, 8, 4, 2, 1)}
    processes: Case = {f"{said}, 2 workers": bnbench(run, n, "process") for n, said in counts.items()}
    stacks: Case = {f"{said}, one stack, 1 thread": bnbench(run, n, "inline", "on", 1) for n, said in counts.items()}
    return {"MLP, MNIST, batch 64, 2 epochs": processes | stacks}
