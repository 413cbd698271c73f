"""What docs/claims.md says beside the verdicts: numbers that no claim measures, because they were asked for later.

They describe the same runs. No verdict depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from runner.analysis.claims.claim import Claim
from runner.analysis.claims.finding import Finding
from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.per_seed import PP, accuracies, by_seed
from runner.analysis.stats.intervals import paired_interval
from runner.analysis.stats.values import ALPHA, Values
from runner.storage.folder import CURVES
from runner.storage.results import Results, load, readings

OWN = {
    "arithmetic:": "no document says it",
    "on a batch of one sample": "the notebook asks only about a batch of one sample",
    "which would be no gain if they exploded": "the document speaks of vanishing gradients only",
    'momentum is "the exponent': "the document says what momentum is, not what it changes",
    "its argument affine can switch": "the document says that γ and β can be switched off, not what this changes",
    "a small constant for stable computation": "the documents say what eps is for, not how much its value matters",
}
"""Words in the source of a claim that is our own → why the claim is not the document's."""

SPEED = """
One reading is {resolution} steps. On average, the target is first seen after {steps_batch} steps with batch norm, and
after {steps_none} without. At the reading before, it was not reached yet. The interval does not include this error of
reading: with these means, it alone allows savings from {least} to {most}. 20% would matter
"""

BEST = """
The five learning rates are a factor of about 3 apart. Without batch norm, 0.1 is the best, and 0.3 fails in
all {collapsed} runs: the accuracy is {best_of_collapsed} or less. So the best rate may lie between the two. The best
rate with batch norm, 1, is the largest that was tried. The pixels are not centred (`trainset: half`). In the sweep
`learning_rates` they are (`trainset: normal`), and the same network without batch norm reaches {worst_centred} or more
in all {centred} runs at a learning rate of 0.32. Its images and epochs differ, too. So a part of the gain may come from
pixels that are not centred. Nobody tested this
"""

BATCHES = """
Mean accuracy with batches of 64, 8 and 2: batch norm {batch_64}, {batch_8}, {batch_2}; layer norm {layer_64},
{layer_8}, {layer_2}; group norm {group_64}, {group_8}, {group_2}. Batch norm loses {from_8_to_2} from 8 to 2, and gains
{from_64_to_8} from 64 to 8. The slope is that of a straight line, and does not show this
"""

NOTES: Mapping[str, str] = {
    **dict.fromkeys(("faster_notebook_mlp", "faster_sigmoid_mlp", "faster_notebook_cnn", "faster_tutorial_cnn"), SPEED),
    **dict.fromkeys(("faster_at_own_best_lr", "larger_area_at_own_best_lr"), BEST),
    **dict.fromkeys(("small_batches_break_it", "small_batches_break_it_group"), BATCHES),
    "less_sensitive_to_initialisation": """
        Mean accuracy at starting weights of SD 0.005, 0.05, 0.5 and 5: without batch norm {none_tenth}, {none_good},
        {none_ten}, {none_hundred}; with it {batch_tenth}, {batch_good}, {batch_ten}, {batch_hundred}. At the three
        bad SDs, the network without batch norm does not learn at all. It diverged in {diverged} of {bad} runs there and
        counts with the accuracy that it had then
        """,
    "larger_learning_rates": """
        The learning rates are a factor of √10 apart. In {tenfold} of {pairs} pairs, the largest good rate is ten times
        as large with batch norm, and in the others 3.2 times. Ten times in this grid can be anything from 3.2 to 32
        times. The interval does not include this
        """,
    "smaller_spread_over_seeds": """
        The mean distance is {spread_batch} with batch norm and {spread_none} without. The SD of the final accuracy is
        {sd_batch} with batch norm and {sd_none} without. The interval of the difference contains 0, so the fall may be
        chance
        """,
    "steadier_validation": """
        On average, nine of ten changes are smaller than {change_batch} with batch norm, and than {change_none} without
        """,
}
"""Claim → what its section says beside the verdict."""


@dataclass(frozen=True)
class Beside:
    """The numbers of the committed sweeps in `results`, where `tests` claims are judged together."""

    results: Path
    tests: int

    def sweep(self, claim: Claim) -> Results:
        return _load(self.results / claim.sweep_name)

    def sides(self, claim: Claim) -> PairedValues:
        return claim.measure(self.sweep(claim))

    def numbers(self, claim: Claim) -> dict[str, str]:
        """By name, what the note of this claim says, and what the first screen says beside its effect."""
        sides, found = self.sides(claim), self.sweep(claim)
        match claim.name:
            case "small_batches_break_it" | "small_batches_break_it_group":
                return self._batch_sizes(found)
            case "less_sensitive_to_initialisation":
                return _initialisation(found)
            case "faster_at_own_best_lr" | "larger_area_at_own_best_lr":
                return _own_best(found, _load(self.results / "learning_rates"))
            case "larger_learning_rates":
                return _steps_of_the_grid(sides)
            case "smaller_spread_over_seeds":
                return {**_means("spread", sides), **_deviations(found)}
            case "steadier_validation":
                return _means("change", sides)
            case name if NOTES.get(name) is SPEED:
                return _readings(sides, int(readings(found, CURVES).groupby("run")["step"].diff().max()))
            case _:
                return {}

    def _batch_sizes(self, found: Results) -> dict[str, str]:
        accuracy = PP * accuracies(found, 10)
        at = {
            (norm, size): by_seed(found, accuracy, norm, {"batch_size": size})
            for norm in ("batch", "layer", "group")
            for size in (64, 8, 2)
        }
        means = {f"{norm}_{size}": percent(values) for (norm, size), values in at.items()}
        return {
            **means,
            "from_8_to_2": self._loss(at["batch", 8] - at["batch", 2]),
            "from_64_to_8": self._loss(at["batch", 8] - at["batch", 64]),
        }

    def _loss(self, differences: Values) -> str:
        interval = paired_interval(differences, ALPHA / self.tests)
        return f"{interval.estimate:.2f} pp [{interval.low:.2f} to {interval.high:.2f}]"


@cache
def _load(folder: Path) -> Results:
    return load(folder)


def _means(what: str, sides: PairedValues) -> dict[str, str]:
    return {f"{what}_batch": f"{sides.values.mean():.2f} pp", f"{what}_none": f"{sides.baseline.mean():.2f} pp"}


def _deviations(found: Results) -> dict[str, str]:
    accuracy = PP * accuracies(found)
    return {f"sd_{norm}": f"{by_seed(found, accuracy, norm).std(ddof=1):.2f} pp" for norm in ("batch", "none")}


def _steps_of_the_grid(sides: PairedValues) -> dict[str, str]:
    tenfold = np.isclose(sides.differences, 1)
    assert np.isclose(sides.differences[~tenfold], 0.5).all()
    return {"tenfold": str(tenfold.sum()), "pairs": str(len(tenfold))}


def _readings(sides: PairedValues, step: int) -> dict[str, str]:
    """What readings that are `step` steps apart leave open."""
    arm, baseline = float(sides.values.mean()), float(sides.baseline.mean())
    return {
        "resolution": str(step),
        "steps_batch": f"{arm:.0f}",
        "steps_none": f"{baseline:.0f}",
        "least": f"{1 - arm / (baseline - step):.0%}",
        "most": f"{1 - (arm - step) / baseline:.0%}",
    }


def note(finding: Finding, beside: Beside) -> str:
    """What the section of a claim says beside its verdict, or nothing."""
    return " ".join(NOTES.get(finding.claim.name, "").split()).format(**beside.numbers(finding.claim))


def _initialisation(found: Results) -> dict[str, str]:
    accuracy = PP * accuracies(found)
    means = {
        f"{norm}_{size}": f"{by_seed(found, accuracy, norm, {'network.std': std}).mean():.0f}%"
        for norm in ("none", "batch")
        for size, std in {"tenth": 0.005, "good": 0.05, "ten": 0.5, "hundred": 5.0}.items()
    }
    bad = found.runs[(found.runs[found.axis] == "none") & (found.runs["network.std"] != 0.05)]
    return {**means, "diverged": str((bad["status"] == "diverged").sum()), "bad": str(len(bad))}


def _own_best(found: Results, centred: Results) -> dict[str, str]:
    collapsed = _at(found, 0.3, 1)
    good = _at(centred, 0.316227766017, 3)
    return {
        "collapsed": str(len(collapsed)),
        "best_of_collapsed": f"{np.ceil(collapsed.max()):.0f}%",
        "centred": str(len(good)),
        "worst_centred": f"{np.floor(good.min()):.0f}%",
    }


def _at(found: Results, lr: float, epochs: int) -> Values:
    """The final accuracies without batch norm at a learning rate, of all seeds."""
    return by_seed(found, PP * accuracies(found, epochs), "none", {"lr": lr})


def percent(values: Values) -> str:
    return f"{values.mean():.1f}%"


def why_own(finding: Finding) -> str:
    """Why a claim is our own and not a document's; nothing where it is a document's."""
    return next((why for words, why in OWN.items() if words in finding.claim.source), "")


def has_own_budget(finding: Finding) -> bool:
    return finding.claim.document.words.startswith(("ours", "none"))


def is_unsupportable(finding: Finding, beside: Beside) -> bool:
    """Whether the baseline is so close to 0 that no arm can be lower by the smallest effect."""
    claim = finding.claim
    if claim.claimed != -1 or claim.effect != "difference":
        return False
    baseline = beside.sides(claim).baseline
    return bool(baseline.min() >= 0 and baseline.mean() < claim.smallest_effect)


def unequal_batches(results: Path, sweep: str) -> tuple[int, int]:
    """(pairs whose two runs did not see the same batches to the end, pairs)."""
    runs = _load(results / sweep).runs
    keys = [key for key in ("seed", "network.std") if key in runs]
    hashes = runs.groupby(keys)["batches_hash"].nunique()
    return int((hashes > 1).sum()), len(hashes)
