"""In a notebook: a config as a dictionary, tables as DataFrames, and the committed example, executed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from click.testing import Result
from nbclient import NotebookClient
from torch import nn

import runner
from runner.config.run_spec import LATER
from runner.errors import UserError
from runner.storage import results

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "results/reference"
CONFIG: dict[str, Any] = {
    "name": "small",
    "contrast": {"axis": "network", "baseline": "no_batch_norm"},
    "fixed": {"dataset": "digits", "device": "cpu", "train_samples": 200, "batch_size": 50, "epochs": 1},
    "grid": {"network": ["no_batch_norm", "batch_norm"], "seed": [0, 1]},
}

Bnbench = Callable[..., Result]


def test_what_is_loaded_is_what_compare_prints(bnbench: Bnbench) -> None:
    sweep = runner.load(REFERENCE / "tutorial")
    assert str(sweep.compare("train_accuracy", 1)) == bnbench(
        "compare", REFERENCE / "tutorial", "--metric", "train_accuracy", "--at", "epoch=1"
    ).stdout.removesuffix("\n")
    frame = sweep.compare().frame
    assert sweep.metrics["deterministic"].all()  # the table is older than this parameter
    measured = results.load(REFERENCE / "tutorial", whole=False).metrics
    pd.testing.assert_frame_equal(sweep.metrics[[*measured]], measured.astype({"run_id": str}))
    written = sweep.metrics.drop(columns=list(LATER))
    pd.testing.assert_frame_equal(written, pd.read_csv(REFERENCE / "tutorial/metrics.csv"), check_dtype=False)
    assert frame.loc[1, "difference"] == pytest.approx(
        sweep.runs.groupby("network")["valid_accuracy"].mean().diff().abs().iloc[-1]
    )
    assert "<table" in sweep._repr_html_()
    assert "batch_norm does better than no_batch_norm" in sweep._repr_html_()
    assert "42 ok" in repr(sweep)
    assert sweep.plot_curves()._repr_svg_().startswith("<?xml")
    assert "reached" in sweep.compare(target=0.85)._repr_html_()
    assert "Runs that have reached 88%" in repr(sweep.plot("target"))


@pytest.mark.usefixtures("with_server")
def test_a_dictionary_is_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = runner.run(CONFIG, out=tmp_path, workers=1, quiet=True)
    assert list(first.runs["status"]) == ["ok"] * 4
    table = (tmp_path / "small/metrics.csv").read_bytes()
    capsys.readouterr()
    runner.run(CONFIG, out=tmp_path, workers=1)
    assert (tmp_path / "small/metrics.csv").read_bytes() == table
    assert "4 of 4 runs are there already" in capsys.readouterr().err
    with pytest.raises(UserError, match="2 finished runs that this config does not have"):
        runner.run({**CONFIG, "grid": {**CONFIG["grid"], "seed": [0]}}, out=tmp_path, quiet=True)
    assert first.report().name == "report.html"
    assert first.plot("pairs").save(tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_of_a_cell_trains_here_and_never_on_top_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(*, width: int = 8) -> nn.Module:
        """As it would be written in a cell."""
        return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    mine.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "mine", mine, raising=False)
    runner.network("mine")(mine)
    config = {"name": "own", "fixed": {**CONFIG["fixed"], "network": "mine"}, "grid": {"seed": [0, 1]}}
    assert list(runner.run(config, out=tmp_path, quiet=True).runs["status"]) == ["ok", "ok"]
    with pytest.raises(UserError, match=r"mine may have changed since; run\(\.\.\., fresh=True\) starts over"):
        runner.run(config, out=tmp_path, quiet=True)
    assert list(runner.run(config, out=tmp_path, fresh=True, quiet=True).runs["status"]) == ["ok", "ok"]


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import runner\nprint('once')\nprint(runner.run({CONFIG!r}, workers=1, quiet=True))\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("once") == 1
    assert "batch_norm" in done.stdout
    assert done.stderr == ""


def test_a_wrong_dictionary_is_a_wrong_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'adam'"):
        runner.run({"fixed": {"network": "batch_norm", "optimizer": "adm"}}, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*over TCP without encryption")
def test_the_example_runs_and_is_committed_with_what_it_shows(tmp_path: Path) -> None:
    path = ROOT / "docs/example.ipynb"
    committed, anew = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(anew, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for old, new in zip(committed.cells, anew.cells, strict=True):
        if old.cell_type == "code":
            kinds = [[sorted(output.get("data", {})) for output in cell.outputs] for cell in (old, new)]
            assert kinds[0] == kinds[1], old.source  # another processor may change the last digits
    assert "<table" in committed.cells[1].outputs[0]["data"]["text/html"]
    assert (tmp_path / "results/notebook/report.html").exists()
