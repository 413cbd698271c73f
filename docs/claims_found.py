"""The first screen of docs/claims.md: what was found, in plain words.

Each paragraph names the verdicts that it rests on, and takes its numbers from the findings. If a verdict is another
one, the page cannot be made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.analysis.claims.finding import Finding

PARAGRAPHS: Sequence[tuple[str, Mapping[str, Sequence[str]]]] = (
    (
        """
        We tested 36 claims that six documents make about batch norm. The networks are small: perceptrons (MLPs) and
        convolutional networks (CNNs). The data are MNIST and FashionMNIST. Optimizer, learning rate, batch size and
        epochs are those of the documents where they name them. Each claim has 30 seeds, or 20 if each network has its
        own best learning rate. The two runs of a seed have the same starting weights and the same batches, so they
        differ only in what is compared. Numbers in brackets are intervals. "pp" means percentage points of accuracy.
        How large an effect must be to matter was fixed before the runs: for the final accuracy 0.2 pp on MNIST and
        0.5 pp on FashionMNIST.
        """,
        {},
    ),
    (
        """
        **Batch norm makes training much faster.** All four networks reach a given accuracy in fewer steps: the
        notebook's MLP in {faster_notebook_mlp} fewer, its CNN in {faster_notebook_cnn} fewer, the tutorial's CNN in
        {faster_tutorial_cnn} fewer, a sigmoid MLP in {faster_sigmoid_mlp} fewer. A step takes longer with batch norm,
        but the MLP still needs {faster_in_seconds_notebook_mlp} less time. A badly chosen learning rate is not the
        reason: if each network uses the rate that is best for it, batch norm needs {faster_at_own_best_lr} fewer
        steps, and the accuracy, averaged over the whole training, is {larger_area_at_own_best_lr} higher.
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
        **It changes the final accuracy little.** After the documents' whole training, batch norm adds
        {higher_accuracy_notebook_mlp} [{higher_accuracy_notebook_mlp:range}] for the notebook's MLP and
        {higher_accuracy_notebook_cnn} [{higher_accuracy_notebook_cnn:range}] for its CNN on MNIST, and
        {higher_accuracy_tutorial_cnn} [{higher_accuracy_tutorial_cnn:range}] for the tutorial's CNN on FashionMNIST.
        So batch norm changes the accuracy of the notebook's MLP by an amount that matters, and that of its CNN by
        less. For the tutorial's CNN this is not decided.
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
        **It makes training more robust.** At a learning rate of 3, a plain network of three hidden layers diverges,
        and one with batch norm does not. Batch norm allows learning rates that are {larger_learning_rates:factor}
        times larger [{larger_learning_rates:factors}]. The claimed ten times are possible, but not shown. If the
        starting weights are a tenth, ten times or a hundred times as large as they should be, a network without batch
        norm loses {less_sensitive_to_initialisation} more accuracy than one with it (the mean of the three). The
        validation accuracy jumps less from reading to reading. But the spread of the final accuracy over seeds is not
        smaller by 0.1 pp or more.
        """,
        {
            "SUPPORTED": ("fewer_divergences", "less_sensitive_to_initialisation", "steadier_validation"),
            "SUPPORTED, SIZE OPEN": ("larger_learning_rates",),
            "REFUTED": ("smaller_spread_over_seeds",),
        },
    ),
    (
        """
        **It does not always help gradients.** In a sigmoid network of ten layers, gradients vanish without batch
        norm, and not with it. In a ReLU network with He's weights there is nothing to cure: gradients do not vanish
        there. With batch norm they grow instead, from layer to layer towards the input.
        """,
        {
            "SUPPORTED": ("fewer_vanishing_gradients_sigmoid", "no_exploding_gradients_sigmoid"),
            "REFUTED": ("fewer_vanishing_gradients_relu", "no_exploding_gradients_relu"),
        },
    ),
    (
        """
        **It may generalise better.** Trained on few images of FashionMNIST, networks with batch norm are better on
        new ones: {better_generalisation} [{better_generalisation:range}] with 1,000 images,
        {better_generalisation_10k} [{better_generalisation_10k:range}] with 10,000. This may be less than the 0.5 pp
        that would matter. At equal training loss, batch norm is not better with 1,000 images, and with 10,000 this is
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
        **Small batches hurt it.** With each halving of the batch, from 64 to 2 images, batch norm loses
        {small_batches_break_it} of accuracy against layer norm, and about as much against group norm
        ({small_batches_break_it_group}).
        """,
        {"SUPPORTED": ("small_batches_break_it", "small_batches_break_it_group")},
    ),
    (
        """
        **Its averages and settings matter little.** At test time, the moving averages are as good as exact averages
        over the training set. With the statistics of a batch of 256 images instead, the accuracy is
        {batch_statistics_of_256_at_test_time} lower [{batch_statistics_of_256_at_test_time:range}], which may or may
        not matter. With those of a batch of 2 it is {batch_statistics_of_2_at_test_time} lower. After the first eight
        steps, the moving averages are poor: {running_statistics_poor_early} worse than exact ones. The momentum of
        the moving averages changes evaluation only. The accuracy is the same, within 0.2 pp, for every eps that was
        tried, and without γ and β. The order of norm, pooling and ReLU changes the accuracy by less than 0.5 pp.
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
        **How sure is this?** Everything that decides the verdicts was written down and committed before the first
        run: the seeds, the measures, which effect would matter, the tests
        ([below](#was-the-plan-frozen-before-the-runs)). The verdicts and the intervals hold for all 36 claims
        together: if the differences between the runs of a seed are about normally distributed, the probability that
        none of them is wrong is at least 95%. With skewed differences, errors are more frequent;
        [calibration.md](calibration.md) says how much. The verdicts are about other seeds, for these networks, data
        and settings, on the same test images. They say nothing about deep networks, such as ResNets, or about large
        images.
        """,
        {},
    ),
)
"""The text of each paragraph, and the verdicts that it rests on: word → claims."""


@dataclass(frozen=True)
class Size:
    """A finding's effect in a sentence: `{name}` is its size without a sign, `{name:range}` its interval.

    Of an effect in decades, `{name:factor}` and `{name:factors}` are the powers of ten.
    """

    finding: Finding

    def __format__(self, kind: str) -> str:
        interval = self.finding.decisive
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        unit = {"%": "%", "pp": " pp"}.get(self.finding.claim.unit.removesuffix(" per doubling"), "")
        if kind in ("factor", "factors"):  # of an effect in decades
            ends = [interval.estimate] if kind == "factor" else [interval.low, interval.high]
            return " to ".join(f"{10**end:.2g}" for end in ends)
        if kind == "range":
            assert interval.low * interval.high > 0, self.finding.claim.name
            return " to ".join(map(number, sorted(map(abs, (interval.low, interval.high)))))
        return f"{number(abs(interval.estimate))}{unit}"


def number(value: float) -> str:
    """Two decimals; none from 10 on.

    >>> number(54.77), number(0.4178)
    ('55', '0.42')
    """
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def found(findings: Sequence[Finding]) -> str:
    """The section. Errors: AssertionError where a verdict is not the one that a paragraph rests on."""
    verdicts = {finding.claim.name: finding.word for finding in findings}
    told = {name: word for _, words in PARAGRAPHS for word, names in words.items() for name in names}
    assert told == verdicts, {name: word for name, word in verdicts.items() if told.get(name) != word}
    sizes = {finding.claim.name: Size(finding) for finding in findings}
    texts = (" ".join(text.split()).format(**sizes) for text, _ in PARAGRAPHS)
    filled = (textwrap.fill(text, 120, break_on_hyphens=False) for text in texts)
    return "\n\n".join(["## What was found", *filled]) + "\n"
