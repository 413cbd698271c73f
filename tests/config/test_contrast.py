"""Which runs of a sweep are pairs: one rule for the plan and for the table."""

from __future__ import annotations

import itertools
from pathlib import Path

from click.testing import CliRunner

from runner.config.contrast import pairs
from runner.config.reader import from_mapping
from runner.config.sweep import Sweep
from runner.interfaces.cli.main import main
from runner.storage.results import load

CONFIG = {
    "name": "three",
    "contrast": {"axis": "network.norm", "baseline": "batch"},
    "fixed": {"network": "notebook_mlp", "dataset": "digits", "device": "cpu", "epochs": 1, "train_samples": 100},
    "grids": [
        {"network.norm": ["batch", "layer"], "network.norm_args.eps": [0.001, 0.1], "seed": [0]},
        {"network.norm": ["none"], "seed": [0]},
    ],
}


def test_an_argument_that_a_third_arm_lacks_still_parts_two_arms_that_have_it() -> None:
    def sorted_pairs(sweep: Sweep) -> list[list[int]]:
        return [sorted(itertools.chain(*partners)) for partners in pairs(sweep)]

    # Runs: batch .001, batch .1, layer .001, layer .1, none.
    assert sorted_pairs(from_mapping(CONFIG)) == [[3, 5], [4, 5], [1], [2], [1, 2]]


def test_the_table_has_the_pairs_of_the_plan(tmp_path: Path) -> None:
    from runner.analysis.comparison import compare
    from runner.config.yaml_source import dump

    (tmp_path / "three.yaml").write_text(dump(CONFIG), encoding="utf-8")
    done = CliRunner().invoke(
        main, ["run", str(tmp_path / "three.yaml"), "--out", str(tmp_path), "--executor", "inline", "-q"]
    )
    assert done.exit_code == 0, done.stderr
    rows = [row for row in compare([load(tmp_path / "three")]).rows if row.difference]
    found = sorted((str(row.arm), {**row.cell, **row.variant}.get("network.norm_args.eps")) for row in rows)
    assert found == [("layer", 0.001), ("layer", 0.1), ("none", None)]
    assert [row.difference.pairs for row in rows if row.difference] == [1, 1, 1]
