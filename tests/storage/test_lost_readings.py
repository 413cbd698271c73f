"""Tables that lost rows: a resume trains the runs again, and no figure shows half of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from runner.errors import UserError
from runner.storage import results
from runner.storage.rows import Checkpoint
from runner.storage.store import Store
from tests.storage.conftest import tables

Bnbench = Callable[..., Result]
INLINE = ("--executor", "inline", "-q")


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_last_row(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize("damage", [halve, cut_last_row, Path.unlink])
@pytest.mark.parametrize("name", ["curves.csv", "probes.csv"])
def test_a_table_that_lost_rows_is_made_whole(
    bnbench: Bnbench, folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    whole = tables(folder)
    damage(folder / name)
    done = bnbench("resume", folder, "--executor", "inline")
    assert done.exit_code == 0, done.stderr
    there = {cut_last_row: "3 of 4 runs", Path.unlink: "0 of 4 runs"}.get(damage, " of 4 runs")
    assert f"{there} are there already" in done.stderr
    assert f"{name} and runs.csv disagree on " in (folder / "run.log").read_text()
    assert tables(folder) == whole


def test_rows_are_counted(folder: Path) -> None:
    runs = pd.read_csv(folder / "runs.csv").set_index("run")
    for name, column in (("curves.csv", "curve_rows"), ("probes.csv", "probe_rows"), ("metrics.csv", "epochs_trained")):
        counted = pd.read_csv(folder / name).groupby("run").size().reindex(runs.index, fill_value=0)
        pd.testing.assert_series_equal(runs[column], counted, check_names=False)
    assert list(runs["curve_rows"]) == [4] * 4
    assert (runs["probe_rows"] > 4).all()


@pytest.mark.parametrize("name", ["curves.csv", "probes.csv"])
def test_readings_of_a_run_that_lost_some_are_refused(bnbench: Bnbench, folder: Path, name: str) -> None:
    loaded = results.load(folder)
    assert len(results.readings(loaded, name))
    cut_last_row(folder / name)
    with pytest.raises(UserError, match=rf"{name} and runs.csv disagree on run 4; use bnbench resume"):
        results.readings(loaded, name)
    kind = "gradients" if name == "probes.csv" else None
    if kind:
        done = bnbench("plot", folder, kind)
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)


def test_a_table_of_an_older_bnbench_has_no_counts(bnbench: Bnbench, folder: Path) -> None:
    runs = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    runs.drop(columns=["curve_rows", "probe_rows"]).to_csv(folder / "runs.csv", index=False)
    assert len(results.readings(results.load(folder), "curves.csv"))
    done = bnbench("resume", folder, "--executor", "inline")
    assert "4 of 4 runs are there already" in done.stderr
    again = pd.read_csv(folder / "runs.csv")
    assert again["curve_rows"].isna().all()


class Killed(BaseException):
    """As after a SIGKILL, nothing more is written."""


@pytest.mark.parametrize("name", ["curves.csv", "probes.csv"])
def test_a_checkpoint_whose_readings_are_lost_is_not_continued(
    bnbench: Bnbench, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    whole, real = tables(folder), Store.on_checkpoint

    def kill(store: Store, checkpoint: Checkpoint) -> None:
        real(store, checkpoint)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "on_checkpoint", kill)
        out = ("--out", folder.parent, "--checkpoint-every", "1")
        with pytest.raises(Killed):
            bnbench("run", folder / "config.yaml", "--fresh", *out, *INLINE)
    spoilt = tmp_path / "spoilt/small"
    shutil.copytree(folder, spoilt)
    cut_last_row(spoilt / name)
    for each, going_on in ((folder, 1), (spoilt, 0)):
        done = bnbench("resume", each, "--executor", "inline")
        assert done.exit_code == 0
        assert f"{going_on} go on from a checkpoint" in done.stderr
        assert tables(each) == whole
