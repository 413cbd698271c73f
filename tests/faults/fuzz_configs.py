"""Hostile configs and command lines, for every command that reads a config and trains nothing.

`python -m tests.faults.fuzz_configs CASES [FIRST]` tries the cases FIRST, FIRST + 1, … (default: from 0). A case is a
real config with some changes, and a command with some options. It must end with exit code 0, 1 or 2, within a minute,
with a text that a terminal can show and without a traceback, and change no file. A case that fails is made smaller,
and printed in one line. The same number always makes the same case.
"""

from __future__ import annotations

import copy
import math
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from runner import registry
from runner.config.run_spec import PARAMETERS
from runner.config.sweep import Config
from runner.errors import printable
from runner.interfaces.cli.main import main as bnbench

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60
"""Of the processor. The check of many networks for CUDA takes most. (A sweep of 200,000 runs would take more.)"""

PLUGIN = """\
from torch import nn
from runner import network


@network("any")
def any_arguments(**arguments):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@network("odd")
def odd(*, width: int = 3, rate: float | None = None, words: list[str] = []):
    raise ValueError(f"\\udcff {width} \\x1b[2J {words}")
"""

EVERYTHING = {
    "name": "everything",
    "contrast": {"axis": "network.norm", "baseline": "none", "smallest_effect": 0.01},
    "fixed": {"network": "notebook_mlp", "dataset": "digits", "device": "cpu", "epochs": 2, "probes": ["gradients"]},
    "grid": {
        "network.norm": ["none", "batch"],
        "lr": {"logspace": [0.001, 1, 4]},
        "zip": {"optimizer": ["sgd", "adam"], "batch_size": [64, 256]},
        "seed": {"range": 3},
    },
    "exclude": [{"network.norm": "batch", "lr": [0.001, 1.0]}, {"seed": 2}],
    "save_weights": True,
    "resources": {"num_cpus": 1, "num_gpus": 0.5},
    "plugins": ["mine.py"],
    "checkpoint_dir": "shared",
}
SEVERAL = {
    "fixed": {"dataset": "digits", "epochs": 1},
    "grids": [
        {"network": ["any"], "network.b": [None, "x", [1, 2]]},
        {"network": ["odd"], "network.width": [3, 4], "seed": [0, 1]},
    ],
    "plugins": ["mine.py"],
}
SMALL = {"fixed": {"network": "batch_norm", "dataset": "digits", "batch_size": 7}, "grid": {"seed": [0, 1]}}

COMMANDS = ("plan", "plan", "plan", "validate", "run", "compare", "watch")

# What a case is made of

TEXTS = [
    *("", " ", "\udcff", "\ud800", "\x1b[2J", "a\rb", "a\nb", "\x85", "\u2028", "\u202e", "\0", "\t", "\ufeff", "🙂"),
    *("../x", "/etc/passwd", "~", ".", "=1+1", "-1", "1e3", "0x10", "1_000", "٣", "cuda:٣", "cuda:128", "cuda:01"),
    *("cuda", "cuda:9", "auto", "none", "batch", "gradient", "gradients", "lenet", "any", "odd", "mine.py", "gone.py"),
    *("s3://x/y", "file:///x", "x" * 5000, "9" * 5000, "{range: 3}", "[", "network", "seed", "null", "on", "last"),
]
NUMBERS: list[Any] = [
    *(0, 1, 2, 3, 7, -1, 2**31, 2**63 - 1, 2**63, 10**9, 10**25, 10**400, -(10**400), True, False),
    *(0.0, -0.0, 0.5, 1e-300, 5e-324, 1e308, math.inf, -math.inf, math.nan),
]
KEYS = [*Config.model_fields, *PARAMETERS, "zip", "range", "axis", "network.norm", "network.norm_args.eps", "network.x"]
SNIPPETS = [
    *("&a ", "*a", "? ", "- ", "\t", "{", "}", "[", "]", "!!int ", "!!python/x ", "!!binary ", "%", "#", "\n", "\r\n"),
    *(": ", '"', "'", "|", ">", "---\n", "...\n", "\ufeff", "\x00", "\udcff", "\x85", '"\\U00110000"', '"\\ud800"'),
    *(
        "9" * 5000,
        "[" * 300,
        "{a: " * 50,
        "? " * 100,
        "- " * 200,
        "x" * 70_000,
        "\n" * 2000,
        "<<: *a\n",
        "a: 1\na: 2\n",
    ),
]


def value(draw: random.Random, depth: int = 0) -> Any:
    """Any value."""
    kind = draw.random()
    if kind < 0.35 or depth > 3:
        return draw.choice(TEXTS)
    if kind < 0.7:
        return draw.choice(NUMBERS)
    if kind < 0.8:
        return [value(draw, depth + 1) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
    if kind < 0.9:
        return draw.choice([{"range": value(draw, 3)}, {"range": [0, 300]}, {"logspace": [1e-3, value(draw, 3), 9]}])
    return {draw.choice([*KEYS, *TEXTS]): value(draw, depth + 1) for _ in range(draw.choice([0, 1, 2]))}


def near(draw: random.Random, values: dict[str, Any]) -> None:
    """Another value of the same kind, which is often valid."""
    for node, key in draw.sample(found := list(places(values)), min(1, len(found))):
        old = node[key]
        if isinstance(old, str):
            node[key] = draw.choice(
                ["none", "batch", "layer", "sgd", "adam", "cpu", "digits", "half", "any", "lenet", "seed"]
            )
        elif isinstance(old, int | float):
            node[key] = draw.choice([not old, old + 1, 2 * old, 1, 2, 0.5])
        elif isinstance(old, list):
            node[key] = draw.choice([old[1:], old[::-1], old * 2, [*old, value(draw)], [*old, 1], {"range": 3}])


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a value: a mapping and a key, or a list and an index."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in list(entries):
        yield node, key
        yield from places(inner)


def mappings(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [values, *(node[key] for node, key in places(values) if isinstance(node[key], dict))]


def replace(draw: random.Random, values: dict[str, Any]) -> None:
    node, key = draw.choice(list(places(values)) or [(values, "grid")])
    node[key] = value(draw)


def remove(draw: random.Random, values: dict[str, Any]) -> None:
    node, key = draw.choice(list(places(values)) or [(values.setdefault("fixed", {"a": 1}), "a")])
    del node[key]


def add(draw: random.Random, values: dict[str, Any]) -> None:
    draw.choice(mappings(values))[draw.choice([*KEYS, *TEXTS])] = value(draw)


def misspell(draw: random.Random, values: dict[str, Any]) -> None:
    node = draw.choice([each for each in mappings(values) if each] or [values])
    for key in draw.sample(list(node), min(1, len(node))):
        at = draw.randrange(len(key) + 1)
        node[key[:at] + draw.choice(["", "x", "٣", "\x07", "."]) + key[at + 1 :]] = node.pop(key)


def swap(draw: random.Random, values: dict[str, Any]) -> None:
    """Put the value of one place into another, which can also be within it."""
    found = list(places(values))
    if found:
        (node, key), (other, name) = draw.choice(found), draw.choice(found)
        node[key] = copy.deepcopy(other[name])


def nest(draw: random.Random, values: dict[str, Any]) -> None:
    for node, key in [draw.choice(list(places(values)) or [(values, "grid")])]:
        for _ in range(draw.choice([1, 2, 30])):
            node[key] = draw.choice([[node.get(key) if isinstance(node, dict) else node[key]], {"a": 1}])


def multiply(draw: random.Random, values: dict[str, Any]) -> None:
    """Many of something."""
    ranges = {f"network.a{number}": {"range": draw.choice([3, 200_000])} for number in range(draw.choice([3, 40]))}
    rules = [{"seed": number, "lr": value(draw, 3)} for number in range(300)]
    key, many = draw.choice(
        [
            ("grid", ranges),
            ("grid", {"zip": ranges}),
            ("grids", [ranges] * 3),
            ("grids", [{"seed": [number]} for number in range(500)]),
            ("exclude", rules),
            ("fixed", {f"a{number}": number for number in range(500)}),
            ("plugins", ["gone.py"] * 100),
            ("grid", {"optimizer": [f"sgd{number}" for number in range(1000)]}),
        ]
    )
    values[key] = many


VALUE_CHANGES = [*[near] * 8, replace, replace, remove, add, add, misspell, swap, nest, multiply]


def change_text(draw: random.Random, text: str) -> str:
    kind, at = draw.randrange(7), draw.randrange(len(text) + 1)
    if kind < 3:
        return text[:at] + draw.choice(SNIPPETS) + text[at + draw.choice([0, 0, 1, 5]) :]
    if kind == 3:
        return text[:at]
    if kind == 4:
        return draw.choice(["%YAML 1.1\n---\n", f"%YAML 1.{'1' * 5000}\n---\n", "%TAG ! x\n---\n", "\ufeff"]) + text
    if kind == 5:
        lines = text.splitlines(keepends=True)
        return "".join([*lines, draw.choice(lines or [""])])
    return "".join(chr(draw.choice([draw.randrange(128), draw.randrange(0x3000)])) for _ in range(draw.randrange(60)))


def option(draw: random.Random, command: str) -> list[str]:
    """An option that the command has, with a value that it may not take."""
    names = {
        "validate": ["--set", "--set", "--device", "--data-dir"],
        "plan": ["--set", "--set", "--device", "--data-dir", "--stack", "--workers", "--kernels", "--measured"],
        "run": [
            *(
                "--set",
                "--device",
                "--checkpoint-every",
                "--run-timeout",
                "--retry",
                "--track",
                "--executor",
                "--kernels",
            ),
            *("--stack", "--workers", "--ray-address", "--out", "--resume", "--fresh", "--fail-fast"),
        ],
        "compare": ["--metric", "--at", "--group-by", "--target", "--sort", "--format"],
        "watch": ["--interval"],
    }
    name = draw.choice(names[command])
    if name in ("--resume", "--fresh", "--fail-fast"):
        return [name]
    good = {
        "--stack": ["off", "3", "auto"],
        "--kernels": ["torch", "native"],
        "--measured": ["results/tutorial", "."],
        "--checkpoint-every": ["5", "60s", "٣s", "5S"],
        "--device": ["cpu", "cuda:0", "cuda:127"],
        "--at": ["best", "epoch=3", "epoch=99"],
        "--sort": ["difference", "-p", "arm"],
        "--metric": ["train_loss", "test_accuracy"],
        "--group-by": ["lr,seed", "network"],
        "--format": ["csv", "json", "md", "latex"],
    }
    text = str(draw.choice([*TEXTS, *map(_text, NUMBERS), *good.get(name, ["1", "2"]) * 20]))
    if name == "--set":
        inner = draw.choice([*KEYS, *TEXTS])
        key = draw.choice([inner, f"fixed.{inner}", f"grid.{inner}", f"grid.zip.{inner}", f"grids.0.{inner}"])
        shown = draw.choice([text, yaml.safe_dump(value(draw), default_flow_style=True).replace("\n...\n", "")])
        text = draw.choice([f"{key}={shown}", f"{key}={shown}", key, f"grids.{'1' * 5000}.seed=[1]"])
    return [name, argument(text)]


def _text(number: Any) -> str:
    return str(number)[:300]


def argument(text: str) -> str:
    """The text without what no argument of a process can hold: NUL, and surrogates that stand for no byte."""
    return "".join(
        sign for sign in text if sign != "\0" and not "\ud800" <= sign < "\udc80" and not "\udcff" < sign < "\ue000"
    )


class Case:
    """A command, and the steps that change its config and its options. Steps can be left out, to make it smaller."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        self.number, self.command = number, draw.choice(COMMANDS)
        self.base: dict[str, Any] = draw.choice([RESULTS] if self.command in ("compare", "watch") else BASES)
        chosen = draw.choice([(1, 0, 0), (2, 0, 0), (4, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 2)])
        self.steps = [f"{kind}{step}" for kind, count in zip("vto", chosen, strict=True) for step in range(count)]

    def text(self, steps: Iterable[str]) -> bytes:
        values = copy.deepcopy(self.base)
        for step in [step for step in steps if step[0] == "v"]:
            draw = random.Random(f"{self.number} {step}")
            draw.choice(VALUE_CHANGES)(draw, values)
        text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False, default_flow_style=None)
        for step in [step for step in steps if step[0] == "t"]:
            text = change_text(random.Random(f"{self.number} {step}"), text)
        return text.encode("utf-8", "surrogatepass")

    def arguments(self, steps: Iterable[str]) -> list[str]:
        where = "results/tutorial" if self.base is RESULTS else "case.yaml"
        always = {"run": ["--dry-run"], "watch": ["--once"]}.get(self.command, [])
        options = [option(random.Random(f"{self.number} {step}"), self.command) for step in steps if step[0] == "o"]
        return [self.command, where, *always, *(word for words in options for word in words)]

    def failure(self, steps: Iterable[str]) -> str | None:
        """What is wrong with how it ends; None where nothing is."""
        steps = list(steps)
        file = Path("results/tutorial/config.yaml") if self.base is RESULTS else Path("case.yaml")
        before = file.read_bytes()
        file.write_bytes(self.text(steps))
        surroundings = digest()
        try:
            with at_most(SECONDS):
                done = CliRunner().invoke(bnbench, self.arguments(steps))
        except TooSlow:
            return f"more than {SECONDS} s"
        finally:
            changed = surroundings ^ digest()
            file.write_bytes(before)
        if changed:
            return f"changed {sorted({entry[0] for entry in changed})}"
        ENDS[done.exit_code] += 1
        return ending(done.exception, done.exit_code, done.stdout, done.stderr)

    def smaller(self, failure: str) -> list[str]:
        """The steps that are needed for this failure."""
        needed = list(self.steps)
        for step in self.steps:
            fewer = [each for each in needed if each != step]
            if self.failure(fewer) == failure:
                needed = fewer
        return needed


ENDS: Counter[int] = Counter()


def ending(exception: BaseException | None, code: int, out: str, err: str) -> str | None:
    if exception is not None and not isinstance(exception, SystemExit):
        frame = traceback.extract_tb(exception.__traceback__)[-1]
        return f"{type(exception).__name__} in {Path(frame.filename).name}:{frame.lineno}"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if code and not err.strip():
        return f"exit code {code} without a message"
    if "Traceback (most recent call last)" in out + err:
        return "a traceback"
    return "control characters on the terminal" if printable(out + err) != out + err else None


def digest() -> set[tuple[str, int, int, int]]:
    """Every file and folder here, with its size and the times of its last changes."""
    found = set()
    for folder, _, files in os.walk("."):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:  # noqa: PTH118
            status = os.lstat(path)
            found.add((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return found


class TooSlow(BaseException):
    """Not an Exception: what a network raises is caught."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


CONFIGS = ("quickstart", "tutorial", "notebook_mlp", "batch_norm_1d", "unit_orders")
BASES: list[dict[str, Any]] = [EVERYTHING, EVERYTHING, SEVERAL, SMALL]
BASES += [yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8")) for name in CONFIGS]
RESULTS: dict[str, Any] = yaml.safe_load((ROOT / "results/reference/tutorial/config.yaml").read_text(encoding="utf-8"))


@contextmanager
def surroundings() -> Iterator[None]:
    """A folder with all that the cases name, as the working directory and the home."""
    with tempfile.TemporaryDirectory() as name:
        here = Path.cwd()
        os.chdir(name)
        for variable in ("HOME", "BNBENCH_CACHE_DIR", "BNBENCH_DATA_DIR"):
            Path(variable).mkdir()
            os.environ[variable] = str(Path(name) / variable)
        Path("mine.py").write_text(PLUGIN, encoding="utf-8")
        Path("case.yaml").touch()
        shutil.copytree(ROOT / "results/reference/tutorial", "results/tutorial")
        try:
            yield
        finally:
            os.chdir(here)


def main(cases: int, first: int) -> int:
    sys.dont_write_bytecode = True  # Python would write beside the plugin.
    registry.load_plugins()
    for name in ("mnist", "fashion_mnist"):  # They would be downloaded.
        registry.dataset[name] = registry.dataset["digits"]
    failures = Counter[str]()
    with surroundings():
        for number in range(first, first + cases):
            case = Case(number)
            if failure := case.failure(case.steps):
                failures[failure] += 1
                if failures[failure] == 1:
                    steps = case.smaller(failure)
                    command = shlex.join(["bnbench", *case.arguments(steps)])
                    print(f"case {number}: {failure}: {command[:300]!r} with {case.text(steps)[-600:]!r}", flush=True)
    codes = ", ".join(f"{count} exit codes {code}" for code, count in sorted(ENDS.items()))
    print(f"{cases} cases ({codes}), {sum(failures.values())} failures", *failures, sep="\n  ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
