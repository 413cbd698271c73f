"""Write the last section of docs/cluster.md from `benchmarks/results/cluster/`. Run by `make docs`."""

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/cluster.md"
HEADING = "\n## Measurements\n"

SIMULATED = """\
**Simulated cluster.** Ray, its messages, the driver and its disk are real. The nodes are four Ray nodes on this one
machine. Their actors do not train: they invent rows. So the actors use the same processor as the driver, and there is
no network between them. An actor gets several short jobs at once: a **turn** of about a second of work. The table also
has jobs one at a time, measured in the same run. `rows per CPU second` counts only the processor time of the driver,
with turns. It estimates how many rows per second the driver would write on a core of its own.
"""

LIMIT = """\
One driver is enough as long as the rows do not arrive faster than it can write them. On this machine, it can write
{rows:,.0f} rows per second. A job of one run sends one row in each epoch. If jobs have one epoch, the driver can
finish about {runs:,.0f} of them per second. If an epoch lasts ten seconds, we calculate that one driver can serve
{jobs:,.0f} jobs that train at the same time, such as those of 10,000 nodes with 16 slots each. We tried at most 64
slots, whose actors shared two cores with the driver.

Above the limit no row is lost. An actor waits until the driver asks it. The driver takes all rows that have arrived
from all actors so far, and writes them together with one fsync. If you reach the limit, try these things in this order:

1. Take fewer readings (`evaluations_per_epoch`, `probes`).
2. Use longer jobs, or stacks, which send the rows of many runs together.
3. Put the results on a disk with a fast fsync.
4. Use several configs instead of one. Each has its own driver and folder. `bnbench compare A B` compares them together.

With 10,000 nodes of 16 slots, this would probably break first:

1. **Epochs of less than {least:.0f} seconds.** 160,000 jobs that train at the same time would then send more rows than
   one driver can write. Nothing is lost, but the nodes wait.
2. **The first minute.** Ray starts a process for each slot. We never started more than 64 at once.
3. **The driver's connections.** The driver asks each actor by itself. We never tried more than 64 actors.

With shards there is no common driver: 10,000 shards are 10,000 sweeps that know nothing of each other.
"""

LARGE = """
**A large sweep.** The driver writes 100,000 runs of ten epochs, whose invented events arrive in groups of a thousand.
The memory of the driver is what it needs above a process that has only imported torch. After the sweep, other commands
read its folder; theirs is the memory of the whole process.

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
            f"{results['environment']['cores']} cores. Other programs also used these cores. "
            + (
                f"The load average was {load['first']:.0f} when the first measurement of this section began, "
                f"and {load['last']:.0f} when the last one began. "
                if load
                else ""
            )
            + f"{results.get('note', '')}\n\n"
        )
        yield "**The driver without Ray.** It writes invented rows, which arrive in groups of 1 to 1000 events.\n"
        yield "A CPU second is a second of the driver's processor time.\n\n"
        yield from table(results["driver"], ("rows_per_second", "rows_per_cpu_second"))
        yield f"\n{SIMULATED}\n"
        yield from side_by_side(results["simulated"])
        found = [cases["turns"] for cases in results["simulated"].values()]
        rows = max(values["rows_per_second"] for values in found)
        runs = max(values["runs_per_second"] for values in found)
        yield f"\n{LIMIT.format(rows=rows, runs=runs, jobs=rows * 10, least=160_000 / rows)}"
        yield from large(results["large"])
        yield "\n**Real training**, with two workers on this machine. The table shows the seconds of the "
        yield "whole command: the median of three, and in brackets the smallest and the largest.\n\n"
        yield "| | process | ray |\n|---|---|---|\n"
        for case, executors in results["trained"].items():
            yield f"| {case} | {' | '.join(map(spread, executors.values()))} |\n"


def large(cases: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield f"{LARGE}| | seconds | memory, MB |\n|{'---|' * 3}\n"
    for name, found in cases.items():
        memory = found.get("mb", found.get("mb_above_torch", 0.0))
        yield f"| {name} | {found['seconds']:.0f} | {memory:,.0f} |\n"
    driver = cases["driver"]
    yield (
        f"\nThe first tenth of the driver's events took {driver['first_tenth']:.1f} s, the last tenth "
        f"{driver['last_tenth']:.1f} s.\n"
    )


def spread(seconds: Sequence[float]) -> str:
    """The median, and the smallest and the largest value."""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} … {max(seconds):.1f})"


def side_by_side(cases: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Jobs one at a time and in turns, measured one after the other, with their ratio."""
    columns = ["rows per second: one job at a time", "in turns", "ratio", "runs per second", "rows per CPU second"]
    yield f"| | {' | '.join(columns)} |\n|{'---|' * 6}\n"
    for case, found in cases.items():
        before, now = found["one job at a time"], found["turns"]
        ratio = now["rows_per_second"] / before["rows_per_second"]
        figures = [before["rows_per_second"], now["rows_per_second"]]
        figures += [now["runs_per_second"], now["rows_per_cpu_second"]]
        first, second, *others = (f"{figure:,.0f}" for figure in figures)
        yield f"| {labelled(case)} | {first} | {second} | {ratio:.1f} | {' | '.join(others)} |\n"


def labelled(case: str) -> str:
    label = case.replace("events a batch", "events in a group") + (" epochs" if "runs of" in case else "")
    return re.sub(r"\b1 (\w+)s\b", r"1 \1", label)


def table(cases: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> Iterator[str]:
    names = [
        name.replace("_per_cpu_", " per CPU ").replace("_per_", " per ").replace("_mb", ", MB") for name in columns
    ]
    yield f"| | {' | '.join(names)} |\n|{'---|' * (len(columns) + 1)}\n"
    for case, values in cases.items():
        yield f"| {labelled(case)} | {' | '.join(f'{values[name]:,.0f}' for name in columns)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
