"""SECURITY.md says what is trusted: what a stranger's checkpoint, weights, names and config can do, and what not."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from runner.errors import UserError, printable
from runner.storage import checkpoints
from runner.storage.rows import Checkpoint
from runner.training.learners import choice_cache
from tests.storage.conftest import contents

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]
INLINE = ("--executor", "inline", "-q")


class Bomb:
    """What unpickling it runs leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def packed(trace: Path) -> bytes:
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "bomb": Bomb(trace)}, content)
    return content.getvalue()


def test_no_code_in_a_checkpoint_or_in_weights_is_run(bnbench: Bnbench, unfinished: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (unfinished / "checkpoints").mkdir()
    name = checkpoints.file_name(["a"], 1)
    bomb = checkpoints.to_bytes(Checkpoint(("a",), 1, packed(trace)))
    (unfinished / "checkpoints" / name).write_bytes(bomb)
    for path in (unfinished / "weights").iterdir():
        path.write_bytes(packed(trace))
    done = bnbench("inspect", unfinished, "1")
    assert done.exit_code == 2
    assert "damaged, or not the weights of this network" in done.stderr
    assert bnbench("resume", unfinished, *INLINE).exit_code == 0
    assert f"{name}: damaged checkpoint, not used" in (unfinished / "run.log").read_text()
    assert not trace.exists()


def leave_a_trace(plugin: Path, trace: Path) -> None:
    plugin.write_text(plugin.read_text() + f"\nfrom pathlib import Path\nPath({str(trace)!r}).mkdir()\n")


@pytest.mark.usefixtures("undrawn")
def test_what_only_reads_a_results_folder_runs_no_plugin(bnbench: Bnbench, folder: Path, tmp_path: Path) -> None:
    leave_a_trace(tmp_path / "mine.py", tmp_path / "trace")
    reading = [("compare",), ("report",), ("plot", "accuracy"), ("export", "--format", "tutorial"), ("watch", "--once")]
    for command, *options in reading:
        done = bnbench(command, folder, *options)
        assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("command", [("inspect", "1"), ("resume", *INLINE)])
def test_inspect_and_resume_run_the_plugins_of_a_results_folder(
    bnbench: Bnbench, folder: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    leave_a_trace(tmp_path / "mine.py", tmp_path / "trace")
    bnbench(command[0], folder, *command[1:])
    assert (tmp_path / "trace").exists()


LOUD = """\
from torch import nn
from runner import network


@network("loud")
def loud():
    raise ValueError("\\x1b]0;title\\x07 \\udcff \\x9b31m \\u202e over\\r")
"""


def test_control_characters_reach_no_log_table_or_terminal(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("loud.py", LOUD)
    config = write("loud.yaml", "plugins: [loud.py]\nfixed: {network: loud, dataset: digits, epochs: 1, device: cpu}\n")
    done = bnbench("run", config, "--out", tmp_path, "--executor", "inline", "-v")
    assert done.exit_code == 1
    again = bnbench("resume", tmp_path / "loud", *INLINE)
    watched = bnbench("watch", tmp_path / "loud", "--once")
    written = [(tmp_path / "loud" / name).read_text() for name in ("run.log", "runs.csv")]
    for text in (*written, done.stderr, done.stdout, again.stderr, watched.stdout):
        assert printable(text) == text
    assert "ValueError: \\x1b]0;title\\x07 \\udcff \\x9b31m \\u202e over" in written[0]


def test_a_strangers_texts_are_shown_as_text(bnbench: Bnbench, folder: Path) -> None:
    """A table and stacks.json can hold any character. A config cannot."""
    runs = folder / "runs.csv"
    header, first, *rest = runs.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    cells |= {"status": "failed", "error": "\x1b[2Jgone"}
    runs.write_text("\n".join([header, ",".join(cells.values()), *rest]) + "\n")
    stacks = folder / "stacks.json"
    shortfall = (
        '{"run_ids": ["a"], "planned": "one stack", "instead": "alone", "reason": "\\u001b[2Jgone", "parts": [],'
        ' "form": null, "traceback": ""}'
    )
    stacks.write_text(stacks.read_text().replace('"shortfalls": []', f'"shortfalls": [{shortfall}]'))
    for command in (("watch", folder, "--once"), ("compare", folder)):
        done = bnbench(*command)
        assert done.exit_code == 0, done.stderr
        assert printable(done.output) == done.output
        assert ("\\x1b[2J" in done.output) == (command[0] == "watch")


BAD = {
    "../x": "leads out of the config's folder",
    "below/../../x": "leads out of the config's folder",
    "link": "leads out of the config's folder",
    "github://someone:thing@main/x": "unknown scheme",
    "ftp://127.0.0.1/x": "unknown scheme",
    "simplecache::s3://bucket/x": "unknown scheme",
    "s3://bucket/x::ftp://127.0.0.1/y": "unknown scheme",
    "file:///tmp/x": "unknown scheme",
}


@pytest.mark.parametrize("place", BAD)
def test_a_checkpoint_dir_that_is_not_allowed_is_refused(
    bnbench: Bnbench, write: Write, tmp_path: Path, place: str
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/link").symlink_to(tmp_path)
    text = f'checkpoint_dir: "{place}"\nfixed: {{network: batch_norm, dataset: digits, epochs: 1, device: cpu}}\n'
    config = write("configs/c.yaml", text)
    before = contents(tmp_path)
    done = bnbench("run", config, "--out", tmp_path / "out", *INLINE)
    assert done.exit_code == 2
    assert f"{config}:1:17: checkpoint_dir: '" in done.stderr
    assert BAD[place] in done.stderr
    assert "allowed: a folder below the config's folder, an absolute path, or a URL that begins with " in done.stderr
    assert contents(tmp_path) == before


def test_a_storage_whose_package_is_missing_is_one_line(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("upath")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    text = "checkpoint_dir: s3://bucket/x\nfixed: {network: batch_norm, dataset: digits, epochs: 1, device: cpu}\n"
    done = bnbench("run", write("s.yaml", text), "--out", tmp_path / "out", *INLINE)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("checkpoint_dir s3://bucket/x: ")
    assert "s3fs" in line
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_storage_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upath = pytest.importorskip("upath")
    from runner.storage.checkpoint_places import folder_at, place_of

    place = place_of(folder_at("memory://somewhere", tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("access denied")

    monkeypatch.setattr(upath.UPath, "write_bytes", refuse)
    with pytest.raises(OSError, match="RuntimeError: access denied") as caught:
        place.write("x", b"content")
    assert str(caught.value.filename).startswith("memory://somewhere/")


def test_a_user_error_shows_no_control_character() -> None:
    assert str(UserError("no\x1b[2J file\nnext line")) == "no\\x1b[2J file\nnext line"


def test_claims_show_runs_no_plugin(bnbench: Bnbench, tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "results/reference/claims/affine", tmp_path / "affine")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w')\n")
    with (tmp_path / "affine/config.yaml").open("a", encoding="utf-8") as file:
        file.write("plugins: [../evil.py]\n")
    shown = bnbench("claims", "show", tmp_path, "--budget", "small")
    assert (shown.exit_code, "affine" in shown.stdout) == (0, True), shown.stderr
    assert not (tmp_path / "PWNED").exists()


class Opens:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_the_cache_of_timings_is_read_as_json_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNBENCH_CACHE_DIR", str(tmp_path))
    for content in (pickle.dumps(Opens(tmp_path / "PWNED")), b"{" * 100_000, b'{"a": {"size": "x"}}', b"\xff\x00"):
        choice_cache.path().write_bytes(content)
        assert choice_cache.read() == {}
    assert not (tmp_path / "PWNED").exists()
