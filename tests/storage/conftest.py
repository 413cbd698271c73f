"""A small finished sweep with every kind of file, and what lies around it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from runner import registry
from runner.interfaces.cli.main import main

CONFIG = """\
name: small
plugins: [../mine.py]
contrast: {axis: network.norm, baseline: none}
save_weights: true
fixed: {network: mine, dataset: digits, batch_size: 250, epochs: 2, evaluations_per_epoch: 2, probes: [gradients],
  device: cpu}
grid: {network.norm: [none, batch], seed: {range: 2}}
"""

PLUGIN = """\
from torch import nn
from runner import network


@network("mine")
def mine(*, norm: str = "none"):
    layers = [nn.BatchNorm1d(4)] if norm == "batch" else []
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 4), *layers, nn.Linear(4, 10))
"""

Contents = dict[str, bytes]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished sweep. Tests read it and leave it as it is."""
    root = tmp_path_factory.mktemp("finished")
    (root / "configs").mkdir()
    (root / "configs/small.yaml").write_text(CONFIG)
    (root / "mine.py").write_text(PLUGIN)
    options = ["--out", str(root / "results"), "--executor", "inline", "-q"]
    # As after every test: a copy of the sweep has its own copy of the plugin.
    with registry.network.temporary():
        done = CliRunner().invoke(main, ["run", str(root / "configs/small.yaml"), *options])
    assert done.exit_code == 0, done.stderr
    return root / "results/small"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished sweep, to be spoilt."""
    shutil.copy(finished.parent.parent / "mine.py", tmp_path)
    shutil.copytree(finished, tmp_path / "results/small")
    return tmp_path / "results/small"


@pytest.fixture
def unfinished(folder: Path) -> Path:
    """A copy of the sweep whose last run has no result."""
    runs = folder / "runs.csv"
    runs.write_text("".join(runs.read_text().splitlines(keepends=True)[:-1]))
    return folder


@pytest.fixture
def in_time() -> Iterator[None]:
    """A command that hangs is an error after twenty seconds."""

    def late(*_: object) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> Contents:
    """Every file below a folder, and where every link leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def tables(folder: Path) -> dict[str, str]:
    """The tables without their timing columns."""
    timing = ["epoch_duration", "run_duration", "duration"]
    names = ("metrics.csv", "runs.csv", "curves.csv", "probes.csv")
    found = {name: pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in names}
    return {name: str(table.drop(columns=timing, errors="ignore").to_csv()) for name, table in found.items()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with files that a link can lead to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "bashrc").write_text("export LESS=-R\n")
    (folder / "thesis.tex").write_text("years of work\n")
    return folder
