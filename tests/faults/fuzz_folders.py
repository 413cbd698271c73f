"""Damaged and hostile results folders, for every command that reads or continues one.

`python -m tests.faults.fuzz_folders CASES [FIRST]` makes a few small sweeps, and tries the cases FIRST, FIRST + 1, …
(default: from 0). A case is a copy of one of the sweeps with some damage, and one or several commands, in a process of
their own. Each command must end with exit code 0, 1 or 2, in some seconds, without a traceback, and with a text that a
terminal can show. Nothing outside the folder may change, and files of others inside it must stay. A resume that says
nothing must end with the tables of the undamaged sweep. A case that fails is made smaller, and printed in one line. The
same number always makes the same case.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from click.testing import CliRunner

from runner import registry
from runner.errors import printable
from runner.interfaces.cli.main import main as bnbench
from runner.monitoring.trackers.registry import tracker
from runner.storage.store import Store
from tests.faults.fuzz_configs import (
    NUMBERS,
    SNIPPETS,
    TEXTS,
    add,
    digest,
    ending,
    misspell,
    nest,
    remove,
    replace,
    swap,
)
from tests.faults.fuzz_networks import in_child

SECONDS = 30
"""For all commands of a case. It is longer than they take on a busy machine."""

PLUGIN = """\
from torch import nn
from runner import network


@network("mine")
def mine(*, norm: str = "none", kind: str = "tame"):
    if kind == "wild":
        raise ValueError("no such \\x1b[31mnetwork")
    layers = [nn.BatchNorm1d(4)] if norm == "batch" else []
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 4), *layers, nn.Linear(4, 10))
"""

CONFIG: dict[str, Any] = {
    "name": "small",
    "plugins": ["mine.py"],
    "contrast": {"axis": "network.norm", "baseline": "none"},
    "fixed": {
        **{"network": "mine", "dataset": "digits", "device": "cpu", "batch_size": 500, "epochs": 2},
        **{"evaluations_per_epoch": 2, "probes": ["gradients"]},
    },
    "grid": {"network.norm": ["none", "batch"], "seed": [0, 1]},
    "save_weights": True,
}

SWEEPS: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    "finished": ({}, (), 0),
    "killed": ({}, (), 3),
    "stopped": ({}, ("--stack", "on"), -1),
    "failed": ({"grid": {"network.kind": ["tame", "wild"], "seed": [0, 1]}, "contrast": None}, (), 0),
    "other": ({"grid": {"network.norm": ["none", "batch"], "seed": [1, 2]}}, (), 0),
}
"""Name → changes of the config, options, and the checkpoint after which it is killed (or, below 0, interrupted)."""

TABLES = ("runs.csv", "metrics.csv", "curves.csv", "probes.csv")
OPEN = ("config.yaml", "stacks.json")
"""Their values decide what a resume trains. So another value may give another table."""
TIMING = ("epoch_duration", "run_duration", "duration")
KINDS = (
    "accuracy",
    "loss",
    "differences",
    "pairs",
    "learning-rate",
    "target",
    "gradients",
    "activations",
    "norms",
    "x",
)

# What a case is made of

CELLS = [
    *(
        "",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1",
        "0",
        "1.5",
        "1e30",
        "1" + "0" * 30,
        "9" * 400,
        "1e15",
        "1e308",
        "-1e308",
    ),
    *("text", "True", "٣", "1_0", "=1+1", "\x1b[2J", "\x00", "\x85", "\r", "\udcff", '"', '""', ",", "x" * 100_000),
    *("ok", "failed", "interrupted", "2", "3"),
]
STRANGERS = [
    *(
        "notes.txt",
        "x\ntouch PWNED #.ckpt",
        "mine.ckpt",
        "0123456789ab.1.ckpt",
        "0123456789AB.000001.ckpt",
        "\udcff.ckpt",
    ),
    *("0123456789ab.000001.ckpt ", "\x1b[2J.pt", "abc.pt", "0123456789abc.pt", "0123456789ab.pt.bak", "-rf", "=1.pt"),
]
"""Names that bnbench gives to no file."""
OURS = ["0123456789ab.000001.ckpt", ".0123456789ab.000001.ckpt.partial", "0123456789ab.pt", ".0123456789ab.pt.partial"]


def any_file(draw: random.Random, folder: Path) -> Path:
    """A file of the folder: the small ones that every sweep has are as likely as the many weights."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    top = [path for path in found if path.parent == folder]
    return draw.choice(draw.choice([top, found]) or [folder / "config.yaml"])


def any_table(draw: random.Random, folder: Path) -> Path:
    return draw.choice([path for name in TABLES if (path := folder / name).is_file()] or [folder / "runs.csv"])


def change_bytes(draw: random.Random, folder: Path) -> Path:
    path = any_file(draw, folder)
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 3, 30])):
        at, kind = draw.randrange(len(content) + 1), draw.randrange(5)
        if kind == 0:
            content[at : at + draw.choice([1, 10, 1000])] = b""
        elif kind == 1:
            content[at:at] = draw.randbytes(draw.choice([1, 10, 1000]))
        elif kind == 2:
            content[at : at + 1] = draw.choice(["\0", "\x1b", '"', ",", "\n", "\r", "{", "\udcff", "٣"]).encode(
                "utf-8", "surrogateescape"
            )
        elif kind == 3 and draw.random() < 0.1:
            content = content[:at]
        elif at < len(content):
            content[at] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return path


def change_lines(draw: random.Random, folder: Path) -> Path:
    """Lines deleted, doubled or exchanged: no value of a table is another one."""
    path = any_table(draw, folder)
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(draw.choice([1, 1, 2, 10])):
        if lines:
            a, b = draw.randrange(len(lines)), draw.randrange(len(lines))
            kind = draw.randrange(4)
            if kind == 0:
                del lines[a]
            elif kind == 1:
                lines.insert(b, lines[a])
            elif kind == 2:
                lines[a], lines[b] = lines[b], lines[a]
            else:
                del lines[a : a + draw.choice([2, 20])]
    path.write_bytes(b"".join(lines))
    return path


def change_cells(draw: random.Random, folder: Path) -> Path:
    path = any_table(draw, folder)
    rows = [line.split(",") for line in path.read_text("utf-8", "surrogateescape").splitlines()]
    chosen = draw.choice([rows[1:], draw.sample(rows, min(1, len(rows))), rows[1:2], rows[-1:]])
    column, text = draw.randrange(max(map(len, rows), default=0) + 1), draw.choice(CELLS)
    if draw.random() < 0.3:
        column = 0
    for row in chosen:
        row[column : column + 1] = draw.choice([[text], [text], [text], [text, text], []])
    whole = "\n".join(map(",".join, rows)) + draw.choice(["\n", "\n", ""])
    path.write_bytes(whole.encode("utf-8", "surrogateescape"))
    return path


def change_values(draw: random.Random, folder: Path) -> Path:
    """Values of another type, or in another place, in JSON or YAML."""
    path = folder / draw.choice(["environment.json", "stacks.json", "config.yaml"])
    values = yaml.safe_load(path.read_bytes())
    for _ in range(draw.choice([1, 1, 2])):
        if isinstance(values, dict):
            draw.choice([replace, replace, replace, remove, add, misspell, swap, nest])(draw, values)
    if path.suffix == ".json":
        text = json.dumps(values, default=str)
    else:
        # A plugin is code, and a `checkpoint_dir` may be anywhere.
        kept = {"plugins": ["../../mine.py"]} if "plugins" in values else {}
        kept = {**{key: value for key, value in values.items() if key not in ("plugins", "checkpoint_dir")}, **kept}
        text = yaml.safe_dump(kept, allow_unicode=True, sort_keys=False, default_flow_style=None)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def replace_text(draw: random.Random, folder: Path) -> Path:
    path = any_file(draw, folder)
    texts = ["", "{}", "[]", "null", "[" * 100_000, '{"a":' * 50_000, "9" * 5000, "\0" * 1000, *SNIPPETS, *TEXTS]
    path.write_bytes(str(draw.choice([*texts, draw.choice(NUMBERS[:10])])).encode("utf-8", "surrogatepass"))
    return path


def replace_file(draw: random.Random, folder: Path) -> Path:
    """Another sweep's file, or another file of this sweep."""
    path = any_file(draw, folder)
    source = any_file(draw, draw.choice([Path(name) / "small" for name in SWEEPS] + [folder]))
    same = Path(draw.choice(list(SWEEPS))) / "small" / path.relative_to(folder)
    shutil.copyfile(same if same.is_file() and draw.random() < 0.7 else source, folder / "aside")
    (folder / "aside").replace(path)
    return path


def replace_kind(draw: random.Random, folder: Path) -> Path:
    """A link, a folder, a pipe or nothing in place of a file or a folder."""
    names = ["checkpoints", "weights", ".lock", "run.log", "report.html", ".runs.csv.partial", *OPEN, *TABLES]
    path = draw.choice([any_file(draw, folder), folder / draw.choice(names)])
    there = os.path.lexists(path)
    kind = draw.randrange(9)
    if kind == 0 and there:  # what bnbench expects, but elsewhere
        moved = Path("outside/moved") / f"{draw.randrange(10**9)}"
        path.rename(moved)
        path.symlink_to(moved.resolve())
        return path
    if there:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.parent.mkdir(exist_ok=True)
    if kind in (1, 2):
        targets = ["outside/bashrc", "outside", "outside/new", "outside/metrics.csv", "finished/small/weights"]
        path.symlink_to(draw.choice([Path(draw.choice(targets)).resolve(), Path(path.name), Path("/dev/zero")]))
    elif kind in (3, 4):
        path.mkdir()
        if kind == 4:
            (path / draw.choice(STRANGERS)).write_text("mine")
    elif kind == 5:
        os.mkfifo(path)
    elif kind == 6:
        path.write_bytes(b"")
    return path


def add_stranger(draw: random.Random, folder: Path) -> Path:
    """A file with a strange name in `checkpoints/` or `weights/`, or one of another kind with a name of bnbench's."""
    inside = folder / draw.choice(["checkpoints", "weights"])
    path = inside / draw.choice([*STRANGERS, *OURS])
    if inside.is_symlink() or (inside.exists() and not inside.is_dir()) or os.path.lexists(path):
        return path
    inside.mkdir(exist_ok=True)
    kind = draw.randrange(6)
    if kind < 3:
        path.write_bytes(draw.choice([b"", b"mine", Path("outside/metrics.csv").read_bytes()]))
    elif kind == 3:
        path.symlink_to(Path("outside/bashrc").resolve())
    elif kind == 4:
        path.mkdir()
        (path / "thesis").write_text("mine")
    else:
        os.mkfifo(path)
    return path


def sign_anew(draw: random.Random, folder: Path) -> Path:
    """A checkpoint with another header or state, and the digest of that."""
    found = (
        sorted(folder.glob("checkpoints/????????????.??????.ckpt")) if not (folder / "checkpoints").is_symlink() else []
    )
    found = [path for path in found if path.is_file() and path.read_bytes().startswith(b"bnbench checkpoint 1\n")]
    if not found:
        return add_stranger(draw, folder)
    path = draw.choice(found)
    start, _, rest = path.read_bytes().split(b"\n", 2)
    header, _, state = rest.partition(b"\n")
    values = json.loads(header) if draw.random() < 0.9 else {}
    if isinstance(values, dict) and draw.random() < 0.8:
        draw.choice([replace, replace, remove, add, swap])(draw, values)
        if draw.random() < 0.3:
            values["epoch"] = draw.choice([0, -1, 1, 3, 10**7, 10**9, 10**12, 10**30, 1e308, "2"])
    else:
        state = draw.choice([b"", state[: len(state) // 2], draw.randbytes(100), state[::-1]])
    rest = json.dumps(values).encode() + b"\n" + state
    path.write_bytes(start + b"\n" + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
    return path


def change_rights(draw: random.Random, folder: Path) -> Path:
    """(Root may do everything.)"""
    path = draw.choice([any_file(draw, folder), folder / "checkpoints", folder / "weights", folder])
    if path.exists() and not path.is_symlink():
        path.chmod(draw.choice([0, 0o400, 0o200, 0o555]))
    return path


Damage = Callable[[random.Random, Path], Path]
"""It returns the path that it changed."""

VALUES: list[Damage] = [change_bytes, change_bytes, change_cells, change_cells, change_cells, replace_text]
"""After these damages, values of a table may be others."""
OTHERS: list[Damage] = [change_lines] * 3 + [replace_kind] * 3 + [change_values] * 2
OTHERS += [replace_file, add_stranger, add_stranger, sign_anew, sign_anew, change_rights]


def command(draw: random.Random, folder: str) -> list[str]:
    """A command, with some of its options."""
    name = draw.choice(
        [*["resume"] * 6, *["compare"] * 4, "watch", "watch", "plan", "plot", "export", "inspect", "report"]
    )
    if name == "resume":
        more = draw.choice([[], [], ["--retry"], ["--retry", "diverged"], ["--allow-changed"], ["--track", "null"]])
        return [name, folder, "--executor", "inline", "-q", *more, *draw.choice([[], [], ["--allow-changed"]])]
    if name == "compare":
        style = draw.choice(["table", "csv", "json", "md", "latex"])
        metric = draw.choice([[], ["--metric", "train_loss"], ["--metric", "test_accuracy"]])
        at = draw.choice([[], ["--at", "best"], ["--at", "epoch=1"], ["--target", "0.3"]])
        return [name, folder, "--format", style, *draw.choice([metric, at, [*metric, *at]])]
    if name == "plan":
        return [name, f"{folder}/config.yaml", *draw.choice([[], ["--measured", folder], ["--stack", "on"]])]
    return {
        "watch": [name, folder, "--once"],
        "plot": [name, folder, draw.choice(KINDS)],
        "export": [name, folder, "--format", draw.choice(["tutorial", "null"])],
        "inspect": [name, folder, draw.choice("1234"), "--format", draw.choice(["table", "json"])],
        "report": [name, folder],
    }[name]


class Case:
    """A sweep, the steps that damage it, and commands. Steps and commands can be left out, to make it smaller."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        self.number, self.base = number, draw.choice(["finished", "killed", "killed", "stopped", "failed"])
        damages = draw.choice(
            [["other"], ["other"], ["value"], ["value"], ["other", "other"], ["other", "value"], ["other"] * 4]
        )
        self.steps = [f"{kind}{step}" for step, kind in enumerate(damages)]
        self.steps += [f"command{step}" for step in range(draw.choice([1, 1, 2, 3]))]
        self.folder = Path("case/small")

    def damage(self, steps: Iterable[str]) -> list[tuple[str, Path]]:
        """Make the folder, and damage it. Returns the kinds of damage, and the paths."""
        _remove(Path("case"))
        _remove(Path("outside/moved"))
        Path("outside/moved").mkdir()
        shutil.copytree(Path(self.base) / "small", self.folder)
        done = []
        for step in steps:
            kinds = {"v": VALUES, "o": OTHERS}.get(step[0])
            if kinds:
                draw = random.Random(f"{self.number} {step}")
                kind = draw.choice(kinds)
                with suppress(OSError, ValueError, IndexError, yaml.YAMLError, RecursionError):
                    # An earlier step may have left nothing to damage.
                    done.append((kind.__name__, kind(draw, self.folder)))
        return done

    def commands(self, steps: Iterable[str]) -> list[list[str]]:
        return [command(random.Random(f"{self.number} {step}"), str(self.folder)) for step in steps if step[0] == "c"]

    def failure(self, steps: Iterable[str], answers: Path) -> str | None:
        """What is wrong with how it ends; None where nothing is."""
        steps = list(steps)
        done, commands = self.damage(steps), self.commands(steps)
        strangers, log = _strangers(self.folder), _log(self.folder)
        before = _outside()
        ended = in_child(lambda: list(map(run, commands)), answers, SECONDS)
        changed = before ^ _outside()
        if isinstance(ended, str):
            return f"more than {SECONDS} s" if ended == "exit code -14" else ended
        ENDS.update(each[1] for each in ended)
        if wrong := next((each[0] for each in ended if each[0]), None):
            return str(wrong)
        if changed:
            return f"changed {sorted({entry[0] for entry in changed})}"
        if lost := strangers - _strangers(self.folder):
            return f"lost {sorted(name for name, *_ in lost)}"
        added = _log(self.folder).removeprefix(log)
        if printable(added) != added:
            return "control characters in run.log"
        resumed = [each for words, each in zip(commands, ended, strict=True) if words[0] == "resume"]
        told = added or any(err or code for _, code, err in resumed)
        if resumed and not told and not any(kind in MAY_CHANGE or path.name in OPEN for kind, path in done):
            return self._other_tables([kind for kind, _ in done])
        return None

    def _other_tables(self, kinds: Sequence[str]) -> str | None:
        order = list if "change_lines" not in kinds else sorted
        for name, rows in EXPECTED[self.base].items():
            if order(table(self.folder / name)) != order(rows):
                return f"another {name}, and nothing was said"
        COMPARED[self.base] += 1
        return None

    def smaller(self, failure: str, answers: Path) -> list[str]:
        """The steps that are needed for this failure."""
        needed = list(self.steps)
        for step in self.steps:
            fewer = [each for each in needed if each != step]
            if self.failure(fewer, answers) == failure:
                needed = fewer
        return needed

    def described(self, steps: Iterable[str]) -> str:
        damages = [f"{kind} {str(path)!r}" for kind, path in self.damage(steps)]
        return f"{self.base}; {', '.join(damages)}; {' && '.join(map(' '.join, self.commands(steps)))}"


MAY_CHANGE = {kind.__name__ for kind in VALUES}
ENDS: Counter[int] = Counter()
COMPARED: Counter[str] = Counter()
EXPECTED: dict[str, dict[str, list[list[str]]]] = {}


def run(words: Sequence[str]) -> tuple[str | None, int, str]:
    """What is wrong with how a command ends, its exit code, and what it wrote to stderr."""
    done = CliRunner().invoke(bnbench, list(words))
    # `compare --format csv` writes the texts of a table as they are.
    out = "" if "csv" in words else done.stdout
    wrong = ending(done.exception, done.exit_code, out, done.stderr)
    return f"{words[0]}: {wrong}" if wrong else None, done.exit_code, done.stderr


def table(path: Path) -> list[list[str]]:
    """A table's rows without its durations; none where there is no such file."""
    if not path.is_file():
        return []
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8", "surrogateescape"))))
    kept = [index for index, name in enumerate(rows[0] if rows else []) if name not in TIMING]
    return [[row[index] for index in kept if index < len(row)] for row in rows]


def _outside() -> set[tuple[str, int, int, int]]:
    """Everything here but the case's folder."""
    return {entry for entry in digest() if entry[0] != "./case/small" and not entry[0].startswith("./case/small/")}


def _strangers(folder: Path) -> set[tuple[str, int, int]]:
    """The files of others in the folders that bnbench deletes files from."""
    found = set()
    for name in ("checkpoints", "weights"):
        inside = folder / name
        if inside.is_dir() and not inside.is_symlink():
            for path in map(inside.joinpath, STRANGERS):
                if os.path.lexists(path):
                    status = path.lstat()
                    found.add((path.name, status.st_ino, status.st_mtime_ns))
    return found


def _log(folder: Path) -> str:
    path = folder / "run.log"
    regular = path.is_file() and not path.is_symlink()
    return path.read_bytes().decode("utf-8", "surrogateescape") if regular else ""


def _remove(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


class _Null:
    """A tracker that writes nothing."""

    where = "nowhere"

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


def train(name: str) -> int:
    """Train one of the sweeps, or its beginning."""
    changes, options, stop = SWEEPS[name]
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    real, written = Store.on_checkpoint, []

    def on_checkpoint(store: Store, checkpoint: Any) -> None:
        real(store, checkpoint)
        written.append(checkpoint)
        if stop < 0:
            raise KeyboardInterrupt
        if len(written) == stop:
            os._exit(9)

    Store.on_checkpoint = on_checkpoint  # type: ignore[method-assign]
    words = ["run", f"{name}.yaml", "--out", name, "--executor", "inline", "-q", "--checkpoint-every", "1", *options]
    return CliRunner().invoke(bnbench, words).exit_code


def prepare(answers: Path) -> None:
    """Make the sweeps, and what they must end as."""
    # In this process: the others are forked, and need not import anything again.
    train("finished")
    for words in (["report", "finished/small"], ["inspect", "finished/small", "1"]):
        assert run(words)[1] == 0
    Path("finished/small/report.html").unlink()
    for name in SWEEPS:
        if name != "finished":
            in_child(lambda name=name: train(name), answers)  # type: ignore[misc]
        assert (Path(name) / "small/runs.csv").is_file(), name
        shutil.copytree(Path(name) / "small", "case/small")
        code = in_child(lambda: run(["resume", "case/small", "--executor", "inline", "-q"])[1], answers)
        assert code == (name == "failed"), (name, code)
        EXPECTED[name] = {each: table(Path("case/small") / each) for each in TABLES}
        shutil.rmtree("case")
    # Each is a part of the same runs. The stack is compared with itself: its last digits may differ.
    assert EXPECTED["killed"] == EXPECTED["finished"]
    shutil.copy("finished/small/metrics.csv", "outside")
    for name in OURS:
        shutil.copy("finished/small/metrics.csv", f"outside/{name}")


@contextmanager
def surroundings() -> Iterator[Path]:
    """A folder as the working directory, and a folder beside it, for answers and caches."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as beside:
        here = Path.cwd()
        os.chdir(name)
        for folder in ("HOME", "outside"):
            Path(folder).mkdir()
        os.environ |= {"HOME": f"{name}/HOME", "BNBENCH_DATA_DIR": f"{name}/HOME", "BNBENCH_CACHE_DIR": beside}
        Path("outside/bashrc").write_text("export LESS=-R\n")
        Path("mine.py").write_text(PLUGIN, encoding="utf-8")
        try:
            yield Path(beside)
        finally:
            _remove(Path("case"))
            os.chdir(here)


def main(cases: int, first: int = 0) -> int:
    sys.dont_write_bytecode = True  # Python would write beside the plugin.
    os.environ.pop("BNBENCH_STRICT", None)
    torch.set_num_threads(1)
    registry.load_plugins()
    for name in ("mnist", "fashion_mnist"):  # They would be downloaded.
        registry.dataset[name] = registry.dataset["digits"]
    tracker("null")(lambda: lambda _: _Null())  # type: ignore[arg-type, return-value]
    failures = Counter[str]()
    began = time.monotonic()
    with surroundings() as answers:
        prepare(answers)
        for number in range(first, first + cases):
            case = Case(number)
            if failure := case.failure(case.steps, answers):
                failures[failure] += 1
                if failures[failure] == 1:
                    steps = case.smaller(failure, answers)
                    print(f"case {number}: {failure}: {case.described(steps)[:600]}", flush=True)
    codes = ", ".join(f"{count} exit codes {code}" for code, count in sorted(ENDS.items()))
    compared = f"{sum(COMPARED.values())} sweeps mended without a word"
    seconds = time.monotonic() - began
    print(f"{cases} cases ({codes}; {compared}) in {seconds:.0f} s, {sum(failures.values())} failures", end="")
    print("", *(f"{count} x {failure}" for failure, count in failures.items()), sep="\n  ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
