"""The documents' numbers, recomputed by code that does not know bnbench."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner.analysis.claims.judge import judge
from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.rule import within_bound
from tests.analysis.test_claim_verdicts import a_claim

ROOT = Path(__file__).parent.parent
RECOMPUTE = ROOT / "docs/recompute"


def test_the_tables_give_every_number_of_the_documents() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.recompute"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "The tables give every number that the documents say.\n"), done.stderr


def test_it_imports_nothing_of_bnbench_and_reads_no_verdict() -> None:
    for path in RECOMPUTE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(str(node.module))
            outside = {name.partition(".")[0] for name in names} - {"pandas", "numpy", "scipy"}
            assert outside <= sys.stdlib_module_names, path
        assert "verdicts.csv" not in text or path.stem == "__init__"


PLANTED = {
    "an effect": ("docs/claims.md", r"(?<=- Measured: )\+0\.418", "+0.428", "unchanged_accuracy_notebook_mlp: effect"),
    "an interval": (
        "docs/claims.md",
        r"(?<=-54\.8 \[)-58\.6(?=, -50\.6\] %)",
        "-58.5",
        "faster_notebook_mlp: interval",
    ),
    "a seed": ("docs/claims.md", r"(?<=by\n  seed: )\+0\.315", "+0.325", "tutorial_cnn: difference of seed number 0"),
    "the first screen": ("docs/claims.md", r"11\.29(?= pp)", "11.39", "the first screen: it does not say"),
    "a note": (
        "docs/claims.md",
        r"(?<=diverged in )60",
        "61",
        "less_sensitive_to_initialisation: beside the verdict",
    ),
    "the table": ("docs/claims.md", r"-88\.7(?= \[-90, -87\.4\] \|)", "-88.8", "faster_sigmoid_mlp: the table says"),
    "a mean": ("README.md", r"88\.54 ± 0\.50", "88.55 ± 0.50", "batch_norm: mean ± SD"),
    "a sentence": ("README.md", r"experiments \(0\.008\)", "experiments (0.007)", "experiments (0.008)"),
    "a test": ("docs/anyones-table.md", r"\+3\.7131\]", "+3.7132]", "neighbours: difference"),
    "a quantile": ("docs/reproductions.md", r"0\.7628 … 0\.9892", "0.7628 … 0.9893", "tutorial no_batch_norm"),
}
"""What is wrong → (the document, a number in it, the wrong number, what the script says)."""


def test_each_wrong_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "docs/published.csv"):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    for what, (document, number, wrong, _) in PLANTED.items():
        path = tmp_path / document
        text, count = re.subn(number, wrong, path.read_text(encoding="utf-8"), count=1)
        assert count, f"{document} has another number now: {what}"
        path.write_text(text, encoding="utf-8")
    lines = importlib.import_module("docs.recompute.__main__").disagreements(tmp_path, ROOT / "results/reference")
    for document, _, _, named in PLANTED.values():
        assert sum(line.startswith(document) and named in line for line in lines) == 1, named
    # The table of all claims has the effect and the interval, too, and differs from their sections now. The earlier
    # verdicts stand beside the numbers of this table.
    assert len(lines) == len(PLANTED) + 3


def test_its_statistics_are_those_of_the_books() -> None:
    statistics = importlib.import_module("docs.recompute.statistics")
    values = np.random.default_rng(0).normal(0.3, 1, 11)
    flips = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=4096)
    assert statistics.sign_flip_p(values) == pytest.approx(flips.pvalue)
    # Fieller (1954): the ends are the roots of a quadratic.
    baseline = np.random.default_rng(1).normal(10, 1, 11)
    arm = baseline * 0.8 + values
    (aa, ab), (_, bb) = np.cov(arm, baseline) / 11
    a, b, t2 = arm.mean(), baseline.mean(), stats.t.ppf(0.975, 10) ** 2
    roots = np.sort(np.roots([b * b - t2 * bb, -2 * (a * b - t2 * ab), a * a - t2 * aa]))
    assert statistics.fieller(arm, baseline, 0.05) == pytest.approx(roots - 1)


def test_its_words_follow_from_the_tests_that_the_page_describes() -> None:
    claims = importlib.import_module("docs.recompute.claims")
    noise = np.array([0.01, -0.01] * 6)

    def word(mean: float, claimed: str) -> str:
        return str(claims.word([claims.Effect(mean + noise, 0 * noise, "difference")], claimed, 0.5, tests=36))

    assert [word(mean, "≥ +") for mean in (0.6, 0.5, 0.3, -0.6)] == [
        *("SUPPORTED", "SUPPORTED, SIZE OPEN", "REFUTED", "REFUTED"),
    ]
    assert [word(mean, "≤ −") for mean in (-0.6, 0.6)] == ["SUPPORTED", "REFUTED"]
    assert [word(mean, "within ±") for mean in (0.3, 0.5, -0.6)] == ["SUPPORTED", "UNDECIDED", "REFUTED"]


@pytest.mark.parametrize("kind", ["difference", "ratio", "rate"])
def test_its_words_are_those_of_the_verdicts(kind: Literal["difference", "ratio", "rate"]) -> None:
    claims = importlib.import_module("docs.recompute.claims")
    generator = np.random.default_rng(3)
    seen: Counter[str] = Counter()
    for _ in range(100):
        n, tests = int(generator.integers(2, 13)), int(generator.choice([1, 10, 36]))
        parts = int(generator.integers(1, 3)) if kind == "difference" else 1
        claimed: Any = 1 if kind == "rate" else int(generator.choice([1, -1]))
        if parts > 1 or (kind == "difference" and generator.random() < 0.3):
            claimed = "equivalence"
        baseline: Any = generator.normal(4, 0.3, (parts, n))
        arm = baseline + generator.choice([-2, -1, -0.3, 0, 0.3, 1, 2]) + generator.normal(0, 0.2, (parts, n))
        if kind == "rate":
            baseline, arm = (1.0 * (generator.random((1, n)) < share) for share in (0.1, generator.choice([0.1, 1.0])))
        sign = {1: "≥ +", -1: "≤ −", "equivalence": "within ±"}[claimed]
        effects = [claims.Effect(*sides, kind) for sides in zip(arm, baseline, strict=True)]
        margin = 20.0 if kind == "ratio" else 0.1 if kind == "rate" else 0.5
        judged = judge(a_claim(claimed, margin=margin, effect=kind), PairedValues(arm, baseline), tests)
        if judged.word == "WITHHELD":
            continue
        seen[judged.word] += 1
        assert claims.word(effects, sign, margin, tests, parts) == judged.word, (claimed, n, tests, arm - baseline)
    assert len(seen) >= 3, seen


@pytest.mark.parametrize("found", ["SUPPORTED", "SUPPORTED, SIZE OPEN", "REFUTED", "UNDECIDED"])
def test_its_words_follow_from_bounds_as_the_verdicts_do(found: Any) -> None:
    claims = importlib.import_module("docs.recompute.claims")
    for missed in ((0, 0), (0, 3), (2, 0), (2, 3)):
        bound = PairedValues(np.zeros(9), np.zeros(9), missed).bound
        for claimed, sign in ((1, "≥ +"), (-1, "≤ −"), ("equivalence", "within ±")):
            assert claims.bounded(found, sign, missed) == within_bound(found, claimed, bound), (missed, claimed)


def test_each_wrong_verdict_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    claims = importlib.import_module("docs.recompute.claims").claims
    wrong = {"REFUTED": "SUPPORTED", "UNDECIDED": "PROVEN", "SUPPORTED": "REFUTED"}
    left = dict(wrong)
    page = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    page = re.sub(r"(?<=Verdict: \*\*)[A-Z]+(?=\*\*)", lambda found: left.pop(found[0], found[0]), page)
    (tmp_path / "docs/claims.md").write_text(page, encoding="utf-8")
    lines = list(claims(tmp_path, ROOT / "results/reference"))
    for word, instead in wrong.items():
        assert sum(f"verdict: the page says {instead}, the tables give {word}" in line for line in lines) == 1, lines


def test_only_the_other_seeds_choose_a_learning_rate(tmp_path: Path) -> None:
    readings = {
        ("none", 0.1): (0.5, 0.8),
        ("none", 1): (0.6, 0.6),
        ("batch", 0.1): (0.7, 0.7),
        ("batch", 1): (0.9, 0.9),
    }
    runs: list[list[object]] = []
    curves: list[list[object]] = []
    for seed in (980, 1, 2):
        for (norm, lr), accuracies in readings.items():
            # A tested seed that chose would take the other learning rate.
            better = 0.0 if seed == 980 or (norm, lr) in (("none", 0.1), ("batch", 1)) else 0.25
            runs.append([len(runs) + 1, "ok", 1, seed, lr, norm, accuracies[1] + better])
            curves += [[runs[-1][0], step / 2, step, accuracies[step - 1] + better] for step in (1, 2)]
    names = ["run", "status", "epochs", "seed", "lr", "network.norm", "valid_accuracy"]
    pd.DataFrame(runs, columns=names).to_csv(tmp_path / "runs.csv", index=False)
    names = ["run", "epoch", "step", "valid_accuracy"]
    pd.DataFrame(curves, columns=names).to_csv(tmp_path / "curves.csv", index=False)
    measures = importlib.import_module("docs.recompute.measures")
    sweep = importlib.import_module("docs.recompute.tables").Sweep(tmp_path)
    expected = {
        measures.at_best_lr(0.75): ([1, 1], [2, 2]),
        measures.at_best_lr(None): ([90, 90], [65, 65]),
        measures.largest_lr: ([0, 0], [0, 0]),
    }
    for measure, sides in expected.items():
        (found,) = measure(sweep)
        assert found.arm == pytest.approx(sides[0])
        assert found.baseline == pytest.approx(sides[1])
    (found,) = measures.at_best_lr(0.75)(sweep)
    assert found.chosen == {"batch": 1, "none": 0.1}
    assert found.missed == (0, 0)
