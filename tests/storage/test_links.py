"""A results folder from somebody else: nothing outside it is read, written or deleted."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from runner.errors import UserError
from runner.storage import checkpoints, files
from runner.storage.checkpoint_files import CheckpointFiles
from runner.storage.folder import sole_writer
from runner.storage.rows import Checkpoint
from tests.storage.conftest import contents

Bnbench = Callable[..., Result]
INLINE = ("--executor", "inline", "-q")
EVIL = "x\ntouch PWNED #.ckpt"
NAMES = (
    *("metrics.csv", "runs.csv", "curves.csv", "probes.csv", "config.yaml", "environment.json", "stacks.json"),
    *("contrast.json", "run.log", ".lock", "weights", "predictions", "checkpoints", "plugins"),
)


def test_a_log_that_is_a_link_is_not_written(bnbench: Bnbench, unfinished: Path, outside: Path) -> None:
    (unfinished / "checkpoints").mkdir()
    (unfinished / "checkpoints" / EVIL).write_text("no checkpoint")
    (unfinished / "run.log").unlink()
    (unfinished / "run.log").symlink_to(outside / "bashrc")
    before = contents(outside)
    done = bnbench("resume", unfinished, *INLINE)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        f"{unfinished / 'run.log'}: a link, and bnbench follows no link inside a results folder"
    )
    assert contents(outside) == before


def test_a_name_that_no_checkpoint_has_is_neither_logged_nor_deleted(bnbench: Bnbench, unfinished: Path) -> None:
    strangers = [unfinished / "checkpoints" / name for name in (EVIL, "mine.ckpt", "notes.txt", "0123456789ab.1.ckpt")]
    (unfinished / "checkpoints").mkdir()
    for path in strangers:
        path.write_text("mine")
    damaged = unfinished / "checkpoints/0123456789ab.000001.ckpt"
    damaged.write_text("no checkpoint")
    assert bnbench("resume", unfinished, *INLINE).exit_code == 0
    log = (unfinished / "run.log").read_text()
    assert "0123456789ab.000001.ckpt: damaged checkpoint, not used" in log
    assert "PWNED" not in log
    assert sorted((unfinished / "checkpoints").iterdir()) == sorted(strangers)


@pytest.mark.parametrize("command", ["resume", "fresh"])
def test_checkpoints_that_lead_elsewhere_are_not_deleted(
    bnbench: Bnbench, unfinished: Path, outside: Path, command: str
) -> None:
    (outside / "0123456789ab.000001.ckpt").write_text("of another sweep")
    (unfinished / "checkpoints").symlink_to(outside)
    before = contents(outside)
    options = ("resume", unfinished) if command == "resume" else ("run", unfinished / "config.yaml", "--fresh")
    done = bnbench(*options, *(("--out", unfinished.parent) if command == "fresh" else ()), *INLINE)
    assert done.exit_code == 2
    assert f"{unfinished / 'checkpoints'}: a link or a file, and not a folder" in done.stderr
    assert contents(outside) == before


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_reached_through_a_link(
    bnbench: Bnbench, unfinished: Path, outside: Path, tmp_path: Path, name: str
) -> None:
    """The link leads to the file itself, which lies outside now: its content is what bnbench expects."""
    path = unfinished / name
    if name == "checkpoints":
        path.mkdir()
    if not path.exists():
        path.touch()
    path.rename(outside / name)
    path.symlink_to(outside / name)
    before, inside = contents(outside), contents(unfinished)
    for options in ((), ("--once",)):
        bnbench("watch" if options else "compare", unfinished, *options)
        assert contents(outside) == before, options
    resumed = bnbench("resume", unfinished, *INLINE)
    assert resumed.exit_code == 2, name
    assert f"{path}: " in resumed.stderr
    assert contents(outside) == before
    after = contents(unfinished)
    assert all(after[each] == inside[each] for each in ("metrics.csv", "runs.csv", "probes.csv"))
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "runs.csv", "config.yaml"])
def test_a_table_or_config_that_is_a_link_is_one_line(bnbench: Bnbench, folder: Path, outside: Path, name: str) -> None:
    (folder / name).rename(outside / name)
    (folder / name).symlink_to(outside / name)
    for command in (("compare", folder), ("watch", folder, "--once"), ("resume", folder, *INLINE), ("report", folder)):
        done = bnbench(*command)
        assert done.exit_code == 2, command
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{folder / name}: ")
        assert "a link" in line


def test_the_results_folder_itself_may_be_a_link(bnbench: Bnbench, unfinished: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    linked = tmp_path / "other/small"
    linked.symlink_to(unfinished)
    assert bnbench("resume", linked, *INLINE).exit_code == 0
    for command in (("compare", linked), ("watch", linked, "--once"), ("inspect", linked, "1")):
        done = bnbench(*command)
        assert done.exit_code == 0, done.stderr


def test_tensorboard_writes_through_no_link(bnbench: Bnbench, folder: Path, outside: Path) -> None:
    pytest.importorskip("tensorboard")
    (outside / "run-001").mkdir()
    (outside / "run-001/events.out.tfevents.1.host").write_text("of another sweep")
    before = contents(outside)
    (folder / "tensorboard").symlink_to(outside)
    assert bnbench("export", folder, "--format", "tensorboard").exit_code == 2
    (folder / "tensorboard").unlink()
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard/run-001").symlink_to(outside / "run-001")
    assert bnbench("export", folder, "--format", "tensorboard").exit_code == 2
    assert contents(outside) == before
    (folder / "tensorboard/run-001").unlink()
    assert bnbench("export", folder, "--format", "tensorboard").exit_code == 0


def test_a_whole_file_replaces_a_link_and_leaves_its_target(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "x").symlink_to(outside / "bashrc")
    (tmp_path / ".x.partial").symlink_to(outside / "thesis.tex")
    before = contents(outside)
    files.write_atomically(tmp_path / "x", "new")
    assert contents(outside) == before
    assert (tmp_path / "x").read_text() == "new"
    assert not (tmp_path / "x").is_symlink()


def test_a_lock_that_is_a_link_locks_nothing(tmp_path: Path, outside: Path) -> None:
    (tmp_path / ".lock").symlink_to(outside / "bashrc")
    before = contents(outside)
    with pytest.raises(OSError, match="follows no link"), sole_writer(tmp_path):
        pass
    assert contents(outside) == before


def test_a_lock_file_that_was_deleted_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that wrote nothing deletes its lock file. Another one may have opened the file just before."""
    real = fcntl.flock
    locked: list[int] = []

    def deleted_meanwhile(descriptor: int, how: int) -> None:
        if not locked:
            (tmp_path / "new/.lock").unlink()
        locked.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", deleted_meanwhile)
    with sole_writer(tmp_path / "new"):
        assert (tmp_path / "new/.lock").exists()
        with pytest.raises(UserError, match="another process"), sole_writer(tmp_path / "new"):
            pass


def test_checkpoints_of_a_folder_are_written_read_and_deleted(tmp_path: Path) -> None:
    store = CheckpointFiles(tmp_path / "deep/checkpoints")
    for epoch in (1, 2, 3):
        store.keep(Checkpoint(("a",), epoch, b"state", {"curves.csv": {"a": 2 * epoch}}))
    found, damaged = checkpoints.find(store.folder)
    assert [(each.epoch, each.readings) for each in found] == [
        (3, {"curves.csv": {"a": 6}}),
        (2, {"curves.csv": {"a": 4}}),
    ]
    assert damaged == []
    partial = store.folder / f".{checkpoints.file_name(['a'], 4)}.partial"
    partial.write_bytes(b"cut off")
    store.keep_only(found[:1])
    assert [path.name for path in store.folder.iterdir()] == [found[0].path.name]
    store.runs_ended({"a"})
    store.remove()
    assert not store.folder.exists()
