"""A config as a dictionary of Python's and numpy's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.config.reader import from_mapping
from runner.errors import UserError

PLUGIN = """\
from torch import nn
from runner import network


@network("at_a_path")
def at_a_path(*, sizes: list[int] = [1]):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_values_of_python_numpy_and_torch_are_those_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    sweep = from_mapping(
        {
            "contrast": {"axis": "batch_size", "baseline": np.int64(64)},
            "fixed": {"network": "at_a_path", "network.sizes": (3, 4), "augment": ("flip",), "shuffle": np.bool_(True)},
            "grid": {
                "seed": range(2),
                "lr": np.array([0.1, 0.2]),
                "batch_size": np.array([64, 128]),
                "momentum": (np.float64(0.5),),
                "optimizer": ("sgd",),
                "epochs": torch.tensor([1, 2]),
            },
            "plugins": [tmp_path / "mine.py"],
        }
    )
    same = from_mapping(
        {
            "contrast": {"axis": "batch_size", "baseline": 64},
            "fixed": {"network": "at_a_path", "network.sizes": [3, 4], "augment": ["flip"], "shuffle": True},
            "grid": {
                "seed": [0, 1],
                "lr": [0.1, 0.2],
                "batch_size": [64, 128],
                "momentum": [0.5],
                "optimizer": ["sgd"],
                "epochs": [1, 2],
            },
            "plugins": [str(tmp_path / "mine.py")],
        }
    )
    assert sweep == same
    assert [run.run_id for run in sweep.runs] == [run.run_id for run in same.runs]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"fixed": {"network": len}},
            "config: fixed.network: a config has no builtin_function_or_method, got <built-in",
        ),
        ({"grid": {"seed": {1, 2}}}, "config: grid.seed: a config has no set, got {1, 2}; allowed: numbers, texts, l"),
        ({"grid": {"seed": range(10**12)}}, "config: grid.seed: 1,000,000,000,000 values; at most 200,000"),
        ({"fixed": {"lr": [0.1]}}, "config: lr: must be a number, got [0.1]; several values go under 'grid:'"),
    ],
)
def test_other_values_are_one_fault(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_mapping({"fixed": {"network": "lenet"}, **values})
    assert message in str(caught.value)


def test_what_contains_itself_is_a_fault() -> None:
    circle: dict[str, Any] = {}
    circle["fixed"] = circle
    with pytest.raises(UserError, match="nested more than 20 deep"):
        from_mapping(circle)
