"""Damaged and hostile results folders, for every command that reads or continues one.

`python -m tests.faults.fuzz_folders CASES [FIRST]` makes a few small sweeps, and tries the cases FIRST, FIRST + 1, …
(default: from 0). A case is a copy of one of the sweeps with some damage, and one or several commands, in a process of
their own. Each command must end with exit code 0, 1 or 2, in some seconds, without a traceback, and with a text that a
terminal can show. Nothing outside the folder may change, and files of others inside it must stay. A resume that says
nothing must end with the tables of the undamaged sweep. A case that fails is made smaller, and printed in one line. The
same number always makes the same case.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
import yaml
from click.testing import CliRunner

from runner import registry
from runner.errors import printable
from runner.interfaces.cli.main import main as bnbench
from runner.monitoring.trackers.registry import tracker
from tests.faults.folders import EXPECTED, OPEN, OTHERS, OURS, PLUGIN, STRANGERS, VALUES, answers, sweep, table
from tests.faults.fuzz_configs import digest, ending
from tests.faults.fuzz_networks import in_child

SECONDS = 30
"""For all commands of a case. It is longer than they take on a busy machine."""

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
        shutil.copytree(sweep(self.base), self.folder)
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

    def failure(self, steps: Iterable[str]) -> str | None:
        """What is wrong with how it ends; None where nothing is."""
        steps = list(steps)
        done, commands = self.damage(steps), self.commands(steps)
        strangers, log = _strangers(self.folder), _log(self.folder)
        if any(words[0] in ("report", "plot") for words in commands):
            warm_up()
        before = _outside()
        ended = in_child(lambda: list(map(run, commands)), answers(), SECONDS)
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

    def smaller(self, failure: str) -> list[str]:
        """The steps that are needed for this failure."""
        needed = list(self.steps)
        for step in self.steps:
            fewer = [each for each in needed if each != step]
            if self.failure(fewer) == failure:
                needed = fewer
        return needed

    def described(self, steps: Iterable[str]) -> str:
        damages = [f"{kind} {str(path)!r}" for kind, path in self.damage(steps)]
        return f"{self.base}; {', '.join(damages)}; {' && '.join(map(' '.join, self.commands(steps)))}"


MAY_CHANGE = {kind.__name__ for kind in VALUES}
ENDS: Counter[int] = Counter()
COMPARED: Counter[str] = Counter()


def run(words: Sequence[str]) -> tuple[str | None, int, str]:
    """What is wrong with how a command ends, its exit code, and what it wrote to stderr."""
    done = CliRunner().invoke(bnbench, list(words))
    # `compare --format csv` writes the texts of a table as they are.
    out = "" if "csv" in words else done.stdout
    # A sweep that was stopped is no error of `watch`, so it says so in its report.
    said = done.stderr + (out if words[0] == "watch" else "")
    wrong = ending(done.exception, done.exit_code, out, said)
    return f"{words[0]}: {wrong}" if wrong else None, done.exit_code, done.stderr


def _outside() -> set[tuple[str, int, int, int]]:
    """Everything here but the case's folder."""
    return {entry for entry in digest() if entry[0] != "./case/small" and not entry[0].startswith("./case/small/")}


def _strangers(folder: Path) -> set[tuple[str, int, int]]:
    """The files of others in the folders that bnbench deletes files from."""
    found = set()
    for name in ("checkpoints", "weights", "plugins"):
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


@cache
def warm_up() -> None:
    """Import here what every forked process would import for a figure."""
    assert run(["report", "finished/small"])[1] == 0
    Path("finished/small/report.html").unlink()


@contextmanager
def surroundings() -> Iterator[None]:
    """A folder as the working directory, and folders beside it, for answers and caches."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as beside:
        here = Path.cwd()
        os.chdir(name)
        for folder in ("HOME", "outside"):
            Path(folder).mkdir()
        os.environ |= {"HOME": f"{name}/HOME", "BNBENCH_DATA_DIR": f"{name}/HOME"}
        os.environ |= {"BNBENCH_CACHE_DIR": beside, "ANSWERS": beside}
        Path("outside/bashrc").write_text("export LESS=-R\n")
        Path("mine.py").write_text(PLUGIN, encoding="utf-8")
        try:
            yield
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
    tracker("null")(lambda: lambda _: _Null())
    failures = Counter[str]()
    began = time.monotonic()
    with surroundings():
        shutil.copy(sweep("finished") / "metrics.csv", "outside")
        for name in OURS:
            shutil.copy("outside/metrics.csv", f"outside/{name}")
        for number in range(first, first + cases):
            case = Case(number)
            if failure := case.failure(case.steps):
                failures[failure] += 1
                if failures[failure] == 1:
                    steps = case.smaller(failure)
                    print(f"case {number}: {failure}: {case.described(steps)[:600]}", flush=True)
    codes = ", ".join(f"{count} exit codes {code}" for code, count in sorted(ENDS.items()))
    compared = f"{sum(COMPARED.values())} sweeps mended without a word"
    seconds = time.monotonic() - began
    print(f"{cases} cases ({codes}; {compared}) in {seconds:.0f} s, {sum(failures.values())} failures", end="")
    print("", *(f"{count} x {failure}" for failure, count in failures.items()), sep="\n  ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
