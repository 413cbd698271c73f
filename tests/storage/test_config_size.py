"""A config that is written can be read: helpers stay helpers, and the size has one limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from runner.config.reader import load
from runner.config.yaml_source import MAX_BYTES, dump, read
from runner.errors import UserError
from runner.execution.existing import config_text
from runner.storage.folder import read_config

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]
FIXED = "fixed: {network: batch_norm, dataset: digits, epochs: 1, device: cpu}\n"


def test_a_grid_of_12000_seeds_is_written_as_it_is(write: Write, tmp_path: Path) -> None:
    sweep = load(write("many.yaml", FIXED + "grid: {seed: {range: 12000}}\n"))
    text = config_text(sweep, tmp_path)
    assert "seed: {range: 12000}" in text
    path = write("config.yaml", text)
    assert [run.run_id for run in load(path).runs] == [run.run_id for run in sweep.runs]
    assert read_config(path)["grid"]["seed"] == list(range(12_000))


def test_a_results_folder_of_many_runs_can_be_read(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    grid = "grid: {seed: {range: [3, 5]}, zip: {lr: {logspace: [0.01, 1, 2]}, batch_size: [250, 500]}}\n"
    config = write("some.yaml", FIXED + grid)
    options = ("--out", tmp_path, "--executor", "inline", "-q")
    assert bnbench("run", config, *options).exit_code == 0
    folder = tmp_path / "some"
    assert "range: [3, 5]" in (folder / "config.yaml").read_text()
    assert "already holds this sweep" in bnbench("run", config, *options).stderr
    older = dump(read_config(folder / "config.yaml"))
    assert "range" not in older
    (folder / "config.yaml").write_text(older)
    assert "already holds this sweep" in bnbench("run", config, *options).stderr
    for command in (("compare", folder), ("watch", folder, "--once"), ("resume", folder, "--executor", "inline")):
        done = bnbench(*command)
        assert done.exit_code == 0, done.stderr
    assert "4 of 4 runs are there already" in done.stderr


def test_a_config_that_could_not_be_read_again_is_refused_before_training(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    seeds = ",".join(map(str, range(100_000, 109_200)))
    text = f"{FIXED}grid: {{seed: [{seeds}]}}\n"
    assert len(text) <= MAX_BYTES
    done = bnbench("run", write("big.yaml", text), "--out", tmp_path / "out", "--executor", "inline", "-q")
    assert done.exit_code == 2
    assert done.stderr == (
        f"{tmp_path / 'out/big/config.yaml'}, the config with every default written out: larger than 64 KiB\n"
    )
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\r", "\n", "\udcff", "\ufeff", "\x07", "e\u0301", "\U0001f600"])
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    values = {"name": "x", "fixed": {"network.tag": text, "other": [text, f"long {text} " * 30], text: 1}}
    assert read(dump(values), "f").values == values


def test_helpers_of_a_strangers_config_fill_no_memory(write: Write) -> None:
    keys = ", ".join(f"a{index}: {{range: 200000}}" for index in range(2000))
    path = write("config.yaml", f"name: x\nfixed: {{}}\ngrid: {{{keys}}}\n")
    with pytest.raises(UserError, match="runs; at most 200,000"):
        read_config(path)
