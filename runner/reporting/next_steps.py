"""What a person can type after a sweep has ended."""

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from runner.analysis.records import Comparison

HEAD = "What to try next:"


def next_steps(folder: Path, comparison: Comparison, *, own_code: bool) -> Iterator[str]:
    """The lines of a few commands, with what each does. There are none where the sweep compares nothing.

    `own_code`: whether the config already names files of the user.
    """
    if comparison.axis is None:
        return
    results = shlex.quote(str(folder))
    commands = {f"bnbench report {results}": "write a page with the learning curves"}
    if target := _reached_by_all(comparison):
        commands[f"bnbench compare {results} --target {target:.2f}"] = f"how long until the accuracy is {target:.0%}"
    if not own_code:
        commands["bnbench init my-study"] = "write a config and a network that you can change"
    width = max(map(len, commands))
    yield HEAD
    yield from (f"  {command:<{width}}  # {effect}" for command, effect in commands.items())


def _reached_by_all(comparison: Comparison) -> float | None:
    """The highest accuracy (50%, 55%, …) that the mean of each row has reached; None where there is none."""
    means = [row.mean for row in comparison.rows]
    if not comparison.metric.name.endswith("accuracy") or None in means:
        return None
    target = math.floor(min(mean for mean in means if mean is not None) * 20) / 20
    return target if target >= 0.5 else None
