"""`make bench`: every contestant beside the others, alternating, in one run; seconds and ratios with their spread.

Prints them, and writes them to `benchmarks/results/<cores>-<processor>.json`, which docs/performance.md is made from.
`python -m benchmarks commands` measures one group anew, `python -m benchmarks cluster` what docs/cluster.md quotes,
and `python -m benchmarks gpu` everything that needs a GPU (benchmarks/gpu).

Needs MNIST and FashionMNIST (BNBENCH_DATA_DIR), a C++ compiler, lightning and skorch; `cluster` needs bnbench[ray] too.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import arithmetic, cluster, commands, training
from benchmarks.gpu import run
from runner import registry
from runner.storage.folder import data_folder
from runner.training import environment
from runner.training.data.datasets import load

ROUNDS = 3
OVERHEAD_ROUNDS = 5
"""More: a difference of a few percent is looked for."""

RESULTS = Path(__file__).parent / "results"
THREADS = torch.get_num_threads()


def measure(contestants: training.Case, root: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; they take turns, so that drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            torch.set_num_threads(THREADS)
            seconds[name].append(contestant(root))
    return seconds


def show(case: str, seconds: Mapping[str, Sequence[float]]) -> None:
    print(case, flush=True)
    first = next(iter(seconds.values()))
    for name, values in seconds.items():
        ratios = [value / ours for value, ours in zip(values, first, strict=True)]
        spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
        print(f"  {name:<57} {statistics.median(values):7.3f} s   ×{statistics.median(ratios):.2f} ({spread})")


def whole_commands() -> dict[str, Any]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands.commands(Path(folder)).items():
            seconds, memory = zip(*[commands.measure(command) for _ in range(ROUNDS)], strict=True)
            found[name] = {"seconds": seconds, "peak_mb": max(memory)}
            print(f"{name:<59} {statistics.median(seconds):7.3f} s   {max(memory):.0f} MB", flush=True)
    return found


def save(results: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def on_a_cluster() -> None:
    """A file of its own: it needs an extra, and is measured apart."""
    described = environment.describe([], data_folder(None))
    path = RESULTS / "cluster" / f"{described['cores']}-{described['cpu'].replace(' ', '-')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"environment": described, **cluster.measure()}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)


def main(chosen: Sequence[str]) -> None:
    if list(chosen) == ["cluster"]:
        on_a_cluster()
        return
    if list(chosen) == ["gpu"]:
        sys.exit(run.main())
    # A fallback would be measured as if it were the real thing.
    os.environ["BNBENCH_STRICT"] = "1"
    root = data_folder(None)
    registry.load_plugins()
    for name in ("mnist", "fashion_mnist"):
        load(name, root)  # an error now, not after the first case
    described = environment.describe([], root)
    path = RESULTS / f"{described['cores']}-{described['cpu'].replace(' ', '-')}.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if chosen else {}
    results["environment"] = described
    results["gflops_of_a_core"] = arithmetic.gflops_of_a_core()
    results["gflop_of_an_epoch"] = {case: arithmetic.gflop_of_an_epoch(run) for case, run in training.CASES.items()}
    groups = {
        "training": (training.cpu_cases(), ROUNDS),
        "overhead": (training.overhead_cases(), OVERHEAD_ROUNDS),
        "run_count": (training.run_count_cases(), ROUNDS),
    }
    for group, (cases, rounds) in groups.items():
        if chosen and group not in chosen:
            continue
        results[group] = {}
        for case, contestants in cases.items():
            results[group][case] = measure(contestants, root, rounds)
            show(f"{group}: {case}", results[group][case])
            # After each case, so that an interruption loses only the case that is measured.
            save(results, path)
    if not chosen or "commands" in chosen:
        results["commands"] = whole_commands()
    save(results, path)
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
