"""`make bench`: the tutorial's and the notebook's loops as written beside bnbench, alternating, in one run.

Prints seconds per run-epoch and the ratio to bnbench, as median and range over the rounds, and writes them to
`benchmarks/results/<cores>-<processor>.json`. Needs MNIST and FashionMNIST (BNBENCH_DATA_DIR).
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST, FashionMNIST

from runner import environment, registry
from runner.data import data_folder, load
from runner.executors import Context, executor
from runner.rows import RunResult
from runner.spec import RunSpec

ROUNDS = 3
RUNS = 8
RESULTS = Path(__file__).parent / "results"


def tutorials_loop(batch_size: int) -> Callable[[Path], float]:
    """The tutorial's loop: torchvision's transforms, a DataLoader with one worker, Adam, torch's own thread count."""

    def one_epoch(root: Path) -> float:
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
        train_set = FashionMNIST(str(root), train=True, transform=transform)
        network = registry.network["batch_norm"]()
        loader = DataLoader(train_set, batch_size=batch_size, num_workers=1)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        total_loss, total_correct = 0.0, 0
        began = perf_counter()
        for images, labels in loader:
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
    import numpy as np

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


def bnbench(run: RunSpec, runs: int, name: str) -> Callable[[Path], float]:
    """Seconds per run of `runs` one-epoch runs, start of the workers, evaluation and hashes included."""

    def one_epoch(root: Path) -> float:
        jobs = [(run.changed(seed=seed),) for seed in range(runs)]
        began = perf_counter()
        for event in executor[name](jobs, Context(root, workers=2)):
            if isinstance(event, RunResult) and event.status != "ok":
                raise SystemExit(f"a benchmark run failed: {event.error}")
        return (perf_counter() - began) / runs

    return one_epoch


def cases() -> dict[str, dict[str, Callable[[Path], float]]]:
    base = RunSpec(network="batch_norm", validate_on="test", epochs=1, device="cpu")
    mlp = base.changed(network="notebook_mlp", dataset="mnist", trainset="half", optimizer="sgd", lr=0.1, batch_size=64)
    table: dict[str, dict[str, Callable[[Path], float]]] = {}
    for batch_size in (1000, 64):
        table[f"LeNet, FashionMNIST, batch {batch_size}"] = {
            f"bnbench, {RUNS} runs, 2 workers": bnbench(base.changed(batch_size=batch_size), RUNS, "process"),
            "bnbench, 1 run, inline, 2 threads": bnbench(base.changed(batch_size=batch_size, threads=2), 1, "inline"),
            "the tutorial's loop": tutorials_loop(batch_size),
        }
    table["MLP, MNIST, batch 64"] = {
        f"bnbench, {RUNS} runs, 2 workers": bnbench(mlp, RUNS, "process"),
        "bnbench, 1 run, inline": bnbench(mlp, 1, "inline"),
        "the notebook's loop": notebooks_loop,
    }
    return table


def measure(contestants: dict[str, Callable[[Path], float]], root: Path) -> dict[str, list[float]]:
    """Seconds per run-epoch of each contestant in each round; they take turns, so that drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, contestant in contestants.items():
            torch.set_num_threads(THREADS)
            seconds[name].append(contestant(root))
    return seconds


def main() -> None:
    root = data_folder(None)
    registry.load_plugins()
    for name in ("mnist", "fashion_mnist"):
        load(name, root)  # an error now, not after the first case
    results: dict[str, Any] = {"environment": environment.describe([], root), "seconds_per_run_epoch": {}}
    for case, contestants in cases().items():
        seconds = measure(contestants, root)
        results["seconds_per_run_epoch"][case] = seconds
        print(case)
        first = next(iter(seconds.values()))
        for name, values in seconds.items():
            ratios = [value / ours for value, ours in zip(values, first, strict=True)]
            spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
            print(f"  {name:<36} {statistics.median(values):6.2f} s   ×{statistics.median(ratios):.2f} ({spread})")
    RESULTS.mkdir(exist_ok=True)
    machine = f"{results['environment']['cores']}-{results['environment']['cpu'].replace(' ', '-')}"
    path = RESULTS / f"{machine}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)


THREADS = torch.get_num_threads()

if __name__ == "__main__":
    main()
