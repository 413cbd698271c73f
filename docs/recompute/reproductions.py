"""docs/reproductions.md."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from .agreement import agrees


def reproductions(root: Path, results: Path) -> Iterator[str]:
    """What docs/reproductions.md says, and the tables do not: mean, SD, prediction interval, own seed."""
    published = pd.read_csv(root / "docs/published.csv", keep_default_na=False)
    sweeps = {"tutorial": "network", "notebook_mlp": "network.norm", "notebook_cnn": "network.norm"}
    page = (root / "docs/reproductions.md").read_text(encoding="utf-8")
    # A section of second level for each sweep, in this order; in it one of third level for each arm.
    parts = re.split(r"^## ", page, flags=re.M)[1:]
    seen = 0
    for (sweep, axis), part in zip(sweeps.items(), parts, strict=True):
        yield from over_images(sweep, axis, part, results / "over_images" / sweep)
        metrics = pd.read_csv(results / sweep / "metrics.csv", keep_default_na=False)
        for arm, text in re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", part, re.M | re.S):
            inside = []
            for line in re.findall(r"^\| \d.*$", text, re.M):
                seen += 1
                epoch, metric, said, *own, ours, interval, verdict = (
                    cell.strip() for cell in line.strip("|").split("|")
                )
                rows = metrics[(metrics[axis] == arm) & (metrics["epoch"] == int(epoch))]
                values = rows[metric].to_numpy(float)
                n, mean, sd = len(values), values.mean(), values.std(ddof=1)
                half = stats.t.ppf(0.975, n - 1) * sd * np.sqrt(1 + 1 / n)
                whole = published[
                    (published["sweep"] == sweep) & (published["arm"] == arm.replace("hand_written", "batch"))
                ]
                whole = whole[(whole["epoch"] == int(epoch)) & (whole["metric"] == metric)]["value"].iloc[0]
                inside.append(mean - half <= whole <= mean + half)
                found = [f"{rows.loc[rows['seed'] == 50, metric].iloc[0]:.4f}"] if own else []
                low, high = mean - half, mean + half
                if metric.endswith("accuracy"):  # A share lies between 0 and 1.
                    low, high = max(low, 0), min(high, 1)
                found += [f"{mean:.4f} ± {sd:.4f} ({n})", f"{low:.4f} … {high:.4f}"]
                found.append("yes" if inside[-1] else "**no**")
                if [said, *own, ours, interval, verdict] != [f"{whole:.4f}", *found]:
                    yield f"docs/reproductions.md: {sweep} {arm}: the page says {line}, the tables give {found}"
            if f"- `{arm}`: {sum(inside)} of {len(inside)}\n" not in part:
                yield f"docs/reproductions.md: {sweep}: {sum(inside)} of {len(inside)} numbers of {arm} are inside"
    again = published[(published["sweep"] == "notebook_cnn") & (published["arm"] == "batch")]
    if seen != len(published) + len(again):
        yield f"docs/reproductions.md has {seen} rows; {len(published) + len(again)} numbers were published"


INTERVAL = r"([+-]\d+\.\d+) \[([+-]\d+\.\d+), ([+-]\d+\.\d+)\] pp"


def over_images(sweep: str, axis: str, part: str, folder: Path) -> Iterator[str]:
    """The printed effects that the saved predictions do not give: for new seeds, and for new seeds and images."""
    block = re.search(r"--over seeds,images\n```\n\n```\n(.*?)```", part, re.S)
    if not block:
        yield f"docs/reproductions.md: {sweep}: no comparison over seeds and images"
        return
    runs = pd.read_csv(folder / "runs.csv", keep_default_na=False).sort_values("seed")
    correct = {arm: 100 * np.stack(list(map(bits(folder), rows["run_id"]))) for arm, rows in runs.groupby(axis)}
    lines = [line for line in block[1].splitlines() if len(re.findall(INTERVAL, line)) == 2]
    if len(lines) != len(correct) - 1:
        yield f"docs/reproductions.md: {sweep}: {len(lines)} effects are printed, there are {len(correct)} arms"
    level = 0.05 / len(lines) if "together" in " ".join(block[1].split("\n\n")[0].split()) else 0.05
    for line in lines:
        arm = next(word for word in line.split() if word in correct)
        table = correct[arm] - correct["no_batch_norm" if axis == "network" else "none"]
        for said, (mean, half) in zip(re.findall(INTERVAL, line), halves(table, level), strict=True):
            for printed, found in zip(said, (mean, mean - half, mean + half), strict=True):
                if not agrees(printed, found, "{:+.2f}".format):
                    yield f"docs/reproductions.md: {sweep} {arm}: the page says {printed}, the bits give {found:+.4f}"


def bits(folder: Path) -> Callable[[str], np.ndarray]:
    """Which images a run classifies correctly, from its file: 4 bytes with their number, then a bit for each."""

    def read(run_id: str) -> np.ndarray:
        content = (folder / "predictions" / f"{run_id}.bits").read_bytes()
        count = int.from_bytes(content[:4], "little")
        return np.unpackbits(np.frombuffer(content[4:], np.uint8), count=count).astype(float)

    return read


def halves(table: np.ndarray, level: float) -> list[tuple[float, float]]:
    """The mean of a table [seeds, images] with half of its interval: for new seeds, and for new seeds and images."""
    (seeds, images), mean = table.shape, float(table.mean())
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    ms_seed, ms_image = images * rows.var(ddof=1), seeds * columns.var(ddof=1)
    freedoms = seeds - 1, images - 1, (seeds - 1) * (images - 1)
    ms_both = ((table - rows[:, None] - columns + mean) ** 2).sum() / freedoms[2]
    own = stats.t.ppf(1 - level / 2, freedoms[0]) * np.sqrt(ms_seed / table.size)
    total = ms_seed + max(ms_image - ms_both, 0)
    squares = zip((ms_seed, ms_image, ms_both), freedoms, strict=True)
    freedom = total**2 / sum(ms**2 / df for ms, df in squares) if ms_image > ms_both else freedoms[0]
    both = stats.t.ppf(1 - level / 2, freedom) * np.sqrt(total / table.size)
    return [(mean, own), (mean, max(own, both))]
