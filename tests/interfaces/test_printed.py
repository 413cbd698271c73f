"""What is printed for a person: commands that can be copied into a shell, and text that fits the terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Bnbench = Callable[..., Result]

ROOT = Path(__file__).parent.parent.parent

CONFIG = """\
name: s
fixed: {network: notebook_mlp, dataset: digits, batch_size: 250, train_samples: 500, epochs: 1, device: cpu}
grid: {lr: [0.01, 1.0e+30]}
"""

FAILING = """\
from runner import network

@network("failing")
def failing():
    raise ValueError("no such layer")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name a shell would take apart."""
    found = tmp_path / "it's my folder"
    found.mkdir()
    return found


def commands(text: str) -> list[list[str]]:
    """The commands in a text, as a shell reads them: each ends where the message goes on."""
    found = re.findall(r"(bnbench (?:run|resume|compare) .*?)(?= finishes| trains| compares|$)", text, re.MULTILINE)
    return list(map(shlex.split, found))


def test_printed_commands_can_be_typed(bnbench: Bnbench, folder: Path) -> None:
    (folder / "s.yaml").write_text(CONFIG)
    out = folder / "out"
    assert bnbench("run", folder / "s.yaml", "--out", out, "--executor", "inline", "-q").exit_code == 0
    (command,) = commands(bnbench("watch", out / "s", "--once").stdout)
    assert command == ["bnbench", "compare", str(out / "s")]
    assert bnbench(*command[1:]).exit_code == 0
    (command,) = commands(bnbench("inspect", out / "s", 1).stderr)
    again = bnbench(*command[1:], "--executor", "inline", "-q")
    assert again.exit_code == 0, again.stderr
    assert bnbench("inspect", out / "s", 1).exit_code == 0


def test_the_command_that_tries_failed_runs_again_can_be_typed(bnbench: Bnbench, folder: Path) -> None:
    (folder / "failing.py").write_text(FAILING)
    text = CONFIG.replace("notebook_mlp", "failing").replace("lr: [0.01, 1.0e+30]", "seed: [0]")
    (folder / "s.yaml").write_text(f"plugins: [failing.py]\n{text}")
    done = bnbench("run", folder / "s.yaml", "--out", folder, "--executor", "inline", "-q")
    assert done.exit_code == 1
    (command,) = commands(done.stderr)
    assert command == ["bnbench", "resume", str(folder / "s"), "--retry"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "results/reference/tutorial", "--target", "0.85"),
        ("compare", "results/reference/claims/own_best_lr"),
        ("claims",),
        ("networks",),
        ("datasets",),
        ("plan", "configs/quickstart.yaml"),
        ("watch", "results/reference/tutorial", "--once"),
    ],
    ids=" ".join,
)
def test_text_fits_the_terminal(arguments: tuple[str, ...], bnbench: Bnbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    fits_the_terminal(bnbench, monkeypatch, *arguments)


def fits_the_terminal(bnbench: Bnbench, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Check what a command prints in terminals of several widths."""
    whole = bnbench(*arguments)
    assert "Not shown" not in whole.stdout  # a pipe loses no column
    for columns in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        narrow = bnbench(*arguments)
        assert (narrow.exit_code, whole.exit_code) == (0, 0)
        # A word that is longer than a line, such as a path, is not broken.
        assert [line for line in narrow.stdout.splitlines() if len(line) > columns and " " in line.strip()] == []
