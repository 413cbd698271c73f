"""A sweep seen from another terminal: running, killed, finished, and torn."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from runner.errors import UserError
from runner.monitoring.sweep_reader import Watched
from runner.monitoring.watch import glance
from runner.storage.folder import METRICS, RUNS, is_written, sole_writer

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

CONFIG = """\
name: seen
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 250, train_samples: 500, epochs: 3, device: cpu}
grid:
  network: [no_batch_norm, batch_norm]
  seed: {range: 2}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep of four runs of three epochs."""
    from click.testing import CliRunner

    from runner.interfaces.cli.main import main

    folder = tmp_path_factory.mktemp("results")
    (folder / "seen.yaml").write_text(CONFIG)
    done = CliRunner().invoke(main, ["run", f"{folder}/seen.yaml", "--out", str(folder), "--executor", "inline", "-q"])
    assert done.exit_code == 0, done.stderr
    return folder / "seen"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """That sweep's folder, to be spoilt."""
    (tmp_path / "seen").mkdir()
    for path in finished.iterdir():
        if path.is_file():
            (tmp_path / "seen" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "seen"


def keep(table: Path, rows: int, torn: str = "") -> None:
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[: 1 + rows]) + torn)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}


def test_a_finished_sweep_is_said_to_be_and_left_alone(bnbench: Bnbench, copy: Path) -> None:
    before = contents(copy)
    for option in ((), ("--once",)):
        done = bnbench("watch", copy, *option)
        assert done.exit_code == 0, done.stderr
        first, *arms, last = done.stdout.splitlines()
        assert first == "seen: 4 runs: 4 ok; 12/12 epochs"
        assert [line.split()[0] for line in arms] == ["no_batch_norm", "batch_norm"]
        assert last == f"finished; bnbench compare {copy} compares it"
    assert contents(copy) == before


def test_the_arms_means_are_those_of_runs_csv(copy: Path) -> None:
    runs = pd.read_csv(copy / RUNS)
    means = runs.groupby("network", sort=False)["valid_accuracy"].mean()
    assert glance(copy)[0][1:3] == [f"{arm}  mean valid {mean:.4f}, n = 2" for arm, mean in means.items()]


def test_a_torn_and_unfinished_table_is_read_as_far_as_it_goes(copy: Path) -> None:
    keep(copy / METRICS, 5, torn="2,3,6,0.12")
    keep(copy / RUNS, 1, torn='2,failed,0,"half a')
    with sole_writer(copy):
        lines = glance(copy)[0]
    assert re.fullmatch(r"seen: 4 runs: 1 ok, 1 running, 2 waiting; 5/12 epochs; ETA \d+ s", lines[0]), lines
    assert re.fullmatch(r"run 2  epoch 2/3  loss \d\.\d{4}  valid \d\.\d{4}  no_batch_norm seed=1", lines[1])
    assert lines[2].startswith("no_batch_norm  mean valid 0.")
    assert len(lines) == 3
    assert glance(copy)[0][0] == "seen: 4 runs: 1 ok, 1 interrupted, 2 waiting; 5/12 epochs"
    assert glance(copy)[0][-1] == f"stopped; bnbench resume {copy} finishes it"


def test_what_is_added_is_read_once_and_what_is_replaced_anew(copy: Path) -> None:
    whole = {name: (copy / name).read_bytes() for name in (METRICS, RUNS)}
    keep(copy / METRICS, 4, torn="2,2,")
    keep(copy / RUNS, 1)
    watched = Watched(copy)
    assert watched.refresh()
    assert not watched.refresh()
    with (copy / METRICS).open("ab") as file:
        file.write(whole[METRICS].splitlines(keepends=True)[5].removeprefix(b"2,2,"))
    assert watched.refresh()
    assert (watched.runs[2].epoch, watched.runs[2].running) == (2, True)
    for name, content in whole.items():
        (copy / "aside").write_bytes(content)
        (copy / "aside").replace(copy / name)
    assert watched.refresh()
    assert watched.finished
    watched.close()


def test_failures_are_told_and_their_epochs_are_not_waited_for(copy: Path, bnbench: Bnbench) -> None:
    lines = (copy / RUNS).read_text().splitlines()
    names = lines[0].split(",")
    cells = lines[2].split(",")
    cells[names.index("status")], cells[names.index("error")] = "failed", "no such layer"
    cells[names.index("epochs_trained")] = "1"
    (copy / RUNS).write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n")
    metrics = (copy / METRICS).read_text().splitlines(keepends=True)
    (copy / METRICS).write_text("".join([*metrics[:5], *metrics[7:]]))
    for option in ((), ("--once",)):
        done = bnbench("watch", copy, *option)
        assert (done.exit_code, done.stderr) == (0, "")
        assert "run 2  failed  no_batch_norm seed=1: no such layer\n" in done.stdout
        assert "seen: 4 runs: 3 ok, 1 failed; 10/10 epochs\n" in done.stdout


def test_two_workers_are_seen_in_the_order_of_rows(copy: Path) -> None:
    """Runs 1 and 2 took turns; 3 began when 1 ended. The forecast is that of two workers."""
    header, *rows = (copy / METRICS).read_text().splitlines(keepends=True)
    for order, workers in (([0, 3, 1, 4, 2, 6, 5, 7], 2), ([0, 1, 2, 3, 4, 5, 6], 1), ([0, 3, 1, 4], 2), ([], 1)):
        (copy / METRICS).write_text(header + "".join(rows[index] for index in order))
        keep(copy / RUNS, len({2, 5} & set(order)))
        watched = Watched(copy)
        watched.refresh()
        assert watched.workers() == workers, order
        assert (watched.eta() is None) == (not order)
        watched.close()


@pytest.mark.parametrize("option", [(), ("--once",)])
def test_where_there_is_no_sweep_that_is_said(bnbench: Bnbench, tmp_path: Path, option: tuple[str, ...]) -> None:
    for folder in (tmp_path, tmp_path / "not_there"):
        done = bnbench("watch", folder, *option)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == (
            f"{folder}: no sweep here (no config.yaml); allowed: a folder that 'bnbench run' wrote\n"
        )


def test_a_damaged_table_is_named(copy: Path) -> None:
    (copy / METRICS).write_text((copy / METRICS).read_text() + "1,two,3\n")
    with pytest.raises(UserError, match=r"metrics.csv: the table is damaged: line 14 has 3 cells"):
        glance(copy)


def test_a_watcher_that_asks_for_the_writer_does_not_turn_one_away(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        assert is_written(tmp_path)
    assert not is_written(tmp_path)
    asking = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [asking]).start()
    with sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path), pytest.raises(UserError, match="another process is writing"), sole_writer(tmp_path):
        pass


def test_a_sweep_is_watched_while_it_runs_and_when_it_is_killed(write: Write, tmp_path: Path) -> None:
    config = write("live.yaml", CONFIG.replace("epochs: 3", "epochs: 400").replace("seen", "live"))
    folder = tmp_path / "live"
    bnbench = [sys.executable, "-m", "runner.interfaces.cli.main"]
    run = subprocess.Popen(
        [*bnbench, "run", str(config), "--out", str(tmp_path), "--workers", "2", "-q"], start_new_session=True
    )
    try:
        seen = ""
        deadline = time.monotonic() + 120
        while "2 running" not in seen:
            assert run.poll() is None
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
            if (folder / "config.yaml").exists():
                seen = "\n".join(glance(folder)[0])
        assert re.search(r"live: 4 runs: 2 running, 2 waiting; \d+/1600 epochs; ETA ", seen), seen
        assert re.search(r"run 1  epoch \d+/400 .*\nrun 2  epoch \d+/400 ", seen), seen
        watch = subprocess.Popen(
            [*bnbench, "watch", str(folder), "--interval", "0.2"], stdout=subprocess.PIPE, text=True
        )
        assert watch.stdout is not None
        said = [watch.stdout.readline(), watch.stdout.readline()]
        assert all(line.startswith("live: 4 runs: 2 running, 2 waiting; ") for line in said), said
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    rest, _ = watch.communicate(timeout=60)
    assert rest.splitlines()[-1] == f"stopped; bnbench resume {folder} finishes it"
    assert watch.returncode == 1
    once = subprocess.run([*bnbench, "watch", str(folder), "--once"], capture_output=True, text=True, check=False)
    assert (once.returncode, once.stderr) == (1, "")
    assert re.match(r"live: 4 runs: 2 interrupted, 2 waiting; ", once.stdout)
    assert once.stdout.splitlines()[-1] == f"stopped; bnbench resume {folder} finishes it"
    found = subprocess.run(
        [*bnbench, "watch", str(folder), "--once", "--format", "json"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, json.loads(found.stdout)["state"]) == (1, "stopped")
