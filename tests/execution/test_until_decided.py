"""`bnbench run --until-decided`: a sweep that ends by itself, says why, and decides the same after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from runner.analysis.sequential import Sequential
from runner.config import yaml_source
from runner.execution import until_decided
from runner.interfaces.cli.main import main

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

CONFIG = """\
name: grows
contrast: {axis: lr, baseline: 0.0001, smallest_effect: 0.1}
fixed: {network: notebook_mlp, dataset: digits, batch_size: 250, epochs: 2, device: cpu}
grid: {lr: [0.0001, 0.01], seed: [5, 2]}
"""
"""Every pair differs by more than 10 pp. Seven such pairs decide."""

PLUGIN = """\
from runner import network
from torch import nn, randint

@network("sometimes")
def sometimes():
    # The first random number after the seed.
    if FAILS(int(randint(10, ()))):
        raise RuntimeError("no such layer")
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""

DECIDED = re.compile(r"decided after 7 of at most 20 pairs.*; median \+.* \(95%\): SUPERIOR, better by 10 pp or more")


INVALID = "The ordinary p and intervals are not valid"


def run(bnbench: Bnbench, config: Path, out: Path, *options: object) -> Result:
    return bnbench("run", config, "--out", out, "--executor", "inline", *options)


def untimed(folder: Path) -> str:
    """metrics.csv and runs.csv byte for byte, but for the timing columns, and the config."""
    columns = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
    metrics = columns.drop(columns=["epoch_duration", "run_duration"]).to_csv()
    return str(metrics) + (folder / "runs.csv").read_text() + (folder / "config.yaml").read_text()


def seeds(folder: Path) -> list[int]:
    values = yaml_source.read((folder / "config.yaml").read_text(), "").values
    return list(values["grid"]["seed"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A sweep that grows by one seed at a time, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    config = out / "grows.yaml"
    config.write_text(CONFIG)
    options = ["--executor", "inline", "--until-decided", "--max-seeds", "20", "--workers", "1"]
    done = CliRunner().invoke(main, ["run", str(config), "--out", str(out), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done, out / "grows"


def test_a_sweep_ends_by_itself_and_says_why(bnbench: Bnbench, whole: tuple[Result, Path]) -> None:
    done, folder = whole
    lines = re.findall(r"^pair (\d) \(seed (\d+)\): \+.* pp; median .*: (\w+), ", done.stderr, re.MULTILINE)
    words = ["UNDECIDED"] * 6 + ["SUPERIOR"]
    assert lines == list(zip("1234567", ("5", "2", "6", "7", "8", "9", "10"), words, strict=True))
    assert DECIDED.search(done.stderr)
    # The folder is that of an ordinary sweep of these seeds.
    assert seeds(folder) == [5, 2, 6, 7, 8, 9, 10]
    runs = pd.read_csv(folder / "runs.csv")
    assert list(runs.seed) == seeds(folder) * 2
    assert set(runs.status) == {"ok"}
    watched = bnbench("watch", folder, "--once")
    assert "14 ok" in watched.stdout
    assert DECIDED.search(watched.stdout)
    assert watched.exit_code == 0
    before = untimed(folder)
    again = bnbench("resume", folder, "--executor", "inline")
    assert DECIDED.search(again.stderr)
    assert untimed(folder) == before


def test_every_table_says_that_it_was_sequential(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("grows.yaml", CONFIG)
    # Eight seeds train at the same time. The first seven decide.
    run(bnbench, config, tmp_path, "-q", "--until-decided", "--max-seeds", 20, "--workers", 16)
    folder = tmp_path / "grows"
    (tmp_path / "page").mkdir()
    bnbench("report", folder, "-o", tmp_path / "page/grows.html")
    page = (tmp_path / "page/grows.html").read_text(encoding="utf-8")
    bnbench("report", folder, "--metric", "valid_loss", "-o", tmp_path / "page/other.html")
    other = (tmp_path / "page/other.html").read_text(encoding="utf-8")
    tables = [bnbench("compare", folder, "--format", style).stdout for style in ("table", "md", "latex")]
    for text in (*tables, page):
        text = " ".join(text.replace("\\", "").split())
        assert "decided after 7 of at most 20 pairs (1 other was trained at the same time)" in text
        assert "sign test of the median" in text
        assert INVALID in text
        assert "Sequential verdict, with a smallest effect of 10 pp (fixed beforehand): SUPERIOR" in text
        assert "valid at every look" in text
        assert not any(ordinary in text for ordinary in ("p: sign-flip test", "cannot reach p", " Verdict, with"))
    assert "Sequential verdict on the smallest effect (fixed beforehand): SUPERIOR" in page.partition("<dl")[0]
    assert INVALID in bnbench("compare", folder, "--format", "csv").stdout
    record = json.loads(bnbench("compare", folder, "--format", "json").stdout)[1]
    assert INVALID in record["warnings"]
    assert (record["sequential"], record["sequential_verdict"], record["verdict"]) == (
        "sign e-process",
        "SUPERIOR",
        "SUPERIOR",
    )
    assert (record["sequential_pairs"], record["pairs"], record["sequential_max_pairs"]) == (7, 8, 20)
    # The figures draw the interval of the test that ended the sweep.
    low, high = (f"{100 * record[name]:+.2f}" for name in ("median_low", "median_high"))
    interval = f"sequential median {100 * record['median_difference']:+.2f} [{low}, {high}] pp (95%)"
    assert page.count(f"0.01, n = 8 {interval}".replace(" = ", "\u00a0=\u00a0")) == 1
    assert f"0.01 against 0.0001: {interval}, 8 pairs" in page
    assert "no interval is valid after a stop by another test" in other
    runs = pd.read_csv(folder / "runs.csv").pivot(index="seed", columns="lr", values="valid_accuracy")
    differences = (runs[0.01] - runs[0.0001]).loc[[5, 2, 6, 7, 8, 9, 10]]
    assert record["median_difference"] == pytest.approx(differences.median())
    assert [record["median_low"], record["median_high"]] == pytest.approx([differences.min(), differences.max()])


def test_a_killed_sweep_decides_the_same(
    bnbench: Bnbench, write: Write, tmp_path: Path, whole: tuple[Result, Path]
) -> None:
    config = write("grows.yaml", CONFIG)
    command = [sys.executable, "-m", "runner.interfaces.cli.main", "run", config, "--out", tmp_path / "part"]
    options = ["--until-decided", "--max-seeds", "20", "--workers", "2", "-q"]
    process = subprocess.Popen([*map(str, command), *options], start_new_session=True)
    table = tmp_path / "part/grows/runs.csv"
    while not table.exists() or table.read_text().count("\n") < 8:  # in the middle of the fourth pair
        time.sleep(0.005)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(seeds(tmp_path / "part/grows")) < 7
    resumed = bnbench("resume", tmp_path / "part/grows", "--executor", "inline", "--workers", 2)
    told = [re.findall("^pair .*|^decided after .*", done.stderr, re.MULTILINE) for done in (resumed, whole[0])]
    assert told[0] == told[1]
    assert untimed(tmp_path / "part/grows") == untimed(whole[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_can_be_interrupted_between_two_pairs(
    number: signal.Signals,
    code: int,
    bnbench: Bnbench,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, looks = until_decided._look, []

    def interrupted(folder: Path) -> Sequential:
        looks.append(look(folder))
        if len(looks) == 3:
            signal.raise_signal(number)
        return looks[-1]

    monkeypatch.setattr(until_decided, "_look", interrupted)
    config = write("grows.yaml", CONFIG)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs do not hear it
    done = run(bnbench, config, tmp_path, "--until-decided", "--max-seeds", 20, "--workers", 1)
    signal.signal(signal.SIGINT, heard)
    assert done.exit_code == code
    assert f"interrupted; bnbench resume {tmp_path / 'grows'} finishes it" in done.stderr
    watched = bnbench("watch", tmp_path / "grows", "--once")
    assert watched.exit_code == 1
    assert "not decided after 3 of at most 20 pairs" in watched.stdout
    assert watched.stdout.endswith(f"stopped; bnbench resume {tmp_path / 'grows'} finishes it\n")
    assert DECIDED.search(bnbench("resume", tmp_path / "grows", "--executor", "inline").stderr)


def test_it_ends_at_the_most_seeds_and_a_resume_may_allow_more(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("grows.yaml", CONFIG)
    done = run(bnbench, config, tmp_path, "--until-decided", "--max-seeds", 3)
    assert "not decided after 3 of at most 3 pairs; median" in done.stderr
    assert "UNDECIDED, sign and size are open" in done.stderr
    assert "to go on: bnbench run CONFIG --resume --until-decided --max-seeds 6" in done.stderr
    assert "not decided after 3 of at most 3 pairs" in bnbench("watch", tmp_path / "grows", "--once").stdout
    fewer = run(bnbench, config, tmp_path, "--resume", "--until-decided", "--max-seeds", 2)
    assert fewer.exit_code == 2
    assert "3 pairs are there already; --max-seeds must be 3 or more" in fewer.stderr
    refused = run(bnbench, config, tmp_path, "--resume")
    assert refused.exit_code == 2
    assert "seeds were added to this sweep until its verdict was decided" in refused.stderr
    more = run(bnbench, config, tmp_path, "--resume", "--until-decided", "--max-seeds", 20)
    assert DECIDED.search(more.stderr)


def test_an_effect_that_was_changed_after_the_end_makes_no_valid_verdict(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    config = write("grows.yaml", CONFIG)
    options = ("-q", "--until-decided", "--max-seeds", 2, "--workers", 1)
    run(bnbench, config, tmp_path, *options)
    shown = run(bnbench, config, tmp_path, *options, "--resume", "--set", "contrast.smallest_effect=0.05").stdout
    shown = " ".join(shown.split())
    assert "The smallest effect was changed from 10 pp to 5 pp" in shown
    assert "the verdict is not valid at every look" in shown
    assert "It is valid at every look" not in shown
    # The seeds that such a sweep adds by itself are no offence.
    assert "were added on" not in shown


def test_a_finished_sweep_can_go_on_until_it_is_decided(
    bnbench: Bnbench, write: Write, tmp_path: Path, whole: tuple[Result, Path]
) -> None:
    config = write("grows.yaml", CONFIG)
    assert run(bnbench, config, tmp_path, "-q").exit_code == 0
    run(bnbench, config, tmp_path, "-q", "--resume", "--until-decided", "--max-seeds", 20, "--workers", 1)
    assert untimed(tmp_path / "grows") == untimed(whole[1])


def test_a_plan_shows_it_and_trains_nothing(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    shown = run(bnbench, write("grows.yaml", CONFIG), tmp_path, "--until-decided", "--dry-run").stdout
    assert "seeds are trained one after the other until the verdict is decided, at most 200" in shown
    assert not (tmp_path / "grows").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("contrast.smallest_effect=null", "needs contrast.smallest_effect"),
        ("grid.lr=[0.0001,0.1,0.01]", "compares two arms; lr has 3: 0.0001, 0.1, 0.01"),
        ("grid.weight_decay=[0.0,0.1]", "compares one cell, but these also vary: weight_decay"),
        ("exclude=[{lr: 0.01, seed: 5}]", "needs the same seeds in both arms"),
    ],
)
def test_what_cannot_be_decided_is_one_clear_error(
    change: str, message: str, bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    done = run(bnbench, write("grows.yaml", CONFIG), tmp_path, "--until-decided", "--set", change)
    assert done.exit_code == 2
    assert f"grows: until_decided {message}" in done.stderr
    assert not (tmp_path / "grows").exists()


def test_max_seeds_alone_is_an_error(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    done = run(bnbench, write("grows.yaml", CONFIG), tmp_path, "--max-seeds", 9)
    assert "--max-seeds needs --until-decided" in done.stderr


@pytest.mark.parametrize(
    ("fails", "expected"),
    [("number == 8", "decided after 7 of at most 20"), ("True", "not decided after 0 of at most")],
)
def test_a_pair_of_which_a_run_failed_is_left_out(
    fails: str, expected: str, bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    write("plugin.py", PLUGIN.replace("FAILS", f"(lambda number: {fails})"))
    text = CONFIG.replace("notebook_mlp", "sometimes") + "plugins: [plugin.py]\n"
    done = run(bnbench, write("grows.yaml", text), tmp_path, "--until-decided", "--max-seeds", 20, "--workers", 2)
    assert expected in done.stderr
    statuses = pd.read_csv(tmp_path / "grows/runs.csv").status.value_counts()
    assert statuses["failed"] >= 2
    assert done.exit_code == 1
    assert ("; stopped, because runs of more than half of the seeds failed" in done.stderr) == (fails == "True")
