"""Small sweeps, and damage to their folders, for `tests.faults.fuzz_folders`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from click.testing import CliRunner

from runner.interfaces.cli.main import main as bnbench
from runner.storage.store import Store
from tests.faults.fuzz_configs import NUMBERS, SNIPPETS, TEXTS, add, misspell, nest, remove, replace, swap
from tests.faults.fuzz_networks import in_child

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
    "save_predictions": True,
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
EXPECTED: dict[str, dict[str, list[list[str]]]] = {}
"""Sweep → the tables that it must end with."""


def train(name: str) -> None:
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

    with patch.object(Store, "on_checkpoint", on_checkpoint):
        invoked("run", f"{name}.yaml", "--out", name, "--checkpoint-every", "1", *options)


def invoked(*words: str) -> int:
    return CliRunner().invoke(bnbench, [*words, "--executor", "inline", "-q"]).exit_code


@cache
def sweep(name: str) -> Path:
    """One of the sweeps. It is trained where a case needs it for the first time, and what it must end as is noted."""
    if name == "finished":
        # In this process: the others are forked from it, and need not import anything again.
        train(name)
    else:
        in_child(lambda: train(name), answers())
    folder = Path(name) / "small"
    assert (folder / "runs.csv").is_file(), name
    shutil.copytree(folder, "ended/small")
    code = in_child(lambda: invoked("resume", "ended/small"), answers())
    assert code == (name == "failed"), (name, code)
    EXPECTED[name] = {each: table(Path("ended/small") / each) for each in TABLES}
    shutil.rmtree("ended")
    # The last digits of a stack may differ.
    assert name != "killed" or EXPECTED[name] == EXPECTED["finished"]
    return folder


def answers() -> Path:
    """A folder that no command knows."""
    return Path(os.environ["ANSWERS"])


def table(path: Path) -> list[list[str]]:
    """A table's rows without its durations; none where there is no such file."""
    if not path.is_file():
        return []
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8", "surrogateescape"))))
    kept = [index for index, name in enumerate(rows[0] if rows else []) if name not in TIMING]
    return [[row[index] for index in kept if index < len(row)] for row in rows]


# What a case is made of

CELLS = ["", "nan", "inf", "-inf", "1e400", "-1", "0", "2", "3", "1.5", "1e30", "1" + "0" * 30, "9" * 400, "1e308"]
CELLS += ["text", "True", "٣", "1_0", "=1+1", "\x1b[2J", "\x00", "\x85", "\r", "\udcff", '"', '""', ",", "x" * 100_000]
CELLS += ["ok", "failed", "interrupted"]
STRANGERS = ["notes.txt", "x\ntouch PWNED #.ckpt", "mine.ckpt", "0123456789ab.1.ckpt", "0123456789AB.000001.ckpt"]
STRANGERS += ["\udcff.ckpt", "0123456789ab.000001.ckpt ", "\x1b[2J.pt", "abc.pt", "0123456789abc.pt", "-rf", "=1.pt"]
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
    path = folder / draw.choice(["environment.json", "stacks.json", "contrast.json", "config.yaml"])
    if not path.is_file():
        raise OSError("an earlier step has put something else there")  # Reading a pipe would not end.
    values = yaml.safe_load(path.read_bytes())
    if not isinstance(values, dict):
        raise ValueError("an earlier step has left no mapping")
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
    source = any_file(draw, draw.choice([sweep(draw.choice(list(SWEEPS))), folder]))
    same = sweep(draw.choice(list(SWEEPS))) / path.relative_to(folder)
    shutil.copyfile(same if same.is_file() and draw.random() < 0.7 else source, folder / "aside")
    (folder / "aside").replace(path)
    return path


def replace_kind(draw: random.Random, folder: Path) -> Path:
    """A link, a folder, a pipe or nothing in place of a file or a folder."""
    folders = ["checkpoints", "weights", "predictions", "plugins"]
    names = [*folders, ".lock", "run.log", "report.html", ".runs.csv.partial", *OPEN, *TABLES]
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
    inside = folder / draw.choice(["checkpoints", "weights", "predictions", "plugins"])
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
OTHERS: list[Damage] = [change_lines, change_lines, change_lines, replace_kind, replace_kind, replace_kind]
OTHERS += [change_values, change_values]
OTHERS += [replace_file, add_stranger, add_stranger, sign_anew, sign_anew, change_rights]
