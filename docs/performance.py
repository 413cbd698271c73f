"""Write docs/performance.md from the tables of `make bench` in `benchmarks/results/`. Run by `make docs`."""

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

`make docs` makes this page from the tables that `make bench` leaves in `benchmarks/results/`. One benchmark run has
several rounds, and the tools take turns within a round. A figure is the median over the rounds. A ratio is taken within
a round, and its range is over the rounds. Seconds are per run and epoch of 60,000 images.

The figures of bnbench include all its work besides training: starting workers, a validation pass after every epoch, and
hashes of weights and batch orders. The loops that it is compared with only train. The bare loop also evaluates. The
**floor** is the arithmetic of an epoch at the speed of a 2048³ matrix product, measured in the same run. No loop can be
faster without leaving something out.
"""

HOW = """\
## How

- **What a figure includes.** "8 runs … 2 workers" includes the start of two processes. Each takes about two seconds to
  import torch and read the data, which is most of the time of a short sweep (see the table by number of runs; its
  stacks run in the benchmark's own process, which has already started). The other tools train one after the other in
  that process, with the usual memory settings of a script. Part of bnbench's lead at batch 1000 comes from the memory
  settings of its workers.
- **CPU.** A run is a process with one thread, and its data are in memory. Two single threads do more than one run on
  two threads. Workers keep freed memory (`MALLOC_MMAP_THRESHOLD_`): at batch 1000, mapping it again took a third of the
  time. Denormals are flushed, optimizers are fused, sums stay on the device, and the step does nothing else. 2×2
  maximum pooling has its own kernel (`runner/training/learners/max_pooling.py`), which gives torch's numbers to the
  last bit. Three things gave no gain here and are not used: `channels_last`, `torch.compile`, ReLU after pooling.
- **Stacks.** Runs that differ only in seed, learning rate, momentum, weight decay or schedule train as one batched
  model: convolutions in groups, `baddbmm`, and one batch norm over the channels of all runs. `torch.vmap` maps a layer
  that has no stacked form. A network that `torch.vmap` cannot map trains alone, and `bnbench plan --stack on` says so.
  **The rule of `--stack auto`**: stacks on CUDA, none on a CPU. On a CPU a stacked convolution is no faster than its
  parts (the MLP gains a little, see above). A run that trains alone also keeps its last bits, whatever other runs the
  sweep has.
- **CUDA.** The step (gather the batch, forward, backward, update, sums) is recorded as a graph after three rehearsed
  steps, whose effects are undone. A smaller last batch gets a second graph. Data stay on the device as normalised
  float32. Gathering them reads four times the bytes of uint8, but saves three passes over the batch.
- `share_batches: true` gives all seeds one batch order. A stack then gathers a batch once, and its first convolution is
  a dense one. This couples the seeds, so it is never on by default, and the tables record it.
"""

UNSEEN = """\
## Not measured yet

No GPU was available. Tests on the CPU compare the stacked code with networks that train alone
(`tests/training/test_stack.py`). The checks that need a GPU are written but have not run: tests marked `cuda` (graph
against plain step for every network and stacks of 1, 3 and 10; CUDA against CPU), and `make bench` on a GPU. It
measures stacks of 1, 10, 100 and 1000 runs at batch 1000 and 64, the tutorial's loop on the same GPU, and 2 networks ×
100 seeds × 20 epochs end to end.

These questions are open: milliseconds per run-epoch on a GPU; the gain of a graph; when the weight gradient of a
grouped convolution stops being worth it; whether compiling inside the recording is worth it (bnbench does not); the
speed of `tf32` and `bf16`.
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
    first = next(iter(seconds.values()))
    lines = [f"### {case}\n", "| | s per run-epoch | times bnbench's | times the floor |", "|:---|---:|:---|---:|"]
    for name, values in seconds.items():
        middle = statistics.median(values)
        lines.append(f"| {name} | {middle:.2f} | {ratio(values, first)} | {middle / floor:.1f} |")
    lines.append(f"| the floor: arithmetic on 2 threads | {floor:.2f} | | 1 |")
    return "\n".join(lines) + "\n"


def overhead(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["### One run and the bare loop, one thread each\n"]
    lines += ["| | bare loop, s | bnbench, s | bnbench over bare |", "|:---|---:|---:|:---|"]
    for case, seconds in cases.items():
        bare, bnbench = seconds.values()
        medians = f"{statistics.median(bare):.2f} | {statistics.median(bnbench):.2f}"
        lines.append(f"| {case} | {medians} | {ratio(bnbench, bare)} |")
    return "\n".join(lines) + "\n"


def run_count(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["### What a run costs, by the number of runs\n"]
    for case, seconds in cases.items():
        lines += [f"{case}; seconds per run-epoch.\n", "| | s | times the first |", "|:---|---:|:---|"]
        first = next(iter(seconds.values()))
        for name, values in seconds.items():
            label = name.replace("1 runs", "1 run")
            lines.append(f"| {label} | {statistics.median(values):.2f} | {ratio(values, first)} |")
    return "\n".join(lines) + "\n"


def commands(measured: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["### Commands\n\nPeak memory is that of the largest process.\n"]
    lines += ["| | seconds | peak memory, MB |", "|:---|---:|---:|"]
    for name, values in measured.items():
        lines.append(f"| `{name}` | {statistics.median(values['seconds']):.2f} | {values['peak_mb']:.0f} |")
    return "\n".join(lines) + "\n"


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """The median of the ratios within each round, and their range."""
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
