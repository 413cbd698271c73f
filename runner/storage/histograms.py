"""Histograms as rows of probes.csv, and back: `weight_low`, `weight_high`, `weight_bin_00` … `weight_bin_31`."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from runner.storage.rows import ProbeRow

BINS = 32

_PART = re.compile(r"(?P<name>.+)_(?P<part>low|high|bin_\d\d)")


@dataclass(frozen=True)
class Histogram:
    """Counts of values in `BINS` bins of equal width between `low` and `high`."""

    low: float
    high: float
    counts: tuple[float, ...]

    @property
    def limits(self) -> list[float]:
        """The upper limits of the bins."""
        width = (self.high - self.low) / len(self.counts)
        return [*(self.low + width * index for index in range(1, len(self.counts))), self.high]

    def values_by_name(self, name: str) -> dict[str, float]:
        """The measures of this histogram's rows and their values. The last bin comes last."""
        bins = {f"{name}_bin_{index:02}": count for index, count in enumerate(self.counts)}
        return {f"{name}_low": self.low, f"{name}_high": self.high, **bins}


def is_part(row: ProbeRow) -> bool:
    """Whether a row of probes.csv is part of a histogram."""
    return _PART.fullmatch(row.measure) is not None


def collect(rows: Sequence[ProbeRow]) -> dict[tuple[str, str], Histogram]:
    """(layer, name) → histogram, from the rows of one reading of one run. A histogram that lacks rows is left out."""
    parts: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if match := _PART.fullmatch(row.measure):
            parts[row.layer, match["name"]][match["part"]] = row.value
    bins = [f"bin_{index:02}" for index in range(BINS)]
    return {
        key: Histogram(part["low"], part["high"], tuple(part[name] for name in bins))
        for key, part in parts.items()
        if len(part) == BINS + 2
    }
