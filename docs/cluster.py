"""Write the figures at the end of docs/cluster.md from `benchmarks/results/cluster/`. Run by `make docs`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/cluster.md"
HEADING = "## Figures\n"

SIMULATED = """\
**Simulated**: Ray, its messages, the driver and its disk are real; the nodes are four Ray nodes on this one machine,
and a slot makes its rows up instead of training. So the slots take their share of the same processor, and there is no
network in between. `rows per CPU second` counts the driver's own processor time: what a core to itself would give.
"""

THEN = """\
One driver is enough while there come fewer rows a second than it takes: {rows:,.0f} here, and some {runs:,.0f} jobs a
second. By arithmetic, not by trial, that is {slots:,.0f} slots whose epochs last ten seconds; 64 were tried, and from
4 to 64 it takes as much: the single writer and these two cores are the bound. Beyond it nothing is lost: a slot
waits until it is asked, and what has gathered meanwhile is written with one fsync. Then, in this order: fewer readings
(`evaluations_per_epoch`, `probes`); longer jobs, or stacks, which bring the rows of many runs at once; results on a
disk with a fast fsync; and last a sweep cut into several configs, each with a driver and a folder of its own:
`bnbench compare A B` takes them together. The driver's memory is at its peak at the end, when it sorts its tables:
some 4 kB a row.
"""


def page() -> str:
    """The page with its figures."""
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    return text + HEADING + "".join(figures())


def figures() -> Iterator[str]:
    for path in sorted((ROOT / "benchmarks/results/cluster").glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        load = results["load"]
        yield (
            f"\nMade by `make docs` from [{path.name}](../benchmarks/results/cluster/{path.name}) "
            f"(`python -m benchmarks cluster`): {results['environment']['cpu']}, "
            f"{results['environment']['cores']} cores, which others used too: load averages of "
            f"{' and '.join(f'{value:.0f} when the {name} part began' for name, value in load.items())}. "
            f"{results.get('note', '')}\n\n"
        )
        yield "**The driver alone**, handed made-up rows.\n\n"
        yield from table(results["driver"], ("rows_per_second", "rows_per_cpu_second"))
        yield f"\n{SIMULATED}\n"
        yield from table(
            results["simulated"], ("rows_per_second", "runs_per_second", "rows_per_cpu_second", "driver_mb")
        )
        most = max(found["rows_per_second"] for found in results["simulated"].values())
        runs = max(found["runs_per_second"] for found in results["simulated"].values())
        yield f"\n{THEN.format(rows=most, runs=runs, slots=most * 10)}"
        yield "\n**Trained**, two workers on this machine: seconds of the whole command, the median of three.\n\n"
        yield "| | process | ray |\n|---|---|---|\n"
        for case, seconds in results["trained"].items():
            cells = [f"{statistics.median(each):.1f} ({min(each):.1f} … {max(each):.1f})" for each in seconds.values()]
            yield f"| {case} | {' | '.join(cells)} |\n"


def table(found: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> Iterator[str]:
    names = [
        name.replace("_per_cpu_", " per CPU ").replace("_per_", " per ").replace("_mb", ", MB") for name in columns
    ]
    yield f"| | {' | '.join(names)} |\n|{'---|' * (len(columns) + 1)}\n"
    for case, values in found.items():
        yield f"| {case} | {' | '.join(f'{values[name]:,.0f}' for name in columns)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
