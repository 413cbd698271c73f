"""Write docs/reproductions.md: every published number placed in our distribution. Run by `make docs`.

Reads `docs/published.csv` and the sweeps under `results/reference/`; nothing in the page is written by hand but
the explanations below.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from scipy import stats

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reproductions.md"

SOURCES = {
    "tutorial": "The tutorial's CNN on FashionMNIST",
    "notebook_mlp": "The notebook's MLP on MNIST",
    "notebook_cnn": "The notebook's CNN on MNIST",
}

AS_OF_2017 = {("notebook_cnn", "batch"): "hand_written"}
"""Arms that are placed a second time: in the runs with the layer as PyTorch had it when the source was written."""

INTRODUCTION = """\
# Reproductions

Made by `make docs` from [published.csv](published.csv) and the sweeps in `results/reference/`, which
`bnbench run configs/NAME.yaml --out results/reference --fresh` makes again (each folder's `environment.json` says on
what).

A published number is one run. Ours is a distribution over seeds: mean ± SD over *n* runs of the same set-up, and the
interval in which one more such run falls with 95% probability, mean ± t(n−1, .975) · SD · √(1 + 1/n), as if runs were
normally distributed. About one number in twenty falls outside by chance alone; the numbers of one run move together.
Two numbers differ by construction: the notebook averages per-batch accuracies (its last test batch has 16 images, not
128) and per-batch losses, which moves them by a few 1e-4 from the per-sample means used here.
"""


def interval(values: pd.Series) -> tuple[float, float, float, float]:
    """(mean, SD, low, high): the 95% prediction interval for one more value (Hahn & Meeker 1991, section 4.7)."""
    n, mean, sd = len(values), float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd * math.sqrt(1 + 1 / n)
    return mean, sd, mean - half, mean + half


def place(published: pd.DataFrame, metrics: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The published rows of one sweep with n, mean, SD, low, high and whether the number is inside."""
    placed = []
    for row in published.to_dict("records"):
        arm, epoch, metric, value = row["arm"], row["epoch"], row["metric"], row["value"]
        ours = metrics.loc[(metrics[axis] == arm) & (metrics["epoch"] == epoch), metric]
        mean, sd, low, high = interval(ours)
        placed.append((arm, epoch, metric, value, len(ours), mean, sd, low, high, low <= value <= high))
    names = ["arm", "epoch", "metric", "published", "n", "mean", "sd", "low", "high", "inside"]
    return pd.DataFrame(placed, columns=names)


def section(name: str, published: pd.DataFrame) -> str:
    metrics = pd.read_csv(ROOT / "results/reference" / name / "metrics.csv", keep_default_na=False)
    axis = "network" if name == "tutorial" else "network.norm"
    published = published[published["sweep"] == name]
    again = [published[published["arm"] == arm].assign(arm=new) for (of, arm), new in AS_OF_2017.items() if of == name]
    placed = place(pd.concat([published, *again]), metrics, axis)
    counts = [
        f"{int(rows['inside'].sum())} of {len(rows)} for `{arm}`" for arm, rows in placed.groupby("arm", sort=False)
    ]
    lines = [f"## {SOURCES[name]}", "", f"Inside: {', '.join(counts)}.", ""]
    lines.append(why(name))
    for arm, rows in placed.groupby("arm", sort=False):
        same_seed = own_seed(metrics, axis, str(arm)) if name == "tutorial" else None
        lines += [f"### `{arm}`", "", *table(rows, same_seed), ""]
    return "\n".join(lines)


def own_seed(metrics: pd.DataFrame, axis: str, arm: str) -> pd.DataFrame:
    """The run with the tutorial's own seed, by epoch."""
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
            f"| {row['epoch']} | {row['metric']} | {row['published']:.4f} |{seed} "
            f"{row['mean']:.4f} ± {row['sd']:.4f} ({row['n']}) | {row['low']:.4f} … {row['high']:.4f} | "
            f"{'yes' if row['inside'] else '**no**'} |"
        )
    return lines


def why(name: str) -> str:
    """What is known of the numbers that fall outside: the part of the page that a person writes."""
    return (ROOT / "docs/why" / f"{name}.md").read_text(encoding="utf-8")


def page() -> str:
    published = pd.read_csv(ROOT / "docs/published.csv", keep_default_na=False)
    return "\n".join([INTRODUCTION, *(section(name, published) for name in SOURCES)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
