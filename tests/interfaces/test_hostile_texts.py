"""Texts of a network, of an exception or of a command line that a file cannot store, or that a terminal would obey."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from runner.errors import Fault, Place, UserError, described, printable, unknown
from runner.interfaces.cli.main import main
from runner.storage.rows import Note, ProbeRow, RunResult, Shortfall, StackPlan

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

HOSTILE = "\udcff\x1b[2J\r\x85\u202e"
ESCAPED = r"\udcff\x1b[2J\r\x85\u202e"

PLUGIN = f"""\
from torch import nn
from runner import network


class Silent(Exception):
    def __str__(self):
        raise ValueError("no text")


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(64, 10), error

    def forward(self, x):
        raise self.error


@network("hostile")
def hostile():
    return Raises(ValueError({HOSTILE!r} + "\\n" + {HOSTILE!r}))


@network("silent")
def silent():
    return Raises(Silent())
"""


@pytest.mark.parametrize(
    ("network", "error"), [("hostile", f"ValueError: {ESCAPED} {ESCAPED}"), ("silent", "Silent: ")]
)
def test_an_error_of_a_network_is_a_row_whatever_its_text(
    bnbench: Bnbench, write: Write, tmp_path: Path, network: str, error: str
) -> None:
    write("bad.py", PLUGIN)
    config = write(
        "bad.yaml",
        f"plugins: [bad.py]\nfixed: {{dataset: digits, epochs: 1}}\ngrid: {{network: [{network}, notebook_mlp]}}\n",
    )
    for command in (
        ("run", config, "--out", tmp_path),
        ("resume", tmp_path / "bad"),
        ("resume", tmp_path / "bad", "--retry"),
    ):
        done = bnbench(*command, "--executor", "inline", "-v")
        assert done.exit_code == 1, done.stderr
        assert f"run 1 failed: {error}" in done.stderr
        assert not {"\x1b", "\x85", "\udcff"} & set(done.stdout + done.stderr)
        runs = pd.read_csv(tmp_path / "bad/runs.csv")
        assert list(runs["status"]) == ["failed", "ok"]
        assert runs["error"][0].startswith(error)
    log = (tmp_path / "bad/run.log").read_text(encoding="utf-8")
    assert error.split()[0] in log
    assert printable(log) == log


def test_every_text_of_a_record_is_printable() -> None:
    probe = ProbeRow("a", 1, 1, HOSTILE + "\n", HOSTILE, 0.5)
    records: tuple[object, ...] = (
        RunResult("a", "failed", error=HOSTILE, traceback=HOSTILE, trained_as=HOSTILE),
        Note(HOSTILE),
        Shortfall(("a",), "one stack", HOSTILE, HOSTILE, traceback=HOSTILE),
        StackPlan(("a",), obstacle=HOSTILE, reason=HOSTILE, seconds={"loop x 2": HOSTILE, "loop x 4": 0.5}),
        probe,
    )
    for record in records:
        assert str(vars(record)).count(repr(ESCAPED)[1:-1]) == str(vars(record)).count("udcff") > 0
    assert probe.layer == ESCAPED + r"\n"  # a layer's name is one line
    assert Note("a\n\tb").text == "a\n\tb"


def test_a_message_is_printable_and_its_caret_stays_in_its_place() -> None:
    error = UserError(Fault("no\x1b[31m such\nkey", Place("a\udcff.yaml", 3, 4, "\x07\t lr: 1")))
    assert str(error) == "a\\udcff.yaml:3:4: no\\x1b[31m such\nkey\n     3 |    lr: 1\n       |    ^"
    assert printable("γ – 中 🙂") == "γ – 中 🙂"
    assert described(ValueError("a\x00")) == "ValueError: a\\x00"
    assert len(unknown("key", "x" * 10_000, ["name"])) < 150


def test_a_long_list_of_names_is_not_searched() -> None:
    names = list(map(str, range(200_000)))
    assert unknown("value", "1999999", names).endswith("(200000 in all)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", f"grids.{'1' * 5000}.seed=[1]"], "--set grids.1"),
        (["--set", "grid.\x07=[1]"], r"'\x07' has"),
        (["--set", "name=\udcff"], r"--set name=\udcff: not YAML: unacceptable character #xdcff"),
        (["--set", 'name="\\ud800"'], r"'\ud800' has a control character or a surrogate"),
        (["--device", "cuda:99999999999999999999"], "--device cuda:99999999999999999999: device: allowed: auto"),
        (["--device", "cuda:٣"], "--device cuda:٣: device: allowed: auto"),
        (["--device", "cuda:128"], "--device cuda:128: device: allowed: auto"),
        (["--device", "[cpu]"], "--device [cpu]: device: allowed: auto"),
        (["--device", ""], "device: allowed: auto"),
        (["--set", "fixed=5", "--device", "cpu"], "--device cpu: 'fixed' is not a mapping"),
        (["--set", "grid.zip={device: 5, lr: [1, 2]}", "--device", "cpu"], "equally long; device has 1"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_hostile_option_is_one_message(
    bnbench: Bnbench, write: Write, command: str, options: list[str], message: str
) -> None:
    config = write("c.yaml", "fixed: {network: batch_norm, dataset: digits}\ngrid: {seed: [1, 2]}\n")
    done = bnbench(command, config, *options)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    "option",
    [
        ("--checkpoint-every", "٣s"),
        ("--checkpoint-every", "9" * 5000),
        ("--stack", "٣"),
        ("--stack", "9" * 5000),
        ("--stack", "\x1b[2J"),
        ("--retry", "\x1b[2J"),
    ],
)
def test_a_number_is_written_in_plain_digits(bnbench: Bnbench, write: Write, option: tuple[str, str]) -> None:
    config = write("c.yaml", "fixed: {network: batch_norm, dataset: digits}\n")
    done = bnbench("run", config, "--dry-run", *option)
    assert done.exit_code == 2
    assert "allowed" in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr) < 1000


def test_a_terminal_without_the_needed_signs_gets_escapes(write: Write) -> None:
    config = write("c.yaml", "fixed: {network: mlp, dataset: digits}\ngrid: {network.init: [normal]}\n")
    done = CliRunner(charset="ascii").invoke(main, ["plan", str(config), "--set", "name=c"], catch_exceptions=False)
    assert done.exit_code == 0


@pytest.mark.parametrize("cell", ["abc", "-1", "inf", "nan"])
def test_a_damaged_table_of_epochs_is_one_message(bnbench: Bnbench, write: Write, tmp_path: Path, cell: str) -> None:
    config = write("c.yaml", "fixed: {network: batch_norm, dataset: digits}\n")
    write("metrics.csv", f"run,epoch,run_duration,network,run_id\n1,1,{cell},batch_norm,a\n")
    done = bnbench("plan", config, "--measured", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{tmp_path / 'metrics.csv'}: ")
