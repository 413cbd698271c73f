"""The documents' numbers, recomputed by code that does not know bnbench."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

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


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    (root / "docs").mkdir()
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "docs/published.csv"):
        shutil.copy(path, root / path.relative_to(ROOT))
    return root


PLANTED = {
    "an effect": ("docs/claims.md", r"(?<=- Measured: )\+0\.505", "+0.515", "unchanged_accuracy_notebook_mlp: effect"),
    "an interval": (
        "docs/claims.md",
        r"(?<=-50\.7 \[)-55\.3(?=, -45\.4\] %)",
        "-55.2",
        "faster_notebook_mlp: interval",
    ),
    "a seed": ("docs/claims.md", r"(?<=by\n  seed: )\+5\.02", "+5.12", "tutorial_cnn: difference of seed number 0"),
    "the table": ("docs/claims.md", r"-85\.3(?= \[-87\.6, -82\.9\] \|)", "-85.4", "faster_sigmoid_mlp: the table says"),
    "a mean": ("README.md", r"88\.54 ± 0\.50", "88.55 ± 0.50", "batch_norm: mean ± SD"),
    "a sentence": ("README.md", r"Here p is 0\.045", "Here p is 0.044", "Here p is 0.045"),
    "a test": ("docs/anyones-table.md", r"\+3\.7131\]", "+3.7132]", "neighbours: difference"),
    "a quantile": ("docs/reproductions.md", r"0\.7628 … 0\.9892", "0.7628 … 0.9893", "tutorial no_batch_norm"),
}
"""What is wrong → (the document, a number in it, the wrong number, what the script says)."""


@pytest.mark.parametrize("what", PLANTED)
def test_a_wrong_number_is_named(documents: Path, what: str) -> None:
    document, number, wrong, named = PLANTED[what]
    path = documents / document
    right = path.read_text(encoding="utf-8")
    changed, count = re.subn(number, wrong, right, count=1)
    assert count, "the document has another number now"
    path.write_text(changed, encoding="utf-8")
    lines = importlib.import_module("docs.recompute.__main__").disagreements(documents)
    path.write_text(right, encoding="utf-8")
    assert lines
    assert all(line.startswith(document) for line in lines)
    assert named in lines[0]


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
