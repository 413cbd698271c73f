"""Where a sweep stands that grows until its verdict is decided. This is computed from its tables alone.

The verdict is about the median of the pairs' differences in validation accuracy at the last epoch. The pairs count in
the order of their seeds. A pair counts once all runs of the seeds before it have ended.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from math import isfinite
from typing import Any

from runner.analysis.metrics import of_sweep, read_runs
from runner.analysis.pairing import Arms, pairs
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.sign_process import decide, median_interval
from runner.analysis.stats.values import ALPHA, CONFIDENCE, Values
from runner.analysis.stats.verdicts import Word
from runner.storage.results import Results

METRIC = of_sweep("valid_accuracy")

TEST = "sign e-process"
"""The test's name in a table."""

DECIDED = ("SUPERIOR", "INFERIOR", "EQUIVALENT")
"""The verdicts that end a sweep: the size of the difference is decided, too."""

IN_WORDS = {
    "SUPERIOR": "better by {} or more",
    "BETTER": "its size is open",
    "EQUIVALENT": "smaller than {}",
    "WORSE": "its size is open",
    "INFERIOR": "worse by {} or more",
    "UNDECIDED": "sign and size are open",
}
"""What a verdict says, or leaves open. The blank is the smallest effect."""


@dataclass(frozen=True)
class Standing:
    """The verdict after a number of pairs."""

    word: Word
    pairs: int
    median: Interval
    """The median of the differences, with the interval that decides: at 90% for EQUIVALENT (two one-sided tests at
    .05), else at 95%. Its ends are None while there are too few pairs for it."""

    @property
    def decided(self) -> bool:
        return self.word in DECIDED

    @property
    def confidence(self) -> float:
        """The confidence of the interval."""
        return 1 - 2 * ALPHA if self.word == "EQUIVALENT" else CONFIDENCE


@dataclass(frozen=True)
class Sequential:
    """The pairs of a sweep in the order of their seeds, and the verdict at the first pair that decided it."""

    most: int
    """The most pairs that were allowed."""
    planned: int
    """The seeds of the config so far."""
    smallest_effect: float
    seeds: tuple[int, ...]
    differences: Values

    def after(self, count: int) -> Standing:
        """The verdict after so many pairs."""
        differences = self.differences[:count]
        word = decide(differences, self.smallest_effect, METRIC.better)
        median = median_interval(differences, 2 * ALPHA if word == "EQUIVALENT" else ALPHA)
        known = median.low is not None and isfinite(median.low)
        return Standing(word, count, median if known else Interval(median.estimate))

    @cached_property
    def standings(self) -> list[Standing]:
        """The verdict after each pair, until it is decided."""
        found = []
        for count in range(1, len(self.seeds) + 1):
            found.append(self.after(count))
            if found[-1].decided:
                break
        return found

    @property
    def decided(self) -> bool:
        return bool(self.seeds) and self.standings[-1].decided

    @property
    def failing(self) -> bool:
        """Whether more than half of the seeds have no pair. Only for a sweep whose runs have all ended."""
        return 2 * len(self.seeds) < self.planned

    @property
    def over(self) -> bool:
        """Whether no more seeds are added. Only for a sweep whose runs have all ended."""
        return self.decided or self.failing or self.planned >= self.most

    def line(self, standing: Standing) -> str:
        """A line about a standing: its last pair, and what is open."""
        last = standing.pairs - 1
        pair = f"pair {standing.pairs} (seed {self.seeds[last]}): {_pp(self.differences[last])} pp"
        return f"{pair}; {self._text(standing)}"

    def _text(self, standing: Standing) -> str:
        """The median and the verdict: "median +0.45 [-1.35, +1.50] pp (95%): UNDECIDED, sign and size are open"."""
        estimate, low, high = astuple(standing.median)
        interval = f"[{_pp(low)}, {_pp(high)}] pp ({standing.confidence:.0%})" if low is not None else "pp"
        words = IN_WORDS[standing.word].format(f"{100 * self.smallest_effect:.6g} pp")
        return f"median {_pp(estimate)} {interval}: {standing.word}, {words}"

    @property
    def record(self) -> dict[str, Any]:
        """The columns that a comparison's row has for it."""
        last = self.standings[-1] if self.seeds else None
        estimate, low, high = astuple(last.median) if last else (None, None, None)
        return {
            "sequential": TEST,
            "sequential_verdict": last.word if last else None,
            "sequential_pairs": last.pairs if last else 0,
            "sequential_max_pairs": self.most,
            "median_difference": estimate,
            "median_low": low,
            "median_high": high,
            "median_confidence": last.confidence if last else None,
        }

    @property
    def conclusion(self) -> str:
        """Why the sweep ended, or how far it is, in a sentence."""
        if not self.seeds:
            return f"not decided after 0 of at most {self.most} pairs"
        last = self.standings[-1]
        more = len(self.seeds) - last.pairs
        others = "1 other was" if more == 1 else f"{more} others were"
        together = f" ({others} trained at the same time)" if more else ""
        how = "decided" if last.decided else "not decided"
        return f"{how} after {last.pairs} of at most {self.most} pairs{together}; {self._text(last)}"

    @property
    def ending(self) -> str:
        """The conclusion of a sweep that is over, and how it can go on."""
        if self.decided:
            return self.conclusion
        if self.failing:
            return f"{self.conclusion}; stopped, because runs of more than half of the seeds failed"
        more = f"bnbench run CONFIG --resume --until-decided --max-seeds {2 * self.most}"
        return f"{self.conclusion}; to go on: {more}"


def of(results: Sequence[Results]) -> dict[str, Sequential]:
    """Sweep → its pairs, for those of the sweeps to which seeds were added until their verdict was decided."""
    return {result.name: found for result in results if (found := read(result))}


def read(results: Results) -> Sequential | None:
    """The pairs of a sweep to which seeds are added until its verdict is decided; None for any other sweep."""
    if results.max_seeds is None or results.axis is None or results.smallest_effect is None:
        return None
    if "seed" not in results.parameters:  # Somebody has changed the tables.
        return None
    parameters, facts = read_runs([results], METRIC.name, "last")
    open_seeds = parameters.loc[facts["status"].isin(["missing", "interrupted"]), "seed"]
    found = pairs(parameters, facts, Arms(parameters, results.axis, results.baseline))
    seeds = parameters.loc[found.index, "seed"]
    # The runs of an arm are in the order of the seeds, and so are its pairs.
    order = {seed: place for place, seed in enumerate(dict.fromkeys(parameters["seed"]))}
    first_open = min((order[seed] for seed in open_seeds), default=len(order))
    counted = seeds.map(order) < first_open
    differences = (found["value"] - found["value_base"])[counted].to_numpy()
    return Sequential(results.max_seeds, len(order), results.smallest_effect, tuple(seeds[counted]), differences)


def _pp(value: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * value:+.2f}"
