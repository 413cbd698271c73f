"""The first screen of docs/claims.md: what was found, in plain words.

Each paragraph names the verdicts that it rests on, and takes its numbers from the findings. If a verdict is another
one, the page cannot be made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from docs.claims_beside import Beside, has_own_budget, why_own
from runner.analysis.claims.finding import Finding

PARAGRAPHS: Sequence[tuple[str, Mapping[str, Sequence[str]]]] = (
    (
        """
        We tested {claims} claims about batch norm: {theirs} of six documents, such as a PyTorch course's notebook
        ("the notebook") and an online tutorial ("the tutorial"), and {own} of our own. The networks are small
        perceptrons (MLPs) and convolutional networks (CNNs), the data MNIST and FashionMNIST. For {documents} claims,
        the training is that of a document; for {chosen} it is ours ([details](#how-a-claim-is-tested)). Each claim
        has {most_seeds} seeds, except {with_fewer_seeds} that have {fewest_seeds}. "pp" means percentage points of
        accuracy. Brackets are intervals for other seeds; each by itself has a confidence of at least 99.7%. What
        matters was fixed before the runs: for final accuracy, 0.2 pp on MNIST and 0.5 pp on FashionMNIST.
        """,
        {},
    ),
    (
        """
        **These networks learn faster with batch norm.** They reach a given accuracy in fewer steps: the notebook's MLP
        in {faster_notebook_mlp:full} fewer, its CNN in {faster_notebook_cnn:full}, the tutorial's CNN in
        {faster_tutorial_cnn:full}, a sigmoid MLP in {faster_sigmoid_mlp:full}. In seconds, the notebook's MLP saves
        {faster_in_seconds_notebook_mlp:full}. Accuracy is read only now and then. The brackets do not contain this
        error: for the notebook's CNN, which is read every {resolution} steps, it alone allows {least} to {most}. A
        saving of 20% matters. If the MLP has its best of five learning rates, batch norm saves
        {faster_at_own_best_lr:full} of the steps, and its accuracy, averaged over training, is
        {larger_area_at_own_best_lr:full} higher. But the rates are a factor of three apart: without batch norm, 0.1 is
        best, and 0.3 fails in all {collapsed} runs; with it, the largest, 1, is best. Better rates may exist. Or batch
        norm repairs pixels that are not centred (`trainset: half`). We did not test this directly. In other runs with
        centred pixels and fewer images, the MLP without batch norm trains well at 0.32 in all {centred} runs.
        """,
        {
            "SUPPORTED": (
                *("faster_notebook_mlp", "faster_sigmoid_mlp", "faster_notebook_cnn", "faster_tutorial_cnn"),
                *("faster_in_seconds_notebook_mlp", "faster_at_own_best_lr", "larger_area_at_own_best_lr"),
            )
        },
    ),
    (
        """
        **The final accuracy rises by about half a point or less.** After the documents' whole training, batch norm adds
        {higher_accuracy_notebook_mlp:full} for the notebook's MLP, {higher_accuracy_notebook_cnn:full} for its CNN, and
        {higher_accuracy_tutorial_cnn:full} for the tutorial's CNN (FashionMNIST). The gain matters for the MLP (above
        0.2 pp), and does not for its CNN (below 0.2 pp). For the tutorial's CNN this is open (its limit is 0.5 pp).
        """,
        {
            "SUPPORTED": ("unchanged_accuracy_notebook_cnn", "higher_accuracy_notebook_mlp"),
            "SUPPORTED, SIZE OPEN": ("higher_accuracy_tutorial_cnn",),
            "REFUTED": ("unchanged_accuracy_notebook_mlp", "higher_accuracy_notebook_cnn"),
            "UNDECIDED": ("unchanged_accuracy_tutorial_cnn",),
        },
    ),
    (
        """
        **Batch norm allows larger learning rates and worse starting weights.** At a learning rate of 3, an MLP diverges
        without batch norm, and never with it (difference {fewer_divergences:full} of the runs). Learning rates can be
        {larger_learning_rates:factor} times larger [{larger_learning_rates:factors}]. But we tried rates in steps of
        √10: {tenfold} of {pairs} seeds give ten times, which can mean 3.2 to 32. The paper says "much higher"; we read
        this as ten times, which is possible, but not shown. With starting weights a tenth, ten and a hundred times as
        large as good ones, the network without batch norm learns nothing: its accuracy is {none_tenth}, {none_ten} and
        {none_hundred}, with good ones {none_good}. Batch norm has {batch_tenth}, {batch_ten} and {batch_hundred}, with
        good ones {batch_good}. Compared with good weights, batch norm loses less, by
        {less_sensitive_to_initialisation:full} on average.
        """,
        {
            "SUPPORTED": ("fewer_divergences", "less_sensitive_to_initialisation"),
            "SUPPORTED, SIZE OPEN": ("larger_learning_rates",),
        },
    ),
    (
        """
        **The accuracy jumps less.** For the notebook's MLP, nine of ten changes from reading to reading are below
        {change_batch}, and without batch norm below {change_none} (difference {steadier_validation:full}). Between
        seeds, the final accuracy lies {spread_batch} from the median on average, and {spread_none} without batch norm.
        The difference, {smaller_spread_over_seeds:signed}, may be chance. The plan asked for 0.1 pp. That is more
        than the whole spread, so the claim could not pass, and its verdict, REFUTED, says little.
        """,
        {"SUPPORTED": ("steadier_validation",), "REFUTED": ("smaller_spread_over_seeds",)},
    ),
    (
        """
        **It cures vanishing gradients, but makes others grow** (before the first step). In a sigmoid network of ten
        layers, gradients vanish without batch norm, and not with it. In a ReLU network with He's weights, they keep
        their size without batch norm. With it, they grow from layer to layer towards the input.
        """,
        {
            "SUPPORTED": ("fewer_vanishing_gradients_sigmoid", "no_exploding_gradients_sigmoid"),
            "REFUTED": ("fewer_vanishing_gradients_relu", "no_exploding_gradients_relu"),
        },
    ),
    (
        """
        **It generalises better; the size is open.** An MLP with batch norm is better on new images of FashionMNIST: by
        {better_generalisation:full} after training on 1,000 images, by {better_generalisation_10k:full} on 10,000. At
        equal training loss, it is {better_generalisation_at_matched_loss:full} worse with 1,000; with 10,000 this is
        not decided. So the gain may come from faster learning.
        """,
        {
            "SUPPORTED, SIZE OPEN": ("better_generalisation", "better_generalisation_10k"),
            "REFUTED": ("better_generalisation_at_matched_loss",),
            "UNDECIDED": ("better_generalisation_at_matched_loss_10k",),
        },
    ),
    (
        """
        **Batches of 2 hurt it; batches of 8 do not.** With batches of 64, 8 and 2, the notebook's MLP (2,000 images)
        has {batch_64}, {batch_8} and {batch_2} accuracy with batch norm, and {layer_64}, {layer_8} and {layer_2} with
        layer norm. So batch norm gains {from_64_to_8} from 64 to 8, and loses {from_8_to_2} from 8 to 2. The plan
        fitted one line through the three sizes: {small_batches_break_it:full} for each halving against layer norm, and
        the same against group norm. A line hides that the loss comes between 8 and 2.
        """,
        {"SUPPORTED": ("small_batches_break_it", "small_batches_break_it_group")},
    ),
    (
        """
        **Its moving averages serve well; eps, γ, β and the order of layers matter little.** Moving averages are as good
        as exact averages over the training set. With the statistics of a batch of 256 test images, the accuracy is
        {batch_statistics_of_256_at_test_time:full} lower, which may or may not matter; with those of 2 images,
        {batch_statistics_of_2_at_test_time:full}. After only eight steps, moving averages are
        {running_statistics_poor_early:full} worse than exact ones. Their momentum does not change training. The
        accuracy is the same within 0.2 pp for every eps that was tried, and without γ and β; within 0.5 pp for every
        order of norm, pooling and ReLU.
        """,
        {
            "SUPPORTED": (
                *("running_statistics_at_test_time", "running_statistics_poor_early"),
                "batch_statistics_of_2_at_test_time",
                *("momentum_changes_evaluation_only", "eps_matters_little", "affine_matters_little"),
                "order_matters_little",
            ),
            "UNDECIDED": ("batch_statistics_of_256_at_test_time",),
        },
    ),
    (
        """
        **How sure is this?** The seeds, measures, tests and limits were committed before these runs. We knew earlier
        runs with other seeds then, and edited {edits} files of code later, which changed no verdict ([both
        below](#was-the-plan-frozen-before-the-runs)). With at least 95% probability, all {claims} verdicts are right,
        if the differences between the two runs of a seed are about normal. If they are skewed, errors are more frequent
        ([calibration.md](calibration.md)). There is no such promise for all brackets together. Accuracies at single
        batch sizes and starting weights were looked at after the runs. All this is about other seeds on the same test
        images, for these networks, data and settings; not about deep networks, such as ResNets, or large images.
        """,
        {},
    ),
)
"""The text of each paragraph, and the verdicts that it rests on: word → claims."""


@dataclass(frozen=True)
class Size:
    """A finding's effect in a sentence: `{name}` is its size without a sign, `{name:full}` has its interval, too.

    `{name:signed}` keeps the signs. Of an effect in decades, `{name:factor}` and `{name:factors}` are powers of ten.
    """

    finding: Finding

    def __format__(self, kind: str) -> str:
        interval = self.finding.decisive
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        scale, unit = UNITS[self.finding.claim.unit]
        if kind in ("factor", "factors"):
            ends = [interval.estimate] if kind == "factor" else [interval.low, interval.high]
            return " to ".join(f"{10**end:.2g}" for end in ends)
        if kind == "signed":
            signed = [f"{end:+.3f}".replace("-", "−") for end in (interval.estimate, interval.low, interval.high)]
            return f"{signed[0]}{unit} [{signed[1]} to {signed[2]}]"
        size = f"{number(scale * abs(interval.estimate))}{unit}"
        if kind != "full":
            return size
        assert interval.low * interval.high > 0, self.finding.claim.name
        ends = sorted(scale * abs(end) for end in (interval.low, interval.high))
        return f"{size} [{' to '.join(map(number, ends))}]"


UNITS = {"%": (1, "%"), "pp": (1, " pp"), "pp per doubling": (1, " pp"), "of the runs": (100, "%"), "decades": (1, "")}
"""Unit → (by what to multiply, how to write it)."""


def number(value: float) -> str:
    """Two decimals; none from 10 on.

    >>> number(54.77), number(0.4178)
    ('55', '0.42')
    """
    return f"{value:.0f}" if value >= 9.995 else f"{value:.2f}"


def found(findings: Sequence[Finding], beside: Beside, edits: int) -> str:
    """The section. `edits`: how many files of code were edited after the runs.

    Errors: AssertionError where a verdict is not the one that a paragraph rests on.
    """
    verdicts = {finding.claim.name: finding.word for finding in findings}
    told = {name: word for _, words in PARAGRAPHS for word, names in words.items() for name in names}
    assert told == verdicts, {name: word for name, word in verdicts.items() if told.get(name) != word}
    said: dict[str, object] = {finding.claim.name: Size(finding) for finding in findings if finding.claim.unit in UNITS}
    for finding in findings:
        if finding.claim.name in BESIDE:
            said |= beside.numbers(finding.claim)
    said |= {**counts(findings), "edits": edits}
    texts = (" ".join(text.split()).format_map(said) for text, _ in PARAGRAPHS)
    filled = (textwrap.fill(text, 120, break_on_hyphens=False) for text in texts)
    return "\n\n".join(["## What was found", *filled]) + "\n"


BESIDE = (
    *("faster_notebook_cnn", "faster_at_own_best_lr", "larger_learning_rates", "less_sensitive_to_initialisation"),
    *("smaller_spread_over_seeds", "steadier_validation", "small_batches_break_it"),
)
"""The claims whose notes have numbers that the first screen says, too."""


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    own, chosen = (sum(map(bool, map(of, findings))) for of in (why_own, has_own_budget))
    seeds = sorted(finding.planned for finding in findings)
    return {
        "claims": len(findings),
        "own": own,
        "theirs": len(findings) - own,
        "chosen": chosen,
        "documents": len(findings) - chosen,
        "most_seeds": seeds[-1],
        "fewest_seeds": seeds[0],
        "with_fewer_seeds": sum(each < seeds[-1] for each in seeds),
    }
