"""The tables that `bnbench compare` prints, in the documents."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from .agreement import agrees, p_text
from .claims import CLAIMS
from .statistics import sign_flip_p, t_interval


@dataclass(frozen=True)
class Printed:
    """A table in a document, the numbers behind it, and what is compared.

    `share`: the values are shown in percent, and their differences in pp.
    """

    document: str
    heading: str
    """The beginning of the line of headings, by which the table is found."""
    table: str
    value: str
    axis: str
    baseline: str
    share: bool = True


PRINTED = (
    Printed("README.md", "network ", "quickstart/runs.csv", "valid_accuracy", "network", "no_batch_norm"),
    Printed("README.md", "network ", "tutorial/runs.csv", "valid_accuracy", "network", "no_batch_norm"),
    Printed("docs/any-network.md", "swap_norm ", "try-MyNet/runs.csv", "valid_accuracy", "swap_norm", "none"),
    Printed("docs/any-network.md", "swap_norm ", "try-torchvision/runs.csv", "valid_accuracy", "swap_norm", "none"),
    Printed("docs/anyones-table.md", "method ", "tables/diabetes.csv", "rmse", "method", "ridge", share=False),
)


def printed(root: Path, results: Path) -> Iterator[str]:
    """What the printed comparisons say, and the tables do not."""
    for number_of, each in enumerate(PRINTED):
        earlier = sum((other.document, other.heading) == (each.document, each.heading) for other in PRINTED[:number_of])
        text = (root / each.document).read_text(encoding="utf-8")
        blocks = [
            block for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) if f"\n{each.heading}" in block
        ]
        for row, what, said, found in printed_rows(blocks[earlier], each, results):
            if said != found:
                yield f"{each.document}: {each.table}: {row}: {what}: the document says {said}, the tables give {found}"


def printed_rows(block: str, each: Printed, results: Path) -> Iterator[tuple[str, str, str, str]]:
    table = pd.read_csv(results / each.table, keep_default_na=False).sort_values("seed")
    scale, form = (100, "{:.2f}") if each.share else (1, "{:.4f}")
    groups = table.groupby(each.axis, sort=False)
    arms = {str(arm): scale * rows[each.value].to_numpy(float) for arm, rows in groups}
    title = " ".join(block.partition(f"\n{each.heading}")[0].split())
    lines = block.partition(f"\n{each.heading}")[2].partition("\n\n")[0].splitlines()[2:]
    differences = {arm: values - arms[each.baseline] for arm, values in arms.items() if arm != each.baseline}
    rows = len(differences)
    p = {arm: sign_flip_p(values) for arm, values in differences.items()}
    if "Bonferroni" in title:
        p = {arm: min(1.0, rows * value) for arm, value in p.items()}
    elif "Benjamini" in title:
        p = dict(zip(p, stats.false_discovery_control(list(p.values())), strict=True))
    level = 0.05 / rows if "together" in title else 0.05
    yield "all rows", "arms", ", ".join(line.split()[0] for line in lines), ", ".join(arms)
    for line, (arm, values) in zip(lines, arms.items(), strict=True):
        cells = line.split()
        yield arm, "n", cells[1], str(len(values))
        yield (
            arm,
            "mean ± SD",
            " ".join(cells[2:5]),
            f"{form.format(values.mean())} ± {form.format(values.std(ddof=1))}",
        )
        if arm in differences:
            signed = form.replace(":", ":+").format
            low, high = t_interval(differences[arm], level)
            found = f"{signed(differences[arm].mean())} [{signed(low)}, {signed(high)}]"
            yield arm, "difference", " ".join(cells[5:8]), found
            yield arm, "p", cells[9 if each.share else 8], p_text(p[arm])


def readme(root: Path, results: Path) -> Iterator[str]:
    """The numbers in the sentences of README.md, and in the text of the picture in docs/comparing.md."""
    text = (root / "README.md").read_text(encoding="utf-8")
    quick, tutorial = (_by_network(results / name / "runs.csv") for name in ("quickstart", "tutorial"))
    difference = quick["batch_norm"] - quick["no_batch_norm"]
    p = sign_flip_p(difference)
    mlp = pd.read_csv(results / "notebook_mlp/runs.csv", keep_default_na=False).sort_values("seed")
    by_norm = {norm: 100 * rows["valid_accuracy"].to_numpy() for norm, rows in mlp.groupby("network.norm")}
    gains = {norm: float((by_norm[norm] - by_norm["none"]).mean()) for norm in ("batch", "notebook")}
    for sentence in (
        f"with batch norm, the accuracy is {difference.mean():.2f} percentage points (pp) higher",
        f"in {p:.1%} of such experiments ({p:.3f})",
        f"The SD of {tutorial['batch_norm'].std(ddof=1):.1f} points between seeds",
        f"shows {len(CLAIMS)} claims",
    ):
        if sentence not in " ".join(text.split()):
            yield f"README.md does not say, as the tables do: {sentence}"
    comparing = (root / "docs/comparing.md").read_text(encoding="utf-8")
    picture = re.search(r"notebook_mlp on a terminal: batch (\S+) points, notebook (\S+?)\]", comparing)
    for norm, said in zip(("batch", "notebook"), picture.groups() if picture else ("", ""), strict=True):
        if not agrees(said, gains[norm], "{:+.2f}".format):
            yield f"docs/comparing.md: the picture's text says {norm} {said}, the tables give {gains[norm]:+.4f}"


def _by_network(runs: Path) -> dict[str, np.ndarray]:
    table = pd.read_csv(runs).sort_values("seed")
    return {str(arm): 100 * rows["valid_accuracy"].to_numpy() for arm, rows in table.groupby("network")}
