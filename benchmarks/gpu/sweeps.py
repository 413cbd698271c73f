"""Whole sweeps through `bnbench run`: the main job, the same bytes again, and a GPU with too little memory."""

from __future__ import annotations

import csv
import re
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from benchmarks.commands import BNBENCH
from benchmarks.gpu.setting import Record, Row, Setting
from runner.config import yaml_source
from runner.storage.folder import CHECKPOINTS, METRICS, RUNS

TIMING = ("epoch_duration", "run_duration")

SAME_BYTES_RUNS = 20

MEMORY_RUNS = 32
MEMORY_BYTES = 4 << 30
"""32 LeNet runs at batch 1000 need about twice this memory, so their stack has to be cut."""

SMALL_MEMORY = f"""\
import torch

device = torch.cuda.current_device()
total = torch.cuda.get_device_properties(device).total_memory
torch.cuda.set_per_process_memory_fraction({MEMORY_BYTES} / total, device)
"""
"""A plugin, because a worker imports it before it trains."""


def main_job(setting: Setting, record: Record) -> None:
    """2 networks × seeds × epochs, from the command to its exit: seconds, and training alone per run and epoch."""
    networks = ("no_batch_norm", "batch_norm")
    grid = {"network": list(networks)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = config(folder, setting, grid=grid, contrast={"axis": "network", "baseline": networks[0]})
        began = perf_counter()
        sweep = run_whole(folder / "main", path, setting.options)
        seconds = perf_counter() - began
        ended = rows(sweep / RUNS)
        # The first epoch includes the recording of the CUDA graph.
        trained = [row for row in rows(sweep / METRICS) if row["epoch"] != "1" or setting.run.epochs == 1]
    durations = {each: [float(row["epoch_duration"]) for row in trained if row["network"] == each] for each in networks}
    milliseconds = {each: 1000 * statistics.median(durations[each]) for each in networks}
    row: Row = {"runs": len(ended), "epochs": setting.run.epochs, "seconds": seconds, "milliseconds": milliseconds}
    row["trained_as"] = dict(Counter(each["trained_as"] for each in ended))
    record(row | not_ok(ended))


def same_bytes(setting: Setting, record: Record) -> None:
    """A sweep twice, and once killed and resumed: its tables must be equal, timing columns aside."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = config(folder, replace(setting, runs=min(setting.runs, SAME_BYTES_RUNS)))
        first = run_whole(folder / "first", path, setting.options)
        ended = rows(first / RUNS)
        record({"sweep": "first", "runs": len(ended)} | not_ok(ended))
        record({"sweep": "again"} | difference(first, run_whole(folder / "again", path, setting.options)))
        killed = folder / "killed/lenet"
        if not run_and_kill(killed, path, setting.options):
            record({"sweep": "killed and resumed", "not measured": "the sweep ended before it could be killed"})
            return
        kept = len(rows(killed / METRICS))
        done = call("resume", str(killed), *setting.options)
        fault = {"wrong": done.stderr[-500:]} if done.returncode else difference(first, killed)
        record({"sweep": "killed and resumed", "rows_when_killed": kept} | fault)


def run_and_kill(sweep: Path, path: str, options: Sequence[str]) -> bool:
    """Kill `bnbench run` after its first checkpoint. Returns whether it was still at work."""
    arguments = ["run", path, "--out", str(sweep.parent), "--checkpoint-every", "1", *options, "--quiet"]
    process = subprocess.Popen([BNBENCH, *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((sweep / CHECKPOINTS).glob("*.ckpt")):
        sleep(0.005)
    process.kill()
    return process.wait() != 0


def too_little_memory(setting: Setting, record: Record) -> None:
    """A stack that does not fit: it must be cut, every run must end ok, and the table must tell it."""
    options = (*setting.options, "--stack", str(MEMORY_RUNS))
    small = replace(setting, run=setting.run.changed(epochs=1), runs=MEMORY_RUNS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin = folder / "small_memory.py"
        plugin.write_text(SMALL_MEMORY, encoding="utf-8")
        path = config(folder, small, plugins=[str(plugin)])
        ended = rows(run_whole(folder / "small", path, options) / RUNS)
    trained_as = Counter(row["trained_as"] for row in ended)
    row: Row = {"runs": len(ended), "bytes": MEMORY_BYTES, "trained_as": dict(trained_as)} | not_ok(ended)
    record(row | not_cut(trained_as))


def not_cut(trained_as: Iterable[str]) -> Row:
    """What is wrong where a stack of `MEMORY_RUNS` should have been cut."""
    for text in trained_as:
        sizes = list(map(int, re.findall(r"stack of (\d+)", text)))
        if not sizes or min(sizes) >= MEMORY_RUNS:
            return {"wrong": f"a stack should have been cut, but trained_as in runs.csv is '{text}'"}
    return {}


def run_whole(out: Path, path: str, options: Sequence[str]) -> Path:
    """Run a sweep to its end. Returns the sweep's folder. Errors: RuntimeError where the command fails."""
    done = call("run", path, "--out", str(out), *options)
    if done.returncode not in (0, 1):  # 1: a run failed, which its row tells
        raise RuntimeError(f"bnbench run ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return out / "lenet"


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call bnbench."""
    return subprocess.run([BNBENCH, *arguments, "--quiet"], capture_output=True, text=True, check=False)


def config(folder: Path, setting: Setting, grid: Mapping[str, Any] | None = None, **parts: Any) -> str:
    """Write the config of a LeNet sweep over seeds. `grid` and `parts` are added to it. Returns its path."""
    run = setting.run
    fixed = {name: getattr(run, name) for name in ("dataset", "device", "validate_on", "batch_size", "epochs")}
    grid = grid or {"network": [run.network]}
    whole = {"name": "lenet", "fixed": fixed, "grid": {**grid, "seed": {"range": setting.runs}}, **parts}
    path = folder / "lenet.yaml"
    path.write_text(yaml_source.dump(whole), encoding="utf-8")
    return str(path)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def difference(first: Path, second: Path) -> Row:
    """The first line in which the tables of two sweeps differ."""
    for table in (METRICS, RUNS):
        ours, theirs = ([untimed(row) for row in rows(folder / table)] for folder in (first, second))
        if len(ours) != len(theirs):
            return {"wrong": f"{table} has {len(theirs)} rows, not {len(ours)}"}
        for ours_row, theirs_row in zip(ours, theirs, strict=True):
            for name, value in ours_row.items():
                if theirs_row.get(name) != value:
                    place = f"{name} of run {ours_row['run']}"
                    return {"wrong": f"{table}: {place} is {theirs_row.get(name)}, not {value}"}
    return {"equal": True}


def untimed(row: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in TIMING}


def not_ok(ended: list[dict[str, str]]) -> Row:
    """What is wrong with the runs of a table."""
    bad = [row for row in ended if row["status"] != "ok"]
    if not bad:
        return {}
    return {"wrong": f"{len(bad)} of {len(ended)} runs are not ok; run {bad[0]['run']}: {bad[0]['error']}"}
