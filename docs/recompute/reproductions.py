"""docs/reproductions.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats


def reproductions(root: Path, results: Path) -> Iterator[str]:
    """What docs/reproductions.md says, and the tables do not: mean, SD, prediction interval, own seed."""
    published = pd.read_csv(root / "docs/published.csv", keep_default_na=False)
    sweeps = {"tutorial": "network", "notebook_mlp": "network.norm", "notebook_cnn": "network.norm"}
    page = (root / "docs/reproductions.md").read_text(encoding="utf-8")
    # A section of second level for each sweep, in this order; in it one of third level for each arm.
    parts = re.split(r"^## ", page, flags=re.M)[1:]
    seen = 0
    for (sweep, axis), part in zip(sweeps.items(), parts, strict=True):
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
