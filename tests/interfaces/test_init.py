"""`bnbench init` writes a study that runs as it is."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from runner.interfaces.cli.init import FILES

Bnbench = Callable[..., Result]


def test_the_three_commands_work(bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = bnbench("init", "my study")
    assert done.exit_code == 0
    assert {path.name for path in (tmp_path / "my study").iterdir()} == set(FILES)
    go, *commands = done.stdout.partition("Type next:\n")[2].replace(" && ", "\n").splitlines()
    assert shlex.split(go) == ["cd", "my study"]
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path / "my study")
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "bnbench"
        shown = bnbench(*arguments, *(["--executor", "inline"] if arguments[0] == "run" else []))
        assert shown.exit_code == 0, shown.stderr
    assert set(pd.read_csv("results/study/runs.csv")["status"]) == {"ok"}


def test_here(bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cd " not in bnbench("init").stdout
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_nothing_is_overwritten(bnbench: Bnbench, tmp_path: Path) -> None:
    (tmp_path / "my_network.py").write_text("mine")
    done = bnbench("init", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"{tmp_path / 'my_network.py'}: this file exists; nothing was written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["my_network.py"]
    assert (tmp_path / "my_network.py").read_text() == "mine"
    inside_a_file = bnbench("init", tmp_path / "my_network.py/x")
    assert inside_a_file.exit_code == 2
    assert "my_network.py/x: cannot be made" in inside_a_file.stderr


def test_a_gitignore_stays_as_it_is(bnbench: Bnbench, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine")
    done = bnbench("init", tmp_path)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{tmp_path}: study.yaml, my_network.py\n")
    assert (tmp_path / ".gitignore").read_text() == "mine"
