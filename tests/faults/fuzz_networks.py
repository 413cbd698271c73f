"""Random awkward networks. Their rows must not depend on order or interruption, and nothing else may be touched.

`python -m tests.faults.fuzz_networks COUNT [FIRST]` writes COUNT plugins, from the seed FIRST on. It trains each in a
process of its own: alone; after another one, and before it; and from each of its checkpoints. It prints what failed,
with the seed that makes the plugin again.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.registry import load_plugins
from runner.storage.checkpoints import Every, to_bytes
from runner.storage.rows import Checkpoint, EpochRow, Event
from runner.training.networks import SpoiledProcessError
from runner.training.options import TrainingOptions
from runner.training.train import train
from tests.training.awkward import RUN, values

TEMPLATE = """\
import os, random, sys, threading, warnings
import numpy
import torch
from torch import nn
from torch.nn import functional as F
from runner.registry import network

COUNT = 0
CACHE = {{}}

class Net(nn.Module):
    made = 0

    def __init__(self):
        super().__init__()
        self.steps = 0
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.first, self.last = nn.Linear(784, 12), nn.Linear(12, 10)
        {init}

    def forward(self, images):
        self.steps += self.training
        self.count += self.training
        x = images.flatten(1)
        {before}
        x = self.first(x).relu()
        {between}
        return self.last(x)

@network("fuzzed")
def fuzzed():
    {factory}
    net = Net()
    {after}
    return net
"""
"""A step counts from 1, and an epoch has three."""

PARTS: dict[str, list[str]] = {
    "init": [
        "self.last.weight = nn.Parameter(torch.randn(12, 10).t())",
        "self.first.weight = nn.Parameter(torch.randn(784, 12).t() / 28)",
        "self.unused = nn.Linear(3, 3)",
        "self.register_buffer('none', None)",
        "self.register_buffer('passing', torch.ones(2), persistent=False)",
        "self.first.requires_grad_(False)",
        "self.last.bias.requires_grad_(False)",
        "self.scale = random.random(); self.shift = float(numpy.random.rand())",
        "Net.made += 1",
        "self.extra = nn.ParameterList([nn.Parameter(torch.zeros(12))])",
        "self.own = torch.Generator().manual_seed(3)",
    ],
    "before": [
        "x = x.mul_(0.5)",
        "images.data.add_(1)",
        "x = F.leaky_relu(x, 0.1, inplace=True)",
        "x = F.dropout(x, 0.2, self.training)",
        "x = x + torch.rand(()) * 0.1",
        "x = x * (1 + 0.1 * random.random())",
        "x = x * (1 + 0.1 * float(numpy.random.rand()))",
        "images.numpy()[:] = 0",
        "x = x.double().float()",
    ],
    "between": [
        "self.seen = torch.cat([getattr(self, 'seen', x.new_zeros(1)), x.new_ones(1)])",
        "x = self.norm(x)",
        "x = self.double(x.double()).float()",
        "x = self.half(x.bfloat16()).float()",
        "x = self.late(x).relu() if self.steps > 4 else x",
        "x = self.late(x).relu() if self.count > 4 else x",
        "x = x * (1 + 0.01 * self.steps)",
        "x = self.tied(self.tied2(x).relu())",
        "self.first.requires_grad_(self.steps > 3)",
        "self.history = self.history + 1 if hasattr(self, 'history') else 1",
        "warnings.warn('awkward')",
        "print('printed')",
        "x = x + len(CACHE); CACHE[len(CACHE)] = 1",
        "x = x * (1 + 0.1 * self.made)",
        "assert self.steps < 6, 'too late'",
        "x = x[:, :11] if self.steps == 5 else x",
        "sys.exit(3) if self.steps == 5 else None",
        "x = x * float('nan') if self.steps == 5 else x",
    ],
    "factory": [
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.mkldnn.enabled = False",
        "torch.use_deterministic_algorithms(False)",
        "torch.set_num_threads(1)",
        "torch.manual_seed(7)",
        "random.seed(7)",
        "numpy.random.seed(7)",
        "os.chdir('/')",
        "os.environ['FUZZ'] = '1'",
        "warnings.simplefilter('ignore')",
        "numpy.seterr(all='raise')",
        "sys.path.insert(0, '/nowhere')",
        "sys.setrecursionlimit(2000)",
        "torch.autograd.set_detect_anomaly(True)",
        "global COUNT; COUNT += 1",
        "CACHE['rng'] = CACHE.get('rng') or numpy.random.default_rng(0)",
        "torch.nn.functional.linear = lambda x, w, b=None: x @ w.t()",
        "nn.ReLU.forward = lambda self, x: x.tanh()",
        "nn.modules.module.register_module_forward_pre_hook(lambda m, i: None)",
        "torch.backends.opt_einsum.enabled = False",
    ],
    "after": [
        "net.to(memory_format=torch.channels_last)",
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
        "torch.set_grad_enabled(False)",
        "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()",
        "torch.inference_mode().__enter__()",
        "net.first.register_forward_hook(lambda m, i, o: o * 0.9)",
        "net.first.double() and None; net.first.float()",
        "net.eval()",
        "torch.nn.utils.parametrizations.weight_norm(net.first)",
    ],
}
"""What a network may do, by its place. Some lines need a layer; `LAYERS` makes it."""

LAYERS = {
    "self.norm": "self.norm = nn.BatchNorm1d(12)",
    "self.double": "self.double = nn.Linear(12, 12).double()",
    "self.half": "self.half = nn.Linear(12, 12).bfloat16()",
    "self.late": "self.late = nn.Linear(12, 12)",
    "self.tied": "self.tied, self.tied2 = nn.Linear(12, 12), nn.Linear(12, 12); self.tied2.weight = self.tied.weight",
}

SECONDS = 60
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "adam"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "adamw"},
]
INNOCENT = RUN.changed(network="batch_norm", epochs=1)
HALF = INNOCENT.changed(precision="bf16", epochs=2)


def plugin(seed: int) -> tuple[str, list[str]]:
    """The source of a plugin, and the lines that were chosen for it."""
    draw = random.Random(seed)
    places = draw.choices(list(PARTS), weights=[3, 2, 4, 1, 1], k=draw.randint(1, 5))
    chosen = {place: draw.sample(PARTS[place], places.count(place)) for place in PARTS}
    lines = [line for own in chosen.values() for line in own]
    needed = [make for name, make in LAYERS.items() if any(f"{name}(" in line for line in chosen["between"])]
    chosen["init"] = needed + chosen["init"]
    deep = {place: ("\n    " if place in ("factory", "after") else "\n        ") for place in PARTS}
    return TEMPLATE.format(**{place: deep[place].join(own or ["pass"]) for place, own in chosen.items()}), lines


def in_child(work: Callable[[], Any], folder: Path, seconds: int = SECONDS) -> Any:
    """What `work` returns in a forked process; a text where it did not end as it should."""
    answer = folder / "answer"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("r+") as nothing:
            for descriptor in (0, 1, 2):
                os.dup2(nothing.fileno(), descriptor)
        signal.alarm(seconds)
        try:
            found = work()
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        answer.write_bytes(pickle.dumps(found))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"exit code {code}" if code else pickle.loads(answer.read_bytes())


def train_here(run: RunSpec, checkpoint: Path | None = None) -> tuple[list[Event], bool]:
    """The events of a run, and whether the next job needs a new process."""
    events: list[Event] = []
    options = TrainingOptions(checkpoint_every=Every(epochs=1), save_weights=True)
    try:
        events.extend(train(Job((run,)), options, checkpoint))
    except SpoiledProcessError:
        return events, True
    return events, False


def printed(events: Sequence[Event]) -> list[str]:
    """The values of a run as texts: nan is not equal to nan."""
    return list(map(repr, values(events)))


def several(*runs: RunSpec) -> list[Any]:
    """The values of runs, one after the other, as far as this process may train them."""
    found = []
    for run in runs:
        events, spoiled = train_here(run)
        found.append(printed(events))
        if spoiled:
            break
    return found


def surroundings(folder: Path) -> str:
    """A digest of everything in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def check(seed: int, folder: Path, innocent: dict[str, list[str]]) -> list[str]:
    """What is wrong with the runs of one plugin."""
    source, _ = plugin(seed)
    file = folder / "plugins" / f"fuzzed_{seed}.py"
    file.write_text(source, encoding="utf-8")
    before = surroundings(folder / "plugins")
    run = RUN.changed(network="fuzzed", **OPTIMIZERS[seed % 3])

    def load(work: Callable[[], Any]) -> Callable[[], Any]:
        def loaded() -> Any:
            load_plugins((str(file),))
            return work()

        return loaded

    alone = in_child(load(lambda: train_here(run)), folder)
    if isinstance(alone, str):
        return [f"alone: {alone}"]
    events: list[Event] = alone[0]
    expected = printed(events)
    wrong = []
    orders = {"after another": (INNOCENT, run), "before others": (run, INNOCENT, HALF), "twice": (run, run)}
    for name, order in orders.items():
        found = in_child(load(lambda order=order: several(*order)), folder)  # type: ignore[misc]
        wanted = [expected if each is run else innocent[each.run_id] for each in order]
        if isinstance(found, str) or found != wanted[: len(found)]:
            wrong.append(f"{name}: {found if isinstance(found, str) else 'other values'}")
    for saved in (event for event in events if isinstance(event, Checkpoint)):
        (folder / "saved.ckpt").write_bytes(to_bytes(saved))
        rest = in_child(load(lambda: train_here(run, folder / "saved.ckpt")), folder)
        left = printed([event for event in events if not isinstance(event, EpochRow) or event.epoch > saved.epoch])
        if isinstance(rest, str) or printed(rest[0]) != left:
            wrong.append(f"from epoch {saved.epoch}: {rest if isinstance(rest, str) else 'other values'}")
    if surroundings(folder / "plugins") != before:
        wrong.append("files beside the plugin changed")
    return wrong


def main(count: int, first: int = 0) -> int:
    load_plugins()
    # torch imports it when a process makes its first optimizer. The forked processes have it already.
    importlib.import_module("torch._dynamo")
    failures, used = [], Counter[str]()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plugins").mkdir()
        innocent = dict(
            zip((INNOCENT.run_id, HALF.run_id), in_child(lambda: several(INNOCENT, HALF), folder), strict=True)
        )
        for seed in range(first, first + count):
            used.update(plugin(seed)[1])
            for fault in check(seed, folder, innocent):
                failures.append(f"seed {seed}: {fault}; it does: {plugin(seed)[1]}")
                print(failures[-1], flush=True)
            (folder / "plugins" / f"fuzzed_{seed}.py").unlink()
    seconds = time.monotonic() - began
    print(f"{count} networks with {len(used)} kinds of lines, in {seconds:.0f} s: {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
