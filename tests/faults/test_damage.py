"""Damaged checkpoints, tables, data and configs."""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.storage import checkpoints
from runner.storage.rows import Checkpoint

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]
ROOT = Path(__file__).parent.parent.parent
TIMING = ["epoch_duration", "run_duration"]
TABLES: dict[str, tuple[str, Callable[[str], str], str]] = {
    "a row is missing": ("metrics.csv", lambda text: text[: text.rstrip().rfind("\n") + 1], "disagree on run 4"),
    "a torn end": ("metrics.csv", lambda text: text[:-1], "disagree on run 4"),
    "a word for a number": ("metrics.csv", lambda text: text.replace("\n1,1,", "\n1,one,"), "epoch is 'one'"),
    "an empty epoch": ("metrics.csv", lambda text: text.replace("\n1,1,", "\n1,,"), "disagree on run 1"),
    "a cell too many": ("metrics.csv", lambda text: text.replace("\n1,1,", "\n1,1,1,"), "disagree on run 1"),
    "a value changed": ("runs.csv", lambda text: text.replace("ok,2,", "ok,1,", 1), "disagree on run 1"),
    "a word in runs": ("runs.csv", lambda text: text.replace("ok,2,", "ok,two,", 1), "epochs_trained is 'two'"),
    "not text": ("metrics.csv", lambda text: "\udcff" + text, "metrics.csv"),
    "config": ("config.yaml", lambda text: "\udcff" + text, "config.yaml"),
}


def _bend(draw: random.Random, content: bytes) -> bytes:
    """Damaged for certain: zeros over an image's background change nothing."""
    while (bent := _bent(draw, content)) == content:
        pass
    return bent


def _bent(draw: random.Random, content: bytes) -> bytes:
    """Truncated, flipped, zeroed, or of another kind."""
    kind = draw.randrange(5)
    at = draw.randrange(len(content))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :]
    if kind == 3:
        return draw.randbytes(draw.randrange(200))
    return content[at:] + content[:at] if at else content[1:]


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.faults)])
def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, count: int) -> None:
    draw = random.Random(0)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    state = checkpoints.pack({"tensors": {"w": torch.arange(20.0)}, "steps": 3})
    for epoch in (2, 4):
        whole = checkpoints.to_bytes(Checkpoint(("a", "b"), epoch, state))
        (folder / checkpoints.file_name(("a", "b"), epoch)).write_bytes(whole)
    last = folder / checkpoints.file_name(("a", "b"), 4)
    for trial in range(count):
        last.write_bytes(_bend(draw, whole))
        began = time.monotonic()
        found, damaged = checkpoints.find(folder)
        assert time.monotonic() - began < 2
        assert ([each.epoch for each in found], damaged) == ([2], [last]), trial
    print(f"{count} damaged checkpoints, none used")


def test_a_checkpoint_of_another_make_is_not_used(tmp_path: Path) -> None:
    """Its digest is right, as a stranger's could be; what it holds is not."""
    whole = {"runs": ["a"], "epoch": 2, **dict.fromkeys(checkpoints.STATE, 0)}
    states = [b"junk", checkpoints.pack({"x": 1}), checkpoints.pack({**whole, "epoch": 3}), checkpoints.pack(whole)]
    good = []
    for state in states:
        path = tmp_path / "0123456789ab.000002.ckpt"
        path.write_bytes(checkpoints.to_bytes(Checkpoint(("a",), 2, state)))
        (found,), damaged = checkpoints.find(tmp_path)
        assert not damaged
        good.append(checkpoints.loads(found))
    assert good == [False, False, False, True]
    for header in (b"[1]", b"{}", b'{"runs": ["a"], "epoch": "two"}', b"\xff"):
        rest = header + b"\n" + states[3]
        path.write_bytes(checkpoints.FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        assert checkpoints.find(tmp_path) == ([], [path])


@pytest.mark.parametrize("damage", TABLES)
def test_a_damaged_table_is_never_compared_in_silence(
    bnbench: Bnbench, write: Write, tmp_path: Path, damage: str
) -> None:
    name, change, message = TABLES[damage]
    config = write("d.yaml", "fixed: {network: notebook_mlp, dataset: digits, epochs: 2}\ngrid: {seed: {range: 4}}\n")
    bnbench("run", config, "--out", tmp_path, "--executor", "inline")
    path = tmp_path / "d" / name
    whole = path.read_bytes()
    path.write_bytes(change(whole.decode()).encode("utf-8", "surrogateescape"))
    done = bnbench("compare", tmp_path / "d")
    assert done.exit_code == 2
    assert message in done.stderr
    done = bnbench("resume", tmp_path / "d", "--executor", "inline")
    assert done.exit_code in (0, 2)  # mended, or refused with a message
    if done.exit_code == 0:
        timing = pd.read_csv(path).columns.intersection(TIMING)
        (tmp_path / "whole.csv").write_bytes(whole)
        ours, theirs = (pd.read_csv(each).drop(columns=timing) for each in (path, tmp_path / "whole.csv"))
        pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("text", [None, "", "null", "[]", "\udcff"])
def test_an_environment_that_is_lost_is_a_change(
    bnbench: Bnbench, write: Write, tmp_path: Path, text: str | None
) -> None:
    config = write("d.yaml", "fixed: {network: notebook_mlp, dataset: digits, epochs: 1}\ngrid: {seed: {range: 2}}\n")
    bnbench("run", config, "--out", tmp_path, "--executor", "inline")
    path = tmp_path / "d/environment.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = bnbench("resume", tmp_path / "d")
    assert done.exit_code == 2
    assert "environment.json: whole then, missing or damaged now" in done.stderr
    assert bnbench("resume", tmp_path / "d", "--allow-changed").exit_code == 0
    assert '"code"' in path.read_text()


@pytest.mark.data
@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.faults)])
def test_a_damaged_idx_file_is_named(bnbench: Bnbench, real_data: Path, tmp_path: Path, count: int) -> None:
    draw = random.Random(0)
    raw = tmp_path / "MNIST/raw"
    shutil.copytree(real_data / "MNIST/raw", raw)
    names = sorted(path.name for path in raw.iterdir() if not path.name.endswith(".gz"))
    for _ in range(count):
        path = raw / draw.choice(names)
        whole = path.read_bytes()
        path.write_bytes(_bend(draw, whole))
        began = time.monotonic()
        done = bnbench("datasets", "--verify", "mnist", "--data-dir", tmp_path)
        assert time.monotonic() - began < 2
        assert done.exit_code == 2
        assert path.name in done.stderr
        path.write_bytes(whole)
    print(f"{count} damaged IDX files, each named")


VALID = yaml.safe_load(
    "{name: x, contrast: {axis: network.norm, baseline: none}, fixed: {network: notebook_mlp, dataset: digits},"
    " grid: {network.norm: [none, batch], lr: {logspace: [0.001, 1, 3]}, seed: {range: 3}}, exclude: [{lr: 1.0}]}"
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["none", "cuda:9", "../x"]),
)

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def bent_configs(draw: st.DrawFn) -> str:
    """A valid config with a value replaced, a key added or a piece of its text cut; or any text or value at all."""
    config = yaml.safe_load(yaml.safe_dump(VALID))
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from([config, *(value for value in config.values() if isinstance(value, dict))]))
        keys = [str(key) for key in part] + ["grids", "plugins", "zip", "network.norm_args.eps"]
        part[draw(st.sampled_from(keys) | st.text(max_size=8))] = draw(VALUES)
    text: str = yaml.safe_dump(draw(st.one_of(st.just(config), VALUES)), allow_unicode=True)
    cut, length = draw(st.integers(0, len(text))), draw(st.integers(0, 6))
    text = (
        text[:cut]
        + draw(st.sampled_from(["", "", "&a ", "*a", "? ", "- ", "\t", "{", "]", "!!python/x ", "%"]))
        + text[cut + length :]
    )
    return draw(st.one_of(st.just(text), st.just(text), st.text(max_size=60)))


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.faults)])
def test_no_yaml_file_is_a_traceback(bnbench: Bnbench, tmp_path: Path, count: int) -> None:
    tried = []

    @settings(
        max_examples=count, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    @given(bent_configs())
    def plan(text: str) -> None:
        path = tmp_path / "bent.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        done = bnbench("plan", path)  # raises what is not an exit
        tried.append(done.exit_code)
        assert done.exit_code in (0, 2)
        assert "Traceback" not in done.stderr
        assert [each.name for each in tmp_path.iterdir()] == ["bent.yaml"]

    plan()
    assert {0, 2} <= set(tried)
    print(f"{len(tried)} YAML files: {tried.count(0)} valid, {tried.count(2)} refused with a message")
