"""`contrast.json`: what a sweep compared and planned, since when, and how many of its runs had begun and ended then.

The first record is written before the first run is trained. So a table can say whether its question was fixed before
its answer was known, and whether runs were added after somebody could look at the first ones.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from runner.config import grid
from runner.config.sweep import Sweep
from runner.errors import line_of
from runner.storage import files
from runner.storage.folder import CONFIG, CONTRAST, METRICS, RUNS, read_config
from runner.storage.resume import is_shallow
from runner.storage.rows import ENDED
from runner.storage.tables import CompleteLines, each_row

Fixed = Literal["beforehand", "stated", "unknown", "changed"]
"""When the contrast was fixed: before any run had begun; as a command states it, for a table of another tool; nobody
knows; changed when runs had begun."""

WORDS = {"axis": "axis of the contrast", "baseline": "baseline", "smallest_effect": "smallest effect"}

MOST = 1000
"""A history with more entries is damaged."""


@dataclass(frozen=True)
class Entry:
    """A contrast as JSON values, the time from which it held, and what was known then."""

    axis: str | None
    baseline: Any
    smallest_effect: float | None
    time: str = ""
    runs_ended: int = 0
    runs_begun: int | None = None
    """The runs that had a row in metrics.csv. An older bnbench did not record them."""
    runs_planned: int | None = None
    """The runs of the config; None if seeds are added until the verdict is decided. An older bnbench did not record
    them."""

    @classmethod
    def of(cls, contrast: Mapping[str, Any], time: str = "", **runs: int | None) -> Self:
        # A baseline that was read from YAML must be equal to one that was read from JSON.
        baseline = json.loads(json.dumps(contrast.get("baseline"), default=str))
        return cls(contrast.get("axis"), baseline, contrast.get("smallest_effect"), time, **runs)  # type: ignore[arg-type]

    @property
    def is_possible(self) -> bool:
        """Whether bnbench can have written this. Errors: ValueError and TypeError where the time is none."""
        datetime.fromisoformat(self.time)
        counts = [count for count in (self.runs_begun, self.runs_planned) if count is not None]
        effect = self.smallest_effect
        return all(type(count) is int for count in (self.runs_ended, *counts)) and (
            effect is None or (isinstance(effect, int | float) and 0 < effect < 1)
        )

    @property
    def late(self) -> bool:
        """Whether runs had begun, so that somebody could know a part of the answer."""
        return bool(self.runs_ended or self.runs_begun)

    def changes(self, new: Self) -> list[str]:
        """The names of the parts in which a new contrast differs."""
        return [name for name in WORDS if getattr(self, name) != getattr(new, name)]

    def added(self, new: Self) -> int:
        """How many runs a new record adds."""
        known = self.runs_planned is not None and new.runs_planned is not None
        return max(0, new.runs_planned - self.runs_planned) if known else 0  # type: ignore[operator]


def before(folder: Path) -> tuple[list[Entry], dict[str, int]]:
    """The history of a sweep that is going to be resumed, and how many of its runs have ended and begun."""
    history = read(folder) or []
    there = read_config(folder / CONFIG)
    if history and history[-1].runs_planned is None and not there.get("until_decided"):
        history[-1] = replace(history[-1], runs_planned=sum(1 for _ in grid.expand(there)))
    begun = set[str]()
    if files.exists(folder / METRICS):
        with files.reading(folder / METRICS) as table:
            begun = {line.partition(",")[0] for line in CompleteLines(table, errors="replace")}
    ended = sum(row["status"] in ENDED for row in each_row(folder / RUNS))
    # A line that begins with something else than a run's number is the rest of a text with several lines.
    return history, {"runs_ended": ended, "runs_begun": sum(number.isdigit() for number in begun)}


def now() -> str:
    """The time of a record."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record(folder: Path, sweep: Sweep, history: Sequence[Entry], counts: Mapping[str, int]) -> None:
    """Add a record to the folder's history, if the sweep has another contrast than the last, or more runs."""
    planned = None if sweep.until_decided else len(sweep.runs)
    new = Entry.of(sweep.resolved.get("contrast") or {}, now(), runs_planned=planned, **counts)
    if not history or history[-1].changes(new) or history[-1].added(new):
        entries = [json.dumps(asdict(entry)) for entry in (*history, new)]
        files.write_atomically(folder / CONTRAST, "[\n" + ",\n".join(entries) + "\n]\n")


def read(folder: Path) -> list[Entry] | None:
    """The folder's history, from early to late; None where there is none, or where it is not what bnbench writes.

    Errors: OSError where it cannot be read, such as a link.
    """
    if not files.exists(folder / CONTRAST):
        return None
    content = files.read_bytes(folder / CONTRAST)
    with suppress(ValueError, RecursionError, TypeError):
        found = json.loads(content)
        if isinstance(found, list) and 0 < len(found) <= MOST and all(map(is_shallow, found)):
            entries = [Entry(**entry) for entry in found]
            return entries if all(entry.is_possible for entry in entries) else None
    return None


def judged(history: Sequence[Entry] | None, here: Entry) -> tuple[Fixed, list[str]]:
    """When a sweep's contrast was fixed, and a sentence for each change that was made when runs had begun.

    here: the sweep as it is. Its config may have been edited since the last record.

    >>> contrast = {"axis": "network.norm", "baseline": "none", "smallest_effect": 0.005}
    >>> history = [Entry.of(contrast, "2026-11-26T14:02:00+00:00", runs_planned=12)]
    >>> judged(history, Entry.of(contrast, runs_ended=12, runs_planned=12))
    ('beforehand', [])
    >>> changed = Entry.of({**contrast, "smallest_effect": 0.001}, runs_ended=12, runs_planned=12)
    >>> judged(history, changed)[1][0].partition(", ")[0]
    'The smallest effect was changed from 0.5 pp to 0.1 pp in config.yaml'
    >>> judged(history, Entry.of(contrast, runs_ended=12, runs_planned=16))[1][0].partition(": ")[0]
    '4 runs were added in config.yaml, after 12 runs had ended'
    """
    if not history:
        return "unknown", []
    entries = [*history, here] if history[-1].changes(here) or history[-1].added(here) else list(history)
    # What was replaced before any run had begun decided nothing.
    entries = [entry for entry, later in pairwise(entries) if later.late] + entries[-1:]
    changes = [_change(old, new, name) for old, new in pairwise(entries) for name in old.changes(new)]
    additions = [_addition(old.added(new), new) for old, new in pairwise(entries) if old.added(new)]
    if here.runs_planned is None:  # Looking in between is what the test of a sweep that grows allows.
        additions = []
    fixed: Fixed = "changed" if changes else "unknown" if entries[0].late else "beforehand"
    return fixed, [*changes, *additions]


def _change(old: Entry, new: Entry, name: str) -> str:
    change = f"The {WORDS[name]} was changed from {_shown(name, old)} to {_shown(name, new)}"
    return f"{change} {_when(new)}; it was not fixed beforehand."


def _addition(added: int, new: Entry) -> str:
    what = "run was" if added == 1 else "runs were"
    why = "p and intervals take no account of looking in between (run --until-decided does)"
    return f"{added} {what} added {_when(new)}: {why}."


def _when(entry: Entry) -> str:
    """When a record was made: its time, and how many runs had ended, or else had begun."""
    time = f"on {datetime.fromisoformat(entry.time):%Y-%m-%d %H:%M} UTC" if entry.time else "in config.yaml"
    count, what = (entry.runs_ended, "ended") if entry.runs_ended else (entry.runs_begun or 0, "begun")
    return f"{time}, after {count} run{'s' if count > 1 else ''} had {what}"


def _shown(name: str, entry: Entry) -> str:
    value = getattr(entry, name)
    if value is None and name != "baseline":
        return "none"
    return f"{100 * value:.6g} pp" if name == "smallest_effect" else line_of(value)
