"""Checkpoints in a storage that other machines see: a folder, or an address of fsspec's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from runner.errors import UserError
from runner.storage import checkpoint_places, checkpoints
from runner.storage.rows import Checkpoint, EpochRow, RunResult
from runner.storage.store import Store

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]
RUNS = {"a": {"lr": 0.1}, "b": {"lr": 0.2}}
needs_upath = pytest.mark.skipif(importlib.util.find_spec("upath") is None, reason="needs the extra bnbench[ray]")


def test_an_interrupted_sweep_goes_on_from_there(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    plugin = (
        "from torch import nn\nfrom runner import network\nfrom pathlib import Path\n\n\n"
        "class Once(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n        self.steps = 0\n\n"
        "    def forward(self, x):\n        self.steps += self.training\n"
        f"        if self.steps > 12 and not Path({str(tmp_path / 'struck')!r}).exists():\n"
        f"            Path({str(tmp_path / 'struck')!r}).touch()\n            raise KeyboardInterrupt\n"
        "        return self.inner(x)\n\n\n@network('once')\ndef once():\n    return Once()\n"
    )
    write("once.py", plugin)
    config = write(
        "o.yaml",
        "plugins: [once.py]\ncheckpoint_dir: shared\n"
        "fixed: {network: once, dataset: digits, device: cpu, batch_size: 250, epochs: 4}\n",
    )
    options = ("--executor", "inline", "--checkpoint-every", 1)
    assert (
        bnbench("run", config, "--out", tmp_path / "cut", *options).exit_code == 130
    )  # in the third epoch of five steps
    (folder,) = (tmp_path / "shared").iterdir()
    assert folder.name.startswith("o-")
    assert sorted(path.name[-11:] for path in folder.iterdir()) == ["000001.ckpt", "000002.ckpt"]
    assert not (tmp_path / "cut/o/checkpoints").exists()
    done = bnbench("resume", tmp_path / "cut/o", *options)
    assert done.exit_code == 0, done.stderr
    assert "1 go on from a checkpoint" in done.stderr
    assert not folder.exists()
    assert bnbench("run", config, "--out", tmp_path / "whole", *options).exit_code == 0
    cut, whole = (pd.read_csv(tmp_path / name / "o/metrics.csv") for name in ("cut", "whole"))
    timing = ["epoch_duration", "run_duration"]
    pd.testing.assert_frame_equal(cut.drop(columns=timing), whole.drop(columns=timing), check_exact=True)


@needs_upath
def test_an_address_of_fsspec_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "loads", lambda found: bool(found))
    folder = checkpoint_places.folder_at("memory://shared", tmp_path / "s")
    store = Store(tmp_path / "s", ("lr",), RUNS, folder)
    store.start({}, "name: s\n")
    rows = [EpochRow("a", epoch, epoch, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1) for epoch in (1, 2, 3)]
    for row in rows:
        store.on_epoch(row)
        store.on_checkpoint(Checkpoint(("a",), row.epoch, b"state"))
    assert sorted(path.name[-11:] for path in folder.iterdir()) == ["000002.ckpt", "000003.ckpt"]
    again = Store(tmp_path / "s", ("lr",), RUNS, folder)
    finished, going_on = again.resume("name: s\n")
    assert (finished, going_on["a"].name[-11:]) == (set(), "000003.ckpt")
    again.on_result(RunResult("a", "ok", tuple(rows)))
    again.finish()
    assert not folder.exists()


def test_two_results_folders_share_a_storage(tmp_path: Path) -> None:
    places = {checkpoint_places.folder_at(str(tmp_path / "shared"), tmp_path / name / "s") for name in ("one", "two")}
    assert len(places) == 2


def test_an_address_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UserError, match=r"checkpoint_dir s3://b needs upath: pip install 'bnbench\[ray\]'"):
        checkpoint_places.folder_at("s3://b", tmp_path)
