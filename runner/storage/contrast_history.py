"""`contrast.json`: what a sweep compared, since when, and how many of its runs had ended then.

The first record is written before the first run is trained. So a table can say whether its question was fixed before
its answer was known.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from runner.errors import line_of
from runner.storage import files
from runner.storage.folder import CONTRAST
from runner.storage.resume import is_shallow

Fixed = Literal["beforehand", "stated", "unknown", "changed"]
"""When the contrast was fixed: before any run had ended; as a command states it, for a table of another tool; nobody
knows; changed when runs had ended."""

WORDS = {"axis": "axis of the contrast", "baseline": "baseline", "smallest_effect": "smallest effect"}

MOST = 1000
"""A history with more entries is damaged."""


@dataclass(frozen=True)
class Entry:
    """A contrast as JSON values, the time from which it held, and the number of runs that had ended then."""

    axis: str | None
    baseline: Any
    smallest_effect: float | None
    time: str = ""
    runs_ended: int = 0

    @classmethod
    def of(cls, contrast: Mapping[str, Any], time: str = "", runs_ended: int = 0) -> Self:
        # A baseline that was read from YAML must be equal to one that was read from JSON.
        baseline = json.loads(json.dumps(contrast.get("baseline"), default=str))
        return cls(contrast.get("axis"), baseline, contrast.get("smallest_effect"), time, runs_ended)

    @property
    def is_possible(self) -> bool:
        """Whether bnbench can have written this. Errors: ValueError and TypeError where the time is none."""
        datetime.fromisoformat(self.time)
        effect = self.smallest_effect
        return type(self.runs_ended) is int and (effect is None or (isinstance(effect, int | float) and 0 < effect < 1))

    def changes(self, new: Self) -> list[str]:
        """The names of the parts in which a new contrast differs."""
        return [name for name in WORDS if getattr(self, name) != getattr(new, name)]


def now() -> str:
    """The time of a record."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record(folder: Path, history: Sequence[Entry], contrast: Mapping[str, Any], runs_ended: int) -> None:
    """Add a contrast to the folder's history, if it is another one than the last."""
    new = Entry.of(contrast, now(), runs_ended)
    if not history or history[-1].changes(new):
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


def judged(history: Sequence[Entry] | None, contrast: Mapping[str, Any], runs_ended: int) -> tuple[Fixed, list[str]]:
    """When a sweep's contrast was fixed, and a sentence for each change that was made when runs had ended.

    contrast: that of the sweep's config. It may have been edited since the last record. runs_ended: until now.

    >>> contrast = {"axis": "network.norm", "baseline": "none", "smallest_effect": 0.005}
    >>> history = [Entry.of(contrast, "2026-11-26T14:02:00+00:00")]
    >>> judged(history, contrast, 12)
    ('beforehand', [])
    >>> fixed, sentences = judged(history, {**contrast, "smallest_effect": 0.001}, 12)
    >>> sentences[0].partition(", ")[0]
    'The smallest effect was changed from 0.5 pp to 0.1 pp in config.yaml'
    """
    if not history:
        return "unknown", []
    here = Entry.of(contrast, "", runs_ended)
    entries = [*history, here] if history[-1].changes(here) else list(history)
    # What was replaced before any run had ended decided nothing.
    entries = [entry for entry, later in pairwise(entries) if later.runs_ended] + entries[-1:]
    found = [_sentence(old, new, name) for old, new in pairwise(entries) for name in old.changes(new)]
    if found:
        return "changed", found
    return ("unknown" if entries[0].runs_ended else "beforehand"), []


def _sentence(old: Entry, new: Entry, name: str) -> str:
    change = f"The {WORDS[name]} was changed from {_shown(name, old)} to {_shown(name, new)}"
    when = f"on {_minute(new.time)}" if new.time else "in config.yaml"
    runs = f"{new.runs_ended} run{'s' if new.runs_ended > 1 else ''} had ended"
    return f"{change} {when}, after {runs}; it was not fixed beforehand."


def _minute(time: str) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M} UTC"


def _shown(name: str, entry: Entry) -> str:
    value = getattr(entry, name)
    if value is None and name != "baseline":
        return "none"
    return f"{100 * value:.6g} pp" if name == "smallest_effect" else line_of(value)
