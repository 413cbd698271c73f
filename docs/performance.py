"""Write docs/performance.md from the tables of `make bench` in `benchmarks/results/`. Run by `make docs`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"

GFLOP_PER_EPOCH = {"LeNet": 73.3, "MLP": 19.2}
"""Forward and backward of 60,000 samples: 1.222 MFLOP each for the tutorial's LeNet, 0.32 for the notebook's MLP."""

INTRODUCTION = """\
# Performance

Made by `make docs` from the tables that `make bench` leaves in `benchmarks/results/`. In one run the contestants take
turns; a figure is the median over its rounds, a ratio is taken within a round, its range is over the rounds. Seconds
are per run and epoch of 60,000 images. bnbench's include all it does besides training: starting workers, a
validation pass after every epoch, hashes of weights and batch orders. The loops it is compared with only train, but
for the bare loop, which evaluates too. The **floor** is the arithmetic of an epoch at the speed of a 2048³ matrix
product, measured in the same run: no loop can be faster without leaving something out.
"""

HOW = """\
## How

- **What is in a figure.** "8 runs … 2 workers" has the start of two processes in it, about two seconds each of
  importing torch and reading the data: of short sweeps most of the time (the table by number of runs; its stacks run in
  the benchmark's own process, which is there already). The other contestants train one after the other in that process,
  with the memory settings anyone's script has; of bnbench's lead at batch 1000 a part is the setting of its workers.
- **CPU.** A run is a process on one thread with the data in its memory: two single threads do more than one run on two.
  Workers keep freed memory (`MALLOC_MMAP_THRESHOLD_`): at batch 1000 mapping it anew was a third of the time. Denormals
  are flushed, optimizers fused, sums stay on the device, and nothing else is in the step. 2×2 maximum pooling has a
  kernel of its own (`runner/training/learners/max_pooling.py`), with torch's numbers to the bit.
  Not taken, since measured without gain here: `channels_last`, `torch.compile`, ReLU after pooling.
- **Stacks.** Runs that differ only in seed, learning rate, momentum, weight decay or schedule train as one batched
  model: convolutions in groups, `baddbmm`, one batch norm over the channels of all. What has no stacked form is mapped
  by `torch.vmap`; what that cannot hold trains alone, and `bnbench plan --stack on` says so. **The rule of
  `--stack auto`**: on CUDA yes, on a CPU no. On a CPU a stacked convolution is no faster than its parts (the MLP gains
  little: above), and a run on its own keeps its last bits whatever it is trained with.
- **CUDA.** The step (gathering the batch, forward, backward, update, sums) is captured as a graph, the ragged last
  batch as a second one, after three rehearsed steps whose traces are wiped. Data stay on the device as normalised
  float32: the gather reads four times the bytes of uint8, but three passes over the batch are saved.
- `share_batches: true` lets all seeds see one batch order: a stack then gathers once and its first convolution is a
  dense one. It couples the seeds, so it is never on by itself, and it is in the tables.
"""

UNSEEN = """\
## Not seen yet

No GPU was at hand. The stacked code is tested on the CPU against the solo networks (`tests/training/test_stack.py`);
what only a GPU can show is written and waits: tests marked `cuda` (graph against plain step for every network and
stacks of 1, 3 and 10; CUDA against CPU), and `make bench` there, which measures stacks of 1, 10, 100 and 1000 runs at
batch 1000 and 64, the tutorial's loop on the same GPU, and 2 networks × 100 seeds × 20 epochs end to end. So these
figures are open: milliseconds per run-epoch on a GPU, the gain of a graph, where a grouped convolution's weight
gradient stops paying, whether compiling inside the capture pays for itself (it is not done), `tf32` and `bf16` at
speed.
"""


def page() -> str:
    parts = [INTRODUCTION]
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        parts += machine(json.loads(path.read_text(encoding="utf-8")), path.name)
    return "\n".join([*parts, HOW, UNSEEN])


def machine(results: Mapping[str, Any], name: str) -> Iterator[str]:
    environment = results["environment"]
    packages = environment["packages"]
    speed = ", ".join(f"{value:.0f} on {threads}" for threads, value in results["gflops"].items())
    yield (
        f"## {environment['cpu']}, {environment['cores']} cores\n\n"
        f"[{name}](../benchmarks/results/{name}): torch {packages['torch']}, Python {environment['python']}. "
        f"Matrix product:\n{speed} threads, in GFLOP/s.\n"
    )
    for case, seconds in results.get("training", {}).items():
        yield training(case, seconds, results["gflops"])
    if "overhead" in results:
        yield overhead(results["overhead"])
    if "run_count" in results:
        yield run_count(results["run_count"])
    yield commands(results["commands"])


def training(case: str, seconds: Mapping[str, Sequence[float]], gflops: Mapping[str, float]) -> str:
    floor = GFLOP_PER_EPOCH[case.split(",")[0]] / gflops["2"]
    ours = next(iter(seconds.values()))
    lines = [f"### {case}\n", "| | s per run-epoch | times bnbench's | times the floor |", "|:---|---:|:---|---:|"]
    for name, values in seconds.items():
        middle = statistics.median(values)
        lines.append(f"| {name} | {middle:.2f} | {ratio(values, ours)} | {middle / floor:.1f} |")
    lines.append(f"| the floor: arithmetic on 2 threads | {floor:.2f} | | 1 |")
    return "\n".join(lines) + "\n"


def overhead(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["### One run beside the bare loop, one thread each\n"]
    lines += ["| | bare loop, s | bnbench, s | bnbench over bare |", "|:---|---:|---:|:---|"]
    for case, seconds in cases.items():
        bare, ours = seconds.values()
        cost = f"{statistics.median(bare):.2f} | {statistics.median(ours):.2f}"
        lines.append(f"| {case} | {cost} | {ratio(ours, bare)} |")
    return "\n".join(lines) + "\n"


def run_count(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["### What a run costs against how many there are\n"]
    for case, seconds in cases.items():
        lines += [f"{case}; seconds per run-epoch.\n", "| | s | times the first |", "|:---|---:|:---|"]
        first = next(iter(seconds.values()))
        for name, values in seconds.items():
            lines.append(
                f"| {name.replace('1 runs', '1 run')} | {statistics.median(values):.2f} | {ratio(values, first)} |"
            )
    return "\n".join(lines) + "\n"


def commands(measured: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "### Commands\n\nPeak memory is that of the largest process.\n",
        "| | seconds | peak memory, MB |",
        "|:---|---:|---:|",
    ]
    for name, values in measured.items():
        lines.append(f"| `{name}` | {statistics.median(values['seconds']):.2f} | {values['peak_mb']:.0f} |")
    return "\n".join(lines) + "\n"


def ratio(values: Sequence[float], to: Sequence[float]) -> str:
    ratios = [value / other for value, other in zip(values, to, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
