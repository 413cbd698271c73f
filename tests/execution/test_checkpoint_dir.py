"""Checkpoints in a storage that other machines see: a folder, or an address of fsspec's."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from runner.config import reader
from runner.config.jobs import Task
from runner.errors import UserError
from runner.execution.driver import run_sweep
from runner.execution.executors.executor import Context, inline
from runner.execution.executors.registry import executor
from runner.execution.options import Options
from runner.storage import checkpoint_places, checkpoints
from runner.storage.checkpoint_files import CheckpointFiles
from runner.storage.rows import Checkpoint, EpochRow, Event, RunResult
from runner.storage.store import Store
from runner.training.options import TrainingOptions

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


class Killed(BaseException):
    """As after a SIGKILL, nothing more is written."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[Path, int], None]]:
    """Train a config's only run on a node that is far ahead of its driver.

    The node has written all checkpoints when the driver is told of the first epoch. The driver is killed after so many
    epochs.
    """
    shared, last = Path(), 0

    def ahead(tasks: Sequence[Task], context: Context) -> Iterator[Event]:
        shared.mkdir(parents=True)
        events = [
            checkpoints.written(event, shared) if isinstance(event, Checkpoint) else event
            for event in inline(tasks, context)
        ]
        for event in events:
            if isinstance(event, EpochRow) and event.epoch > last:
                raise Killed
            yield event

    def train(config: Path, epochs: int) -> None:
        nonlocal shared, last
        sweep = reader.load(config)
        shared, last = checkpoint_places.folder_at(str(sweep.checkpoint_dir), tmp_path / "cut/n"), epochs
        training = TrainingOptions(checkpoint_every=checkpoints.Every(epochs=1))
        with pytest.raises(Killed):
            run_sweep(sweep, Options(tmp_path / "cut", executor="ahead", quiet=True, training=training))

    with executor.temporary():
        executor("ahead")(ahead)
        yield train


FAR = """\
checkpoint_dir: shared
fixed: {network: notebook_mlp, dataset: digits, device: cpu, train_samples: 100, epochs: 5, evaluations_per_epoch: 2,
  probes: [gradients]}
"""
TABLES = ("metrics.csv", "curves.csv", "probes.csv", "runs.csv")


@pytest.mark.parametrize("told", [0, 1, 3])
def test_checkpoints_are_continued_only_where_their_rows_are_there(
    bnbench: Bnbench, write: Write, tmp_path: Path, node: Callable[[Path, int], None], told: int
) -> None:
    config = write("n.yaml", FAR)
    assert bnbench("run", config, "--out", tmp_path / "whole", "--executor", "inline").exit_code == 0
    node(config, told)
    (folder,) = (path for path in (tmp_path / "shared").iterdir() if list(path.iterdir()))
    # Only checkpoints whose rows are there have names: the last one and the one before it.
    names = [path.name for path in sorted(folder.iterdir())]
    assert [int(name.split(".")[1]) for name in names if not name.startswith(".")] == [1, 2, 3][max(0, told - 2) : told]
    assert sum(name.startswith(".") for name in names) == 4 - told
    done = bnbench("resume", tmp_path / "cut/n", "--executor", "inline")
    assert done.exit_code == 0, done.stderr
    assert f"{int(told > 0)} go on from a checkpoint" in done.stderr
    timing = ["epoch_duration", "run_duration", "duration"]
    for name in TABLES:
        cut, whole = (
            pd.read_csv(tmp_path / each / "n" / name).drop(columns=timing, errors="ignore") for each in ("cut", "whole")
        )
        pd.testing.assert_frame_equal(cut, whole, check_exact=True)


def test_a_folder_that_only_the_nodes_see_is_an_error_and_nothing_is_lost(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    def elsewhere(tasks: Sequence[Task], context: Context) -> Iterator[Event]:
        for event in inline(tasks, context):
            yield replace(event, state=b"", written_as=".a") if isinstance(event, Checkpoint) else event

    config = write("n.yaml", FAR)
    training = TrainingOptions(checkpoint_every=checkpoints.Every(epochs=2))
    with executor.temporary():
        executor("elsewhere")(elsewhere)
        with pytest.raises(UserError, match=r"^checkpoint_dir is not shared: .*/\.a, which is not here"):
            run_sweep(reader.load(config), Options(tmp_path, executor="elsewhere", quiet=True, training=training))
    assert list(pd.read_csv(tmp_path / "n/metrics.csv")["epoch"]) == [1, 2]
    assert bnbench("resume", tmp_path / "n", "--executor", "inline").exit_code == 0
    assert list(pd.read_csv(tmp_path / "n/metrics.csv")["epoch"]) == [1, 2, 3, 4, 5]


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


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage in memory that remembers its listings, as s3fs and gcsfs do."""
    storage = importlib.import_module("fsspec.implementations.memory").MemoryFileSystem
    # folder → its files when it was listed
    listed: dict[str, set[str]] = {}
    plain_find, plain_info, plain_copy = storage.find, storage.info, storage.cp_file

    def find(self: Any, path: str, **options: Any) -> Any:
        found = plain_find(self, path, **options)
        listed[self._strip_protocol(path)] = set(found)
        return found

    def info(self: Any, path: str, **_: Any) -> Any:
        file = self._strip_protocol(path)
        if file not in listed.get(self._parent(file), {file}):
            raise FileNotFoundError(path)
        return plain_info(self, path)

    def copy(self: Any, path: str, to: str, **options: Any) -> None:
        info(self, path)
        plain_copy(self, path, to, **options)

    monkeypatch.setattr(storage, "cp_file", copy)
    monkeypatch.setattr(storage, "find", find)
    monkeypatch.setattr(storage, "info", info)
    monkeypatch.setattr(storage, "invalidate_cache", lambda *_: listed.clear())


@needs_upath
@pytest.mark.usefixtures("remembering")
def test_files_that_nodes_write_to_an_address_are_kept(tmp_path: Path) -> None:
    folder = checkpoint_places.folder_at("memory://nodes", tmp_path / "s")
    kept = CheckpointFiles(folder)
    kept.make_folder()
    for epoch in (1, 2, 3):
        checkpoint = Checkpoint(("a",), epoch, str(epoch).encode())
        told = checkpoints.written(checkpoint, folder)
        checkpoints.written(checkpoint, folder)  # an attempt that was given up writes later
        kept.keep(told)
        with pytest.raises(UserError, match=r"^checkpoint_dir is not shared: .*, which is not here$"):
            kept.keep(told)
    assert [each.epoch for each in checkpoints.find(folder)[0]] == [3, 2]
    kept.remove()
    assert not folder.exists()


def test_two_results_folders_share_a_storage(tmp_path: Path) -> None:
    places = {checkpoint_places.folder_at(str(tmp_path / "shared"), tmp_path / name / "s") for name in ("one", "two")}
    assert len(places) == 2


def test_an_address_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UserError, match=r"checkpoint_dir s3://b needs upath: pip install 'bnbench\[ray\]'"):
        checkpoint_places.folder_at("s3://b", tmp_path)
