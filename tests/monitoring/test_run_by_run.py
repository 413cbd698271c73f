"""Weights & Biases and Trackio: what is read back is the tables, live, after a resume, and afterwards. No network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from tests.monitoring.tracking import (
    OPTIONS,
    SMALL,
    Points,
    by_epoch,
    installed,
    scalars_of_trackio,
    scalars_of_wandb,
    table_of,
    warnings_of,
)

Bnbench = Callable[..., Result]

Write = Callable[[str, str], Path]

READERS: dict[str, Callable[[Path], Points]] = {
    "wandb": lambda folder: scalars_of_wandb(folder / "wandb"),
    "trackio": scalars_of_trackio,
}


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    installed(request.param)
    return str(request.param)


def test_every_value_of_the_tables_is_read_back_once_whatever_came_before(
    name: str, bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    """A sweep is trained, grows, and is exported: each time, the earlier points are replaced."""
    config, folder = write("t.yaml", SMALL), tmp_path / "t"
    track = (*OPTIONS, tmp_path, "--track", name)
    done = bnbench("run", config, *track)
    assert (done.exit_code, done.stderr) == (0, "")
    first = READERS[name](folder)
    assert by_epoch(first) == table_of(folder)
    for _, row in pd.read_csv(folder / "runs.csv").iterrows():
        for column in ("test_loss", "test_accuracy", "best_epoch", "parameters"):
            assert first[row.run, f"result/{column}", 2] == [row[column]]
        assert first[row.run, "bnbench.status", 2] == ["ok"]
    assert bnbench("run", config, *track, "--resume", "--set", "grid.lr=[0.03, 0.01]").exit_code == 0
    grown = READERS[name](folder)
    assert by_epoch(grown) == table_of(folder)
    assert {run for run, _, _ in grown} == {1, 2, 3, 4}
    done = bnbench("export", folder, "--format", name)
    assert done.exit_code == 0
    assert READERS[name](folder) == grown
    (warning,) = set(warnings_of(name, folder))
    assert "2 runs were added" in warning
    assert warning in done.stderr


def test_wandb_follows_no_link_out_of_the_folder(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    installed("wandb")
    assert bnbench("run", write("t.yaml", SMALL), *OPTIONS, tmp_path).exit_code == 0
    kept = tmp_path / "elsewhere/offline-run-20200101_000000-bnbench-0-0"
    kept.mkdir(parents=True)
    (tmp_path / "t/wandb").symlink_to(kept.parent)
    done = bnbench("export", tmp_path / "t", "--format", "wandb")
    assert done.exit_code == 2
    assert "link" in done.stderr
    assert kept.exists()


def test_trackio_has_one_folder(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    installed("trackio")
    assert bnbench("run", write("t.yaml", SMALL), *OPTIONS, tmp_path).exit_code == 0
    done = bnbench("export", tmp_path / "t", "--format", "trackio", "-o", tmp_path / "x")
    assert done.exit_code == 2
    assert "set TRACKIO_DIR" in done.stderr
