"""The contestants: the documents' loops as written, other tools, a bare loop, and bnbench.

A contestant is a function of the data folder that trains and returns seconds per run and epoch. bnbench's include all
it does besides: starting workers, evaluating after every epoch, hashing weights and batch orders.
"""

from __future__ import annotations

import logging
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

from runner import registry
from runner.config.jobs import StackMode, expected_stacks, job_of, stackable
from runner.config.run_spec import RunSpec
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.storage.rows import RunResult
from runner.training.data.preprocessing import RunData, prepare
from runner.training.networks import resolve_device
from runner.training.options import TrainingOptions

Contestant = Callable[[Path], float]

LENET = RunSpec(network="batch_norm", validate_on="test", device="cpu", epochs=1)
MLP = LENET.changed(network="notebook_mlp", dataset="mnist", trainset="half", optimizer="sgd", lr=0.1, batch_size=64)


def tutorials_loop(batch_size: int, device: str = "cpu") -> Contestant:
    """The tutorial's loop: torchvision's transforms, a DataLoader with one worker, Adam, torch's own thread count."""

    def one_epoch(root: Path) -> float:
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
        train_set = FashionMNIST(str(root), train=True, transform=transform)
        network = registry.network["batch_norm"]().to(device)
        loader = DataLoader(train_set, batch_size=batch_size, num_workers=1)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        total_loss, total_correct = 0.0, 0
        began = perf_counter()
        for batch in loader:
            images, labels = batch[0].to(device), batch[1].to(device)
            preds = network(images)
            loss = F.cross_entropy(preds, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * batch_size
            total_correct += preds.argmax(dim=1).eq(labels).sum().item()
        return perf_counter() - began

    return one_epoch


def notebooks_loop(root: Path) -> float:
    """The notebook's loop: numpy per sample, a shuffling DataLoader in the same process, SGD, batches of 64."""

    def data_tf(image: Any) -> Tensor:
        x = np.array(image, dtype="float32") / 255
        return torch.from_numpy(((x - 0.5) / 0.5).reshape((-1,)))

    train_data = DataLoader(MNIST(str(root), train=True, transform=data_tf), batch_size=64, shuffle=True)
    net = nn.Sequential(nn.Linear(784, 100), nn.ReLU(True), nn.Linear(100, 10))
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


def resident(run: RunSpec, root: Path) -> RunData:
    return prepare(run.dataset, root, run.trainset, run.validate_on, None, resolve_device(run.device))


def bare_loop(run: RunSpec) -> Contestant:
    """What a careful person writes by hand: data in memory, a fused optimizer, sums on the device, one evaluation."""

    def one_epoch(root: Path) -> float:
        data = resident(run, root)
        torch.set_num_threads(run.threads)
        torch.set_flush_denormal(True)
        began = perf_counter()
        torch.manual_seed(run.seed)
        network = registry.network[run.network]()
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
                self.network = registry.network[run.network]()

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
            registry.network[run.network](),
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


def bnbench(run: RunSpec, runs: int, name: str, stack: StackMode = "auto", workers: int = 2) -> Contestant:
    """A grid of runs that differ in their seed."""

    def whole_grid(root: Path) -> float:
        specs = [run.changed(seed=seed) for seed in range(runs)]
        began = perf_counter()
        stacks = expected_stacks(specs, stack, workers)
        jobs = [job_of(runs, "grouped" if stackable(run, stack) else None) for runs in stacks]
        for event in executor[name](jobs, Context(TrainingOptions(root), workers=workers)):
            if isinstance(event, RunResult) and event.status != "ok":
                raise SystemExit(f"a benchmark run failed: {event.error}")
        return (perf_counter() - began) / runs / run.epochs

    return whole_grid


Case = dict[str, Contestant]


def cpu_cases() -> dict[str, Case]:
    """The first contestant of each is what the ratios are to."""
    found: dict[str, Case] = {}
    for name, run, epochs, loop, said in (
        ("LeNet, FashionMNIST, batch 1000", LENET, 5, tutorials_loop(1000), "the tutorial's loop"),
        ("LeNet, FashionMNIST, batch 64", LENET.changed(batch_size=64), 5, tutorials_loop(64), "the tutorial's loop"),
        ("MLP, MNIST, batch 64", MLP, 20, notebooks_loop, "the notebook's loop"),
    ):
        found[name] = {
            f"bnbench, 8 runs of {epochs} epochs, 2 workers": bnbench(run.changed(epochs=epochs), 8, "process"),
            "bnbench, 1 run, 2 threads": bnbench(run.changed(threads=2), 1, "inline"),
            "bare loop, 2 threads": bare_loop(run.changed(threads=2)),
            "skorch": skorch(run),
            "Lightning": lightning(run),
            said: loop,
        }
    return found


def overhead_cases() -> dict[str, Case]:
    """One run on one thread beside the bare loop; both evaluate once."""
    return {
        name: {"bare loop, 1 thread": bare_loop(run), "bnbench, 1 run, 1 thread": bnbench(run, 1, "inline")}
        for name, run in (
            ("LeNet, FashionMNIST, batch 1000", LENET),
            ("LeNet, FashionMNIST, batch 64", LENET.changed(batch_size=64)),
            ("MLP, MNIST, batch 64", MLP),
        )
    }


def run_count_cases() -> dict[str, Case]:
    """What a run costs against how many there are, in worker processes and in one stack."""
    run = MLP.changed(epochs=2)
    processes: Case = {f"{n} runs, 2 workers": bnbench(run, n, "process") for n in (16, 8, 4, 2, 1)}
    stacks: Case = {f"{n} runs, one stack, 1 thread": bnbench(run, n, "inline", "on", 1) for n in (16, 8, 4, 2, 1)}
    return {"MLP, MNIST, batch 64, 2 epochs": processes | stacks}
