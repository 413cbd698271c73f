"""A folder that an older bnbench wrote can be read, watched, exported, compared with a new one, and resumed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import Result

import runner
from runner.config.run_spec import LATER
from runner.monitoring.sweep_reader import Watched
from runner.monitoring.trackers.replay import events, tracked
from runner.storage.results import load

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

CONFIG = """\
name: old
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 250, epochs: 1, device: cpu}
grid: {network: [no_batch_norm, batch_norm], seed: {range: 2}}
"""

TIMING = ["epoch_duration", "run_duration"]


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def content(folder: Path) -> dict[str, str]:
    """The tables without the timing columns, and the config."""
    metrics = str(read(folder / "metrics.csv").drop(columns=TIMING).to_csv())
    return {"metrics": metrics, **{name: (folder / name).read_text() for name in ("runs.csv", "config.yaml")}}


def make_older(folder: Path, *columns: str) -> None:
    """Take away these columns, and what versions before a later run parameter did not write."""
    for name in ("runs.csv", "metrics.csv"):
        table = read(folder / name)
        kept = [column for column in table if column not in (*columns, *LATER)]
        assert len(kept) < len(table.columns)
        table[kept].to_csv(folder / name, index=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name in LATER:
        del config["fixed"][name]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.fixture
def train(bnbench: Bnbench, write: Write, tmp_path: Path) -> Callable[..., Result]:
    def to(out: str, *options: object) -> Result:
        path = write("old.yaml", CONFIG)
        return bnbench("run", path, "--out", tmp_path / out, "--executor", "inline", "-q", *options)

    return to


Train = Callable[..., Result]


@pytest.mark.parametrize("missing", [(), ("trained_as", "code_hash", "code_digests")])
def test_an_older_folder_is_finished_to_the_tables_of_a_new_one(
    bnbench: Bnbench, train: Train, tmp_path: Path, missing: tuple[str, ...]
) -> None:
    assert train("new").exit_code == train("part").exit_code == 0
    folder = tmp_path / "part/old"
    for name in ("runs.csv", "metrics.csv"):
        table = read(folder / name)
        table[table["run"] != "4"].to_csv(folder / name, index=False)
    make_older(folder, *missing)
    resumed = bnbench("resume", folder, "--executor", "inline", "-q")
    assert resumed.exit_code == 0, resumed.stderr
    expected, got = content(tmp_path / "new/old"), content(folder)
    if "trained_as" in missing:
        # How the older runs were trained is not known, nor by which code.
        runs = read(folder / "runs.csv")
        known = {}
        for name in missing:
            *unknown, known[name] = runs[name]
            assert unknown == ["", "", ""]
        got["runs.csv"] = runs.assign(**known).to_csv(index=False)
        note = " ".join(resumed.stdout.split())
        assert "1 of 2 runs of batch_norm used code that may be another: an older bnbench trained the others." in note
    assert got == expected


@pytest.mark.parametrize(
    ("name", "values", "cells"),
    [
        ("deterministic", "[true, false]", ["true", "false"]),
        ("augment", "[[], [flip, crop]]", ["[]", '["flip", "crop"]']),
    ],
)
def test_an_older_folder_can_get_runs_that_differ_in_the_new_parameter(
    train: Train, tmp_path: Path, name: str, values: str, cells: list[str]
) -> None:
    assert train("old").exit_code == 0
    make_older(tmp_path / "old/old")
    grown = ("--set", f"grid.{name}={values}", "--set", "grid.seed=[0, 1]")
    assert train("old", "--resume", *grown).exit_code == 0
    assert train("new", *grown).exit_code == 0
    assert content(tmp_path / "old/old") == content(tmp_path / "new/old")
    assert list(read(tmp_path / "old/old/runs.csv")[name]) == cells * 4


def test_an_older_folder_holds_the_same_sweep(train: Train, tmp_path: Path) -> None:
    assert train("o").exit_code == 0
    make_older(tmp_path / "o/old")
    assert "already holds this sweep" in train("o").stderr
    assert "already holds another config" in train("o", "--set", "fixed.deterministic=false").stderr


@pytest.mark.usefixtures("undrawn")
def test_an_older_folder_is_read_like_a_new_one(bnbench: Bnbench, train: Train, tmp_path: Path) -> None:
    assert train("a").exit_code == 0
    assert train("b", "--set", "grid.seed=[2, 3]").exit_code == 0
    folder, other = tmp_path / "a/old", tmp_path / "b/old"
    new = load(folder)
    compared = bnbench("compare", folder, "--group-by", "deterministic", "--format", "csv").stdout
    make_older(folder, "trained_as", "code_hash")
    old = load(folder)
    # The columns may stand in another order.
    old_runs, new_runs = (results.runs.drop(columns=["trained_as", "code_hash"]) for results in (old, new))
    pd.testing.assert_frame_equal(old_runs, new_runs, check_like=True)
    pd.testing.assert_frame_equal(old.metrics, new.metrics, check_like=True)
    assert sorted(old.parameters) == sorted(new.parameters)
    assert bnbench("compare", folder, "--group-by", "deterministic", "--format", "csv").stdout == compared
    pooled = bnbench("compare", folder, other, "--group-by", "deterministic", "--format", "csv")
    both = pd.read_csv(io.StringIO(pooled.stdout))
    assert list(both["n"]) == [4, 4]  # the older runs have no cell of their own
    assert str(runner.load(folder)).splitlines()
    watched = Watched(folder)
    watched.refresh()
    assert [run.status for run in watched.runs.values()] == ["ok"] * 4
    watched.close()
    assert bnbench("report", folder).exit_code == 0
    first = next(iter(tracked(old).runs.values()))
    assert first.parameters["network"] == "no_batch_norm"
    assert len(list(events(folder))) == 8


def test_a_table_that_lacks_another_column_is_still_another_sweep(train: Train, tmp_path: Path) -> None:
    assert train("o").exit_code == 0
    path = tmp_path / "o/old/metrics.csv"
    read(path).drop(columns="shuffle").to_csv(path, index=False)
    refused = train("o", "--resume")
    assert (refused.exit_code, "other columns: shuffle" in refused.stderr) == (2, True)
