"""The first screen of docs/claims.md and the notes beside its verdicts: each number in them, from the tables."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .claims import CLAIMS, Effect, part
from .measures import Measured, accuracy
from .statistics import Values, t_interval
from .tables import Sweep

EITHER = re.compile("⟨(.*?)⟩")
"""A number in a sentence: the ways to round it, such as ⟨0.4|0.5⟩ for 0.45."""

SPEED = ("faster_notebook_mlp", "faster_sigmoid_mlp", "faster_notebook_cnn", "faster_tutorial_cnn")


def found(root: Path, results: Path) -> Iterator[str]:
    """What the first screen and the notes beside the verdicts say, and the tables do not."""
    page = (root / "docs/claims.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (.*) \|$", part(page, "All claims"), re.M))
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", page, re.M | re.S))
    tables = Tables(results / "claims", {name: row.split(" | ") for name, row in rows.items()})
    yield from unsaid("the first screen", part(page, "What was found"), first_screen(tables, page, sections))
    for name in CLAIMS.keys() & rows.keys():
        said = re.findall(r"^- ((?:Beside the verdict|This test could).*?)(?=^- |\Z)", sections[name], re.M | re.S)
        yield from unsaid(f"{name}: beside the verdict", " ".join(said), notes(tables, name))


def unsaid(where: str, text: str, sentences: list[str]) -> Iterator[str]:
    """The sentences that a text does not say; where it says all of them, the numbers that none of them has."""
    text, missing = " ".join(text.split()), False
    for sentence in sentences:
        pattern = EITHER.sub(lambda numbers: f"(?:{numbers[1]})", re.escape(sentence).replace("\\|", "|"))
        if not re.search(pattern, text):
            missing = True
            shown_as = EITHER.sub(lambda numbers: numbers[1].partition("|")[0], sentence)
            yield f"docs/claims.md: {where}: it does not say, as the tables do: {shown_as}"
        text = re.sub(pattern, "", text)
    left = re.findall(r"\S*\d\S*", text)
    if left and not missing:
        yield f"docs/claims.md: {where}: nothing computes again: {', '.join(left)}"


def near(value: float, form: str = "") -> str:
    """A number with the ways to round it. Without a form: two decimals, and none from 10 on."""
    texts = []
    for each in (value, value - 1e-9, value + 1e-9):
        text = format(each, form or (".0f" if each >= 9.995 else ".2f")).replace("-", "−")
        texts += [] if text in texts else [text]
    return f"⟨{'|'.join(texts)}⟩"


def mean(values: Values, form: str = ".1f") -> str:
    return near(float(values.mean()), form) + "%"


@dataclass(frozen=True)
class Tables:
    """The sweeps, and the rows of the table of all claims. Of the rows, only confidence and unit are read."""

    folder: Path
    rows: Mapping[str, list[str]]

    def sweep(self, name: str) -> Sweep:
        return _sweep(self.folder / name)

    def sides(self, claim: str) -> Measured:
        name, measure = CLAIMS[claim]
        return measure(self.sweep(name))[0]

    def interval(self, claim: str) -> tuple[float, float, float]:
        """A claim's effect with its ends."""
        sides = self.sides(claim)
        kind = "ratio" if claim.startswith("faster") else "rate" if claim == "fewer_divergences" else "difference"
        effect = Effect(sides.arm, sides.baseline, kind)
        tails = 1 if self.rows[claim][2] == f"{100 * (1 - 0.05 / len(self.rows)):.4g}%" else 2
        return effect.estimate, *effect.interval(0.05 * tails / len(self.rows))

    def full(self, claim: str) -> str:
        """The size of an effect with its interval, without signs."""
        scale, unit = (100, "%") if claim == "fewer_divergences" else (1, "%" if claim.startswith("faster") else " pp")
        size, *ends = (scale * abs(value) for value in self.interval(claim))
        return f"{near(size)}{unit} [{near(min(ends))} to {near(max(ends))}]"

    def at(self, sweep: str, epochs: int = 1, **where: object) -> Values:
        """The final accuracies of all seeds with these parameters, in pp."""
        runs = self.sweep(sweep).chosen(**where)["run"]
        return accuracy(self.sweep(sweep), epochs).reindex(runs).to_numpy(float)

    def lost(self, size: int, other: int) -> str:
        """By how much the accuracy with batch norm differs between two batch sizes."""
        sides = [self.at("batch_size", 10, network__norm="batch", batch_size=each) for each in (size, other)]
        low, high = t_interval(sides[0] - sides[1], 0.05 / len(self.rows))
        return f"{near(float((sides[0] - sides[1]).mean()), '.2f')} pp [{near(low, '.2f')} to {near(high, '.2f')}]"


@cache
def _sweep(folder: Path) -> Sweep:
    return Sweep(folder)


def sizes(tables: Tables, norm: str) -> list[str]:
    return [mean(tables.at("batch_size", 10, network__norm=norm, batch_size=size)) for size in (64, 8, 2)]


def weights(tables: Tables, norm: str) -> list[str]:
    """The accuracies at starting weights of SD 0.005, 0.05, 0.5 and 5."""
    return [
        mean(tables.at("initialisation", network__norm=norm, network__std=std), ".0f") for std in (0.005, 0.05, 0.5, 5)
    ]


def read(tables: Tables, claim: str) -> tuple[int, str, str, str, str]:
    """(steps between readings, mean steps with and without batch norm, the least and the most gain they allow)."""
    sides, curves = tables.sides(claim), tables.sweep(CLAIMS[claim][0]).readings
    step = int((curves["step"] - curves.groupby("run")["step"].shift()).max())
    arm, baseline = float(sides.arm.mean()), float(sides.baseline.mean())
    least, most = (100 * (1 - share) for share in (arm / (baseline - step), (arm - step) / baseline))
    return step, near(arm, ".0f"), near(baseline, ".0f"), f"{near(least, '.0f')}%", f"{near(most, '.0f')}%"


def spreads(tables: Tables, claim: str) -> tuple[str, str]:
    sides = tables.sides(claim)
    return f"{near(float(sides.arm.mean()))} pp", f"{near(float(sides.baseline.mean()))} pp"


def tenfold(tables: Tables) -> str:
    sides = tables.sides("larger_learning_rates")
    return f"{np.isclose(sides.arm - sides.baseline, 1).sum()} of {len(sides.arm)}"


def plain_rates(tables: Tables) -> tuple[Values, Values]:
    """Final accuracies without batch norm: at 0.3 with pixels that are not centred, at 0.32 with centred ones."""
    own, normal = tables.sweep("own_best_lr"), tables.sweep("learning_rates")
    assert set(own.runs["trainset"]) == {"half"}
    assert set(normal.runs["trainset"]) == {"normal"}
    at_032 = min(normal.runs["lr"].unique(), key=lambda lr: abs(lr - 0.32))
    return tables.at("own_best_lr", network__norm="none", lr=0.3), tables.at(
        "learning_rates", 3, network__norm="none", lr=at_032
    )


def first_screen(tables: Tables, page: str, sections: Mapping[str, str]) -> list[str]:
    own = sum("\n- The claim is ours: " in text for text in sections.values())
    chosen = len(re.findall(r"^- Budget: (?:ours|none)\b", page, re.M))
    planned = [len(tables.sides(name).arm) for name in CLAIMS]
    few = sum(count < max(planned) for count in planned)
    edits = len(re.findall(r"^- Edited: ", page, re.M))
    full, cnn = tables.full, read(tables, "faster_notebook_cnn")
    collapsed, good = plain_rates(tables)
    best = {norm: tables.sides("faster_at_own_best_lr").chosen[norm] for norm in ("batch", "none")}
    assert (collapsed < 25).all()
    assert (good > 90).all()
    factor, *factors = (near(10**end, ".2g") for end in tables.interval("larger_learning_rates"))
    none, batch = weights(tables, "none"), weights(tables, "batch")
    change, spread = (spreads(tables, name) for name in ("steadier_validation", "smaller_spread_over_seeds"))
    fall, *ends = (near(end, "+.3f") for end in tables.interval("smaller_spread_over_seeds"))
    (b64, b8, b2), (l64, l8, l2) = sizes(tables, "batch"), sizes(tables, "layer")
    slopes = [full(name).partition(" [")[0] for name in ("small_batches_break_it", "small_batches_break_it_group")]
    assert slopes[0] == slopes[1]
    return [
        "the loss comes between 8 and 2",
        f"We tested {len(CLAIMS)} claims about batch norm: {len(CLAIMS) - own} of six documents",
        f"and {own} of our own",
        f"For {len(CLAIMS) - chosen} claims, the training is that of a document; for {chosen} it is ours",
        f"Each claim has {max(planned)} seeds, except {few} that have {min(planned)}",
        f"at least {100 * (1 - 0.1 / len(CLAIMS)):.1f}%",
        "for final accuracy, 0.2 pp on MNIST and 0.5 pp on FashionMNIST",
        f"the notebook's MLP in {full('faster_notebook_mlp')} fewer",
        f"its CNN in {full('faster_notebook_cnn')}",
        f"the tutorial's CNN in {full('faster_tutorial_cnn')}",
        f"a sigmoid MLP in {full('faster_sigmoid_mlp')}",
        f"the notebook's MLP saves {full('faster_in_seconds_notebook_mlp')}",
        f"read every {cnn[0]} steps, it alone allows {cnn[3]} to {cnn[4]}. A saving of 20% matters",
        f"batch norm saves {full('faster_at_own_best_lr')} of the steps",
        f"is {full('larger_area_at_own_best_lr')} higher",
        f"without batch norm, {best['none']:g} is best, and 0.3 fails in all {len(collapsed)} runs",
        f"the largest, {best['batch']:g}, is best",
        f"trains well at 0.32 in all {len(good)} runs",
        f"adds {full('higher_accuracy_notebook_mlp')} for the notebook's MLP",
        f"{full('higher_accuracy_notebook_cnn')} for its CNN",
        f"{full('higher_accuracy_tutorial_cnn')} for the tutorial's CNN (FashionMNIST)",
        *("(above 0.2 pp)", "(below 0.2 pp)", "(its limit is 0.5 pp)", "At a learning rate of 3,"),
        f"(difference {full('fewer_divergences')} of the runs)",
        f"can be {factor} times larger [{factors[0]} to {factors[1]}]",
        f"in steps of √10: {tenfold(tables)} seeds give ten times, which can mean {10**0.5:.1f} to {10**1.5:.0f}",
        f"its accuracy is {none[0]}, {none[2]} and {none[3]}, with good ones {none[1]}",
        f"Batch norm has {batch[0]}, {batch[2]} and {batch[3]}, with good ones {batch[1]}",
        f"by {full('less_sensitive_to_initialisation')} on average",
        f"are below {change[0]}, and without batch norm below {change[1]} (difference {full('steadier_validation')})",
        f"lies {spread[0]} from the median on average, and {spread[1]} without batch norm",
        f"The difference, {fall} pp [{ends[0]} to {ends[1]}], may be chance. The plan asked for 0.1 pp",
        f"by {full('better_generalisation')} after training on 1,000 images",
        f"by {full('better_generalisation_10k')} on 10,000",
        f"it is {full('better_generalisation_at_matched_loss')} worse with 1,000; with 10,000 this",
        "Batches of 2 hurt it; batches of 8 do not.",
        f"With batches of 64, 8 and 2, the notebook's MLP (2,000 images) has {b64}, {b8} and {b2} accuracy",
        f"and {l64}, {l8} and {l2} with layer norm",
        f"gains {tables.lost(8, 64)} from 64 to 8, and loses {tables.lost(8, 2)} from 8 to 2",
        f"{full('small_batches_break_it')} for each halving against layer norm, and the same against group norm",
        f"batch of 256 test images, the accuracy is {full('batch_statistics_of_256_at_test_time')} lower",
        f"with those of 2 images, {full('batch_statistics_of_2_at_test_time')}",
        f"are {full('running_statistics_poor_early')} worse than exact ones",
        *("the same within 0.2 pp for every eps", "within 0.5 pp for every order"),
        f"and edited {edits} files of code later",
        f"With at least 95% probability, all {len(CLAIMS)} verdicts",
    ]


def notes(tables: Tables, name: str) -> list[str]:
    """What the section of a claim says beside its verdict."""
    match name:
        case name if name in SPEED:
            step, arm, baseline, least, most = read(tables, name)
            return [
                f"One reading is {step} steps",
                f"after {arm} steps with batch norm, and after {baseline} without",
                f"from {least} to {most}. 20% would matter",
            ]
        case "faster_at_own_best_lr" | "larger_area_at_own_best_lr":
            collapsed, good = plain_rates(tables)
            return [
                "factor of about 3 apart. Without batch norm, 0.1 is the best",
                f"and 0.3 fails in all {len(collapsed)} runs",
                f"the accuracy is {np.ceil(collapsed.max()):.0f}% or less",
                "The best rate with batch norm, 1,",
                f"reaches {np.floor(good.min()):.0f}% or more in all {len(good)} runs at a learning rate of 0.32",
            ]
        case "small_batches_break_it" | "small_batches_break_it_group":
            norms = [f"{norm} norm {', '.join(sizes(tables, norm))}" for norm in ("batch", "layer", "group")]
            return [
                f"Mean accuracy with batches of 64, 8 and 2: {'; '.join(norms)}",
                f"loses {tables.lost(8, 2)} from 8 to 2, and gains {tables.lost(8, 64)} from 64 to 8",
            ]
        case "less_sensitive_to_initialisation":
            bad = tables.sweep("initialisation").chosen(network__norm="none")
            bad = bad[bad["network.std"] != 0.05]
            none, batch = (", ".join(weights(tables, norm)) for norm in ("none", "batch"))
            return [
                f"SD 0.005, 0.05, 0.5 and 5: without batch norm {none}; with it {batch}",
                f"It diverged in {(bad['status'] == 'diverged').sum()} of {len(bad)} runs",
            ]
        case "larger_learning_rates":
            least, most = f"{10**0.5:.1f}", f"{10**1.5:.0f}"
            return [
                f"a factor of √10 apart. In {tenfold(tables)} pairs",
                f"{least} times. Ten",
                f"{least} to {most} times",
            ]
        case "smaller_spread_over_seeds":
            arm, baseline = spreads(tables, name)
            sides = [tables.at("notebook_mlp_mnist", network__norm=norm).std(ddof=1) for norm in ("batch", "none")]
            exact = near(float(tables.sides(name).baseline.mean()), ".3g")
            return [
                f"the mean is {exact} pp, and it cannot be below 0. So batch norm could not lower it by 0.1",
                f"The mean distance is {arm} with batch norm and {baseline} without",
                f"is {near(sides[0])} pp with batch norm and {near(sides[1])} pp without",
                "The interval of the difference contains 0",
            ]
        case "fewer_vanishing_gradients_relu":
            exact = near(float(tables.sides(name).baseline.mean()), ".3g")
            return [f"the mean is {exact} per layer, and it cannot be below 0. So batch norm could not lower it by 0.1"]
        case "steadier_validation":
            arm, baseline = spreads(tables, name)
            return [f"smaller than {arm} with batch norm, and than {baseline} without"]
        case _:
            return []
