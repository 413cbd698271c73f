"""What `validate` finds before anything is trained."""

from __future__ import annotations

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
