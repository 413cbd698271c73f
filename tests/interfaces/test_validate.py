"""What `validate` finds before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import UserError
from runner.interfaces.notebook import run
from tests.conftest import Bnbench

Write = Callable[[str, str], Path]

PLUGIN = """\
import torch
from torch import nn
from runner import network


class Odd(nn.Module):
    def __init__(self, way, width):
        super().__init__()
        self.way, self.layer = way, nn.Linear(width, 10)

    def forward(self, x):
        logits = self.layer(x.flatten(1))
        return {"none": None, "shape": logits[:, :3], "nan": logits / 0.0, "good": logits}[self.way]


@network("odd_ways")
def odd_ways(*, way: str = "good", width: int = 784):
    return Odd(way, width)
"""

FIXED = "plugins: [odd_ways.py]\nfixed: {network: odd_ways, dataset: digits, device: cpu, epochs: 1, batch_size: 100}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "way: [good, none]",
            "way=none': the network returned NoneType for a batch of 64; it must return [64, 10] log",
        ),
        ("way: [good, shape]", "way=shape': the network returned [64, 3] for a batch of 64; it must return [64, 10]"),
        ("way: [good, nan]", "way=nan': 640 of 640 logits of the first batch are not finite (inf or NaN)"),
        ("width: [784, 65]", "width=65': RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x784 and 65x10)"),
    ],
)
def test_each_network_computes_a_batch(write: Write, bnbench: Bnbench, arguments: str, message: str) -> None:
    write("odd_ways.py", PLUGIN)
    config = write("c.yaml", f"{FIXED}grid: {{network.{arguments}, seed: [0, 1]}}")
    done = bnbench("validate", config)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{config}:2:18: network 'odd_ways {message}"), done.stderr
    assert done.stderr.count("network '") == 1


def test_networks_without_a_fault(write: Write, bnbench: Bnbench) -> None:
    write("odd_ways.py", PLUGIN)
    done = bnbench("validate", write("c.yaml", FIXED))
    assert (done.exit_code, done.stdout) == (0, "c: 1 runs, no faults\n"), done.stderr


def test_a_batch_that_is_larger_than_the_training_set(write: Write, bnbench: Bnbench) -> None:
    write("odd_ways.py", PLUGIN)
    done = bnbench("validate", write("c.yaml", FIXED), "--set", "fixed.train_samples=99")
    warning = "batch_size 100 is larger than the training set of 99 samples: each epoch is one step"
    assert done.stdout.splitlines()[0] == warning
    assert warning not in bnbench("validate", write("c.yaml", FIXED), "--set", "fixed.train_samples=100").stdout


@pytest.mark.parametrize("command", ["run", "validate", "plan"])
def test_a_data_folder_that_does_not_exist(
    command: str, write: Write, bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write("c.yaml", "fixed: {network: notebook_mlp, dataset: digits, epochs: 1, device: cpu}")
    monkeypatch.chdir(tmp_path)
    done = bnbench(command, config, "--data-dir", "nowhere")
    assert (done.exit_code, done.stderr) == (2, "data folder nowhere: no such folder\n")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
    with pytest.raises(UserError, match="data folder nowhere: no such folder"):
        run({"fixed": {"network": "notebook_mlp", "dataset": "digits"}}, data_dir="nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_nothing_starts_before_what_could_refuse_it(write: Write, bnbench: Bnbench, tmp_path: Path) -> None:
    config = write(
        "c.yaml", "fixed: {network: notebook_mlp, dataset: digits, train_samples: 50, epochs: 1, device: cpu}"
    )
    arguments = "--out", tmp_path / "out", "--executor", "inline"
    refused = bnbench("run", config, *arguments, "--track", "tensorbord")
    assert (
        refused.exit_code,
        refused.stderr.startswith("unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
    ) == (2, True)
    assert not (tmp_path / "out").exists()
    shape = bnbench("run", config, *arguments, "--set", "fixed.batch_size=60", "--set", "fixed.drop_last=true")
    assert (shape.exit_code, "starting" in shape.stderr) == (2, False)
    assert "c: 1 runs, 1 epochs; starting" in bnbench("run", config, *arguments).stderr
    again = bnbench("run", config, *arguments)
    assert (again.exit_code, "already holds this sweep" in again.stderr, "starting" in again.stderr) == (2, True, False)


def test_a_plugin_that_is_missing_is_the_only_fault(write: Write, bnbench: Bnbench, tmp_path: Path) -> None:
    plugin = write("odd_ways.py", PLUGIN.replace("odd_ways", "gone_later"))
    config = write("c.yaml", FIXED.replace("network: odd_ways", "network: gone_later"))
    assert bnbench("run", config, "--out", tmp_path / "out", "-q", "--executor", "inline").exit_code == 0
    plugin.rename(tmp_path / "elsewhere.py")
    missing = f"plugin {plugin}: No such file or directory"
    for name in [name for name in sys.modules if name.startswith("bnbench_plugin_odd_ways")]:
        del sys.modules[name]  # as in a new process
    stored = tmp_path / "out/c/config.yaml"
    for arguments in (("resume", stored.parent), ("inspect", stored.parent, "1"), ("plan", config)):
        done = bnbench(*arguments)
        assert (done.exit_code, done.stderr.count(": plugin ")) == (2, 1), done.stderr
        assert missing in done.stderr.splitlines()[0]
    wrong = bnbench("plan", config, "--set", "fixed.lr=-1", "--set", "fixd=1")
    assert (wrong.exit_code, missing in wrong.stderr, "fixd" in wrong.stderr) == (2, True, False)
    assert bnbench("compare", stored.parent).exit_code == 0  # needs no plugin
