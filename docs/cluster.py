"""Write the last section of docs/cluster.md from `benchmarks/results/cluster/`. Run by `make docs`."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/cluster.md"
HEADING = "\n## Measurements\n"

SIMULATED = """\
**Simulated**: Ray, its messages, the driver and its disk are real. The nodes are four Ray nodes on this one machine,
and their actors make rows up instead of training. So the actors use the same processor as the driver, and there is no
network between them. `rows per CPU second` counts only the driver's processor time: it estimates what the driver would
do with a core of its own.
"""

LIMIT = """\
One driver is enough as long as the rows arrive no faster than it can write them: {rows:,.0f} rows and about
{runs:,.0f} jobs a second on this machine. By calculation, that is {jobs:,.0f} jobs at a time whose epochs last ten
seconds. At most 64 were tried. The driver takes about as many rows from 64 actors as from 4, so the limit is the single
writer and these two cores. Above the limit no row is lost: an actor waits until it is asked, and the driver writes
everything that has gathered with one fsync. If you reach the limit, try the following, in this order: fewer readings
(`evaluations_per_epoch`, `probes`); longer jobs, or stacks, which bring the rows of many runs at once; a disk with a
fast fsync for the results; several configs instead of one, each with its own driver and folder, which
`bnbench compare A B` compares together. The driver needs most memory at the end, when it sorts its tables: about 4 kB
for each row.
"""


def page() -> str:
    """The page with its last section."""
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    return text + HEADING + "".join(measurements())


def measurements() -> Iterator[str]:
    for path in sorted((ROOT / "benchmarks/results/cluster").glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        load = results["load"]
        yield (
            f"\nMade by `make docs` from [{path.name}](../benchmarks/results/cluster/{path.name}) "
            f"(`python -m benchmarks cluster`): {results['environment']['cpu']}, "
            f"{results['environment']['cores']} cores, which other programs used, too: load averages of "
            f"{' and '.join(f'{value:.0f} when the {name} part began' for name, value in load.items())}. "
            f"{results.get('note', '')}\n\n"
        )
        yield "**The driver alone**, with made-up rows.\n\n"
        yield from table(results["driver"], ("rows_per_second", "rows_per_cpu_second"))
        yield f"\n{SIMULATED}\n"
        yield from table(
            results["simulated"], ("rows_per_second", "runs_per_second", "rows_per_cpu_second", "driver_mb")
        )
        rows = max(values["rows_per_second"] for values in results["simulated"].values())
        runs = max(values["runs_per_second"] for values in results["simulated"].values())
        yield f"\n{LIMIT.format(rows=rows, runs=runs, jobs=rows * 10)}"
        yield "\n**Trained**, with two workers on this machine: seconds of the whole command, the median of three.\n\n"
        yield "| | process | ray |\n|---|---|---|\n"
        for case, executors in results["trained"].items():
            yield f"| {case} | {' | '.join(map(spread, executors.values()))} |\n"


def spread(seconds: Sequence[float]) -> str:
    """The median, and the smallest and the largest value."""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} … {max(seconds):.1f})"


def table(cases: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> Iterator[str]:
    names = [
        name.replace("_per_cpu_", " per CPU ").replace("_per_", " per ").replace("_mb", ", MB") for name in columns
    ]
    yield f"| | {' | '.join(names)} |\n|{'---|' * (len(columns) + 1)}\n"
    for case, values in cases.items():
        yield f"| {case} | {' | '.join(f'{values[name]:,.0f}' for name in columns)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
