"""What a finished sweep suggests, and how the quickstart looks in a pipe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from runner.analysis.comparison import compare
from runner.reporting.next_steps import next_steps
from runner.storage.results import load

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = ROOT / "results/reference/quickstart"

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]


def test_the_quickstart_in_a_pipe_fits_a_screen_counts_down_and_ends_with_commands_that_work(
    bnbench: Bnbench, tmp_path: Path
) -> None:
    done = bnbench("run", ROOT / "configs/quickstart.yaml", "--out", tmp_path / "my results", "--executor", "inline")
    lines = (done.stderr + done.stdout).splitlines()
    assert len(lines) <= 38  # make adds one line, and one more where it installs
    forecasts = [int(seconds) for seconds in re.findall(r"ETA (\d+) s$", done.stderr, re.MULTILINE)]
    assert len(forecasts) == 15
    assert forecasts[0] > forecasts[-1]
    assert re.search(r"^batch_norm .* SUPERIOR +yes$", done.stdout, re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("  bnbench ")]
    assert [command[1] for command in commands] == ["report", "compare", "init"]
    for command in commands[:2]:
        assert bnbench(*command[1:]).exit_code == 0
    assert not re.search("next|bnbench", bnbench("resume", tmp_path / "my results/quickstart", "-q").stderr)


def test_a_target_is_an_accuracy_that_every_arm_reached() -> None:
    found = load(QUICKSTART)
    lines = list(next_steps(QUICKSTART, compare([found]), own_code=True))
    assert [re.findall(r"bnbench (\w+)|--target (\S+)", line) for line in lines[1:]] == [
        [("report", "")],
        [("compare", ""), ("", "0.85")],
    ]
    assert "--target" not in "".join(next_steps(QUICKSTART, compare([found], metric="valid_loss"), own_code=True))
    hardly = load(ROOT / "results/reference/questions/evaluation")  # one arm has an accuracy of 11%
    assert "--target" not in "".join(next_steps(QUICKSTART, compare([hardly]), own_code=True))


def test_a_sweep_that_compares_nothing_suggests_nothing(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("one.yaml", "name: one\nfixed: {network: mlp, dataset: digits, epochs: 1}\n")
    done = bnbench("run", config, "--out", tmp_path, "--executor", "inline")
    assert done.exit_code == 0
    assert "next" not in done.stderr
