"""Write docs/reproductions.md: each published number beside our distribution. Run by `make docs`.

It reads `docs/published.csv` and the sweeps in `results/reference/`. No number of ours on the page is typed by hand.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import pandas as pd
from click.testing import CliRunner
from scipy import stats

from runner.interfaces.cli.main import main

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reproductions.md"

SOURCES = {
    "tutorial": "The tutorial's CNN on FashionMNIST",
    "notebook_mlp": "The notebook's MLP on MNIST",
    "notebook_cnn": "The notebook's CNN on MNIST",
}

AS_OF_2017 = {("notebook_cnn", "batch"): "hand_written"}
"""Arms that are also compared with runs of another arm: the layer as PyTorch had it when the source was written."""

INTRODUCTION = """\
# Reproductions

`make docs` writes this page from [published.csv](published.csv) and the sweeps in `results/reference/`. The command
`bnbench run configs/NAME.yaml --out results/reference --fresh` makes such a sweep again. Each folder's
`environment.json` says which machine the sweep ran on.

A published number comes from one run. Our number is a distribution over seeds: the mean ± SD of *n* runs of the same
set-up. The 95% prediction interval is mean ± t(n−1, 0.975) · SD · √(1 + 1/n). If the results of runs are normally
distributed, one more such run falls into this interval with 95% probability. An accuracy is never above 1, so its
interval ends there. So about one published number in twenty is
outside its interval by chance. The numbers of one run are correlated: if one of them is outside, others often are, too.

For each document, `bnbench compare` also prints **the effect of batch norm** with two intervals: one for other seeds on
the same test images, and a wider one for other seeds and other test images of the same kind. The second needs to know
which images each run classifies correctly. So each set-up was trained once more, with the present code and with
`save_predictions: true` (`results/reference/over_images/`). The present kernels round differently, which leads to other
runs. The effects of the two sweeps therefore differ, as those of any two samples of seeds do.

The notebook computes its numbers in another way than bnbench. It averages the accuracies and losses of batches, and its
last test batch has 16 images instead of 128. bnbench averages over samples. The two ways differ by only a few
ten-thousandths (1e-4).
"""


def effect(name: str, axis: str, baseline: str) -> list[str]:
    """What `bnbench compare` prints about the sweep, for new seeds, and for new seeds and new test images.

    It is about the same set-up, trained once more. Below it stands the difference in the sweep that the tables show.
    """
    folder = f"results/reference/over_images/{name}"
    arguments = ["compare", str(ROOT / folder), "--over", "seeds,images"]
    printed = CliRunner().invoke(main, arguments, catch_exceptions=False)
    shown = printed.stdout.replace(f"{ROOT}/", "").strip()
    metrics = pd.read_csv(ROOT / "results/reference" / name / "metrics.csv", keep_default_na=False)
    means = metrics[metrics["epoch"] == metrics["epoch"].max()].groupby(axis)["valid_accuracy"].mean()
    differences = ", ".join(
        f"{100 * (mean - means[baseline]):+.2f} pp for `{arm}`" for arm, mean in means.items() if arm != baseline
    )
    return [
        "### The effect of batch norm",
        "",
        *("```sh", f"bnbench compare {folder} --over seeds,images", "```", "", "```", shown, "```", ""),
        f"The same difference in the sweep of the tables below: {differences}.",
    ]


def place(published: pd.DataFrame, metrics: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The published rows of one sweep with n, mean, SD, low, high, and whether the number is inside.

    low and high are the 95% prediction interval for one more value (Hahn & Meeker 1991, section 4.7).
    """
    placed = []
    for row in published.to_dict("records"):
        values = metrics.loc[(metrics[axis] == row["arm"]) & (metrics["epoch"] == row["epoch"]), row["metric"]]
        n, mean, sd = len(values), float(values.mean()), float(values.std(ddof=1))
        half = float(stats.t.ppf(0.975, n - 1)) * sd * math.sqrt(1 + 1 / n)
        low, high = mean - half, mean + half
        if row["metric"].endswith("accuracy"):
            low, high = max(low, 0.0), min(high, 1.0)
        inside = low <= row["value"] <= high
        placed.append({**row, "n": n, "mean": mean, "sd": sd, "low": low, "high": high, "inside": inside})
    return pd.DataFrame(placed)


def section(name: str, published: pd.DataFrame) -> str:
    metrics = pd.read_csv(ROOT / "results/reference" / name / "metrics.csv", keep_default_na=False)
    axis = "network" if name == "tutorial" else "network.norm"
    published = published[published["sweep"] == name]
    again = [
        published[published["arm"] == arm].assign(arm=old) for (sweep, arm), old in AS_OF_2017.items() if sweep == name
    ]
    arms = place(pd.concat([published, *again]), metrics, axis).groupby("arm", sort=False)
    counts = [f"- `{arm}`: {rows['inside'].sum()} of {len(rows)}" for arm, rows in arms]
    lines = [f"## {SOURCES[name]}", "", "Published numbers inside our interval:", "", *counts, ""]
    lines += [textwrap.fill(WHY[name](metrics), 120), ""]
    lines += [*effect(name, axis, "no_batch_norm" if name == "tutorial" else "none"), ""]
    for arm, rows in arms:
        same_seed = own_seed(metrics, axis, str(arm)) if name == "tutorial" else None
        lines += [f"### `{arm}`", "", *table(rows, same_seed), ""]
    return "\n".join(lines)


def own_seed(metrics: pd.DataFrame, axis: str, arm: str) -> pd.DataFrame:
    """The epochs of the run with the tutorial's own seed."""
    return metrics[(metrics[axis] == arm) & (metrics["seed"] == 50)].set_index("epoch")


def table(rows: pd.DataFrame, same_seed: pd.DataFrame | None) -> list[str]:
    extra = "" if same_seed is None else " our seed 50 |"
    lines = [
        f"| epoch | metric | published |{extra} ours: mean ± SD (n) | 95% prediction interval | inside |",
        f"|---:|:---|---:|{'' if same_seed is None else '---:|'}---:|:---|:---|",
    ]
    for row in rows.to_dict("records"):
        seed = "" if same_seed is None else f" {same_seed.loc[row['epoch'], row['metric']]:.4f} |"
        lines.append(
            f"| {row['epoch']} | {row['metric']} | {row['value']:.4f} |{seed} "
            f"{row['mean']:.4f} ± {row['sd']:.4f} ({row['n']}) | {row['low']:.4f} … {row['high']:.4f} | "
            f"{'yes' if row['inside'] else '**no**'} |"
        )
    return lines


def why_tutorial(metrics: pd.DataFrame) -> str:
    own = [own_seed(metrics, "network", arm).loc[1] for arm in ("no_batch_norm", "batch_norm")]
    first = "; ".join(
        f"accuracy {row['train_accuracy']:.4f} and loss {row['train_loss']:.4f} {arm}"
        for row, arm in zip(own, ("without batch norm", "with batch norm"), strict=True)
    )
    return (
        "The tutorial uses seed 50. With this seed, bnbench draws exactly the same starting weights as the tutorial, "
        "and takes the batches in the order of the data set, as the tutorial does. After one epoch with seed 50, "
        f"bnbench's training results are: {first}. bnbench ran on a CPU and with another version of PyTorch. The "
        "tutorial ran on a GPU."
    )


def why_notebook_mlp(metrics: pd.DataFrame) -> str:
    late = metrics[(metrics["network.norm"] == "none") & (metrics["epoch"] >= 3)]
    accuracy = late["valid_accuracy"]
    skewness = stats.skew(accuracy - late.groupby("epoch")["valid_accuracy"].transform("mean"))
    return (
        "The numbers outside the interval are the validation loss and accuracy of the notebook's epochs 3 and 8, "
        "without batch norm. At this learning rate, the validation accuracy of the network without batch norm jumps "
        "from epoch to epoch. Most of the large jumps go down. "
        f"From epoch 3 on, our runs have {len(late)} readings of this accuracy. Of these, "
        f"{(accuracy < 0.95).sum()} are below 0.95, and {(accuracy < 0.9182).sum()} are below 0.9182, which is the "
        f"notebook's lowest value. Our lowest value is {accuracy.min():.4f}. So jumps as large as the notebook's also "
        "occur in our runs. The prediction interval assumes a normal distribution, which is symmetric. Within each "
        f"epoch, the accuracies of our {late['seed'].nunique()} seeds are not distributed symmetrically around their "
        "mean. There are more very low values than very high ones (skewness of epochs 3 to "
        f"{late['epoch'].max()} together, after each epoch's mean is subtracted: {skewness:.1f}). So the interval does "
        "not reach low enough."
    )


def why_notebook_cnn(metrics: pd.DataFrame) -> str:
    last = metrics[metrics["epoch"] == 5].groupby("network.norm")["train_loss"].mean()
    return (
        "With batch norm, the notebook's run trains more slowly than the arm `batch`: from the second epoch on, its "
        "training losses are above our intervals. The likely cause is an older version of PyTorch. "
        "The notebook ran in 2017, when `nn.BatchNorm2d` drew the starting values of γ from U(0, 1). Since PyTorch "
        "1.2, γ starts at 1. The arm `hand_written` has the same starting values as the layer of 2017 "
        "(`network.norm_args.init: uniform`). In the "
        f"fifth epoch, the mean training loss is {last['hand_written']:.4f} for `hand_written` and {last['batch']:.4f} "
        "for `batch`; the notebook printed 0.0399. Without batch norm, one of twenty numbers is just above its "
        "interval: the validation accuracy of the third epoch."
    )


WHY = {"tutorial": why_tutorial, "notebook_mlp": why_notebook_mlp, "notebook_cnn": why_notebook_cnn}
"""A paragraph for each sweep that explains the numbers outside. Its own numbers come from the tables, too."""


def page() -> str:
    published = pd.read_csv(ROOT / "docs/published.csv", keep_default_na=False)
    return "\n".join([INTRODUCTION, *(section(name, published) for name in SOURCES)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
