"""The command itself: every part in a process of its own, the goals, and the file with the results."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.parts import PARTS
from runner.errors import UserError
from runner.registry import load_plugins
from runner.storage.folder import data_folder
from runner.training import environment
from runner.training.data.datasets import load

RESULTS = Path(__file__).parent.parent / "results/gpu"

Parts = Mapping[str, Mapping[str, Any]]

MILLISECONDS = {"H200": 4.0, "H100": 6.0}
"""The goal by GPU: training of a LeNet run for one epoch at batch 1000."""

TIMES_THE_TUTORIAL = 1000.0


def main() -> int:
    """Measure everything on this machine's GPU and write the file.

    Returns the exit code: 0, 1 where something is wrong, 2 where the GPU or the data are missing.
    """
    if not torch.cuda.is_available():
        print("python -m benchmarks gpu needs a GPU, and torch finds none on this machine.", file=sys.stderr)
        return 2
    root = data_folder(None)
    load_plugins()
    try:
        load("fashion_mnist", root)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    os.environ["BNBENCH_STRICT"] = "1"
    parts = {}
    with tempfile.TemporaryDirectory() as cache:
        # What earlier sweeps chose on this machine must not count.
        os.environ["BNBENCH_CACHE_DIR"] = cache
        for name, (_, limit) in PARTS.items():
            parts[name] = measured([sys.executable, "-m", "benchmarks.gpu.parts", name], limit)
            for line in in_lines(name, parts[name]):
                print(line, flush=True)
    # Only now does this process use the GPU.
    gpu = torch.cuda.get_device_name()
    described = environment.describe(["fashion_mnist"], root)
    results = {"gpu": gpu, "environment": described, "goals": goals(gpu, parts), "parts": parts}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{re.sub(r'[^A-Za-z0-9.]+', '-', gpu).strip('-')}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}; make docs shows it in docs/performance.md", file=sys.stderr)
    return 1 if any(is_wrong(part) for part in parts.values()) else 0


def measured(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Run a part for at most so many seconds. Its command is given the file to which it writes a line per row."""
    with tempfile.TemporaryDirectory() as name:
        rows, log = Path(name) / "rows", Path(name) / "log"
        rows.touch()
        began = perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen([*command, str(rows)], stdout=output, stderr=output, start_new_session=True)
            cut = False
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                cut = True
            finally:
                with suppress(ProcessLookupError):  # the part's own processes, such as workers
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = perf_counter() - began
        lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        error = ""
        if process.returncode and not cut:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            error = f"{said}\nexit code {process.returncode}".lstrip()
    return {"seconds": seconds, "limit": limit, "cut": cut, "error": error, "rows": found}


def is_wrong(part: Mapping[str, Any]) -> bool:
    """Whether a part found something wrong. A part that was cut by its time limit is not wrong."""
    return bool(part["error"]) or any("wrong" in row for row in part["rows"])


def in_lines(name: str, part: Mapping[str, Any]) -> Iterator[str]:
    """A part in lines for the terminal."""
    yield f"{name}: {len(part['rows'])} rows in {part['seconds']:.0f} s"
    if part["cut"]:
        yield f"  not measured: time (what was left after {part['limit']:g} s)"
    for row in part["rows"]:
        for verdict in ("wrong", "not measured"):
            if verdict in row and row.get("outcome") != "skipped":
                rest = ", ".join(f"{key} {value}" for key, value in row.items() if key != verdict)
                yield f"  {verdict}: {row[verdict]} ({rest})"
    if part["error"]:
        yield f"  wrong: {part['error']}"


def goals(gpu: str, parts: Parts) -> list[dict[str, Any]]:
    """The goals for this GPU: the target, what was measured, and whether it is met; None where it was not measured."""
    jobs = [row["milliseconds"]["batch_norm"] for row in parts["main_job"]["rows"] if "milliseconds" in row]
    loops = [
        min(row["seconds"])
        for row in parts["loops"]["rows"]
        if row.get("tool") == "the tutorial's loop" and row["batch_size"] == 1000
    ]
    milliseconds = jobs[0] if jobs else None
    times = 1000 * loops[0] / jobs[0] if jobs and loops else None
    found: list[dict[str, Any]] = []
    for name, target in MILLISECONDS.items():
        if name in gpu:
            met = None if milliseconds is None else milliseconds <= target
            text = f"A LeNet run trains for one epoch at batch 1000 in at most {target:g} ms"
            found.append({"goal": text, "measured": milliseconds, "unit": "ms", "met": met})
    met = None if times is None else times >= TIMES_THE_TUTORIAL
    text = f"A LeNet run trains at least {TIMES_THE_TUTORIAL:,.0f} times as fast as in the tutorial's loop"
    return [*found, {"goal": text, "measured": times, "unit": "times", "met": met}]
