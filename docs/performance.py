"""Write docs/performance.md from the tables of `make bench` in `benchmarks/results/`. Run by `make docs`."""

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"

INTRODUCTION = """\
# Performance

`make docs` makes this page from the tables that `make bench` writes to `benchmarks/results/`. One benchmark has one
or more rounds. In each round, every tool is measured once, one after the other. Each time in seconds is the median over
the rounds. A ratio is calculated in each round: the table shows the median of these ratios, and in brackets the
smallest and the largest. Unless a table says otherwise, seconds are the time of one run for one epoch of 60,000 images.

The tools do different amounts of work besides training:

- **bnbench** is measured as a whole command: `bnbench run CONFIG --workers 2 --kernels native --quiet --fresh`, and the
  same with `--kernels torch`. The time includes the start of Python and of two workers, the import of torch, the
  reading of the data, an evaluation after every epoch, the hashes of starting weights and batch orders, the tables and
  the printed comparison.
- **The bare loop** is a short training loop in plain PyTorch, as a careful person writes it by hand
  (`benchmarks/training.py`). It evaluates after the epoch.
- **The loops of the tutorial and the notebook, skorch and Lightning** only train. They do not evaluate.

All tools except the whole commands train in the benchmark's own process, with torch's usual number of threads, or with
as many as the table says. This process has started already. Where data are held in memory, they have been read already.

LeNet is the tutorial's network `batch_norm`. MLP and CNN are the notebook's networks: the MLP has no norm layer, and
the CNN has `nn.BatchNorm2d`. `conv_unit` is the CNN of the unit-order notes, also with `nn.BatchNorm2d`. The tutorial's
loop trains LeNet and `conv_unit`, and the notebook's loop trains MLP and CNN.

**Arithmetic alone** is the time that two cores need for the arithmetic of an epoch, if they do nothing
but multiply-adds in float32. `benchmarks/multiply_add.cpp` measures in the same benchmark how many of these a core can
do. How many an epoch has follows from the layers (`benchmarks/arithmetic.py`): each convolution and each linear layer
computes its outputs, its weight gradient and its input gradient. The first layer computes no input gradient, because
nothing needs it. Evaluation, norm layers, pooling and the optimizer are not counted. **Share of the peak** is this time
divided by the measured time.
"""

NATIVE = """\
## Native kernels

A kernel is the code that computes a layer. bnbench has kernels of its own for small convolutional networks on a CPU
(`runner/training/kernels/kernels.cpp`, in C++). The tables call them native.

- **What they are.** They compute convolution, `nn.BatchNorm2d`, ReLU and 2×2 maximum pooling, forward and backward. 16
  images are a block (8 without AVX-512). In a block, the same pixel of all images is one vector of the processor. So
  every number of a vector is used, whatever the number of channels and the size of the image. A layer takes blocks and
  gives blocks. ReLU and pooling are computed together with the layer before them.
- **When they are used.** They compute float32 on one thread of a CPU, for runs that train alone. Stacks, runs with
  several threads, other precisions and CUDA use torch's kernels. So do all other layers, such as linear layers, and
  also convolutions with a stride, a dilation or groups, those whose filter is not square or is larger than 7×7, and
  layers with hooks.
  Only layers that stand directly in an `nn.Sequential` are found. `bnbench plan CONFIG --kernels native` lists which
  layers use which kernels. A network without a convolution, such as the MLP, uses torch's kernels only.
- **What they change.** They add up the same products in another order, so results differ by rounding. These differences
  grow during the training, as they do between two machines. The same kernels always give the same bytes. `trained_as`
  in `runs.csv` names the kernels. A resumed sweep goes on with the kernels that it began with. `--kernels torch` uses
  torch's kernels.
- **Where they come from.** They are compiled when bnbench is installed, if there is a C++ compiler. If there is none,
  or if the processor has neither AVX2 nor ARM's vectors, bnbench uses torch's kernels. `bnbench --version` names the
  kernels, and `bnbench plan CONFIG --kernels auto` says why there are none. Without native kernels, `--kernels native`
  is an error.

### Why torch's kernels are slow for few channels

- torch computes convolutions with oneDNN. oneDNN works on blocks of 16 channels. LeNet's layers have 1 and 6 input
  channels. oneDNN fills them up to 16 with zeros, and so most of its arithmetic multiplies zeros.
- It copies images and gradients into such blocks, and back.
- Its kernel for the weight gradient uses AVX2 instructions, also on a processor with AVX-512.

The following did not help in trials by hand, which are not a part of `make bench`: `torch.compile`, `channels_last`,
`bf16`, JAX, several runs in one grouped or block-diagonal convolution, and `unfold` with MKL's matrix product.
"""

HOW = """\
## Why bnbench is fast

- **What the seconds include.** A whole command starts the driver and the process that forks the workers. Both import
  torch, at the same time. In a short sweep, this is most of the time: see the table by number of runs. (In that
  table, the driver has started already, and stacks train in its process.) The other tools use the normal memory
  settings of the system, not those of bnbench's workers (see **CPU** below). At batch 1000, these settings explain a
  part of bnbench's advantage.
- **CPU.** A run trains in a process with one thread, and its data are in memory. Two processes with one thread each
  finish more epochs per second than a single process with two threads. When a worker frees memory, the memory stays
  with its process and is used again (`MALLOC_MMAP_THRESHOLD_`). Without this setting, at batch 1000, a third of the
  time went into asking the operating system for memory again. Denormals (very small floats, which are slow) are set to
  0. The optimizer is torch's fused one. A step adds the loss and the accuracy to sums on the device. The loop reads
  these sums only when it measures, by default once per epoch. Maximum pooling comes before ReLU: the values and the
  gradients are the same, and with 2×2 pooling ReLU has a quarter of the values. Where a layer is not computed by a
  native kernel, 2×2 maximum pooling still has its own code (`runner/training/learners/max_pooling.py`), which gives
  exactly torch's numbers.
- **Stacks.** Runs that differ only in seed, learning rate, momentum, weight decay or schedule train as one batched
  model. It has `baddbmm` for linear layers, and one batch norm over the channels of all runs. Its convolutions have one
  of three forms, see below. A layer without its own code for stacks runs through `torch.vmap`. A network that
  `torch.vmap` cannot run trains alone, and `bnbench plan --stack on` says so.
- **The rule of `--stack auto`** is: stacks on CUDA, no stacks on a CPU. On a CPU, a stacked convolution is no faster
  than separate convolutions, and it has no native kernel. (On one thread, a stack of 4 or 8 runs of the MLP takes
  about 10% less time per run than one run alone. Two workers with 16 runs are even faster than this stack.) A run that
  trains alone has another advantage: its numbers do not depend on the other runs of the sweep, not even in the last
  bit.
- **CUDA.** A step gathers the batch, runs forward and backward, updates the weights and adds up the sums. bnbench takes
  three steps to warm up and undoes their effects. Then it records the step as a CUDA graph. If the last batch is
  smaller, a second graph is recorded for it. The data stay on the device as normalised float32. A batch then has four
  times as many bytes as it would have as uint8. But it needs no conversion and no normalisation.
- **`share_batches: true`** gives all seeds the same batch order. A stack then gathers each batch only once, and its
  first convolution is not grouped. But the results of the seeds are then no longer independent. So `share_batches` is
  never on by default, and the tables record it.
"""

CHOSEN = """\
## Why the form and the size of stacks are measured

A stack can compute a convolution in three forms, with equal results: as one convolution whose groups are the runs
(`grouped`), as one dense convolution per run (`loop`), or as `unfold` and one batched matrix product (`unfold`). No
form and no size is the best on every device. These are the reasons. The numbers are arithmetic for a stack of 100
LeNets at batch 1000, made before bnbench ran on a GPU. The end of this page compares them with what was measured.

- **Memory traffic.** The kernels of a step read and write about 266 KB per sample and run. That is 16 GB for each run
  and epoch, or about 4 ms at the speed of an H200's memory (4.3 TB/s, measured with a copy), and between 5 and 6 ms on
  an H100. The arithmetic itself takes about 1 ms. So the memory limits the speed, and a form that copies more can be
  slower even if its arithmetic is faster. `loop` copies the images and the outputs of each run. `unfold` writes each
  pixel as often as windows contain it: up to 25 times for a 5×5 kernel.
- **The first convolution.** It has one input channel. As a grouped convolution, it has as many groups as channels, and
  torch calls this depthwise. torch has its own kernels for it. The one for the weight gradient reads the images and
  the gradients again for each of the 25 weights of each filter: 1000 samples × 24² pixels × 8 bytes × 15,000 weights
  are 69 GB a step. Through the L2 cache, that takes about 12 ms a step, or about 7 ms for each run and
  epoch. This is more than everything else together. The two other forms do not use this kernel.
- **The second convolution.** cuDNN's grouped convolution is known to be slow for some shapes (pytorch#70954, #73764),
  and nobody can say which shapes without measuring.
- **The size.** The largest activation of 4 runs has 55 MB, which is near the size of the L2 cache of these GPUs
  (50 MB). The one of 100 runs has 1.4 GB. So a small stack can read and
  write more of its data in the fast cache, and less in the slower main memory of the GPU. But it has fewer samples
  for each kernel, and more stacks must be built and recorded.

Therefore bnbench times a few steps before it trains a group of at least 8 runs. It times at most eight candidates:
first the forms with 4 runs, then larger stacks in the fastest form, then sizes between. From the time that the last
candidate took, bnbench estimates how long the next one will take. The next one is not timed if the search, including
it, would then have taken more than 5 seconds, or more than 5% of the estimated training time.
An earlier candidate is kept unless a later one is more than 3% faster. In this comparison, the time to
build each stack is added to its training time. If there is no time to time a second size, the stacks have the
fastest form so far, and are as large as the memory allows. (`--stack N` sets another limit. Each worker gets at least
one stack.)

The choice is kept in `~/.cache/bnbench` (`BNBENCH_CACHE_DIR` names another folder) for the next sweep with the same
network, batch size, number of runs and steps, number of workers, device and torch.
`runner/training/learners/choice.py` has the search, and `tuning.py` beside it the timing. Tests use made-up times,
and real stacks on a CPU.
"""

UNSEEN = """\
## What a GPU has shown, and what is still open

bnbench ran on one GPU, an NVIDIA H100, on 2026-11-26. Its numbers are above. The parts of the benchmark had shorter
time limits than they have now, because the machine was there for a quarter of an hour only.

- The tests marked `cuda` (`tests/training/test_cuda.py`) passed there. The one that needs two GPUs was skipped. They
  compare a graph with a plain step and CUDA with the CPU, for combinations of network, norm layer, optimizer,
  precision and stack size (1, 3 or 10 runs). Not every combination is tested, but any two values that can occur
  together are tested together at least once. They run with `BNBENCH_STRICT=1`, so a stack or a graph that is given up
  is an error.
- The runs of the sweep trained as stacks and with a CUDA graph, as its table says. The same sweep gave the same bytes
  again.
- Both goals were missed. In a stack of 100, a LeNet run takes a quarter of the time that it takes alone. A stack of 10
  already has most of this gain.
- `unfold` was the fastest form at every size above 1, and bnbench chose it. The estimate for `grouped` was right about
  the weight gradient of the first convolution: 12 ms a step. It did not foresee how slow cuDNN's kernels for the second
  convolution are. In `loop`, one of them (a weight gradient) takes 71% of the time.

Still open:

- a sweep that is killed and resumed on a GPU, and a stack that does not fit into the memory: these parts of the
  benchmark did not end in their time. (The test of a resumed stack passed.)
- several GPUs, other GPUs than the H100, and Ray with GPUs
- whether it helps to compile the step before it is recorded (bnbench does not do this), or to write a kernel for the
  convolution
- how fast `tf32` and `bf16` are
"""


def page() -> str:
    parts = [INTRODUCTION]
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        parts += machine(json.loads(path.read_text(encoding="utf-8")), path.name)
    return "\n".join([*parts, *gpus(), NATIVE, HOW, CHOSEN, UNSEEN])


def machine(results: Mapping[str, Any], name: str) -> Iterator[str]:
    environment = results["environment"]
    packages = environment["packages"]
    rate = results["gflops_of_a_core"]
    yield (
        f"## {environment['cpu']}, {environment['cores']} cores\n\n"
        f"[{name}](../benchmarks/results/{name}): torch {packages['torch']}, Python {environment['python']}, "
        f"kernels {environment['kernels']}.\nA core does {rate:.0f} GFLOP/s if it does nothing but multiply-adds.\n"
    )
    for case, seconds in results["training"].items():
        yield training(case, seconds, results["gflop_of_an_epoch"][case], rate)
    yield overhead(results["overhead"])
    yield run_count(results["run_count"])
    yield commands(results["commands"])


def training(case: str, seconds: Mapping[str, Sequence[float]], gflop: float, rate: float) -> str:
    """rate: GFLOP/s of a core."""
    floor = gflop / (2 * rate)
    first = next(iter(seconds.values()))
    share = floor / statistics.median(first)
    lines = [
        f"### {case}\n",
        f"An epoch has {gflop:.1f} GFLOP. With native kernels, bnbench reaches {share:.0%} of the peak. "
        f"Number of rounds: {len(first)}.\n",
        "| | seconds per run and epoch | relative to native kernels | share of the peak |",
        "|:---|---:|:---|---:|",
    ]
    for name, values in seconds.items():
        middle = statistics.median(values)
        lines.append(f"| {name} | {middle:.2f} | {ratio(values, first)} | {floor / middle:.0%} |")
    lines.append(f"| arithmetic alone, 2 cores | {floor:.2f} | | 100% |")
    return "\n".join(lines) + "\n"


def overhead(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["### One run of one epoch on one thread: bnbench and the bare loop\n"]
    lines += ["| | | seconds | relative to the bare loop |", "|:---|:---|---:|:---|"]
    for case, seconds in cases.items():
        first = next(iter(seconds.values()))
        for name, values in seconds.items():
            lines.append(f"| {case} | {name} | {statistics.median(values):.2f} | {ratio(values, first)} |")
    return "\n".join(lines) + "\n"


def run_count(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["### The time of a run, by the number of runs\n"]
    for case, seconds in cases.items():
        lines += [f"{case}.\n", "| | seconds per run and epoch | relative to the first row |", "|:---|---:|:---|"]
        first = next(iter(seconds.values()))
        for name, values in seconds.items():
            lines.append(f"| {name} | {statistics.median(values):.2f} | {ratio(values, first)} |")
    return "\n".join(lines) + "\n"


def commands(measured: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["### Commands\n\nThe peak memory is that of the process that used the most memory.\n"]
    lines += ["| | seconds | peak memory, MB |", "|:---|---:|---:|"]
    for name, values in measured.items():
        lines.append(f"| `{name}` | {statistics.median(values['seconds']):.2f} | {values['peak_mb']:.0f} |")
    return "\n".join(lines) + "\n"


Rows = Sequence[Mapping[str, Any]]


def gpus(folder: Path = ROOT / "benchmarks/results/gpu") -> Iterator[str]:
    """A section for each GPU whose results are in the folder."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        yield "## On a GPU\n\nNo GPU has been measured. `python -m benchmarks gpu` measures one in ten minutes.\n"
    for path in paths:
        yield from gpu(json.loads(path.read_text(encoding="utf-8")), path.name)


def gpu(results: Mapping[str, Any], name: str) -> Iterator[str]:
    environment, parts = results["environment"], results["parts"]
    yield (
        f"## {results['gpu']}\n\n"
        f"[{name}](../benchmarks/results/gpu/{name}), written by `python -m benchmarks gpu`: "
        f"torch {environment['packages']['torch']}, CUDA {environment['cuda']}, {environment['cpu']}.\n"
    )
    yield table("| goal | measured | met |", [goal(each) for each in results["goals"]])
    rows = {part: measured["rows"] for part, measured in parts.items()}
    shown = {
        "tests": ("Tests marked `cuda`", gpu_tests(rows["tests"])),
        "main_job": ("Two networks with many seeds, through `bnbench run`", main_job(rows["main_job"])),
        "same_bytes": ("The same sweep again", same_bytes(rows["same_bytes"])),
        "memory": ("A stack that does not fit into the memory", small_memory(rows["memory"])),
        "stacks": ("LeNet stacks: milliseconds per run and epoch of training steps alone", stacks(rows["stacks"])),
        "loops": ("Other tools: LeNet", tools(rows["loops"], rows["stacks"])),
        "kernels": ("The longest kernels of a LeNet stack's step", kernels(rows["kernels"])),
    }
    for part, (title, text) in shown.items():
        yield "\n".join(filter(None, [f"### {title}\n", text, problems(parts[part])]))


def goal(each: Mapping[str, Any]) -> str:
    measured, met = each["measured"], each["met"]
    if met is None:
        return f"| {each['goal']} | not measured | |"
    number = f"{measured:,.0f} times" if each["unit"] == "times" else f"{measured:.2f} {each['unit']}"
    return f"| {each['goal']} | {number} | {'yes' if met else 'no'} |"


def gpu_tests(rows: Rows) -> str:
    counts = Counter(row["outcome"] for row in rows if "outcome" in row)
    return f"{counts['passed']} tests passed, {counts['failed']} failed, {counts['skipped']} skipped.\n"


def main_job(rows: Rows) -> str:
    text = ""
    for row in rows:
        whole = 1000 * row["seconds"] / row["runs"] / row["epochs"]
        text += (
            f"{row['runs']} runs of {row['epochs']} epochs took {row['seconds']:.1f} s from the start of the command "
            f"to its end. This is {whole:.2f} ms per run and epoch.\n\n"
        )
        trained = [f"| `{network}` | {value:.2f} |" for network, value in row["milliseconds"].items()]
        text += table("| network | training alone, ms per run and epoch |", trained)
        text += "\n" + trained_as(row)
    return text


def trained_as(row: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{count} as `{how}`" for how, count in row["trained_as"].items())
    return f"The runs trained: {kinds}.\n"


def same_bytes(rows: Rows) -> str:
    lines = [
        f"| {row['sweep']} | {'yes' if 'equal' in row else 'no' if 'wrong' in row else 'not measured'} |"
        for row in rows
        if row["sweep"] != "first"
    ]
    return table("| sweep | its tables are those of the first, timing columns aside |", lines)


def small_memory(rows: Rows) -> str:
    return "".join(
        f"{row['runs']} LeNet runs at batch 1000, as one stack, with {row['bytes'] / 1e9:.1f} GB. " + trained_as(row)
        for row in rows
    )


def stacks(rows: Rows) -> str:
    measured = {
        (row["batch_size"], row["runs"], row["form"]): f"{row['milliseconds']:.2f}"
        for row in rows
        if "milliseconds" in row
    }
    batches, sizes, forms = (list(dict.fromkeys(row[key] for row in rows)) for key in ("batch_size", "runs", "form"))
    text = ""
    for batch in batches:
        lines = [
            f"| {size} | " + " | ".join(measured.get((batch, size, form), "") for form in forms) + " |"
            for size in sizes
        ]
        text += table(f"| runs, batch {batch} | {' | '.join(forms)} |", lines) + "\n"
    return text.removesuffix("\n")


def tools(rows: Rows, stack_rows: Rows) -> str:
    lines = []
    for row in rows:
        if "seconds" in row:
            best, size = min(row["seconds"]), row["batch_size"]
            ours = [
                each["milliseconds"] for each in stack_rows if each["batch_size"] == size and "milliseconds" in each
            ]
            times = f"{1000 * best / min(ours):,.0f}" if ours else ""
            lines.append(f"| {row['tool']}, batch {size} | {best:.2f} | {times} |")
    return table("| | seconds per epoch, the fastest round | relative to the fastest stack above |", lines)


def kernels(rows: Rows) -> str:
    lines = [
        f"| `{row['kernel'][:80].replace('|', '')}` | {row['form']} | {row['milliseconds']:.3f} | {row['calls']:.0f} "
        f"| {row['share']:.0%} |"
        for row in rows
        if "kernel" in row
    ]
    return table("| kernel | form | ms per step | calls per step | share of all kernels |", lines)


def problems(part: Mapping[str, Any]) -> str:
    """What of a part is wrong, and what was not measured."""
    lines = []
    for row in part["rows"]:
        place = ", ".join(str(row[key]) for key in PLACES if key in row)
        if "wrong" in row:
            fault = " ".join(row["wrong"].split())
            lines.append(f"- **Wrong**: {fault} ({place})" if place else f"- **Wrong**: {fault}")
        elif "not measured" in row and row.get("outcome") != "skipped":
            lines.append(f"- Not measured ({place}): {row['not measured']}")
    if part["error"]:
        lines.append(f"- **Wrong**: this part ended with an error, {part['error'].splitlines()[-1]}")
    if part["cut"]:
        lines.append(f"- The rest was not measured: this part may take {part['limit']:g} s.")
    return "".join(f"{line}\n" for line in lines)


PLACES = ("test", "sweep", "tool", "batch_size", "runs", "form")
"""The keys that say which measurement a row is."""


def table(header: str, lines: Sequence[str]) -> str:
    numbers = header.count("|") - 2
    return "\n".join([header, "|:---|" + "---:|" * numbers, *lines]) + "\n" if lines else ""


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """The median of the ratios within each round, and their range where there are several rounds."""
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{spread}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
