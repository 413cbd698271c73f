"""docs/claims.md."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from .agreement import agrees, p_text, shown
from .measures import (
    Measure,
    Measured,
    at_best_lr,
    batch_statistics,
    divergences,
    early,
    every_other,
    final,
    gradients,
    initialisation,
    largest_lr,
    loss_gaps,
    matched_loss,
    running,
    slope,
    spread,
    steadier,
    time_to,
)
from .statistics import Values, fieller, hodges_lehmann, mcnemar_p, rate_interval, sign_flip_p, t_interval, tost_p
from .tables import Sweep

TUTORIAL = ("batch_norm", "no_batch_norm", "network")

CLAIMS: dict[str, tuple[str, Measure]] = {
    **{
        f"{kind}_accuracy_notebook_mlp": ("notebook_mlp_mnist", final("batch", "none"))
        for kind in ("unchanged", "higher")
    },
    **{
        f"{kind}_accuracy_notebook_cnn": ("notebook_cnn_mnist", final("batch", "none"))
        for kind in ("unchanged", "higher")
    },
    **{f"{kind}_accuracy_tutorial_cnn": ("tutorial_fashion", final(*TUTORIAL)) for kind in ("unchanged", "higher")},
    "small_batches_break_it": ("batch_size", slope("layer")),
    "small_batches_break_it_group": ("batch_size", slope("group")),
    "faster_notebook_mlp": ("notebook_mlp_mnist", time_to(0.95, "batch", "none")),
    "faster_sigmoid_mlp": ("sigmoid_mlp_mnist", time_to(0.9, "batch", "none")),
    "faster_notebook_cnn": ("notebook_cnn_mnist", time_to(0.95, "batch", "none")),
    "faster_tutorial_cnn": ("tutorial_fashion", time_to(0.8, *TUTORIAL)),
    "faster_in_seconds_notebook_mlp": ("notebook_mlp_mnist", time_to(0.95, "batch", "none", clock="duration")),
    "faster_at_own_best_lr": ("own_best_lr", at_best_lr(0.95)),
    "larger_area_at_own_best_lr": ("own_best_lr", at_best_lr(None)),
    "better_generalisation": ("generalisation", final("batch", "none", epochs=10)),
    "better_generalisation_10k": ("generalisation_10k", final("batch", "none", epochs=10)),
    "better_generalisation_at_matched_loss": ("generalisation", matched_loss),
    "better_generalisation_at_matched_loss_10k": ("generalisation_10k", matched_loss),
    "fewer_vanishing_gradients_sigmoid": ("gradients", gradients("sigmoid", 1)),
    "fewer_vanishing_gradients_relu": ("gradients", gradients("relu", 1)),
    "no_exploding_gradients_sigmoid": ("gradients", gradients("sigmoid", -1)),
    "no_exploding_gradients_relu": ("gradients", gradients("relu", -1)),
    "less_sensitive_to_initialisation": ("initialisation", initialisation),
    "larger_learning_rates": ("learning_rates", largest_lr),
    "order_matters_little": ("order", every_other("network__order", "norm-pool-activation")),
    "fewer_divergences": ("divergence", divergences),
    "smaller_spread_over_seeds": ("notebook_mlp_mnist", spread),
    "steadier_validation": ("notebook_mlp_mnist", steadier),
    "running_statistics_at_test_time": ("running_statistics", running),
    "running_statistics_poor_early": ("early_statistics", early),
    "batch_statistics_of_256_at_test_time": ("running_statistics", batch_statistics(256)),
    "batch_statistics_of_2_at_test_time": ("running_statistics", batch_statistics(2)),
    "momentum_changes_evaluation_only": ("momentum", loss_gaps),
    "eps_matters_little": ("eps", every_other("network__norm_args__eps", 1e-5)),
    "affine_matters_little": ("affine", final(False, True, "network__norm_args__affine")),
}
"""Claim → (its sweep, how its values are measured)."""


@dataclass(frozen=True)
class Effect:
    """A claim's effect in the unit of the page, from complete pairs. `kind` is "difference", "ratio" or "rate"."""

    arm: Values
    baseline: Values
    kind: str

    @property
    def estimate(self) -> float:
        if self.kind == "ratio":
            return 100 * (float(self.arm.mean() / self.baseline.mean()) - 1)
        return float((self.arm - self.baseline).mean())

    def interval(self, level: float) -> tuple[float, float]:
        if self.kind == "ratio":
            low, high = fieller(self.arm, self.baseline, level)
            return 100 * low, 100 * high
        if self.kind == "rate":
            return rate_interval(self.arm, self.baseline, level)
        return t_interval(self.arm - self.baseline, level)

    def p(self, test: str, margin: float) -> float:
        match test:
            case "TOST":
                return tost_p(self.arm - self.baseline, margin)
            case "McNemar":
                return mcnemar_p(self.arm, self.baseline)
            case _:
                return sign_flip_p(self.arm - self.baseline)

    def differs(self, tests: int) -> bool:
        """Whether the test of the sign rejects "no difference", where `tests` effects are tested."""
        return len(self.arm) > 1 and self.p("McNemar" if self.kind == "rate" else "sign-flip", 0.0) * tests < 0.05


Said = tuple[str, str, float | str]
"""(what it is, what the document says, what the tables give)."""


def number(value: float) -> str:
    """Three digits with a sign, as the page of the claims has them."""
    return f"{value:+.3g}"


def claim_section(name: str, text: str, tests: int, results: Path) -> Iterator[Said | tuple[str, str, str]]:
    """What the section of a claim says, beside what the tables give."""
    folder, measure = CLAIMS[name]
    parts = measure(Sweep(results / "claims" / folder))
    said = re.search(r"- Claimed: (≥ \+|≤ −|within ±)([\d.e-]+) (\S+)", text)
    measured = re.search(r"- Measured: (.*?); (\d+) of (\d+) seeds", text)
    assert said, name
    assert measured, name
    kind = "ratio" if said[3].startswith("%") else "rate" if name == "fewer_divergences" else "difference"
    verdict = re.search(r"- Verdict: \*\*([A-Z, ]+)\*\*", text)
    said_word = verdict[1] if verdict else ""
    yield "number of seeds", measured[3], str(len(parts[0].arm))
    complete = [part for part in parts if np.isfinite(part.arm - part.baseline).any()]
    if not complete:
        yield "pairs", measured[2], "0"
        yield "effect", measured[1].split()[0], "–"
        if said_word not in UNCHECKED:
            yield "verdict", said_word, "UNDECIDED"
        return
    levels = {f"{100 * (1 - level):.4g}%": level for level in (0.1 / tests, 0.05 / tests, 0.05 / tests / len(parts))}
    stated = re.search(r"\(([\d.]+%) interval\)", measured[1])
    assert stated, name
    if stated[1] not in levels:
        yield "confidence", stated[1], " or ".join(levels)
        return
    level = levels[stated[1]]
    effects = []
    for part in complete:
        known = np.isfinite(part.arm - part.baseline)
        effects.append((Effect(part.arm[known], part.baseline[known], kind), part))
    effect, part = max(effects, key=lambda pair: max(map(abs, pair[0].interval(level))))
    differences = effect.arm - effect.baseline
    yield "pairs", measured[2], str(len(differences))
    yield from said_effect(measured[1], effect, level, part)
    if p := re.search(r"- p \(([\w-]+)\): (\S+), for all (\d+) tests (\S+)\.", text):
        yield "number of tests", p[3], str(tests)
        own = effect.p(p[1], float(said[2]))
        yield "p", p[2], p_text(own)
        yield "adjusted p", p[4], p_text(min(1.0, own * (0.05 / level if level < 0.05 / tests else tests)))
    if robust := re.search(r"Hodges–Lehmann (\S+), 20% trimmed mean (\S+)\.", text):
        # In the unit of the effect: a ratio's are in % of the baseline's mean.
        unit = effect.baseline.mean() / 100 if kind == "ratio" else 1.0
        yield "Hodges–Lehmann estimate", robust[1], hodges_lehmann(differences / unit)
        yield "trimmed mean", robust[2], float(stats.trim_mean(differences / unit, 0.2))
    seeds = re.search(r"Arm minus baseline by seed: (.*?)\.(?:\n|$)", text)
    assert seeds, name
    for seed, (said_one, found) in enumerate(zip(seeds[1].split(", "), part.arm - part.baseline, strict=True)):
        yield f"difference of seed number {seed}", said_one, "none" if np.isnan(found) else float(found)
    for who, missed in zip(("the arm", "the baseline"), part.missed, strict=True):
        count = re.search(rf"(\d+) of \d+ runs of {who} did not reach the target", text)
        yield f"runs of {who} that did not reach the target", count[1] if count else "0", str(missed)
    if said_word not in UNCHECKED:
        own_word = word([each for each, _ in effects], said[1], float(said[2]), tests, len(parts))
        yield "verdict", said_word, bounded(own_word, said[1], part.missed)
    for arm, lr in part.chosen.items():
        best = re.search(rf"best lr of {arm}: ([\d.]+)", text, re.IGNORECASE)
        yield f"best lr of {arm}", best[1].rstrip(".") if best else "", f"{lr:g}"


UNCHECKED = ("NOT TESTED", "WITHHELD")
"""Words that do not follow from the tests alone, but from the config or from a few extreme seeds."""


def word(effects: Sequence[Effect], claimed: str, margin: float, tests: int, parts: int = 1) -> str:
    """The verdict on a claim, by the rules that the page states.

    effects: the comparisons that have pairs, out of `parts`. claimed: "≥ +", "≤ −" or "within ±"; margin: its size.
    A size needs its sign, too: an interval beyond the margin says nothing where the test of the sign does not reject.
    """
    if claimed == "within ±":
        each = [effect.interval(0.1 / tests) for effect in effects if len(effect.arm) > 1]
        if len(each) == parts and all(-margin < low and high < margin for low, high in each):
            return "SUPPORTED"
        beyond = [effect for effect in effects if effect.differs(tests * parts)]
        each = [effect.interval(0.05 / tests / parts) for effect in beyond]
        return "REFUTED" if any(low > margin or high < -margin for low, high in each) else "UNDECIDED"
    (effect,) = effects
    if len(effect.arm) < 2:
        return "UNDECIDED"
    sign = 1 if claimed == "≥ +" else -1
    wide, narrow = effect.interval(0.05 / tests), effect.interval(0.1 / tests)
    near, far = (wide[0], narrow[1]) if sign == 1 else (-wide[1], -narrow[0])
    # An interval without an end decides nothing.
    shown_sign = np.isfinite(narrow).all() and sign * effect.estimate > 0 and effect.differs(tests)
    if near > margin and shown_sign:
        return "SUPPORTED"
    if far < margin:
        return "REFUTED"
    return "SUPPORTED, SIZE OPEN" if shown_sign else "UNDECIDED"


def bounded(found: str, claimed: str, missed: tuple[int, int]) -> str:
    """The word where runs missed their target: they took longer than they count, so the effect is one end only."""
    arm, baseline = (count > 0 for count in missed)
    if not arm and not baseline:
        return found
    # Longer times of the arm raise the effect, and those of the baseline lower it.
    raises, lowers = found.startswith("SUPPORTED"), found == "REFUTED"
    if claimed == "≤ −":
        raises, lowers = lowers, raises
    certain = (raises or not arm) and (lowers or not baseline) and (raises or lowers)
    return found if certain and claimed != "within ±" else "UNDECIDED"


def said_effect(text: str, effect: Effect, level: float, part: Measured) -> Iterator[Said]:
    """The estimate and its interval, of which a bound has one end only."""
    match part.missed:
        case (0, 0):
            bound = ""
        case (0, _):
            bound = "at most "
        case (_, 0):
            bound = "at least "
        case _:
            yield "effect", text[:4], "open"
            return
    said = re.match(r"(at most |at least |)(\S+) \[(\S+), (\S+)\]", text)
    assert said, text
    low, high = effect.interval(level)
    yield "kind of bound", said[1], bound
    yield "effect", said[2], effect.estimate
    yield "interval's low end", said[3], "–" if bound == "at most " or np.isnan(low) else low
    yield "interval's high end", said[4], "–" if bound == "at least " or np.isnan(high) else high


def claims(root: Path, results: Path) -> Iterator[str]:
    """What docs/claims.md says, and the tables do not."""
    page = (root / "docs/claims.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", page, re.M | re.S))
    table, compared = (
        dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (.*) \|$", part(page, heading), re.M))
        for heading in ("All claims", "Then and now")
    )
    for missing in sorted(CLAIMS.keys() ^ sections.keys() | sections.keys() ^ table.keys()):
        yield f"docs/claims.md: {missing} is in one place only: this script, a section, or the table of all claims"
    for name in CLAIMS.keys() & sections.keys() & table.keys():
        # The lines of the page are folded.
        text = re.sub(r"\n  (?=\S)", " ", sections[name])
        for what, said, found in claim_section(name, text, len(sections), results):
            if not agrees(said, found, number):
                yield f"docs/claims.md: {name}: {what}: the page says {said}, the tables give {shown(found)}"
        yield from same_in_table(name, text, table[name])
        _, effect, _, _, _, said_word = table[name].removesuffix(" ¹").split(" | ")
        if name in compared and (now := compared[name].split(" | ")[2]) != f"{effect} {said_word}":
            yield f"docs/claims.md: {name}: 'Then and now' says {now}, the table of all claims {effect} {said_word}"


def part(page: str, heading: str) -> str:
    """The section of second level with this heading."""
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def same_in_table(name: str, text: str, row: str) -> Iterator[str]:
    """The table of all claims must say what the claim's section says."""
    seeds, effect, confidence, _, p, word = row.split(" | ")
    measured = re.search(r"- Measured: (.*?); (\d+) of (\d+) seeds", text)
    assert measured
    for cell, found in ((seeds, f"{measured[2]}/{measured[3]}"), (word, re.search(r"Verdict: \**([A-Z, ]+)", text))):
        wanted = found if isinstance(found, str) else found[1] if found else ""
        if cell.strip("*¹ ") != wanted:
            yield f"docs/claims.md: {name}: the table says {cell}, the section {wanted}"
    if not measured[1].startswith(effect.strip()) or confidence.strip() not in measured[1]:
        yield f"docs/claims.md: {name}: the table says {effect} ({confidence}), the section {measured[1]}"
    adjusted = re.search(r"for all \d+ tests (\S+)\.", text)
    if p.strip() != (adjusted[1] if adjusted else "–"):
        yield f"docs/claims.md: {name}: the table says p {p}, the section {adjusted and adjusted[1]}"
