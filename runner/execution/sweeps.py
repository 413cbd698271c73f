"""Several sweeps, one after the other: what claims and the calibration train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from runner.config.sweep import Sweep
from runner.execution.driver import run_sweep
from runner.execution.options import Options


def run_sweeps(sweeps: Sequence[Sweep], options: Options, say: Callable[[str], None]) -> int:
    """Train what is not trained yet, into `options.out`/NAME; returns the driver's worst exit code.

    An interrupted sweep ends it; the same call goes on. `say` receives a line per sweep.
    """
    worst = 0
    for number, sweep in enumerate(sweeps, start=1):
        say(f"[{number}/{len(sweeps)}] {sweep.name}: {len(sweep.runs)} runs")
        code = run_sweep(sweep, replace(options, existing="resume"))
        if code > 1:
            return code
        worst = max(worst, code)
    return worst
