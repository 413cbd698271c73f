"""A user's folder may hold files whose names are those of bnbench's packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent

CONFIG = """\
name: digits
fixed: {network: no_batch_norm, dataset: digits, train_samples: 100, epochs: 1}
grid: {seed: {range: 2}}
"""

STUDY = """\
from bnbench import run

outcome = run(
    {"name": "digits", "grid": {"seed": [0, 1]}, "fixed": {"network": "no_batch_norm", "dataset": "digits",
     "train_samples": 100, "epochs": 1}}, workers=1, quiet=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the names of bnbench's packages in it."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text("MINE = True\n")
    (tmp_path / "runner.py").write_text("MINE = True\n")
    return tmp_path


def python(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, which is where it looks for modules first."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def script(folder: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "study.py").write_text(text)
    return python(folder, "study.py", **variables)


def trained(folder: Path) -> tuple[list[str], bool]:
    """The runs' statuses, and whether their worker was forked."""
    results = folder / "results/digits"
    return pd.read_csv(results / "runs.csv")["status"].tolist(), "not forked" not in (results / "run.log").read_text()


def test_a_script_and_its_workers_use_the_packages_of_bnbench(folder: Path) -> None:
    # numpy's threads are why a worker is a program of its own, and not a fork.
    done = script(folder, STUDY, OPENBLAS_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert trained(folder) == (["ok", "ok"], False)


def test_the_command_and_its_workers_use_them(folder: Path) -> None:
    (folder / "digits.yaml").write_text(CONFIG)
    done = python(folder, "-m", "bnbench", "run", "digits.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert trained(folder) == (["ok", "ok"], True)


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "bnbench", "--help")
    assert "--version" in done.stdout
    assert done.returncode == 0


def test_a_module_that_hides_the_engine_is_named(folder: Path) -> None:
    done = script(folder, f"import runner\n{STUDY}")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {folder / 'runner.py'} hides bnbench's package 'runner'")
    assert last.endswith("give it another name")


def test_a_package_that_hides_the_built_in_experiments_is_named(folder: Path) -> None:
    done = script(folder, f"import experiments\n{STUDY}")
    assert done.returncode == 1
    assert f"UserError: {folder / 'experiments/__init__.py'} hides bnbench's package 'experiments'" in done.stderr
