"""`extends:`: how the keys of two configs merge, whose file and line a fault has, and that a folder needs no base."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.config.reader import from_mapping, load
from runner.config.schema import json_schema
from runner.errors import UserError
from tests.conftest import Bnbench

Write = Callable[[str, str], Path]

BASE = """\
name: base
contrast: {axis: network.norm, baseline: none}
fixed:
  network: lenet
  epochs: 5
  lr: 0.1
grid:
  network.norm: [none, batch]
  zip:
    batch_size: [64, 256]
    optimizer: [sgd, adam]
  seed: {range: 3}
"""

PLUGIN = """\
from torch import nn
from runner import network


@network("of_a_base")
def of_a_base():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize(
    ("text", "fixed", "grid"),
    [
        ("", {"network": "lenet", "epochs": 5, "lr": 0.1}, ["network.norm", "batch_size", "optimizer", "seed"]),
        ("fixed: {epochs: 1, threads: 2}", {"epochs": 1, "threads": 2, "lr": 0.1}, ["network.norm", "batch_size"]),
        ("fixed: {seed: 7, batch_size: 10}", {"seed": 7, "batch_size": 10}, ["network.norm", "optimizer"]),
        ("fixed: {batch_size: 10, optimizer: sgd}", {"batch_size": 10, "optimizer": "sgd"}, ["network.norm", "seed"]),
        ("grid: {lr: [1, 2]}", {"epochs": 5}, ["network.norm", "batch_size", "optimizer", "seed", "lr"]),
        ("grid: {batch_size: [10]}", {"lr": 0.1}, ["network.norm", "optimizer", "seed", "batch_size"]),
        ("grid: {zip: {lr: [1, 2], seed: [0, 1]}}", {"epochs": 5}, ["network.norm", "lr", "seed"]),
        ("grids: [{network.norm: [none, batch], lr: [1]}]", {"network": "lenet", "epochs": 5}, ["network.norm", "lr"]),
    ],
)
def test_a_key_replaces_that_of_the_base(write: Write, text: str, fixed: dict[str, object], grid: list[str]) -> None:
    write("base.yaml", BASE)
    sweep = load(write("own.yaml", f"extends: base.yaml\n{text}"))
    assert sweep.name == "own"
    assert sweep.axis == "network.norm"
    assert {key: sweep.resolved["fixed"][key] for key in fixed} == fixed
    assert list(sweep.grid_keys)[: len(grid)] == grid
    assert not set(sweep.grid_keys) & set(fixed)


def test_a_key_that_the_base_has_keeps_its_place_in_the_order_of_the_runs(write: Write) -> None:
    write("base.yaml", "fixed: {network: lenet}\ngrid: {lr: [1, 2], seed: [0, 1]}")
    sweep = load(write("own.yaml", "extends: base.yaml\ngrid: {lr: [3, 4]}"))
    assert [(run.lr, run.seed) for run in sweep.runs] == [(3, 0), (3, 1), (4, 0), (4, 1)]


def test_several_levels_and_set_on_top(write: Write) -> None:
    write("first.yaml", BASE)
    write("second.yaml", "extends: first.yaml\nfixed: {epochs: 6, threads: 2}\nexclude: [{seed: 1}]")
    own = write("third.yaml", "extends: second.yaml\nfixed: {threads: 3}\ncontrast: null")
    sweep = load(own, ["fixed.lr=0.5"], device="cpu")
    run = sweep.runs[0]
    assert (run.epochs, run.threads, run.lr, run.device, sweep.axis) == (6, 3, 0.5, "cpu", None)
    assert {run.seed for run in sweep.runs} == {0, 2}


def test_a_plugin_begins_at_the_file_that_names_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    write("shared/of_a_base.py", PLUGIN)
    write("shared/base.yaml", "plugins: [of_a_base.py]\nfixed: {network: of_a_base}")
    sweep = load(write("own.yaml", "extends: shared/base.yaml"))
    assert sweep.plugins == (os.path.realpath(tmp_path / "shared/of_a_base.py"),)
    monkeypatch.chdir(tmp_path)
    assert from_mapping({"extends": "shared/base.yaml"}).runs == sweep.runs


def test_a_fault_has_its_own_file_and_line(write: Write, tmp_path: Path) -> None:
    write("base.yaml", "fixed:\n  network: lenet\n  optimizer: sdg\ngrid:\n  seed: [0, -1]")
    own = write("own.yaml", "extends: base.yaml\nfixed: {epochs: ten}\ngrid: {lr: [-1]}")
    with pytest.raises(UserError) as caught:
        load(own)
    found = [str(fault).split(": ")[:2] for fault in caught.value.faults]
    assert found == [
        [f"{tmp_path}/base.yaml:3:14", "unknown optimizer 'sdg'; did you mean 'sgd'? allowed"],
        [f"{tmp_path}/base.yaml:5:13", "seed"],
        [f"{tmp_path}/own.yaml:2:17", "epochs"],
        [f"{tmp_path}/own.yaml:3:13", "lr"],
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"own.yaml": "x: 1\nextends: gone.yaml"},
            "own.yaml:2:10: extends: {}/gone.yaml: cannot read the config: No su",
        ),
        ({"own.yaml": "extends: own.yaml"}, "own.yaml:1:10: extends: a circle: {}/own.yaml extends {}/own.yaml"),
        (
            {"own.yaml": "extends: a.yaml", "a.yaml": "\nextends: b.yaml", "b.yaml": "extends: a.yaml"},
            "b.yaml:1:10: extends: a circle: {}/own.yaml extends {}/a.yaml extends {}/b.yaml extends {}/a.yaml",
        ),
        (
            {"own.yaml": "extends: [a.yaml]"},
            "own.yaml:1:10: extends: must be a file's name, such as base.yaml, got ['a",
        ),
        ({"own.yaml": 'extends: "a\\0b"'}, "own.yaml:1:10: extends: must be a file's name"),
        ({"own.yaml": "extends: a.yaml", "a.yaml": "lr: 1\nlr: 2"}, "a.yaml:2:1: duplicate key 'lr'"),
        ({"own.yaml": "extends: a.yaml", "a.yaml": "[1]"}, "a.yaml:1:1: a config is a mapping"),
        (
            {"own.yaml": "extends: a.yaml\nfixed: 3", "a.yaml": "grid: {network: [lenet]}"},
            "own.yaml:2:8: fixed: must be",
        ),
    ],
)
def test_what_cannot_be_extended_is_one_fault(
    write: Write, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        write(name, text)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "own.yaml")
    assert str(caught.value.faults[0]).startswith(f"{tmp_path}/" + message.format(*[tmp_path] * 4))


def test_only_a_file_extends(write: Write) -> None:
    with pytest.raises(UserError, match="only a config's file can extend another one"):
        load(write("own.yaml", "fixed: {network: lenet}"), ["extends=base.yaml"])
    assert json_schema()["properties"]["extends"]["description"].startswith("A config that this one changes")


def test_the_results_folder_needs_no_base(write: Write, tmp_path: Path, bnbench: Bnbench) -> None:
    fixed = "fixed: {network: notebook_mlp, dataset: digits, train_samples: 50, epochs: 1, device: cpu}"
    base = write("base.yaml", f"contrast: {{axis: lr, baseline: 0.1}}\n{fixed}\ngrid: {{lr: [0.1, 0.2]}}")
    own = write("own.yaml", "extends: base.yaml\ngrid: {seed: [0, 1]}")
    out = tmp_path / "out"
    assert bnbench("run", own, "--out", out, "--executor", "inline", "-q").exit_code == 0
    base.unlink()
    own.unlink()
    assert "extends" not in (out / "own/config.yaml").read_text()
    for command in ("resume", "compare"):
        done = bnbench(command, out / "own")
        assert (done.exit_code, "0.2" in done.stdout) == (0, True), done.stderr


def test_null_removes_an_entry_of_the_base(write: Write) -> None:
    write(
        "base.yaml",
        "contrast: {axis: network.batch_norm, baseline: false}\nexclude: [{lr: 0.1}]\n"
        "fixed: {network: notebook_mlp, dataset: digits, train_samples: 50}\n"
        "grid: {network.batch_norm: [false, true], lr: [0.1, 0.2], zip: {seed: [0, 1], epochs: [1, 2]}}",
    )
    own = "extends: base.yaml\ncontrast: null\nexclude: null\nfixed: {network: lenet, train_samples: null}\n"
    sweep = load(write("own.yaml", own + "grid: {network.batch_norm: null, zip: null}"))
    assert [(run.network, run.network_args, run.lr, run.train_samples) for run in sweep.runs] == [
        ("lenet", {}, lr, None) for lr in (0.1, 0.2)
    ]
    assert sweep.axis is None
