"""The parts of the benchmark in order, with their time limits. `python -m benchmarks.gpu.parts NAME FILE` runs one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import training
from benchmarks.gpu import stacks, sweeps
from benchmarks.gpu.setting import Record, Row, Setting
from runner.registry import load_plugins
from runner.storage.folder import data_folder

ROOT = Path(__file__).parent.parent.parent

ROUNDS = 2


def tests(setting: Setting, record: Record) -> None:  # noqa: ARG001
    """The tests marked `cuda`: a row for each."""
    # pytest-benchmark, where it is installed, warns beside -n, and warnings are errors.
    run_tests(["-m", "cuda", "-n", "4", "-p", "no:benchmark", str(ROOT / "tests")], record)


def run_tests(arguments: list[str], record: Record) -> None:
    import pytest

    passed = 0

    class Recorder:
        def pytest_runtest_logreport(self, report: Any) -> None:
            nonlocal passed
            if report.when != "call" and report.passed:
                return
            passed += report.passed
            row = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}
            if report.skipped:
                row["not measured"] = report.longrepr[-1]
            elif report.failed:
                row["wrong"] = report.longreprtext.strip().rpartition("\n")[2]
            record(row)

    plain = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    code = int(pytest.main([*plain, *arguments], plugins=[Recorder()]))
    if code not in (0, 1) or not passed:  # 1: a test failed, and its row tells it
        record({"wrong": f"pytest ended with exit code {code}, and {passed} tests passed"})


def loops(setting: Setting, record: Record) -> None:
    """Seconds per epoch of the tutorial's loop and of Lightning, with torch's own settings."""
    for batch_size in setting.batch_sizes:
        run = setting.run.changed(batch_size=batch_size)
        tools = {"the tutorial's loop": training.tutorials_loop(run)}
        if find_spec("lightning"):
            tools["Lightning"] = training.lightning(run)
        else:
            record({"tool": "Lightning", "batch_size": batch_size, "not measured": "lightning is not installed"})
        for name, contestant in tools.items():
            seconds = [contestant(setting.root) for _ in range(ROUNDS)]
            record({"tool": name, "batch_size": batch_size, "seconds": seconds})


PARTS: dict[str, tuple[Callable[[Setting, Record], None], int]] = {
    "tests": (tests, 120),
    "main_job": (sweeps.main_job, 110),
    "same_bytes": (sweeps.same_bytes, 80),
    "memory": (sweeps.too_little_memory, 40),
    "stacks": (stacks.sizes, 120),
    "loops": (loops, 80),
    "kernels": (stacks.kernels, 40),
}
"""Name → the function and its seconds: 590 in all, so that the whole ends within ten minutes."""


def main(name: str, path: str) -> None:
    """Run a part, and add a line to the file for each row. An error is a row, too."""
    load_plugins()
    function, _ = PARTS[name]
    with Path(path).open("a", encoding="utf-8") as file:

        def record(row: Row) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        try:
            function(Setting(data_folder(None)), record)
        except Exception as error:
            record({"wrong": f"{type(error).__name__}: {error}"})
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])
